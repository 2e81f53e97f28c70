"""What people are told of a measurement, in words for the operator: its traffic light, its warnings, why it failed."""

from __future__ import annotations

from typing import NamedTuple

from dcnumd.errors import printable
from dcnumd.report.request import Light


class Verdict(NamedTuple):
    """What a traffic light says, and what it means."""

    what: str
    meaning: str


VERDICTS: dict[Light, Verdict] = {
    "green": Verdict("Looks good", "None of the checks found anything that needs a look."),
    "yellow": Verdict("Needs a look", "The measurement can be used; look at this before the next sample."),
    "red": Verdict("Hardly of use", "Something is badly wrong with this measurement."),
    "grey": Verdict("Not judged", "There is not enough in this result to judge it."),
}
LIGHTS: dict[str, str] = {light: verdict.what for light, verdict in VERDICTS.items()}
"""What a traffic light says, alone."""
WARNINGS = {
    "few_events": "few events",
    "flicker": "flicker",
    "masks_dropped": "many masks dropped",
    "background_drift": "the background drifts",
    "too_dark": "too dark",
    "too_bright": "too bright",
    "border_cells": "many cells at the border",
    "saturated": "saturated pixels",
    "clogging": "clogging",
}
"""The checks of a report."""


class Cause(NamedTuple):
    """Why a measurement failed or waits, and what to do about it."""

    what: str
    cure: str


_AGAIN = "Copy it again from the instrument; if it cannot be read there either, record it again."
_REPORT = "Keep the file and tell the engineer; it may be a fault of dcnumd."
_SHARE = "Ask the engineer to look at the share or disk."
_MEMORY = "The computer is short of memory: close other programs, then retry."
_SETTINGS = "Ask the engineer to look at the settings of dcnumd."
_MAKER = "Tell the maker of the method, which comes from another package."
_ROOM = "Delete or move what is not needed on that disk; it goes on by itself."

CAUSES = {
    "incomplete": Cause("The recording or copy was broken off", "Record or copy it again."),
    "truncated": Cause("The end of the file is missing", _AGAIN),
    "being_written": Cause("Another program has it open for writing", "Close it in the other program."),
    "changed": Cause("It changed while it was processed", "Nothing to do; the new content is processed."),
    "input_changed": Cause("It changed while it was processed", "Nothing to do; the new content is processed."),
    "vanished": Cause("It was moved or deleted", "Nothing to do."),
    "unreadable": Cause("It cannot be read", "Ask the engineer for the right to read it, and to look at the disk."),
    "unreachable": Cause("Its folder does not answer", _SHARE),
    "look_timeout": Cause("Its folder does not answer", _SHARE),
    "no_result": Cause("It is no result", "Process the measurement first."),
    "not_hdf5": Cause("It is no measurement", "Move it somewhere else."),
    "damaged": Cause("The file is damaged", _AGAIN),
    "checksum": Cause("The file is damaged: bytes have changed", f"{_AGAIN} Have the disk checked."),
    "unsupported_filter": Cause("It is compressed in an unknown way", "Repack it, with dclab-compress for example."),
    "no_images": Cause("It holds no images", "Record with images, or put the file with the images back."),
    "no_frames": Cause("The recording is empty", "Nothing to do, or record it again."),
    "image_type": Cause("Its images are of a kind that cannot be processed", "Nothing can be done here."),
    "event_count": Cause("Its parts disagree about the number of frames", _AGAIN),
    "basin": Cause("The other file that holds its images is missing", "Put that file back where it was."),
    "broken_link": Cause("It is a link to a file that is not there", "Put that file back, or remove the link."),
    "outside": Cause("It leads to a file outside of the watched folders", "Move that file to the measurement."),
    "too_large": Cause("It is larger than any instrument records", "Find out where the file comes from."),
    "too_few_frames": Cause("It has fewer frames than the background needs", "Record for longer."),
    "no_background": Cause("It has no background image of its own", _SETTINGS),
    "online_gates": Cause("Its gates from the recording cannot be applied", _SETTINGS),
    "index_mapping": Cause("Frames were chosen that it does not have", "Choose other frames."),
    "method": Cause("A method or one of its settings does not exist", _SETTINGS),
    "config": Cause("A setting does not fit this measurement", _SETTINGS),
    "input": Cause("Something in the measurement cannot be right", "The message says what; record it again if needed."),
    "memory": Cause("There was not enough memory", _MEMORY),
    "memory_limit": Cause("It needs more memory than dcnumd may take", "Ask the engineer to allow more memory."),
    "stalled": Cause("The processing stood still", _SHARE),
    "timeout": Cause("The processing took too long", "Ask the engineer to allow more time."),
    "worker_died": Cause("Twice, a process died at the same frames", _REPORT),
    "worker_killed": Cause("The process died while it worked", _MEMORY),
    "worker_start": Cause("A process could not be started", _MEMORY),
    "worker": Cause("A process met an error", _REPORT),
    "segmenter_output": Cause("The segmenter returned something that cannot be used", _MAKER),
    "cancelled": Cause("The processing ended too early", "Retry; if it happens again, tell the engineer."),
    "no_space": Cause("The disk for the results is full", _ROOM),
    "output_folder": Cause("The folder of the results takes none", "Ask the engineer; it goes on by itself."),
    "output_no_permission": Cause(
        "dcnumd may not write into the folder of the results", "Ask the engineer for the right; it goes on by itself."
    ),
    "output_not_mounted": Cause(
        "The folder of the results is not mounted", "Connect the share or disk; it goes on by itself."
    ),
    "output_read_only": Cause(
        "The folder of the results is read-only", "Ask the engineer to make it writable; it goes on by itself."
    ),
    "output_unreachable": Cause(
        "The folder of the results does not answer", "Connect the share or disk; it goes on by itself."
    ),
    "output_name": Cause("The result's name is not possible there", "Give the measurement a shorter, plain name."),
    "output_exists": Cause("Something with the result's name is there already", "Move it away, then retry."),
    "output_differs": Cause("Another result with this name is there already", "Move it away, then retry."),
    "output_gone": Cause("Its result was taken away", "Ask the engineer if it is to be made again."),
    "output": Cause("The result was damaged on its way to the disk", "Have the disk checked, then retry."),
    "basin_exists": Cause("A method wrote the same thing twice", _MAKER),
    "log_exists": Cause("A method wrote the same thing twice", _MAKER),
    "already_done": Cause("It was processed before", "Nothing to do."),
    "pattern": Cause("Its name does not fit watch.patterns", "Change the patterns if it is to be processed."),
    "own_output": Cause("It is a result that was made here", "Nothing to do."),
    "still_written": Cause("It is still being written", "Nothing to do."),
    "internal": Cause("dcnumd met an error of its own", _REPORT),
    "error": Cause("dcnumd met an error of its own", _REPORT),
}
"""What the reason codes of the ledger mean."""


def cause_of(reason: str) -> Cause:
    """Return what a reason code means; codes of other versions speak for themselves."""
    return CAUSES.get(reason, Cause(printable(reason.replace("_", " ")).capitalize(), ""))


def told_of_blocked(problem: str, reason: str, error: str, waiting: int) -> str:
    """Return in one line that a folder takes no results: the event, the cause, the cure, and how many wait for it."""
    cause = cause_of(reason)
    who = f"{waiting:,} measurements wait" if waiting != 1 else "1 measurement waits"
    return f"{problem}: {cause.what}: {printable(error)}. {cause.cure} {who}."


def explained(error: str, path: str) -> str:
    """Return what exactly was wrong; the measurement's own path goes without saying."""
    return printable(error).removeprefix(f"{printable(path)}: ")

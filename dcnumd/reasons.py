"""Catalogue of the reason codes that dcnumd logs, stores or raises: meaning, remedy, what is at fault, and transience.

The texts are for the operator; docs/operations.md contains those for the engineer.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Fault = Literal["measurement", "results", "ledger", "computer", "settings", "method", "dcnumd", "nobody"]
"""What is at fault; ``results`` is the folder of results, for which measurements wait, ``ledger`` the state folder,
``method`` a method from another package, and ``nobody`` means that nothing is wrong."""
Transient = Literal["yes", "no", "depends"]
"""Whether the same attempt may succeed later without a change of the input; ``depends``: each error states it."""


class Reason(NamedTuple):
    """Reason for the state of a measurement, or for a failure."""

    what: str
    """What has happened, as a sentence without a full stop."""
    cure: str
    """What to do about it, as sentences."""
    fault: Fault
    transient: Transient


_AGAIN = "Copy it again from the instrument; if the original is damaged, too, record it again."
_REPORT = "Keep the file and tell the engineer; this may be an error in dcnumd."
_SHARE = "Ask the engineer to check the share or disk."
_MEMORY = "The computer is low on memory: close other programs, then retry."
_SETTINGS = "Ask the engineer to check the settings of dcnumd."
_MAKER = "Tell the author of the method, which comes from another package."
_ROOM = "Delete or move files on that disk; processing then continues by itself."
_WAIT = "Nothing to do."
# A change of a file while it waits has the same code as a change during its job.
_CHANGED = Reason(
    "It changed before its result was complete", "Nothing to do; the new content is processed.", "measurement", "yes"
)
_TWICE = Reason("A method wrote the same thing twice", _MAKER, "method", "no")
_BUG = Reason("dcnumd has an internal error", _REPORT, "dcnumd", "no")

FAILURES: dict[str, Reason] = {
    "incomplete": Reason("The recording or copy is incomplete", "Record or copy it again.", "measurement", "no"),
    "truncated": Reason("The end of the file is missing", _AGAIN, "measurement", "depends"),
    "being_written": Reason(
        "Another program has it open for writing", "Close it in the other program.", "measurement", "yes"
    ),
    "changed": _CHANGED,
    "input_changed": _CHANGED,
    "vanished": Reason("It was moved or deleted", "Nothing to do.", "nobody", "no"),
    "unreadable": Reason(
        "It cannot be read",
        "Ask the engineer to check its permissions and the disk.",
        "computer",
        "depends",
    ),
    "look_timeout": Reason("Its folder does not answer", _SHARE, "computer", "yes"),
    "no_result": Reason("It is not a result", "Process the measurement first.", "measurement", "no"),
    "not_hdf5": Reason("It is not a measurement", "Move it somewhere else.", "measurement", "no"),
    "damaged": Reason("The file is damaged", _AGAIN, "measurement", "no"),
    "checksum": Reason(
        "The file is damaged: bytes have changed", f"{_AGAIN} Have the disk checked.", "measurement", "no"
    ),
    "unsupported_filter": Reason(
        "It is compressed by an unknown method", "Repack it, with dclab-compress for example.", "measurement", "no"
    ),
    "no_images": Reason(
        "It contains no images", "Record with images, or put the file with the images back.", "measurement", "no"
    ),
    "no_frames": Reason("The recording is empty", "Nothing to do, or record it again.", "measurement", "no"),
    "image_type": Reason(
        "Its images have a type that cannot be processed", "Nothing can be done here.", "measurement", "no"
    ),
    "event_count": Reason("Its parts disagree about the number of frames", _AGAIN, "measurement", "no"),
    "basin": Reason(
        "The other file with its images is missing", "Move that file back to its former folder.", "measurement", "no"
    ),
    "outside": Reason(
        "It refers to a file outside of the watched folders", "Move that file to the measurement.", "measurement", "no"
    ),
    "too_large": Reason(
        "It is larger than any instrument records", "Find out where the file comes from.", "measurement", "no"
    ),
    "too_few_frames": Reason(
        "It has fewer frames than the background needs", "Record for longer.", "measurement", "no"
    ),
    "no_background": Reason("It has no background image of its own", _SETTINGS, "settings", "no"),
    "online_gates": Reason("Its gates from the recording cannot be applied", _SETTINGS, "settings", "no"),
    "not_applicable": Reason(
        "The segmenter is not made for it",
        "The details say why; ask the engineer for other settings for such measurements.",
        "settings",
        "no",
    ),
    "index_mapping": Reason("Frames were chosen that it does not have", "Choose other frames.", "settings", "no"),
    "method": Reason("A method or one of its settings does not exist", _SETTINGS, "settings", "no"),
    "model_missing": Reason(
        "The file of the model for segmentation is missing",
        "Ask the engineer to put it back, or to change the settings.",
        "settings",
        "yes",
    ),
    "model_damaged": Reason(
        "The file of the model for segmentation is damaged, or not a model",
        "Ask the engineer to copy it again from where it comes from.",
        "settings",
        "no",
    ),
    "model_unsupported": Reason(
        "The model for segmentation cannot be used here",
        "Ask the engineer to use another model or another segmenter; the details say what does not fit.",
        "settings",
        "no",
    ),
    "model_failed": Reason(
        "The model for segmentation failed with an error",
        "Ask the engineer whether it is made for such frames; then tell its author.",
        "method",
        "no",
    ),
    "card_lost": Reason(
        "The graphics card failed", "If it happens again, ask the engineer to check the card.", "computer", "yes"
    ),
    "config": Reason("A setting does not fit this measurement", _SETTINGS, "settings", "no"),
    "input": Reason(
        "A value in the measurement is missing or impossible",
        "The details name it; ask the engineer whether a setting can replace it.",
        "measurement",
        "no",
    ),
    "memory": Reason("There was not enough memory", _MEMORY, "computer", "yes"),
    "memory_limit": Reason(
        "It needs more memory than dcnumd may use", "Ask the engineer to allow more memory.", "settings", "no"
    ),
    "stalled": Reason("The processing made no progress", _SHARE, "computer", "yes"),
    "timeout": Reason("The processing took too long", "Ask the engineer to allow more time.", "computer", "depends"),
    "worker_died": Reason("A process died twice at the same frames", _REPORT, "dcnumd", "yes"),
    "worker_killed": Reason("The process died during the processing", _MEMORY, "computer", "yes"),
    "worker_start": Reason("A process could not be started", _MEMORY, "computer", "depends"),
    "worker_lost": Reason(
        "The computer that processed it was lost", "Nothing to do; another one processes it.", "computer", "yes"
    ),
    "worker_path": Reason(
        "The computer that should process it does not find the file",
        "Ask the engineer to check the shares there, and executor.paths.",
        "settings",
        "yes",
    ),
    "result_unseen": Reason(
        "The result was made elsewhere, but is not seen here",
        "Ask the engineer to check the shares, and executor.paths.",
        "settings",
        "yes",
    ),
    "worker": Reason("A process failed with an error", _REPORT, "dcnumd", "depends"),
    "segmenter_output": Reason("The segmenter returned something that cannot be used", _MAKER, "method", "no"),
    "cancelled": Reason(
        "The processing ended too early", "Retry; if it happens again, tell the engineer.", "computer", "yes"
    ),
    "no_space": Reason("The disk for the results is full", _ROOM, "results", "yes"),
    "output_folder": Reason(
        "Results cannot be written to their folder",
        "Ask the engineer; processing continues by itself once they can.",
        "results",
        "no",
    ),
    "output_no_permission": Reason(
        "dcnumd has no permission to write to the folder of the results",
        "Ask the engineer for the permission; processing then continues by itself.",
        "results",
        "depends",
    ),
    "output_not_mounted": Reason(
        "The folder of the results is not mounted",
        "Connect the share or disk; processing then continues by itself.",
        "results",
        "yes",
    ),
    "output_read_only": Reason(
        "The folder of the results is read-only",
        "Ask the engineer to make it writable; processing then continues by itself.",
        "results",
        "depends",
    ),
    "output_unreachable": Reason(
        "The folder of the results does not answer",
        "Connect the share or disk; processing then continues by itself.",
        "results",
        "yes",
    ),
    "output_name": Reason(
        "The folder of the results does not allow the name of the result",
        "Give the measurement a shorter, plain name.",
        "measurement",
        "no",
    ),
    "output_exists": Reason(
        "A file with the name of the result exists already", "Move that file elsewhere, then retry.", "nobody", "no"
    ),
    "output": Reason(
        "The result was damaged when it was written to the disk", "Have the disk checked, then retry.", "computer", "no"
    ),
    "basin_exists": _TWICE,
    "log_exists": _TWICE,
    "internal": _BUG,
    "error": _BUG,
}
"""Reasons for failures of jobs, reports and indexes."""

OTHERS: dict[str, Reason] = {
    "open_for_writing": Reason("Another program has it open for writing", _WAIT, "nobody", "yes"),
    "blank": Reason("Its last frames are still empty", _WAIT, "nobody", "yes"),
    "not_live": Reason("It cannot be processed while it is recorded", _WAIT, "nobody", "no"),
    "changing": Reason("It changed while it was inspected", _WAIT, "nobody", "yes"),
    "still_written": Reason("It is still being written", _WAIT, "nobody", "yes"),
    "unreachable": Reason("Its folder does not answer", _SHARE, "computer", "yes"),
    "executor_unreachable": Reason(
        "The computers that process measurements cannot be reached",
        "Nothing to do; processing continues by itself once they can.",
        "computer",
        "yes",
    ),
    "worker_ended": Reason(
        "The computer that processed it was shut down", "Nothing to do; another one processes it.", "nobody", "yes"
    ),
    "worker_unfit": Reason(
        "The computer that should process it was not able to",
        "Nothing to do; another one processes it. Ask the engineer to check that computer.",
        "computer",
        "yes",
    ),
    "interrupted": Reason(
        "dcnumd ended during its processing", "Nothing to do; it is processed again.", "nobody", "yes"
    ),
    "retry": Reason("Somebody asked for it to be processed again", _WAIT, "nobody", "yes"),
    "replaced": Reason("Another file took its name before it was processed", _WAIT, "nobody", "no"),
    "already_done": Reason("It was processed before", _WAIT, "nobody", "no"),
    "already_processed": Reason("It is itself the complete result of this pipeline", _WAIT, "nobody", "no"),
    "own_output": Reason("It is a result that was made here", _WAIT, "nobody", "no"),
    "output_differs": Reason(
        "Another result with this name exists already", "Move that file elsewhere, then retry.", "nobody", "no"
    ),
    "output_gone": Reason(
        "Its result was moved or deleted", "Ask the engineer if it is to be made again.", "nobody", "no"
    ),
    "output_returned": Reason("Its result is in its place again", _WAIT, "nobody", "no"),
    "not_watched": Reason("Its folder is not watched any more", _SETTINGS, "settings", "no"),
    "pattern": Reason(
        "Its name does not fit watch.patterns", "Change the patterns if it is to be processed.", "settings", "no"
    ),
    "not_a_file": Reason("It is not a file, but has the name of a measurement", "Rename it.", "nobody", "no"),
    "broken_link": Reason(
        "It is a link to a file that does not exist", "Restore that file, or remove the link.", "measurement", "no"
    ),
    "other_job": Reason("A measurement that is complete is processed first", _WAIT, "nobody", "yes"),
    "paused": Reason("Somebody has paused the processing", "Resume it when measurements may start.", "nobody", "yes"),
    "stopped": Reason("dcnumd stops, or its settings have changed", _WAIT, "nobody", "yes"),
    "not_used": Reason("What was prepared early is not used", _WAIT, "nobody", "no"),
    "not_processed": Reason("The file needs no processing after all", _WAIT, "nobody", "no"),
    "live_off": Reason("Recordings are not read (live.enabled)", _SETTINGS, "settings", "no"),
    "live_mode": Reason(
        "It is not recorded in SWMR mode of HDF5, in which a growing file can be read safely",
        "Ask the engineer whether the recording program has this mode.",
        "nobody",
        "no",
    ),
    "live_share": Reason(
        "It is recorded on a network share, where a growing file cannot be read safely",
        "Ask the engineer; dcnumd can run on the computer that stores the files.",
        "nobody",
        "no",
    ),
    "live_many": Reason("Too many recordings are read at the same time", _WAIT, "nobody", "yes"),
    "ledger": Reason("The ledger cannot be opened, read or written", _SETTINGS, "ledger", "no"),
    "ledger_damaged": Reason(
        "The ledger is damaged", "Nothing to do; the daemon sets it aside when it starts.", "ledger", "no"
    ),
    "ledger_locked": Reason("Another dcnumd owns the ledger", _SETTINGS, "ledger", "no"),
    "state_folder": Reason("The folder of the ledger cannot be used", _SETTINGS, "ledger", "no"),
    "output_not_writable": Reason(
        "The simulated measurement cannot be written", "Choose another folder.", "computer", "no"
    ),
    "demo": Reason("The demonstration failed", _REPORT, "dcnumd", "no"),
    "ended": Reason("The daemon of the demonstration ended too early", _REPORT, "dcnumd", "no"),
    "silent": Reason("The daemon of the demonstration did nothing", _REPORT, "dcnumd", "no"),
}
"""Reasons that are not failures of a measurement: of waiting and skipped files, of commands, and of the ledger."""

CATALOGUE: dict[str, Reason] = FAILURES | OTHERS

REFUSED_NAMES: dict[str, str] = {
    "hidden": "its name begins with a dot, so it is hidden",
    "temporary": "its name is that of a temporary file",
    "pattern": "its name does not fit watch.patterns",
    "report": "it has the name of a report",
    "own_output": "it has the name of a result of dcnum's predecessor",
    "output_folder": "it is in output.folder, the folder of results",
}
"""Reasons for ignoring a file because of its name. Only `dcnumd why` reports them, in these words; therefore they are
not reason codes, except for ``pattern``."""


def codes_of(fault: Fault) -> frozenset[str]:
    """Return the codes of the reasons for which `fault` is at fault."""
    return frozenset(code for code, reason in CATALOGUE.items() if reason.fault == fault)


def is_transient(code: str) -> bool:
    """Return whether an error with this code is transient, as far as the code alone tells."""
    return code in CATALOGUE and CATALOGUE[code].transient == "yes"

"""Reads from the logs in a result, of dcnumd or dcnum, how it was processed and what they warn of."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from dcnumd.errors import printable
from dcnumd.write.log_lines import joined, unfold

LOG_NAME = re.compile(r"(dcnumd|dcnum)-(job|log)-(.*)")
LINE = re.compile(r"(\d\d):(\d\d):(\d\d) ")
FRAMES = re.compile(r"\((\d+) frames\)|\(frame \d+ of (\d+)\)")
DROPPED = re.compile(r"dropped (\d+) masks")
STAGES = re.compile(r"Seconds per stage: (.*)")
STAGE = re.compile(r"([a-z][a-z ]*?)\s*(\d+\.\d+)")
STAGE_OF_DCNUM = re.compile(r": ([A-Z][A-Za-z ]*?) time: (\d+(?:\.\d+)?)s$")
RUN = re.compile(r"Run duration: (\d{1,9}\.\d+) s")
RUN_OF_DCNUM = re.compile(r"Run duration: (\d+):(\d\d):(\d\d)")
WARNING = re.compile(r"\d\d:\d\d:\d\d WARNING (.+)")
SHOWN_LIBRARIES = ("h5py", "hdf5", "numpy", "numba", "scipy", "torch", "openvino")
FEWEST_SECONDS = 10
"""Shortest time, known in whole seconds, from which a speed is computed; it is then wrong by at most a tenth [s]."""
MAX_WARNINGS = 20
"""Largest number of warnings to show."""
MAX_WARNING = 500
"""Largest length of a warning, or of a fact about a model, to show [characters]."""
MAX_JOB = 1_000_000
"""Largest length of a job's log that is read; dcnum and dcnumd write shorter ones [characters]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Processing:
    """Speed and warnings of the processing; None for a value that the logs do not contain.

    Attributes
    ----------
    seconds
        Duration of the run, or else the time from the first to the last line of the log, in whole seconds [s].
    frames_per_second
        Number of frames per second of this time; None if it is short and known in whole seconds only.
    masks_dropped
        Number of masks without a contour, which gave no event.
    stage_seconds
        Time of each stage, summed over all processes [s].
    warnings
        Warnings in the log, such as features that the result lacks because their file is missing.
    """

    seconds: float | None = None
    frames_per_second: float | None = None
    masks_dropped: int | None = None
    stage_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """The content of the logs of the last run.

    Attributes
    ----------
    processing
        Speed and warnings of the processing.
    frames
        Number of frames that were processed.
    software
        Version of each program and library, by name.
    path_in
        Path of the measurement; empty if not known.
    listed
        Indices of the frames to process, if they were given as a list.
    model
        Facts about the model of the segmenter, such as ``name`` and ``md5``; empty if it has none.
    """

    processing: Processing = Processing()
    frames: int | None = None
    software: dict[str, str] = dataclasses.field(default_factory=dict)
    path_in: str = ""
    listed: tuple[int, ...] = ()
    model: dict[str, str] = dataclasses.field(default_factory=dict)


def read_run(logs: Mapping[str, list[str]]) -> Run:
    """Return the content of the newest logs of dcnumd or dcnum in a result.

    Parameters
    ----------
    logs
        The lines of each log, by name.
    """
    newest: dict[str, tuple[str, str, list[str]]] = {}
    for name, lines in logs.items():
        if match := LOG_NAME.fullmatch(name):
            program, kind, stamp = match.groups()
            newest[kind] = max(newest.get(kind, ("", "", [])), (stamp, program, lines), key=lambda found: found[0])
    run = _read_job(*newest["job"][1:]) if "job" in newest else Run()
    if "log" not in newest:
        return run
    lines = unfold(newest["log"][2])
    frames = _last_number(FRAMES, lines)
    exact = next((float(match[1]) for line in lines if (match := RUN.search(line))), None)
    seconds = exact or _seconds(lines)
    speed = frames / seconds if frames and seconds and (exact or seconds >= FEWEST_SECONDS) else None
    processing = Processing(seconds, speed, _last_number(DROPPED, lines), _stages(lines), _warnings(lines))
    return dataclasses.replace(run, processing=processing, frames=frames)


def _last_number(pattern: re.Pattern[str], lines: list[str]) -> int | None:
    found = [match for line in lines for match in pattern.finditer(line)]
    digits = next(filter(None, found[-1].groups()), "") if found else ""
    # A number with more digits is not a count.
    return int(digits) if digits and len(digits) <= 15 else None


def _seconds(lines: list[str]) -> float | None:
    for line in lines:
        if match := RUN_OF_DCNUM.search(line):
            return _duration(match) or None
    times = [_duration(match) for line in lines if (match := LINE.match(line))]
    # A run may go on past midnight. A difference of 0 means less than a second.
    return (times[-1] - times[0]) % 86400 or None if times else None


def _duration(match: re.Match[str]) -> float:
    hours, minutes, seconds = (int(group[-6:]) for group in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _stages(lines: list[str]) -> dict[str, float]:
    stages: dict[str, float] = {}
    for line in lines:
        if match := STAGES.search(line):
            return {name: float(value) for name, value in STAGE.findall(match[1])}
        if match := STAGE_OF_DCNUM.search(line):
            stages[match[1].lower()] = float(match[2])
    return {name: value for name, value in stages.items() if "spawn" not in name}


def _warnings(lines: list[str]) -> tuple[str, ...]:
    found = list(dict.fromkeys(match[1] for line in lines if (match := WARNING.match(line))))
    shown = [text if len(text) <= MAX_WARNING else f"{text[:MAX_WARNING]} …" for text in found[:MAX_WARNINGS]]
    further = len(found) - len(shown)
    return (*shown, *([f"{further} further warnings are in the log of the result."] if further else []))


def _read_job(program: str, lines: list[str]) -> Run:
    """Return what the log of a job says: versions of the software, path of the measurement, and listed frames."""
    text = "\n".join(lines)
    try:
        job = json.loads(text) if len(text) <= MAX_JOB else None
    except (ValueError, RecursionError):
        job = None
    if not isinstance(job, dict):
        return Run()
    python = job.get("python")
    libraries = job.get("libraries")
    if isinstance(python, dict):
        libraries, python = python.get("libraries"), python.get("version")
    found = {program: _version(job.get(f"{program} version")), "Python": _version(python)}
    if isinstance(libraries, dict):
        found |= {name: _version(libraries.get(name)) for name in SHOWN_LIBRARIES}
    asked = job.get("job")
    asked = asked if isinstance(asked, dict) else {}
    software = {name: text for name, text in found.items() if text}
    return Run(
        software=software,
        path_in=joined(asked.get("path_in")),
        listed=_listed(asked.get("settings")),
        model=_model(job.get("model")),
    )


def _model(found: Any) -> dict[str, str]:
    """Return facts about a model, shortened like warnings."""
    if not isinstance(found, dict):
        return {}
    texts = {str(name): printable(joined(value)) for name, value in found.items()}
    return {
        name: text if len(text) <= MAX_WARNING else f"{text[:MAX_WARNING]} …" for name, text in texts.items() if text
    }


def _listed(settings: Any) -> tuple[int, ...]:
    """Return the frames that a job of dcnumd lists; empty if it processes all frames, or a slice."""
    found = settings.get("index_mapping") if isinstance(settings, dict) else None
    return tuple(found) if isinstance(found, list) and all(type(index) is int for index in found) else ()


def _version(value: Any) -> str:
    if isinstance(value, list):
        return ".".join(map(str, value))
    return value if isinstance(value, str) else ""

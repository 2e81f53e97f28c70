"""A pipeline ID in words: each method, and each of its parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from dcnumd.meta.ppid import get_unique_prefix

PARTS = ("data", "background", "segmenter", "feature", "gate")
Say = Callable[[str], str]
"""A function that returns a sentence about a value."""
Meanings = Mapping[str, Say]
"""The function for each parameter, by full name, in the order of the method's parameters."""

MAX_CODE = 2000
MAX_PARAMETERS = 50
"""Largest number of parameters that are shown, as is `MAX_CODE` for the length of a code [characters]. Damaged or
foreign files may have more."""


@dataclasses.dataclass(frozen=True, slots=True)
class PipelinePart:
    """One part of a pipeline ID.

    Attributes
    ----------
    name
        One of `PARTS`, such as ``background``.
    code
        The part as written in the pipeline ID.
    method
        Code of the method, such as ``sparsemed``.
    words
        What the method does, as a sentence.
    parameters
        Key in the code, full name, value, and meaning in words of each parameter. Facts about a model that the code
        does not contain have an empty key.
    """

    name: str
    code: str
    method: str
    words: str
    parameters: tuple[tuple[str, str, str, str], ...]


def _phrase(text: str) -> Say:
    return lambda value: text.replace("{}", value)


def _either(yes: str, no: str) -> Say:
    def say(value: str) -> str:
        if value.lower() in {"1", "1.0", "true"}:
            return yes
        return no if value.lower() in {"0", "0.0", "false"} else f"{yes} ({value})"

    return say


def _frames(value: str) -> str:
    if value == "0":
        return "All frames were processed."
    if value.startswith("h-"):
        return f"Only chosen frames were processed (a list with the checksum {value[2:]})."
    if value.isdecimal():
        return f"Only the first {value} frames were processed."
    ends = ["" if end == "n" else end for end in value.split("-")]
    return f"Only the frames {':'.join(ends)} (first:end:step) were processed."


def _cleansing(value: str) -> str:
    if value in {"0", "0.0"}:
        return "Which background images are dropped depends only on their rank."
    return f"Background images that exceed the threshold {value} are dropped."


def _kept(value: str) -> str:
    if value in {"1", "1.0"}:
        return "No background image is dropped."
    try:
        return f"At least {100 * float(value):g} % of the background images are kept, those least disturbed by cells."
    except ValueError:
        return f"Smallest share of the background images to keep: {value}."


def _median(value: str, frames: int | None = None) -> str:
    """Return the sentence about the median of ``sparsemed``, which takes fewer frames if the measurement has fewer."""
    if frames is not None and value.isdecimal() and frames < int(value):
        return f"Each background image is the median of all {frames:,} frames, because there are fewer than {value}."
    return f"Each background image is the median of {value} frames."


MASK: Meanings = {
    "clear_border": _either(
        "Objects that touch the edge of the frame are removed.", "Objects that touch the edge of the frame are kept."
    ),
    "fill_holes": _either("Holes in objects are filled.", "Holes in objects are not filled."),
    "closing_disk": lambda value: (
        "Objects are not smoothed."
        if value == "0"
        else f"Objects are smoothed by a morphological opening with a disk of radius {value} px."
    ),
}
METHODS: Mapping[str, tuple[str, Meanings]] = {
    "data:hdf": (
        "Frames are read from the measurement's HDF5 file.",
        {"pixel_size": _phrase("A pixel is {} µm wide."), "index_mapping": _frames},
    ),
    "background:sparsemed": (
        "At regular intervals, the median of the next frames is a background image; images with cells are dropped.",
        {
            "kernel_size": _median,
            "split_time": _phrase("A background image is computed every {} s."),
            "thresh_cleansing": _cleansing,
            "frac_cleansing": _kept,
            "offset_correction": _either(
                "Flicker is corrected: the offset of each frame from its background image (bg_off) is subtracted.",
                "Flicker is not corrected.",
            ),
        },
    ),
    "background:rollmed": (
        "The background image of each frame is the median of the frames that follow it.",
        {
            "kernel_size": _phrase("Each background image is the median of {} frames."),
            "batch_size": _phrase("{} frames are processed at a time, which does not change the result."),
        },
    ),
    "background:copy": ("The background images of the measurement are used unchanged.", {}),
    "segmenter:thresh": (
        "Pixels that are darker than the background by more than a threshold form objects.",
        {"thresh": _phrase("The threshold is {} grey levels, relative to the background.")},
    ),
    "segmenter:torchmpo": (
        "A trained model finds the objects in each frame.",
        {"model_file": _phrase("The model is the file {}.")},
    ),
    "segmenter:torchuni": (
        "A trained model finds the objects in each frame.",
        {
            "model_file": _phrase("The model is the file {}."),
            "backend": _phrase("It is computed by {}."),
            "device": _phrase("It is computed on {}."),
        },
    ),
    "segmenter:torchsto": (
        "A trained model finds the objects in each frame, on an NVIDIA card.",
        {"model_file": _phrase("The model is the file {}."), "device": _phrase("It is computed on {}.")},
    ),
    "feature:legacy": (
        "Features of size, shape and position are computed from the contour of each object.",
        {
            "brightness": _either("Brightness features are computed.", "Brightness features are not computed."),
            "haralick": _either("Texture features (Haralick) are computed.", "Texture features are not computed."),
            "volume": _either("The volume is computed.", "The volume is not computed."),
        },
    ),
    "gate:norm": (
        "Objects and events outside of box gates are dropped.",
        {
            "online_gates": _either(
                "The gates that were set at the instrument apply.", "Gates set at the instrument are ignored."
            ),
            "size_thresh_mask": _phrase("Objects of {} or fewer pixels are dropped."),
        },
    ),
}
MODEL: Meanings = {
    "name": _phrase('The model is called "{}".'),
    "date": _phrase("It was made on {}."),
    "description": _phrase("Its description: {}"),
    "md5": _phrase("The MD5 of its file: {}"),
    "backend": _phrase("It was computed by {}."),
    "device": _phrase("It was computed on the device {}."),
}
"""The function for each fact about a model that the log of a result contains."""
UNKNOWN = {
    "data": "Frames are read by the method {!r}, which is not part of dcnumd.",
    "background": "The background is computed by the method {!r} of an installed package.",
    "segmenter": "Cells are found by the method {!r} of an installed package.",
    "feature": "Features are computed by the method {!r}, which is not part of dcnumd.",
    "gate": "Events are selected by the method {!r}, which is not part of dcnumd.",
}


def parts_in_words(
    meta: Mapping[str, object], frames: int | None = None, model: Mapping[str, str] | None = None
) -> tuple[PipelinePart, ...]:
    """Return all parts of the pipeline ID of a result, in words.

    Parameters
    ----------
    meta
        Attributes of the result.
    frames
        Number of frames of the measurement, if known.
    model
        Facts about the model of the segmenter, if it has one: keys of `MODEL`.
    """
    codes = ((name, meta.get(f"pipeline:dcnum {name}")) for name in PARTS)
    parts = (in_words(name, str(code)[:MAX_CODE], frames) for name, code in codes if code)
    return tuple(_with_model(part, model or {}) if part.name == "segmenter" else part for part in parts)


def _with_model(part: PipelinePart, model: Mapping[str, str]) -> PipelinePart:
    """Return the part about the segmenter with the facts about its model that the pipeline ID does not contain."""
    known = {full for _, full, _, _ in part.parameters}
    facts = tuple(
        ("", f"model {name}" if name not in {"backend", "device"} else name, model[name], say(model[name]))
        for name, say in MODEL.items()
        if model.get(name) and name not in known
    )
    number = next((number for number, found in enumerate(part.parameters, 1) if found[1] == "model_file"), 0)
    return dataclasses.replace(part, parameters=(*part.parameters[:number], *facts, *part.parameters[number:]))


def in_words(name: str, code: str, frames: int | None = None) -> PipelinePart:
    """Return one part of a pipeline ID, in words.

    Methods and parameters of other packages are not known here; they are shown by their codes.

    Parameters
    ----------
    name
        Name of the part, one of `PARTS`.
    code
        The method, a colon, and its parameters; for a segmenter, another colon and the parameters of mask
        post-processing.
    frames
        Number of frames of the measurement, if known.
    """
    method, _, rest = code.partition(":")
    words, meanings = METHODS.get(f"{name}:{method}", (UNKNOWN[name].format(method), {}))
    if frames is not None and f"{name}:{method}" == "background:sparsemed":
        meanings = {**meanings, "kernel_size": functools.partial(_median, frames=frames)}
    own, mask = (*rest.split(":", 1), "")[:2] if name == "segmenter" else (rest, "")
    parameters = [*_explain(own, meanings), *_explain(mask, MASK)]
    return PipelinePart(name, code, method, words, tuple(parameters[:MAX_PARAMETERS]))


def _explain(text: str, meanings: Meanings) -> list[tuple[str, str, str, str]]:
    """Return key, full name, value and meaning of each parameter."""
    explained = []
    free = list(meanings)
    exact = dict(zip(get_unique_prefix(free), free, strict=True))
    for pair in filter(None, text.split("^")):
        key, _, value = pair.partition("=")
        candidates = [full for full in free if key and full.startswith(key)]
        full = exact[key] if exact.get(key) in free else next(iter(candidates), "")
        if not full:
            explained.append((key, key, value, f"{key} is {value}."))
            continue
        free.remove(full)
        explained.append((key, full, value, meanings[full](value)))
    return explained

"""The features of a measurement that have a value or an image for each frame."""

from __future__ import annotations

from dcnumd.meta.features import names_of

FRAME_SCALARS = (*names_of("frame"), *(f"userdef{number}" for number in range(10)))
"""Features of frames that are copied from the input to the result, never computed."""

COMPUTED_WITH = ("time", "frame", "bg_off")
"""Frame-wise features that the pipeline computes with."""
TELLING = tuple(name for name in FRAME_SCALARS if name != "bg_off" and not name.startswith("userdef"))
"""Features that the instrument writes with each frame: another number of values shows an interrupted recording."""
IMAGES = ("image", "image_bg", "mask")
"""Features that are images."""

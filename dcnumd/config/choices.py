"""The values from which the config lets people choose."""

from __future__ import annotations

from typing import Literal

BasinStrategy = Literal["tap", "drain"]
"""``drain`` copies images and frame-wise scalars into the result, ``tap`` refers to the input."""

ExistingPolicy = Literal["skip", "replace", "fail"]
"""What happens to a file that already has the name of the result."""

Format = Literal["html", "json", "png"]
"""The page, the same figures as data, the scatter plot as a picture."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
DeletedPolicy = Literal["leave", "remake"]
QueueOrder = Literal["oldest", "newest"]
Compression = Literal[
    "none",
    "zstd-1",
    "zstd-2",
    "zstd-3",
    "zstd-4",
    "zstd-5",
    "zstd-6",
    "zstd-7",
    "zstd-8",
    "zstd-9",
]

"""Types of the settings that have a fixed set of values."""

from __future__ import annotations

from typing import Literal

BasinStrategy = Literal["tap", "drain"]
"""How a result contains images and frame-wise scalars: ``drain`` copies them, ``tap`` refers to the input."""

ExistingPolicy = Literal["skip", "replace", "fail"]
"""What to do about an existing file with the name of the result."""

Format = Literal["html", "json", "png"]
"""Format of a report: the page, the same figures as data, or the scatter plot as a picture."""

ExecutorKind = Literal["local", "dask"]
"""Where jobs run: in a process on this computer, or on the workers of a Dask cluster."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
DeletedPolicy = Literal["leave", "remake"]
InterruptedPolicy = Literal["fail", "process"]
"""What the daemon does with a recording in SWMR mode that was interrupted: its file is still open for writing."""
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

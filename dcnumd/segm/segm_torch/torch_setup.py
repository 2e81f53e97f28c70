"""Import of torch with the settings for reproducible results; nothing else imports it.

The settings are dcnum's: one thread, deterministic algorithms, no cuDNN. Only workers call `load_torch`, for it takes
seconds and much memory.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import shutil
import sys
import sysconfig
import warnings
from typing import Any

from dcnumd.extras import lacking

DEVICES = pathlib.Path("/dev")
"""Folder in which NVIDIA cards have a file each."""


def missing_cuda() -> str:
    """Return why torch cannot compute on an NVIDIA card; empty if it probably can. Torch is not imported for this."""
    if missing := lacking("torch"):
        return missing
    if importlib.metadata.version("torch").endswith("+cpu"):
        return "a build of torch with CUDA is needed, and the installed one has none"
    if not any(DEVICES.glob("nvidia[0-9]*")):
        return "an NVIDIA card is needed, and this computer has none"
    return ""


def missing_compiler() -> str:
    """Return what the backend ``inductor`` lacks to compile networks for a processor; empty if it lacks nothing."""
    # the only one that torch looks for
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        return f"a compiler for C++ is needed, and {compiler!r} is not installed"
    header = pathlib.Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.is_file() else f"the header files of Python are needed, and {header} is missing"


def load_torch() -> Any:
    """Import torch, and set it to one thread and to deterministic algorithms; see also `set_up_compiler`.

    Raises
    ------
    ImportError
        It is not installed, or cannot be loaded.
    """
    # read when CUDA is used for the first time; results of cuBLAS are reproducible with it
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # `torch.compile` would start further processes
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch  # noqa: PLC0415 -- workers import it when they need it

    # The public function also imports the compiler, which doubles the time and the memory of the import.
    torch._C._set_deterministic_algorithms(True, warn_only=False)  # noqa: SLF001 -- see there
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.enabled = False
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    if torch.get_num_interop_threads() != 1:
        # it is too late where another part of the program has used torch in parallel
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)
    return torch


def set_up_compiler(torch: Any) -> None:
    """Have `torch.compile` choose deterministic algorithms, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(mode=True)


def load_openvino() -> Any:
    """Import openvino, which then does not report its use to its maker.

    Raises
    ------
    ImportError
        It is not installed, or cannot be loaded.
    """
    # openvino does without this package if it cannot be imported
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # documented for this purpose
    import openvino  # noqa: PLC0415 -- workers import it when they need it

    return openvino

"""An installed package with segmenters that hang or crash."""

from __future__ import annotations

import os
import pathlib

MODULE = '''
import ctypes
import os

from dcnumd.segm.segmenter_mpo import MPOSegmenter


class SegmentStuck(MPOSegmenter):
    """Never comes back from native code, and keeps the interpreter; says so through a named pipe before."""

    mask_postprocessing = True

    @staticmethod
    def segment_algorithm(image, *, level: int = 0):
        with open(os.environ["STUCK_PIPE"], "wb") as pipe:
            pipe.write(b"stuck")
        ctypes.PyDLL(None).sleep(1000)


class SegmentCrash(MPOSegmenter):
    """Reads where there is no memory as soon as it sees a white pixel."""

    mask_postprocessing = True

    @staticmethod
    def segment_algorithm(image, *, white: int = 255):
        if image.max() >= white:
            ctypes.string_at(1)
        return image < 100
'''
ENTRY_POINTS = """
[dcnumd.segmenters]
stuck = hostile_segmenters:SegmentStuck
crash = hostile_segmenters:SegmentCrash
"""


def install_hostile(folder: pathlib.Path) -> dict[str, str]:
    """Install the package and the pipe of `SegmentStuck` into a folder; return environment variables to use them."""
    information = folder / "hostile_segmenters-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "hostile_segmenters.py").write_text(MODULE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-segmenters\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    os.mkfifo(folder / "pipe")
    return {"PYTHONPATH": os.fspath(folder), "STUCK_PIPE": os.fspath(folder / "pipe")}

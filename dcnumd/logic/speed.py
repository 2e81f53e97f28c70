"""How fast this computer segments, measured with some frames."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.feat.feat_background.time_axis import frame_rate
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.pipeline import LOAD_SECONDS
from dcnumd.logic.plan import open_plan
from dcnumd.logic.segmenter_choice import resolved_kwargs
from dcnumd.processes.worker_pool import time_limit
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segm_torch.model_file import read_model
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.segm.session import SharedSegmenter
from dcnumd.shared_memory.slot import ChunkSlotData

MEASURED_SECONDS = 2.0
"""Duration of a measurement, after the segmenter has loaded what it needs [s]."""
USUAL_FRAME = (80, 320)
"""Height and width of a frame for models that do not say for which frames they are made [px]."""
BATCH = 20
"""Number of frames between two looks at the clock."""


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """Speed of the segmentation."""

    frames_per_second: float
    """Number of frames that all processes together segment in a second, if none slows down the others."""
    processes: int
    """Number of processes that segment."""
    frame_shape: tuple[int, int]
    """Height and width of the frames that were segmented [px]."""
    frame_rate: float | None = None
    """Frame rate of the camera that recorded these frames [Hz]; None if it is not known."""


def speed_with_model(settings: PipelineSettings, num_workers: int, seconds: float = MEASURED_SECONDS) -> Speed | None:
    """Return the speed with frames like those for which the configured model is made.

    Parameters
    ----------
    settings
        Settings of the pipeline.
    num_workers
        Number of worker processes.
    seconds
        Duration of the measurement [s].

    Returns
    -------
    speed
        None if the segmenter has no model; it is fast then.

    Raises
    ------
    DcnumdError
        The segmenter or its model cannot be used.
    """
    segmenter = get_segmenter(settings.segmenter_code)
    kwargs = resolved_kwargs(segmenter, settings.segmenter_kwargs, settings.model_folders)
    if not _has_model(segmenter) or "model_file" not in kwargs:
        return None
    shape = read_model(kwargs["model_file"]).meta.image_shape or USUAL_FRAME
    made = segmenter(num_workers=1, kwargs_mask=settings.mask_kwargs or None, **kwargs)
    return _measure(made, _frames(shape), num_workers, seconds)


def speed_with_file(job: Job, num_workers: int, seconds: float = MEASURED_SECONDS) -> Speed | None:
    """Return the speed with the frames of a measurement.

    Parameters
    ----------
    job
        The job that would process the measurement.
    num_workers
        Number of worker processes.
    seconds
        Duration of the measurement of the speed [s].

    Returns
    -------
    speed
        None if the segmenter has no model; it is fast then.

    Raises
    ------
    DcnumdError
        The measurement cannot be processed, or the segmenter or its model cannot be used.
    """
    with open_plan(job) as plan:
        if not _has_model(plan.segmenter):
            return None
        settings, rate = plan.job.settings, frame_rate(plan.data)
        made = plan.segmenter(num_workers=1, kwargs_mask=settings.mask_kwargs or None, **settings.segmenter_kwargs)
        speed = _measure(made, plan.data.check_frames()[:BATCH], num_workers, seconds)
        return dataclasses.replace(speed, frame_rate=float(rate) if rate else None)


def _has_model(segmenter: type[MPOSegmenter]) -> bool:
    return "model_file" in segmenter.file_keywords


def _measure(segmenter: MPOSegmenter, frames: npt.NDArray[np.uint8], num_workers: int, seconds: float) -> Speed:
    """Measure the speed of one process, and return that of as many processes as can segment at the same time."""
    on_card = str(segmenter.kwargs.get("device") or segmenter.hardware_processor).startswith(("cuda", "gpu"))
    processes = 1 if on_card else num_workers
    with segmenter:
        segmenter.program = SpeedProgram(frames, seconds)
        segmenter.reinitialize_workers([])
        limit = time_limit(LOAD_SECONDS + seconds, f"segmenter {segmenter.get_ppid_code()!r}: measuring its speed")
        (reply,) = segmenter.pool.run(["the measurement of the speed"], limit)
    return Speed(processes * reply.value, processes, (frames.shape[1], frames.shape[2]))


@dataclasses.dataclass(frozen=True)
class SpeedProgram:
    """Program of a worker that measures the speed with frames, uint8 (frame, y, x), for some time [s].

    Why not in this process? A network may crash or never end, and then not even Ctrl-C would end the command.
    """

    frames: npt.NDArray[np.uint8]
    seconds: float

    def open(self, segmenter: SharedSegmenter, _slot_list: Sequence[ChunkSlotData]) -> SpeedSession:
        """Start a session in the worker."""
        return SpeedSession(self, segmenter)


class SpeedSession:
    """Measures the speed in a worker."""

    def __init__(self, program: SpeedProgram, segmenter: SharedSegmenter) -> None:
        self._program = program
        self._segmenter = segmenter

    def run(self, _task: str) -> float:
        """Return the number of frames that are segmented in a second."""
        frames = self._program.frames
        self._segmenter.warm_up()
        # The first call also loads kernels, which workers do before their first job.
        self._segmenter.segment_batch(frames)
        number, elapsed, begin = 0, 0.0, time.perf_counter()
        while elapsed < self._program.seconds:
            self._segmenter.segment_batch(frames)
            number += len(frames)
            elapsed = time.perf_counter() - begin
        return number / elapsed

    def close(self) -> None:
        """Do nothing: the session has no resources."""


def _frames(shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return frames with noise and a dark object in the middle."""
    frames = np.random.default_rng(0).normal(180, 2, (BATCH, *shape))
    y, x = np.ogrid[: shape[0], : shape[1]]
    frames[:, (y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < (min(shape) / 6) ** 2] -= 40
    return np.rint(frames).clip(0, 255).astype(np.uint8)

"""A recording that is processed while it grows.

Frames are processed with the background that they would have if the recording ended now. Images that are recorded later
can change that of earlier frames, which are then processed again, while there is time for it. What does not hold for
the finished recording is computed anew by its job, so that nothing here can make a result wrong.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import Self

from dcnumd.errors import MeasurementError
from dcnumd.feat.feat_background.flicker import FLICKER_FRAMES
from dcnumd.logic.live.messages import LiveProgress, LiveRequest
from dcnumd.logic.live.recording import Recording, unit_frames
from dcnumd.logic.live.view import LiveView
from dcnumd.logic.plan import resolve_plan
from dcnumd.logic.spool import SpoolWriter
from dcnumd.read.growing import GrowingFile, GrowingStack, unsuited
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.trust import Trust, trusting


class LiveSession:
    """Processes one growing recording step by step; the workers are those of the engine of this process.

    Parameters
    ----------
    request
        The recording.

    Raises
    ------
    MeasurementError
        The recording cannot be processed while it grows.
    OSError
        The spool cannot be created.
    """

    def __init__(self, request: LiveRequest) -> None:
        self._request = request
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(GrowingFile(request.job.path_in))
            self._spool = stack.enter_context(contextlib.closing(SpoolWriter(request.spool, request.spool_bytes)))
            self._resources = stack.pop_all()
        self._recording: Recording | None = None
        self._frames = 0
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the recording and the spool, which remains only if `finish` has returned True."""
        self._resources.close()

    @property
    def view(self) -> LiveView | None:
        """The events so far; None as long as there are too few frames."""
        return None if self._recording is None else self._recording.view

    def advance(self, seconds: float) -> LiveProgress:
        """Process what was recorded meanwhile.

        Parameters
        ----------
        seconds
            Time after which no further frames are begun [s].

        Raises
        ------
        DcnumdError
            The recording cannot be processed any further while it grows.
        """
        until = time.monotonic() + seconds
        self._ended = self._ended or self._file.ended
        if not self._ended:
            frames = self._file.refresh()
            if frames < self._frames:
                message = f"{self._file.path}: has {frames} frames, and had {self._frames} before"
                raise MeasurementError(message, "changed")
            self._frames = frames
            if self._recording is None:
                self._recording = self._begin()
            if self._recording is not None:
                self._recording.extend(frames)
        if self._recording is None:
            return LiveProgress(self._frames, 0, 0, 0, 0.0, 0.0, False, 0, False, self._ended)
        self._recording.process(until)
        return self._recording.progress(self._frames, ended=self._ended)

    def finish(self) -> bool:
        """Write the index of the spool, which can be used from then on; return False if there were too few frames.

        Raises
        ------
        OSError
            The index cannot be written.
        """
        if self._recording is None:
            return False
        self._spool.finish(self._recording.arrays())
        return True

    def _begin(self) -> Recording | None:
        """Resolve the settings for the recording, once it has enough frames."""
        job, file = self._request.job, self._file
        if job.settings.index_mapping is not None:
            raise unsuited(file.path, "only some of its frames are processed")
        stack = GrowingStack(file.image)
        is_automatic = job.settings.background_kwargs.get("offset_correction") == "auto"
        if self._frames < max(unit_frames(stack), FLICKER_FRAMES if is_automatic else 1):
            return None
        stack.extend(self._frames)
        with trusting(Trust(job.trusted_folders, job.trust_basins)), warnings.catch_warnings():
            # the job of the finished recording warns
            warnings.simplefilter("ignore")
            data = HDF5Data(file.h5, pixel_size=job.settings.pixel_size)
            # A refresh does not show new chunks while another handle of the dataset is open, as `data.image` would be.
            plan = resolve_plan(job, data, ImageStack(file.image), stack.source(), [])
        return Recording(plan, file, stack, self._spool, self._request.view_seconds)

"""Which content a result is made of: what the result says of it, and whether the input still has it."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import h5py
import numpy as np

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job
from dcnumd.logic.plan import Plan, open_plan
from dcnumd.logic.stamp import CHANGED, Stamp
from dcnumd.read.content import content_digest, files_of
from dcnumd.read.open_file import unreadable

PREFIX = "dcnumd input "
"""The attributes of the group ``events`` that name a result's origin begin like this."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What a result is made of."""

    path: bytes
    """The input, absolute, as the system has the name."""
    size: int
    """Size of the input [bytes]."""
    frames: int
    """Number of frames of the input that were processed."""
    digest: str
    """See `content_digest`."""

    def write(self, h5: h5py.File) -> None:
        """Have a result say that it is made of this."""
        attributes = h5.require_group("events").attrs
        for name, value in dataclasses.asdict(self).items():
            attributes[PREFIX + name] = np.bytes_(value) if isinstance(value, bytes) else value

    @classmethod
    def read(cls, h5: h5py.File) -> Origin | None:
        """Return what a result says that it is made of; None when it says nothing, as those of dcnum."""
        events = h5.get("events")
        attributes = {} if events is None else events.attrs
        if any(PREFIX + field.name not in attributes for field in dataclasses.fields(cls)):
            return None
        path, size, frames, digest = (attributes[PREFIX + field.name] for field in dataclasses.fields(cls))
        return cls(bytes(path), int(size), int(frames), str(digest))


class Input:
    """The input of a job while it runs.

    Parameters
    ----------
    job
        It may name the digest that its input had under a stamp; then nothing is read for it if the stamp still holds.

    Raises
    ------
    MeasurementError
        The file is not there, or cannot be looked at.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stamps = {job.path_in: _stamp(job.path_in)}
        self._origin: Origin | None = None

    def identify(self, plan: Plan) -> Origin:
        """Find out what is in the open input, once, and return it."""
        if self._origin is None:
            path, known = self._job.path_in, self._job.known
            for other in files_of(plan.data):
                self._stamps.setdefault(other, _stamp(other))
            # what lies in other files may have changed without it
            trusted = known is not None and known.stamp == self._stamps[path] and len(self._stamps) == 1
            digest = known.digest if known is not None and trusted else content_digest(plan.data)
            self._origin = Origin(os.fsencode(path), self._stamps[path].size, plan.count, digest)
        return self._origin

    def check(self) -> None:
        """Make sure that the input is there, and that its content is what it was; a new date alone is no change.

        Raises
        ------
        MeasurementError
            Reason ``changed``: it was written to or replaced, and the next attempt may succeed; or ``vanished``.
        """
        path = self._job.path_in
        if not os.path.lexists(path):
            raise MeasurementError(
                f"{path}: the file was moved or deleted while it was processed; the result was thrown away", "vanished"
            )
        now = {file: _stamp(file) for file in self._stamps}
        if now == self._stamps:
            return
        # a file that grows has a writer, who may not have told HDF5 of it yet
        grown = any(now[file].size != stamp.size for file, stamp in self._stamps.items())
        if grown or self._origin is None or self._digest_now() != self._origin.digest:
            raise MeasurementError(f"{path}: {CHANGED}", "changed")
        self._stamps = now

    def _digest_now(self) -> str | None:
        """Return the digest of what is in the input by now; None if that is no measurement."""
        try:
            with open_plan(self._job) as plan:
                return content_digest(plan.data)
        except MeasurementError:
            return None


def _stamp(path: pathlib.Path) -> Stamp:
    try:
        return Stamp.of(path.stat())
    except OSError as error:
        raise unreadable(path, error) from error

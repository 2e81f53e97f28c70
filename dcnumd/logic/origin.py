"""The origin of a result: the content of the input from which it was made, and whether that has changed."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import h5py
import numpy as np

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job, KnownContent
from dcnumd.logic.plan import Plan, open_plan
from dcnumd.logic.stamp import CHANGED, Stamp
from dcnumd.read.content import content_digest, files_of
from dcnumd.read.metadata import ORIGIN
from dcnumd.read.open_file import unreadable


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """The content from which a result was made."""

    path: bytes
    """Absolute path of the input for the daemon, as bytes because it need not be valid text."""
    size: int
    """Size of the input [bytes]."""
    frames: int
    """Number of frames of the input that were processed."""
    digest: str
    """See `content_digest`."""
    interrupted: bool = False
    """Whether the recording was interrupted, and only the frames that all features have were processed."""

    def write(self, h5: h5py.File) -> None:
        """Write the origin to a result."""
        attributes = h5.require_group("events").attrs
        for name, value in dataclasses.asdict(self).items():
            if name == "interrupted" and not value:
                continue
            attributes[ORIGIN + name] = np.bytes_(value) if isinstance(value, bytes) else value

    @classmethod
    def read(cls, h5: h5py.File) -> Origin | None:
        """Return the origin in a result; None if it has none, as results of dcnum."""
        events = h5.get("events")
        attributes = {} if events is None else events.attrs
        names = ("path", "size", "frames", "digest")
        if any(ORIGIN + name not in attributes for name in names):
            return None
        path, size, frames, digest = (attributes[ORIGIN + name] for name in names)
        interrupted = bool(attributes.get(f"{ORIGIN}interrupted", False))
        return cls(bytes(path), int(size), int(frames), str(digest), interrupted)


class Input:
    """The input of a job while it runs.

    Parameters
    ----------
    job
        The job. If the stamp of its known content still holds, the input is not read for a digest.

    Raises
    ------
    MeasurementError
        The file does not exist, or its properties cannot be read.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stamps = {job.path_in: _stamp(job.path_in)}
        self._origin: Origin | None = None

    def identify(self, plan: Plan) -> Origin:
        """Return the origin for the open input; its digest is computed once."""
        if self._origin is None:
            path, known = self._job.path_in, self._job.known
            for other in files_of(plan.data):
                self._stamps.setdefault(other, _stamp(other))
            # data in other files may have changed without a change of this file
            trusted = known is not None and known.stamp == self._stamps[path] and len(self._stamps) == 1
            digest = known.digest if known is not None and trusted else content_digest(plan.data)
            self._origin = Origin(
                os.fsencode(self._job.path_told or path),
                self._stamps[path].size,
                plan.count,
                digest,
                plan.data.interrupted,
            )
        return self._origin

    def check(self) -> None:
        """Make sure that the input still exists and has the same content; its timestamps may have changed.

        Raises
        ------
        MeasurementError
            Reason ``changed``, when it was modified or replaced, so that another attempt may succeed; or ``vanished``.
        """
        path = self._job.path_in
        if not os.path.lexists(path):
            raise MeasurementError(
                f"{path}: the file was moved or deleted while it was processed; the result was thrown away", "vanished"
            )
        now = {file: _stamp(file) for file in self._stamps}
        if now == self._stamps:
            return
        # a file that grows is being written, even if HDF5 does not show the new data yet
        grown = any(now[file].size != stamp.size for file, stamp in self._stamps.items())
        if grown or self._origin is None or self._digest_now() != self._origin.digest:
            raise MeasurementError(f"{path}: {CHANGED}", "changed")
        self._stamps = now

    def is_still(self, known: KnownContent) -> bool:
        """Return whether the identified input has this content, and no file has changed since, not even its date."""
        stamp = self._stamps[self._job.path_in]
        if self._origin is None or known != KnownContent(stamp, self._origin.digest):
            return False
        try:
            return all(_stamp(file) == stamp for file, stamp in self._stamps.items())
        except MeasurementError:
            return False

    def _digest_now(self) -> str | None:
        """Return the digest of the present content of the input; None if it is not a measurement any more."""
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

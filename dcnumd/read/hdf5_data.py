"""An open measurement."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.meta.ppid import get_data_ppid
from dcnumd.read import metadata
from dcnumd.read.basin import Basin
from dcnumd.read.basin_files import BasinFiles
from dcnumd.read.chunk_table import check_dataset
from dcnumd.read.feature_lookup import FeatureLookup
from dcnumd.read.frame_features import COMPUTED_WITH, FRAME_SCALARS, TELLING
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.index_mapping import IndexMapping, Indices, resolve_index_mapping
from dcnumd.read.measurement_file import MeasurementFile
from dcnumd.read.pixel_size import DEVICE_LOG, override_pixel_size, sound_pixel_size
from dcnumd.read.trust import trust_in_force


class HDF5Data:
    """A measurement (.rtdc) with its basins, seen through an optional index mapping.

    Parameters
    ----------
    path
        The file; or an open `h5py.File`, which then stays open on `close`. `trusting` limits to which other files it
        may refer.
    pixel_size
        Overrides ``imaging:pixel size`` [µm].
    index_mapping
        Selects events: the first n (int), a slice, or indices. It applies to images and scalars.

    Attributes
    ----------
    attributes
        The root attributes as h5py can write them again, see `metadata.stored_attributes`.
    meta
        The root attributes that have a value, as plain Python values.
    left_out
        Attributes, logs, tables and links to features that cannot be read: an error for each name.

    Raises
    ------
    MeasurementError
        When the file cannot be opened, see `open_measurement`.
    ConfigError
        When `index_mapping` does not fit the file (reason ``index_mapping``), or `pixel_size` is no positive number.
    """

    def __init__(
        self,
        path: str | pathlib.Path | h5py.File,
        *,
        pixel_size: float | None = None,
        index_mapping: IndexMapping | None = None,
        _referring: tuple[pathlib.Path, ...] = (),
    ) -> None:
        self._pixel_size = None if pixel_size is None else override_pixel_size(pixel_size)
        trust = trust_in_force()
        self._file = MeasurementFile(path, trust)
        self.path = self._file.path
        referring = (*_referring, self.path.resolve())
        self._basin_files = BasinFiles(self.path, referring, trust, functools.partial(HDF5Data, _referring=referring))
        self._features = FeatureLookup(self._file, self._basin_files.open)
        self._requested_mapping = index_mapping
        self.index_mapping: Indices | None = None
        """Positions in the file of the selected events (int64); None for all events."""
        try:
            self.left_out = self._file.faults
            self.attributes = metadata.stored_attributes(self.h5, self.left_out)
            self.meta = metadata.read_attributes(self.attributes)
            if index_mapping is not None:
                self.index_mapping = resolve_index_mapping(index_mapping, self.stored_frames)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and its basins; using the data afterwards is an error."""
        self._basin_files.close()
        self._file.close()

    @property
    def interrupted(self) -> bool:
        """Whether the recording was interrupted; then only the frames that all features have count as its frames."""
        return self._file.interrupted

    @property
    def h5(self) -> h5py.File:
        """The open HDF5 file."""
        return self._file.h5

    def extras(self, group: str) -> Iterator[tuple[str, h5py.Dataset]]:
        """Return names and datasets in ``logs`` or ``tables``, without those in `left_out`."""
        return self._file.extras(group)

    @functools.cached_property
    def logs(self) -> dict[str, list[str]]:
        """All logs, each a list of lines."""
        return metadata.read_logs(self.extras("logs"))

    @functools.cached_property
    def tables(self) -> dict[str, npt.NDArray[Any]]:
        """All tables, as structured arrays."""
        return metadata.read_tables(self.extras("tables"))

    @property
    def basins(self) -> list[Basin]:
        """Definitions of all basins."""
        return self._features.basins

    @functools.cached_property
    def md5_5m(self) -> str:
        """MD5 (hex) of the first 5 MiB of the file."""
        return metadata.md5_of_head(self.path)

    @property
    def measurement_identifier(self) -> str | None:
        """Identifier of the measurement that does not depend on the path, see `metadata.measurement_identifier`."""
        return metadata.measurement_identifier(self.attributes)

    def is_identified_by(self, identifier: str) -> bool:
        """Return whether this is the measurement with that identifier, see `metadata.is_identified_by`."""
        return metadata.is_identified_by(self.attributes, identifier)

    @functools.cached_property
    def pixel_size(self) -> float:
        """Pixel size [µm], rounded to 8 decimals: the override, else that of the file, corrected if known to be wrong.

        Raises
        ------
        MeasurementError
            Reason ``input``, when the file has no pixel size, or it is not a positive number.
        """
        if self._pixel_size is not None:
            return self._pixel_size
        identifier = str(self.meta.get("setup:identifier", ""))
        return sound_pixel_size(self.meta.get("imaging:pixel size"), identifier, self._device_log, str(self.path))

    def _device_log(self) -> dict[str, list[str]]:
        """Return the log that names the recording device, if there is one.

        Unlike for `logs`, a log that is `left_out` is an error here, because the pixel size depends on it.
        """
        for name in ("logs", f"logs/{DEVICE_LOG}"):
            if name in self.left_out:
                raise self.left_out[name]
        return metadata.read_logs(log for log in self.extras("logs") if log[0] == DEVICE_LOG)

    def get_ppid(self) -> str:
        """Return the data part of the pipeline identifier."""
        mapping = self._requested_mapping
        return get_data_ppid(self.pixel_size, mapping.tolist() if isinstance(mapping, np.ndarray) else mapping)

    # -- features ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.stored_frames if self.index_mapping is None else int(self.index_mapping.size)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, feature: object) -> bool:
        return isinstance(feature, str) and self.find(feature) is not None

    def __getitem__(self, feature: str) -> npt.NDArray[Any] | ImageStack:
        """Return a scalar feature as an array, an image feature as an `ImageStack`.

        Raises
        ------
        KeyError
            When no such feature exists.
        MeasurementError
            Reason ``basin``, when the feature is in a basin that is missing or belongs to another measurement.
        """
        stack = self._features.find(feature, self.index_mapping, needed=True)
        if stack is None:
            raise KeyError(f"{self.path}: no feature {feature!r}, neither in the file nor in its basins")
        return stack[:] if stack.ndim == 1 else stack

    def find(self, feature: str, *, mapped: bool = True) -> ImageStack | None:
        """Return a feature of any shape without reading it, None when there is none.

        Parameters
        ----------
        feature
            Its name.
        mapped
            Whether the index mapping applies; the mappings of basins always do.

        Raises
        ------
        MeasurementError
            Reason ``basin``, when a basin that declares the feature is missing or belongs to another measurement.
        """
        return self._features.find(feature, self.index_mapping if mapped else None, needed=False)

    def keys(self) -> list[str]:
        """Return the features that can be read, sorted; basins that cannot be opened are skipped."""
        return sorted(self._features.names())

    @property
    def features_scalar_frame(self) -> list[str]:
        """Frame-wise scalar features that can be read, sorted.

        Raises
        ------
        MeasurementError
            When a basin that may have some must not be read, or is temporarily unreadable.
        """
        return sorted(self._features.names_among(FRAME_SCALARS))

    @functools.cached_property
    def image(self) -> ImageStack | None:
        """Frames, uint8 of shape (frame, y, x); None when there are none."""
        return self._features.find("image", self.index_mapping, needed=True)

    @functools.cached_property
    def image_bg(self) -> ImageStack | None:
        """Background images, uint8 of shape (frame, y, x), or None."""
        return self._features.find("image_bg", self.index_mapping, needed=False)

    @functools.cached_property
    def mask(self) -> ImageStack | None:
        """Masks, bool of shape (frame, y, x), or None."""
        return self._features.find("mask", self.index_mapping, needed=False)

    def check_frames(self) -> ImageStack:
        """Return the frames after checking that they can be processed.

        ``experiment:event count`` must agree with the number of frames. If they differ, the recording was interrupted
        or the file is damaged, and scalars may belong to other frames.

        Raises
        ------
        MeasurementError
            With the reason ``no_images``, ``no_frames``, ``event_count``, ``image_type``, ``too_large``,
            ``unsupported_filter``, ``damaged`` or ``basin``.
        """
        image = self.image
        if image is None:
            raise MeasurementError(
                f"{self.path}: no events/image, neither in the file nor in its basins", reason="no_images"
            )
        check_dataset(image.dataset, image.where)
        stored = self.stored_frames
        count = metadata.event_count(self.meta)
        if count is not None and count != stored and not self.interrupted:
            raise MeasurementError(
                f"{self.path}: experiment:event count is {count:.17g}, but events/image has {stored} frames",
                reason="event_count",
            )
        for name in TELLING:
            self.check_length(name, empty=name not in COMPUTED_WITH)
        if not len(image):
            when = "; the recording was interrupted before all features had one" if self.interrupted else ""
            raise MeasurementError(f"{self.path}: no frames in events/image{when}", reason="no_frames")
        return image

    def check_length(self, feature: str, *, empty: bool = False) -> None:
        """Make sure that a feature has one number per frame, if the file itself has numbers of it.

        Interrupted recordings have only frames with a number of each feature.

        Parameters
        ----------
        feature
            Its name.
        empty
            Whether a feature without any values is accepted as well.

        Raises
        ------
        MeasurementError
            Reason ``event_count``.
        """
        if self.interrupted:
            return
        item = self._file.numbers(feature)
        stored = self.stored_frames
        if item is not None and len(item) != stored and (len(item) or not empty):
            raise MeasurementError(
                f"{self.path}: events/{feature} has {len(item)} values, but events/image has {stored} frames",
                reason="event_count",
            )

    @property
    def stored_frames(self) -> int:
        """Number of events in the file, without the index mapping."""
        return self._features.count_events(metadata.event_count(self.meta))

    # -- the file itself and its basins -----------------------------------------------------------

    def stored_names(self, group: str) -> list[str]:
        """Return the names of all datasets in a group of the file itself."""
        return self._file.names(group)

    def stored(self, path: str) -> h5py.Dataset | None:
        """Return a dataset of the file itself by its path; None when there is none."""
        return self._file.stored(path)

    @property
    def basin_files(self) -> list[pathlib.Path]:
        """Files of the basins that were opened so far, with those of their own basins."""
        return self._basin_files.paths

    def open_basin(self, basin: Basin) -> HDF5Data:
        """Open the first file of a basin that exists and belongs to the expected measurement."""
        return self._basin_files.open(basin)

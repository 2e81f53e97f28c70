"""Background that is copied from the input."""

from __future__ import annotations

import pathlib

import numpy.typing as npt

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.feat.feat_background.base import Background
from dcnumd.feat.feat_background.replace import remove_background
from dcnumd.read.frame_scalars import check_numbers
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.write.writer import COPY_ITEMS, HDF5Writer


class BackgroundCopy(Background):
    """Copy ``image_bg`` and ``bg_off`` of the input, with their attributes.

    The data may be in the input itself or in its basins. If input and output are the same file, nothing is done.

    Parameters
    ----------
    input_data, output_path, compress, num_cpus
        As for `Background`; the input must be a file.
    """

    def __init__(
        self,
        input_data: str | pathlib.Path | npt.ArrayLike,
        output_path: str | pathlib.Path,
        compress: bool = True,
        num_cpus: int | None = None,
    ) -> None:
        super().__init__(input_data, output_path, compress=compress, num_cpus=num_cpus)

    def check_user_kwargs(self) -> None:  # type: ignore[override]  # each method has its own keywords
        """Accept no keyword arguments."""

    def process(self) -> None:
        """Copy the background, which keeps the identifier with which it was computed.

        Raises
        ------
        MeasurementError
            The input has no background (reason ``no_background``), or its ``bg_off`` is invalid.
        MethodError
            The input is an array.
        """
        if self.hdin is None:
            raise MethodError("background copy needs a file, got an array, which has no background")
        image_bg = self.hdin.image_bg
        if image_bg is None or len(image_bg) != self.image_count:
            found = "no image_bg, neither in the file nor in its basins"
            if image_bg is not None:
                found = f"{len(image_bg)} background images for {self.image_count} frames"
            raise MeasurementError(
                f"{self.hdin.path}: {found}; choose another background than copy", reason="no_background"
            )
        if self.h5out is not self.h5in:
            check_numbers(self.hdin, "bg_off")
            remove_background(self.writer)
            self._copy(self.hdin, image_bg)
            self.writer.h5.flush()
        self.image_proc.value = 1.0

    def process_approach(self) -> None:
        """Do nothing: `process` copies."""

    def _copy(self, data: HDF5Data, image_bg: ImageStack) -> None:
        stored = image_bg.dataset
        if image_bg.indices is None:
            stored.file.copy(stored, self.writer.events, name="image_bg")
        elif len(stored) <= len(image_bg):
            store_shared_images(self.writer, image_bg, image_bg.indices)
            self.writer.h5["basin_events/image_bg"].attrs.update(image_bg.attrs)
        else:
            self._append("image_bg", image_bg)
        offset = data.find("bg_off")
        if offset is not None:
            self._append("bg_off", offset)

    def _append(self, feature: str, stack: ImageStack) -> None:
        for start in range(0, len(stack), COPY_ITEMS):
            self.writer.store_feature_chunk(feature, stack[start : start + COPY_ITEMS])
            self.image_proc.value = min(1.0, (start + COPY_ITEMS) / len(stack))
        self.writer.events[feature].attrs.update(stack.attrs)


def store_shared_images(writer: HDF5Writer, images: ImageStack, mapping: npt.ArrayLike | str) -> None:
    """Store background images that several events share in an internal basin, with the name of their original basin.

    Parameters
    ----------
    writer
        The file.
    images
        Background of each event of another file; its whole dataset is stored.
    mapping
        Position of the background of each event in the dataset, see `HDF5Writer.store_basin`.
    """
    origin = images.basin
    writer.store_basin(
        name="background images" if origin is None else origin.name,
        description=None if origin is None else origin.definition.get("description"),
        internal_data={"image_bg": ImageStack(images.dataset)},
        mapping=mapping,
    )

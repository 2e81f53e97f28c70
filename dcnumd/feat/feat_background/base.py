"""Base class of background computations."""

from __future__ import annotations

import abc
import contextlib
import logging
import multiprocessing
import os
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import h5py
import numpy.typing as npt

from dcnumd.errors import FramesError, MethodError, ResultError
from dcnumd.feat.feat_background.frames import FrameAccess
from dcnumd.feat.feat_background.replace import BACKGROUND_FEATURES, remove_background
from dcnumd.meta.keywords import kwargs_to_ppid, method_keywords, ppid_to_kwargs
from dcnumd.meta.ppid import DCNUM_PPID_GENERATION
from dcnumd.meta.registry import find_methods, get_method
from dcnumd.processes.processors import physical_cores
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.write.metadata import copy_metadata
from dcnumd.write.writer import HDF5Writer, dataset_keywords

mp_spawn = multiprocessing.get_context("spawn")
"""Multiprocessing context of processes and shared values in this module."""

ENTRY_POINT_GROUP = "dcnumd.backgrounds"
BUILT_IN = {
    "copy": "dcnumd.feat.feat_background.bg_copy:BackgroundCopy",
    "rollmed": "dcnumd.feat.feat_background.bg_roll_median:BackgroundRollMed",
    "sparsemed": "dcnumd.feat.feat_background.bg_sparse_median:BackgroundSparseMed",
}
"""Backgrounds of this package: code → ``module:class``."""


class Background(abc.ABC):
    """Base class for background computation.

    A subclass checks its keyword arguments in `check_user_kwargs` and writes the background images with
    `self.writer` in `process_approach`.

    Parameters
    ----------
    input_data
        Path of a measurement, or an array-like of frames (frame, y, x). Background images are uint8; frames of other
        dtypes are converted to uint8 as in C.
    output_path
        File to which the background is written; the same as `input_data` to write to the input. A new file receives
        the metadata of the input and refers to it as a basin.
    compress
        Whether to compress the background images (Zstandard, level 5), which takes longer.
    num_cpus
        Number of threads; None for one for each physical core that this process may use.
    kwargs
        Keyword arguments of the subclass, see its `check_user_kwargs`.

    Attributes
    ----------
    logger : logging.Logger
    output_path : pathlib.Path
    kwargs : dict
        Keyword arguments of the subclass, including defaults.
    num_cpus : int
    image_proc
        Shared value; ``image_proc.value`` is the fraction of the work that is done.
    hdin : HDF5Data or None
        The input, if it is a file.
    h5in, h5out : h5py.File or None
        HDF5 files of the input (None for an array) and of the output; the same object if they are one file.
    paths_ref : list of pathlib.Path
        Files to which the output refers.
    input_data
        Frames: an image stack, or the given array.
    image_shape : tuple of int
        Height and width [px].
    image_count : int
    writer : HDF5Writer
        Writes to `h5out`.

    Raises
    ------
    MethodError
        A keyword does not exist, or its value is invalid.
    MeasurementError
        The input has no frames, or too few, or cannot be read.
    """

    def __init__(
        self,
        input_data: str | pathlib.Path | npt.ArrayLike,
        output_path: str | pathlib.Path,
        compress: bool = True,
        num_cpus: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self.output_path = pathlib.Path(output_path)
        self.kwargs: dict[str, Any] = complete_kwargs(type(self), kwargs)
        self.check_user_kwargs(**self.kwargs)
        self.num_cpus = physical_cores() if num_cpus is None else num_cpus
        if self.num_cpus < 1:
            raise MethodError(f"num_cpus is {num_cpus}, expected at least 1")
        self.image_proc = mp_spawn.Value("d", 0.0)
        self.hdin: HDF5Data | None = None
        self.h5in: h5py.File | None = None
        self.h5out: h5py.File | None = None
        self.paths_ref: list[pathlib.Path] = []
        with contextlib.ExitStack() as resources:
            frames: Any = input_data
            if isinstance(input_data, str | os.PathLike):
                frames = self._open_input(pathlib.Path(input_data), resources)
            self.input_data = frames
            self.read_frames = FrameAccess(frames)
            resources.callback(self.read_frames.close)
            self.image_count = self.read_frames.shape[0]
            self.image_shape: tuple[int, ...] = self.read_frames.shape[1:]
            self.check_image_count()
            self._open_output(resources, dataset_keywords("zstd-5" if compress else "none"))
            self._resources = resources.pop_all()

    def _open_input(self, path: pathlib.Path, resources: contextlib.ExitStack) -> ImageStack:
        if self.output_path.exists() and path.exists() and self.output_path.samefile(path):
            self.h5in = self.h5out = resources.enter_context(h5py.File(path, "r+"))
            self.hdin = resources.enter_context(HDF5Data(self.h5in))
        else:
            self.hdin = resources.enter_context(HDF5Data(path))
            self.h5in = self.hdin.h5
            self.paths_ref.append(path)
        return self.hdin.check_frames()

    def _open_output(self, resources: contextlib.ExitStack, ds_kwds: Mapping[str, Any]) -> None:
        if self.h5out is not None:
            self.writer = resources.enter_context(HDF5Writer(self.h5out, ds_kwds=ds_kwds))
            return
        is_new = not self.output_path.exists()
        try:
            self.writer = resources.enter_context(HDF5Writer(self.output_path, ds_kwds=ds_kwds))
        except OSError as error:
            raise ResultError(f"{self.output_path}: cannot be opened for writing ({error})") from error
        self.h5out = self.writer.h5
        if is_new and self.hdin is not None:
            self._refer_to_input(self.hdin)

    def _refer_to_input(self, data: HDF5Data) -> None:
        """Write the metadata of the input to a new output, and refer to the input as a basin."""
        copy_metadata(data, self.writer.h5)
        source, target = data.path.resolve(), self.output_path.resolve()
        self.writer.store_basin(
            name=source.name,
            description="Measurement that the background belongs to",
            paths=[source, os.path.relpath(source, target.parent)],
            features=sorted(set(data.keys()) - BACKGROUND_FEATURES),
            identifier=data.measurement_identifier,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,  # noqa: A002 -- the documented name
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the input and the output."""
        self._resources.close()

    @abc.abstractmethod
    def check_user_kwargs(self, **kwargs: Any) -> None:
        """Check the keyword arguments of the method.

        A subclass declares them as keyword-only, with annotations and defaults; they make up the identifier. It raises
        `MethodError` for an invalid value.
        """

    def check_image_count(self) -> None:
        """Make sure that the input has enough frames, before the output is opened.

        A subclass that needs more than one frame overrides this.

        Raises
        ------
        FramesError
            The input has too few frames.
        """
        if not self.image_count:
            raise FramesError("there are no frames to compute a background of", reason="no_frames")

    def get_ppid(self) -> str:
        """Return the background part of the pipeline identifier.

        It consists of the code of the method, a colon, and the keyword arguments of `check_user_kwargs`, shortened to
        their shortest unique prefixes: ``rollmed:k=100^b=10000``.
        """
        return self.get_ppid_from_ppkw(self.kwargs)

    @classmethod
    def get_ppid_code(cls) -> str:
        """Return the code of the method: its class name in lower case, without ``background``.

        Raises
        ------
        MethodError
            This is the base class itself, which has no code.
        """
        if cls is Background:
            raise MethodError("the base class Background is no method and has no code")
        return cls.__name__.lower().removeprefix("background")

    @classmethod
    def get_ppid_from_ppkw(cls, kwargs: Mapping[str, Any]) -> str:
        """Return the identifier for given keyword arguments; missing ones have their defaults."""
        return f"{cls.get_ppid_code()}:{kwargs_to_ppid(cls, 'check_user_kwargs', kwargs)}"

    @staticmethod
    def get_ppkw_from_ppid(bg_ppid: str) -> dict[str, Any]:
        """Return the keyword arguments from the identifier of any subclass.

        Raises
        ------
        MethodError
            There is no such method, or it has no such keyword.
        """
        code, _, text = bg_ppid.partition(":")
        return ppid_to_kwargs(get_background(code), "check_user_kwargs", text)

    def get_progress(self) -> float:
        """Return the fraction of the work that is done, 0 to 1."""
        return min(1.0, max(0.0, float(self.image_proc.value)))

    def process(self) -> None:
        """Compute the background and write it.

        Existing features ``image_bg`` and ``bg_off`` in the output are removed permanently.
        """
        output = self.writer.h5
        remove_background(self.writer)
        self.process_approach()
        for name in ("events/image_bg", "events/bg_off", "basin_events/image_bg", "basin_events/bg_off"):
            if name in output:
                output[name].attrs["dcnum ppid background"] = self.get_ppid()
                output[name].attrs["dcnum ppid generation"] = DCNUM_PPID_GENERATION
        output.flush()
        self.image_proc.value = 1.0

    @abc.abstractmethod
    def process_approach(self) -> None:
        """Compute the background from `read_frames` or `input_data`, write it with `writer`, set `image_proc`."""


def complete_kwargs(cls: type[Background], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a background, with defaults for missing ones.

    Raises
    ------
    MethodError
        A keyword does not exist, or a required one is missing.
    """
    keywords = method_keywords(cls, "check_user_kwargs")
    kwargs_to_ppid(cls, "check_user_kwargs", kwargs)
    return {keyword.name: kwargs.get(keyword.name, keyword.default) for keyword in keywords}


def get_available_background_methods() -> dict[str, type[Background]]:
    """Return all background methods by their code: built-in, of installed packages, and other subclasses.

    A package provides its subclasses of `Background` as entry points of the group ``dcnumd.backgrounds``. Other
    subclasses that are defined in this process are included as well.

    Raises
    ------
    MethodError
        An entry point cannot be loaded or is not a subclass of `Background`.
    """
    return find_methods(ENTRY_POINT_GROUP, Background, BUILT_IN)  # type: ignore[type-abstract]  # a base, not made


def get_background(code: str) -> type[Background]:
    """Return the background method with the given code.

    Raises
    ------
    MethodError
        There is no such method; the message lists those that exist.
    """
    return get_method(code, "background", ENTRY_POINT_GROUP, Background, BUILT_IN)  # type: ignore[type-abstract]  # likewise

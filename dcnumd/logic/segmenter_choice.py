"""Choice of the segmenter for a measurement: the configured one, or its fallback."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import PipelineSettings
from dcnumd.meta.keywords import keyword_defaults
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segm_torch.model_file import find_model
from dcnumd.segm.segmenter import Segmenter, SegmenterNotApplicableError
from dcnumd.segm.segmenter_mpo import MPOSegmenter


class FallbackWarning(UserWarning):
    """A measurement is processed with another segmenter than the configured one."""


class SegmenterChoice(NamedTuple):
    """The segmenter for a measurement."""

    segmenter: type[MPOSegmenter]
    settings: PipelineSettings
    """Settings of the pipeline with this segmenter; its keywords are resolved, see `resolved_kwargs`."""
    not_applicable: tuple[str, ...]
    """Why the configured segmenter is not made for the measurement; empty if this is the configured one."""


def choose_segmenter(settings: PipelineSettings, data: HDF5Data) -> SegmenterChoice:
    """Return the segmenter for a measurement; warn if it is the fallback.

    Raises
    ------
    MethodError
        There is no such segmenter, or it has no such keyword, or its model cannot be found.
    MeasurementError
        Reason ``not_applicable``: no segmenter in the settings is made for the measurement.
    """
    segmenter = get_segmenter(settings.segmenter_code)
    kwargs = resolved_kwargs(segmenter, settings.segmenter_kwargs, settings.model_folders)
    settings = dataclasses.replace(settings, segmenter_kwargs=kwargs)
    if not _is_selective(segmenter):
        return SegmenterChoice(segmenter, settings, ())
    try:
        segmenter.validate_applicability(settings.segmenter_kwargs, meta=data.meta, logs=data.logs)
    except SegmenterNotApplicableError as error:
        other = settings.fallback
        if other is None:
            raise MeasurementError(f"{data.path}: {error.message}", "not_applicable") from error
        used = dataclasses.replace(
            settings,
            segmenter_code=other.code,
            segmenter_kwargs=other.kwargs,
            mask_kwargs=other.mask_kwargs,
            fallback=None,
        )
        choice = choose_segmenter(used, data)
        warnings.warn(f"{error.message}; {other.code!r} is used instead", FallbackWarning, stacklevel=2)
        return choice._replace(not_applicable=tuple(error.reasons_list))
    return SegmenterChoice(segmenter, settings, ())


def read_models(settings: PipelineSettings) -> None:
    """Read and check the models of all segmenters in the settings; what they say of themselves is remembered.

    Raises
    ------
    MethodError
        There is no such segmenter, or it has no such keyword, or its model cannot be used.
    """
    for chosen in settings.segmenters:
        segmenter = get_segmenter(chosen.code)
        segmenter.check_values(resolved_kwargs(segmenter, chosen.kwargs, settings.model_folders))


def resolved_kwargs(
    segmenter: type[MPOSegmenter], kwargs: Mapping[str, Any], folders: Sequence[pathlib.Path]
) -> dict[str, Any]:
    """Return the keywords of a segmenter with the paths of its files, and without those that are empty.

    A config cannot contain None, so an empty text stands for it where it is the default.

    Parameters
    ----------
    segmenter
        Class of the segmenter.
    kwargs
        The keywords from the config.
    folders
        Folders in which files are looked for that are given by name.

    Raises
    ------
    ModelError
        A file cannot be found.
    """
    empty = {name for name, value in keyword_defaults(segmenter, "segment_algorithm").items() if value is None}
    given = {name: value for name, value in kwargs.items() if value != "" or name not in empty}
    files = {name: given[name] for name in segmenter.file_keywords if isinstance(given.get(name), str)}
    return given | {name: os.fspath(find_model(file, folders)) for name, file in files.items()}


def _is_selective(segmenter: type[MPOSegmenter]) -> bool:
    """Return whether a segmenter may refuse a measurement; if not, its logs need not be read, which takes time."""
    return any("validate_applicability" in vars(kind) for kind in segmenter.__mro__ if kind is not Segmenter)

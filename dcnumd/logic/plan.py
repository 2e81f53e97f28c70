"""Plans: the settings of a job resolved for its input."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.feat.feat_background.base import Background, complete_kwargs, get_background
from dcnumd.feat.feat_background.bg_copy import BackgroundCopy
from dcnumd.feat.feat_background.bg_roll_median import BackgroundRollMed, check_rolling_median_kwargs
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed, check_sparse_median_kwargs
from dcnumd.feat.feat_background.flicker import resolve_offset_correction
from dcnumd.feat.feat_background.time_axis import time_axis, time_axis_ends, time_feature, wraps_around
from dcnumd.feat.gate import Gate
from dcnumd.logic.job import Job, PipelineSettings, SegmenterSpec
from dcnumd.logic.segmenter_choice import choose_segmenter, resolved_kwargs
from dcnumd.logic.tasks import FeatureSettings
from dcnumd.meta.keywords import check_section
from dcnumd.meta.ppid import DCNUM_PPID_GENERATION, PipelineID, feature_ppid, gate_ppid, get_data_ppid
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.frame_scalars import check_numbers
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.left_out import doing_without, warn_left_out
from dcnumd.read.trust import Trust, trusting
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segmenter_mpo import MPOSegmenter

MAX_BACKGROUND_BYTES = 2**31
"""Largest size of the background images of a measurement [bytes], which are kept in memory; enough for a day."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A job with its open input, its methods and its pipeline identifier."""

    job: Job
    """The job; its segmenter is the fallback if the configured one is not made for the input."""
    not_applicable: tuple[str, ...]
    """Why the configured segmenter is not made for the input; empty if it is used."""
    data: HDF5Data
    frames: FrameSource
    pipeline_id: PipelineID
    background: type[Background]
    background_kwargs: Mapping[str, Any]
    segmenter: type[MPOSegmenter]
    features: FeatureSettings
    gate: Gate
    recorded: list[warnings.WarningMessage]
    """Warnings so far, which are written to the log of the run."""

    @property
    def count(self) -> int:
        """Number of frames to process."""
        return self.frames.frame_count

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame [px]."""
        return self.frames.frame_shape


@contextlib.contextmanager
def open_plan(job: Job) -> Iterator[Plan]:
    """Open the input of a job and resolve its settings.

    Raises
    ------
    MeasurementError
        The input cannot be processed, or no configured segmenter is made for it.
    MethodError
        A method or one of its keywords does not exist.
    """
    with contextlib.ExitStack() as stack:
        trust = Trust(job.trusted_folders, job.trust_basins, job.interrupted)
        trust.require_input(job.path_in)
        stack.enter_context(trusting(trust))
        told = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        data = stack.enter_context(
            HDF5Data(
                job.path_in,
                pixel_size=job.settings.pixel_size,
                index_mapping=_plain(job.settings.index_mapping),
            )
        )
        images = data.check_frames()
        frames = FrameSource.of(images)
        _warn_of_faults(data)
        if data.interrupted:
            warnings.warn(f"{data.path}: the recording was interrupted after {data.stored_frames} frames", stacklevel=2)
        plan = resolve_plan(job, data, images, frames, [] if told is None else told)
        _check_background(plan)
        yield plan


def resolve_plan(
    job: Job, data: HDF5Data, images: ImageStack, frames: FrameSource, recorded: list[warnings.WarningMessage]
) -> Plan:
    """Resolve the settings of a job for its open input.

    Parameters
    ----------
    job
        The job.
    data
        The input.
    images, frames
        Its frames, and how workers read them.
    recorded
        Warnings so far.

    Raises
    ------
    MeasurementError
        The settings do not suit the input.
    MethodError
        A method or one of its keywords does not exist.
    """
    segmenter, settings, not_applicable = choose_segmenter(job.settings, data)
    background = get_background(settings.background_code)
    kwargs = _resolve_background(background, settings.background_kwargs, images)
    pipeline_id = PipelineID(
        generation=DCNUM_PPID_GENERATION,
        data=get_data_ppid(data.pixel_size, settings.index_mapping),
        **method_ids(settings, kwargs),
    )
    if has_background(data, pipeline_id):
        background = BackgroundCopy
    switches = {"brightness": True, "haralick": True, "volume": True, **settings.feature_kwargs}
    features = FeatureSettings(pixel_size=data.pixel_size, **switches)
    gate = Gate(data.meta, pixel_size=data.pixel_size, **settings.gate_kwargs)
    gate.check_features(features.names)
    return Plan(
        job=dataclasses.replace(job, settings=settings),
        not_applicable=not_applicable,
        data=data,
        frames=frames,
        pipeline_id=pipeline_id,
        background=background,
        background_kwargs=kwargs,
        segmenter=segmenter,
        features=features,
        gate=gate,
        recorded=recorded,
    )


def _check_background(plan: Plan) -> None:
    """Make sure that the background can be computed or copied."""
    data, background, kwargs = plan.data, plan.background, plan.background_kwargs
    _check_offset(data, background, kwargs)
    if background.get_ppid_code() == "sparsemed":
        _check_duration(data, plan.frames, float(kwargs.get("split_time", 1.0)))
    elif background.get_ppid_code() == "copy" and data.image_bg is not None:
        _check_fit(data, plan.frames, data.image_bg)


def _warn_of_faults(data: HDF5Data) -> None:
    """Warn of all parts of the input that cannot be copied."""
    # reading the names of features may add to `left_out`
    data.stored_names("events")
    for fault in data.left_out.values():
        warn_left_out(fault.message)
    for basin in data.basins:
        if basin.fault is not None:
            warn_left_out(basin.fault.message)


def has_background(data: HDF5Data, pipeline_id: PipelineID) -> bool:
    """Return whether the input is a result that already has the background of the pipeline, which is then kept.

    As in dcnum, the parts for generation, data and background are compared. dcnum fails when the images are in a basin,
    as those of sparsemed are; here they are kept as well.
    """
    return pipeline_id.is_stated_in(data.meta, "generation", "data", "background") and data.image_bg is not None


def method_ids(settings: PipelineSettings, background_kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of the pipeline identifier that do not depend on the input.

    Raises
    ------
    MethodError
        A method or one of its keywords does not exist.
    """
    segmenter_id = _segmenter_id("pipeline.segmenter", settings.segmenter, settings.model_folders)
    background = get_background(settings.background_code)
    check_section("pipeline.background", background, "check_user_kwargs", background_kwargs)
    _check_values(background, background_kwargs)
    return {
        "background": background.get_ppid_from_ppkw(background_kwargs),
        "segmenter": segmenter_id,
        "feature": feature_ppid(settings.feature_kwargs),
        "gate": gate_ppid(settings.gate_kwargs),
    }


def _segmenter_id(section: str, chosen: SegmenterSpec, folders: Sequence[pathlib.Path]) -> str:
    """Check the settings of a segmenter, which are in a section of the config, and return its identifier."""
    segmenter = get_segmenter(chosen.code)
    check_section(section, segmenter, "segment_algorithm", chosen.kwargs)
    if segmenter.mask_postprocessing:
        check_section(f"{section}.mask", segmenter, "process_labels", chosen.mask_kwargs)
    segmenter.check_settings(chosen.kwargs, chosen.mask_kwargs)
    segmenter.check_mask_values(chosen.mask_kwargs)
    kwargs = resolved_kwargs(segmenter, chosen.kwargs, folders)
    segmenter.check_values(kwargs)
    return segmenter.get_ppid_from_ppkw(kwargs, chosen.mask_kwargs)


def _check_values(background: type[Background], kwargs: Mapping[str, Any]) -> None:
    """Make sure that the keywords of built-in backgrounds are in range.

    Raises
    ------
    MethodError
        A value is out of range.
    """
    values = complete_kwargs(background, kwargs)
    if background is BackgroundSparseMed:
        del values["offset_correction"]
        check_sparse_median_kwargs(**values)
    elif background is BackgroundRollMed:
        check_rolling_median_kwargs(**values)


def configured_ids(settings: PipelineSettings) -> dict[str, str]:
    """Return `method_ids` without a measurement; "auto" for the offset correction then means true.

    Raises
    ------
    MethodError
        A method or one of its keywords does not exist.
    """
    kwargs = dict(settings.background_kwargs)
    if kwargs.get("offset_correction") == "auto":
        kwargs["offset_correction"] = True
    fallback_id(settings)
    return method_ids(settings, kwargs)


def fallback_id(settings: PipelineSettings) -> str | None:
    """Return the segmenter part of the pipeline identifier of measurements that the fallback segments.

    Returns
    -------
    identifier
        The part, or None if there is no fallback.

    Raises
    ------
    MethodError
        The segmenter or one of its keywords does not exist.
    """
    if settings.fallback is None:
        return None
    return _segmenter_id("pipeline.segmenter.fallback", settings.fallback, settings.model_folders)


def _plain(mapping: int | tuple[int, ...] | slice | None) -> int | list[int] | slice | None:
    return list(mapping) if isinstance(mapping, tuple) else mapping


def _resolve_background(
    background: type[Background], kwargs: Mapping[str, Any], images: ImageStack
) -> Mapping[str, Any]:
    """Replace ``offset_correction = "auto"`` by the outcome of the flicker check."""
    if kwargs.get("offset_correction") != "auto":
        return kwargs
    if background.get_ppid_code() != "sparsemed":
        raise MethodError(
            f"offset_correction = \"auto\" is for background 'sparsemed', not for {background.get_ppid_code()!r}"
        )
    correction = resolve_offset_correction("auto", lambda start, stop: images[start:stop], len(images))
    return {**kwargs, "offset_correction": correction}


def _check_offset(data: HDF5Data, background: type[Background], kwargs: Mapping[str, Any]) -> None:
    """Make sure that the background offset of the input is valid; if it is not needed, warn instead.

    Raises
    ------
    MeasurementError
        Reason ``damaged``, ``event_count`` or ``basin``.
    """
    is_replaced = background is BackgroundSparseMed and kwargs.get("offset_correction", True)
    if is_replaced and "events/bg_off" in data.left_out:
        return
    with doing_without() if is_replaced else contextlib.nullcontext():
        check_numbers(data, "bg_off")


def _check_fit(data: HDF5Data, frames: FrameSource, backgrounds: ImageStack) -> None:
    """Make sure that each frame has a background image of its shape.

    Raises
    ------
    MeasurementError
        Reason ``event_count`` or ``image_type``.
    """
    if backgrounds.shape[1:] != frames.frame_shape:
        raise MeasurementError(
            f"{data.path}: events/image_bg has images of {backgrounds.shape[1:]} pixels, but frames have "
            f"{frames.frame_shape}",
            "image_type",
        )
    if len(backgrounds) < frames.frame_count:
        raise MeasurementError(
            f"{data.path}: events/image_bg has {len(backgrounds)} images, but there are {frames.frame_count} frames",
            "event_count",
        )


def _check_duration(data: HDF5Data, frames: FrameSource, split_time: float) -> None:
    """Make sure that a background image every `split_time` seconds is possible.

    Raises
    ------
    MeasurementError
        Reason ``damaged``, ``input`` or ``too_large``.
    """
    used = time_feature(data)
    if used is not None:
        check_numbers(data, used)
    feature, first, last = time_axis_ends(data)
    if not math.isfinite(last - first):
        raise MeasurementError(f"{data.path}: {feature} goes from {first} to {last}, expected times", "damaged")
    # unsigned differences wrap around, as in dcnum
    seconds = float(time_axis(data)[-1]) if wraps_around(data) else last - first
    images = seconds / split_time
    too_many = images * math.prod(frames.frame_shape) > MAX_BACKGROUND_BYTES
    if too_many and last < first:
        raise MeasurementError(
            f"{data.path}: {feature} falls from {first:.15g} to {last:.15g}, expected times that rise; "
            "correct or remove it, then the times follow from the frame numbers and the frame rate",
            reason="input",
        )
    if too_many:
        raise MeasurementError(
            f"{data.path}: the measurement lasts {seconds:.4g} s by {feature}; that makes {images:.4g} background "
            f"images, which take more than {MAX_BACKGROUND_BYTES} bytes of memory",
            reason="too_large",
        )

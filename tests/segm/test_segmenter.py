"""What all segmenters have in common, for classes of other packages: the same class gives the same labels in dcnum."""

from __future__ import annotations

import gc
from typing import Any, ClassVar

import dcnum.segm
import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage

from dcnumd.errors import MethodError
from dcnumd.logic.job import PipelineSettings
from dcnumd.logic.plan import method_ids
from dcnumd.segm.methods import get_available_segmenters, get_segmenter
from dcnumd.segm.segm_thresh import SegmentThresh
from dcnumd.segm.segmenter import Segmenter
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.shared_memory.slot import ChunkSlotData
from tests.support.frames import Picture

EIGHT_CONNECTED = np.ones((3, 3))
PICTURES = np.array([Picture(60, 90, ("blobs",), seed=seed).mask for seed in range(4)])
PICTURES[:, 15:45, 25:60] = False
PICTURES[:, 20:38, 30:55] = True

KINDS = {
    "bool": lambda mask: mask,
    "0 and 255": lambda mask: (255 * mask).astype(np.uint8),
    "0 and 1": lambda mask: mask.astype(np.int64),
    "labels": lambda mask: scipy.ndimage.label(mask, EIGHT_CONNECTED)[0],
    "one label for all": lambda mask: 7 * mask.astype(np.int32),
    "negative": lambda mask: -mask.astype(np.int16),
    "65536": lambda mask: 65536 * mask.astype(np.int32),
    "probability": lambda mask: np.where(mask, 0.3, 0),
    "nan": lambda mask: np.where(mask, np.nan, 0),
    "with a first axis": lambda mask: mask[np.newaxis],
}
"""What algorithms return, made of a mask."""


def segmenter_class(base: type, kind: str, **attributes: Any) -> type:
    """Return a segmenter that finds what is dark and says so in one of `KINDS`, derived from dcnum's base or ours."""

    def segment_algorithm(image, *, thresh: float = 100):
        return KINDS[kind](image < thresh)

    return type("SegmentTheirs", (base,), {"segment_algorithm": staticmethod(segment_algorithm), **attributes})


def dcnum_labels(segmenter: Any, images: np.ndarray) -> np.ndarray:
    """Return the labels of frames in dcnum's pipeline: masks are cast to bool, labelled as uint16 and processed."""
    labels = np.zeros(images.shape, np.uint16)
    with segmenter:
        for index, mask in enumerate(segmenter.segment_batch(images)):
            labels[index], _ = scipy.ndimage.label(mask, EIGHT_CONNECTED)
            if segmenter.mask_postprocessing:
                labels[index] = segmenter.process_labels(labels[index], **segmenter.kwargs_mask)
    return labels


def our_labels(segmenter: MPOSegmenter, images: np.ndarray) -> np.ndarray:
    """Return the labels of frames in our pipeline."""
    slot = ChunkSlotData(images.shape)
    slot.image[:] = images
    segmenter.label_batch(slot, 0, len(images), np.zeros_like(images[:1]), np.zeros(len(images), np.int64))
    return slot.labels.copy()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"mask_postprocessing": False},
        {"mask_default_kwargs": {"clear_border": True, "fill_holes": False, "closing_disk": 0}},
        {"mask_default_kwargs": {"closing_disk": None}},
        {"mask_default_kwargs": {"closing_disk": False, "clear_border": False}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_any_kind_are_labelled_as_in_dcnum(kind: str, attributes: dict[str, Any]) -> None:
    """Numbers of any type, labels too, count as a mask, which is labelled and by default post-processed."""
    images = np.where(PICTURES, 50, 150).astype(np.uint8)
    ours = segmenter_class(MPOSegmenter, kind, **attributes)(debug=True)
    theirs = segmenter_class(dcnum.segm.MPOSegmenter, kind, **attributes)(debug=True)
    assert ours.get_ppid() == theirs.get_ppid()
    labels = our_labels(ours, images)
    assert labels.any()
    np.testing.assert_array_equal(labels, dcnum_labels(theirs, images))


def test_masks_are_post_processed_unless_a_class_says_otherwise() -> None:
    """An unchanged segmenter has the identifier that it has in dcnum since 0.21."""
    assert Segmenter.mask_postprocessing
    assert segmenter_class(MPOSegmenter, "bool").get_ppid_from_ppkw({}) == "theirs:t=100:cle=1^f=1^clo=5"


@pytest.mark.parametrize("disk", [0, 2, None, False, True])
@pytest.mark.parametrize("fill_holes", [True, False])
@pytest.mark.parametrize("clear_border", [True, False])
@pytest.mark.parametrize("kind", ["bool", "0 and 255", "0 and 1", "labels", "negative"])
def test_process_labels_takes_masks_and_labels(kind: str, clear_border: bool, fill_holes: bool, disk: int) -> None:
    """A boolean mask is labelled, numbers are labels as they stand; the array that is given stays as it is."""
    settings = {"clear_border": clear_border, "fill_holes": fill_holes, "closing_disk": disk}
    for picture in PICTURES:
        given = KINDS[kind](picture)
        before = given.copy()
        expected = dcnum.segm.Segmenter.process_labels(given.copy(), **settings).astype(np.uint16)
        labels = SegmentThresh.process_labels(given, **settings)
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(given, before)


def test_process_labels_knows_more_labels_than_numbers() -> None:
    """What touches the border is told by numbers that are not cut to 16 bits."""
    mask = np.zeros((540, 540), bool)
    mask[::2, ::2] = True
    for given in (mask, scipy.ndimage.label(mask, EIGHT_CONNECTED)[0]):
        for fill_holes in (False, True):
            settings = {"clear_border": True, "fill_holes": fill_holes, "closing_disk": None}
            expected = dcnum.segm.Segmenter.process_labels(given.copy(), **settings)
            assert expected.max() > 65535
            np.testing.assert_array_equal(Segmenter.process_labels(given, **settings), expected.astype(np.uint16))


class SegmentNoMask(MPOSegmenter):
    """Wants no mask post-processing."""

    mask_postprocessing = False

    @staticmethod
    def segment_algorithm(image, *, thresh: float = -6):
        return image < thresh


@pytest.mark.parametrize("disk", ["0", "3", "None"])
@pytest.mark.parametrize("ppid", ["thresh:t=-3:cle=1^f=0^clo={}", "theirs:t=1.5:cle=0^f=1^clo={}", "nomask:t=-4"])
def test_identifiers_are_read_and_written_again(ppid: str, disk: str) -> None:
    """Identifier to keywords and back is the same, also where the mask's keywords are among the others."""
    theirs = segmenter_class(MPOSegmenter, "bool")
    ppid = ppid.format(disk)
    keywords = Segmenter.get_ppkw_from_ppid(ppid)
    segmenter = get_segmenter(ppid.partition(":")[0])
    assert segmenter.get_ppid_from_ppkw(keywords) == ppid
    assert segmenter(**keywords).get_ppid() == ppid
    assert theirs.get_ppkw_from_ppid(ppid) == keywords, "any class reads all identifiers, as in dcnum"


def test_mask_keywords_within_the_others() -> None:
    """They come in either way; the explicit ones count, and what only the constructor needs is no part of it."""
    dcnum_thresh = dcnum.segm.segm_thresh.SegmentThresh
    for given in (
        ({"kwargs_mask": {"closing_disk": 3}},),
        ({"thresh": -3, "kwargs_mask": {}},),
        ({"kwargs_mask": {"closing_disk": 3}}, {"fill_holes": False}),
        ({"debug": True, "kwargs_mask": {"closing_disk": None}},),
    ):
        assert SegmentThresh.get_ppid_from_ppkw(*given) == dcnum_thresh.get_ppid_from_ppkw(*given)
    assert SegmentThresh.get_ppid_from_ppkw({"num_workers": 3}) == "thresh:t=-6:cle=1^f=1^clo=2"
    with pytest.raises(MethodError, match="no keyword 'closing' for process_labels"):
        SegmentThresh.get_ppid_from_ppkw({"kwargs_mask": {"closing": 3}})
    with pytest.raises(ValueError, match="does not support mask postprocessing"):
        SegmentNoMask.get_ppid_from_ppkw({"kwargs_mask": {"closing_disk": 3}})
    with pytest.raises(MethodError, match="unknown segmenter 'thesh'"):
        Segmenter.get_ppkw_from_ppid("thesh:t=-6")


@pytest.mark.parametrize("disk", [None, False])
def test_no_opening_in_a_configuration(disk: bool | None) -> None:
    """None and False are settings like any other, with dcnum's identifiers."""
    settings = PipelineSettings(mask_kwargs={"closing_disk": disk})
    expected = dcnum.segm.segm_thresh.SegmentThresh(kwargs_mask={"closing_disk": disk}).get_ppid()
    assert method_ids(settings, {})["segmenter"] == expected


def test_negative_radius_is_refused_before_anything_is_computed() -> None:
    """As the configuration is read; who has post-processing of their own decides what a keyword may be."""
    with pytest.raises(MethodError, match=r"'thresh': closing_disk is -1, expected a whole number of pixels"):
        method_ids(PipelineSettings(mask_kwargs={"closing_disk": -1}), {})

    class SegmentShrinking(SegmentThresh):
        @staticmethod
        def process_labels(labels: npt.NDArray[Any], *, closing_disk: int = -1) -> npt.NDArray[np.uint16]:
            return labels[closing_disk:].astype(np.uint16)

    SegmentShrinking.check_mask_values({})


def test_kwargs_hold_the_defaults() -> None:
    """What was not given is there, too."""
    assert SegmentThresh().kwargs == {"thresh": -6}
    assert SegmentThresh(thresh=-3).kwargs == {"thresh": -3}
    assert SegmentThresh(kwargs_mask={"closing_disk": 0}).kwargs_mask == {
        "clear_border": True,
        "fill_holes": True,
        "closing_disk": 0,
    }


def test_offsets_are_for_background_corrected_images() -> None:
    """A background offset means nothing to a segmenter of raw images."""
    images = np.zeros((2, 5, 6), np.uint8)
    segmenter = SegmentNoMask()
    with pytest.raises(ValueError, match="'nomask' does not employ background correction"):
        segmenter.segment_batch(images, np.zeros(2))
    with pytest.raises(ValueError, match="does not employ background correction"):
        segmenter.segment_single(images[0], 1.5)


def test_defined_classes_are_found() -> None:
    """A class needs no entry point, at whatever depth it is derived; the last of a name counts, no abstract one."""

    class SegmentDefined(MPOSegmenter):
        pass

    assert "defined" not in get_available_segmenters(), "it has no algorithm"

    def define(level: int) -> type[MPOSegmenter]:
        class SegmentDefined(SegmentNoMask):
            here: ClassVar[int] = level

            @staticmethod
            def is_available() -> bool:
                return level < 3

        return SegmentDefined

    first, second = define(1), define(2)
    assert first is not second
    assert get_available_segmenters()["defined"] is second
    assert get_segmenter("defined") is second
    third = define(3)
    assert "defined" not in get_available_segmenters()
    with pytest.raises(
        MethodError,
        match=r"'defined' cannot be used, because this computer lacks something that it needs; available are .*thresh",
    ):
        get_segmenter("defined")
    del first, second, third, define, SegmentDefined
    gc.collect()


def test_nobody_takes_the_place_of_a_built_in_segmenter() -> None:
    """A class of the same name is not what configurations mean by it."""
    impostor = type("SegmentThresh", (SegmentNoMask,), {})
    assert impostor.get_ppid_code() == "thresh"
    assert get_segmenter("thresh") is SegmentThresh
    assert get_available_segmenters()["thresh"] is SegmentThresh

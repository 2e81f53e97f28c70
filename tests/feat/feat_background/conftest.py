"""Small measurements, and dcnum's backgrounds of them."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import threading
import warnings
from collections.abc import Callable
from typing import Any

import dcnum.feat.feat_background.bg_roll_median as dcnum_rollmed
import dcnum.feat.feat_background.bg_sparse_median as dcnum_sparsemed
import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest

FRAME_RATE = 3000.0


@dataclasses.dataclass(frozen=True)
class Stored:
    """The background in a file: images of all frames, offsets, and the attributes of the stored images."""

    image_bg: npt.NDArray[np.uint8]
    bg_off: npt.NDArray[np.float64] | None
    attributes: dict[str, Any]
    offset_attributes: dict[str, Any]


def draw_frames(count: int, shape: tuple[int, int], seed: int, flicker: float = 0.0) -> npt.NDArray[np.uint8]:
    """Return noisy frames with a bright background that drifts, and dark blobs that stay for some frames."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    frames = np.empty((count, *shape), np.uint8)
    blob = np.zeros(shape)
    for i in range(count):
        if i % 7 == 0:
            centre = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
            radius = np.hypot(rows - centre[0], columns - centre[1])
            blob = -60 * (radius < rng.uniform(1, 8))
        light = 150 + 10 * np.sin(columns / 40) + 0.02 * i + flicker * rng.choice([0, 0, 1])
        frames[i] = np.clip(light + blob + rng.normal(0, 2, shape), 0, 255)
    return frames


@pytest.fixture(autouse=True)
def threads_of_dcnum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let dcnum's workers be threads: processes would have to import dcnum before they compute a median."""

    def start(worker: Any) -> None:
        worker.thread = threading.Thread(target=worker.run)
        worker.thread.start()

    for workers in (dcnum_rollmed.WorkerRollMed, dcnum_sparsemed.WorkerSparseMed):
        monkeypatch.setattr(workers, "start", start)
        monkeypatch.setattr(workers, "join", lambda worker: worker.thread.join())


@pytest.fixture(scope="module")
def make_measurement(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pathlib.Path]:
    """Return a function that writes a measurement and returns its path."""
    folder = tmp_path_factory.mktemp("measurements")

    def make(
        count: int,
        shape: tuple[int, int] = (45, 100),
        seed: int = 0,
        flicker: float = 0.0,
        time: npt.NDArray[np.floating[Any]] | None = None,
        drop: tuple[str, ...] = (),
        **options: Any,
    ) -> pathlib.Path:
        path = folder / f"M{len(list(folder.iterdir())):03d}.rtdc"
        with h5py.File(path, "w") as h5:
            packed = options or {**hdf5plugin.Zstd(clevel=1), "fletcher32": True, "chunks": (min(16, count), *shape)}
            frames = draw_frames(count, shape, seed, flicker)
            h5.create_dataset("events/image", data=frames, **(packed if count else {}))
            h5["events/frame"] = np.arange(count, dtype=np.uint64) + 17
            h5["events/time"] = np.arange(count) / FRAME_RATE if time is None else time
            h5.attrs["experiment:event count"] = count
            h5.attrs["imaging:frame rate"] = FRAME_RATE
            h5.attrs["imaging:pixel size"] = 0.34
            for name in drop:
                del (h5 if name.startswith("events") else h5.attrs)[name]
        return path

    return make


def read_background(path: pathlib.Path) -> Stored:
    """Read a background with nothing but h5py."""
    with h5py.File(path, "r") as h5:
        events = h5["events"]
        if "image_bg" in events:
            stored = events["image_bg"]
            images = stored[:]
        else:
            stored = h5["basin_events/image_bg"]
            (mapping,) = (name for name in events if name.startswith("basinmap"))
            images = stored[:][events[mapping][:]]
        offset = events.get("bg_off")
        return Stored(
            images,
            None if offset is None else offset[:],
            dict(stored.attrs),
            {} if offset is None else dict(offset.attrs),
        )


def compute(background: type, source: pathlib.Path, folder: pathlib.Path, **kwargs: Any) -> Stored:
    """Compute a background in place in a copy of a measurement, and read it."""
    folder.mkdir(exist_ok=True)
    path = pathlib.Path(shutil.copy(source, folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dcnum's
        with background(path, path, num_cpus=1, **kwargs) as computation:
            computation.process()
    return read_background(path)


@pytest.fixture
def assert_equals_dcnum(tmp_path: pathlib.Path) -> Callable[..., Stored]:
    """Return a function that computes a background with dcnum and with dcnumd and compares what is stored."""

    def check(ours: type, theirs: type, source: pathlib.Path, **kwargs: Any) -> Stored:
        expected = compute(theirs, source, tmp_path / "dcnum", **kwargs)
        got = compute(ours, source, tmp_path / "dcnumd", **kwargs)
        np.testing.assert_array_equal(got.image_bg, expected.image_bg)
        assert (got.bg_off is None) == (expected.bg_off is None)
        if expected.bg_off is not None and got.bg_off is not None:
            np.testing.assert_array_equal(got.bg_off, expected.bg_off)
        assert got.attributes == expected.attributes
        assert got.offset_attributes == expected.offset_attributes
        return got

    return check

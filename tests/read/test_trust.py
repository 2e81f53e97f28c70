"""A measurement leads to other files only where measurements are expected."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import h5py
import numpy as np
import pytest

from dcnumd.daemon.measurements.probe import inspect_file
from dcnumd.errors import MeasurementError
from dcnumd.logic.inspect import inspect_measurement
from dcnumd.logic.job import Job
from dcnumd.logic.process import process_measurement
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.trust import Trust, trusting
from tests.support.observed import Observed

COUNT = 43


@pytest.fixture
def places(tmp_path, write_measurement, frames):
    """Return a trusted folder, another one, and a folder that is nobody's business; each has ``base.rtdc``."""
    folders = [tmp_path / name for name in ("trusted", "results", "outside")]
    base = write_measurement(frames, name="base.rtdc", features={"time": np.arange(43.0), "temp": np.arange(43) / 7})
    with h5py.File(base, "a") as h5:
        h5["logs/one"] = np.array([b"line"])
        h5["tables/one"] = np.array([(1, 2.0)], dtype="i4,f8")
        h5["texts/x"] = h5["logs/one"]
        h5["whole"] = h5py.SoftLink("/events/image")
    for folder in folders:
        folder.mkdir()
        shutil.copy(base, folder / "base.rtdc")
    return folders


@pytest.fixture
def outside(places):
    """Return an observer of the folder outside."""
    with contextlib.closing(Observed(places[2])) as observed:
        yield observed


def new_file(path, frames=None, **links):
    """Write a measurement with links in place of data."""
    with h5py.File(path, "w") as h5:
        h5.attrs["imaging:pixel size"] = 0.34
        if frames is not None:
            h5["events/image"] = frames
        for name, link in links.items():
            h5[name.replace("__", "/")] = link
    return path


def look_at_all(path, places, *, basins=False):
    """Read all that the pipeline may read, under the rules of a daemon."""
    with trusting(Trust(tuple(places[:2]), basins)), HDF5Data(path) as data:
        image = data.check_frames()[:]
        features = {name: data[name] for name in data.features_scalar_frame}
        return image, features, data.logs, data.tables


def assert_refused(path, places, outside, **kwargs):
    """Make sure that the file ends with the reason ``outside``, and that nothing there was opened."""
    outside.names()
    with pytest.raises(MeasurementError) as caught:
        look_at_all(path, places, **kwargs)
    assert caught.value.reason == "outside", caught.value
    assert not caught.value.transient
    with pytest.raises(MeasurementError) as caught:
        process_measurement(
            Job(path, path.with_name("out.rtdc"), trusted_folders=tuple(places[:2]), trust_basins=False)
        )
    assert caught.value.reason == "outside", caught.value
    assert not outside.names()


def target(places, number, relative):
    name = places[number] / "base.rtdc"
    return os.path.relpath(name, places[0]) if relative else str(name)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("number", [0, 1])
def test_links_to_trusted_folders_are_followed(places, frames, number, relative):
    """What lies in a watched or an output folder is read, as HDF5 would."""
    file = target(places, number, relative)
    path = new_file(
        places[0] / "link.rtdc",
        events__image=h5py.ExternalLink(file, "/whole"),
        events__time=h5py.ExternalLink(file, "events/time"),
        logs=h5py.ExternalLink(file, "logs"),
        tables=h5py.ExternalLink(file, "tables"),
    )
    image, features, logs, tables = look_at_all(path, places)
    assert np.array_equal(image, frames)
    assert features["time"].tolist() == list(range(COUNT))
    assert (logs, list(tables)) == ({"one": ["line"]}, ["one"])


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(
    "links",
    [
        {"events__image": "events/image"},
        {"events": "events"},
        {"events__time": "events/time"},
        {"events__temp": "events/temp"},
        {"logs": "logs"},
        {"logs__x": "logs/one"},
        {"tables__x": "tables/one"},
        {"tables": "tables"},
        {"basins": "texts"},
        {"basins__x": "logs/one"},
    ],
)
def test_links_to_elsewhere_are_refused(places, outside, frames, links, relative):
    """Whatever part of a measurement is elsewhere, the file there is not even opened."""
    own = None if {"events", "events__image"} & set(links) else frames
    file = target(places, 2, relative)
    path = new_file(
        places[0] / "link.rtdc", own, **{name: h5py.ExternalLink(file, item) for name, item in links.items()}
    )
    assert_refused(path, places, outside)


def test_links_by_way_of_others_are_refused(places, outside, frames):
    """Soft links through external ones, and external ones in files that may be read, are followed before HDF5 does."""
    soft = new_file(
        places[0] / "soft.rtdc",
        other=h5py.ExternalLink(str(places[2] / "base.rtdc"), "/"),
        events__image=h5py.SoftLink("/other/events/image"),
    )
    assert_refused(soft, places, outside)
    chain = new_file(places[0] / "chain.rtdc", events__image=h5py.ExternalLink("soft.rtdc", "events/image"))
    assert_refused(chain, places, outside)


def test_symbolic_links_do_not_lead_out(places, outside, frames):
    """Names in a trusted folder are judged by where they really lead."""
    (places[0] / "here").symlink_to(places[2])
    (places[0] / "file.rtdc").symlink_to(places[2] / "base.rtdc")
    for number, file in enumerate(["here/base.rtdc", "file.rtdc", "../trusted/here/../outside/base.rtdc"]):
        path = new_file(places[0] / f"{number}.rtdc", events__image=h5py.ExternalLink(file, "events/image"))
        assert_refused(path, places, outside)


def test_trusted_folder_may_be_a_symbolic_link(places, tmp_path, frames):
    """The operator's own links are followed."""
    (tmp_path / "data").symlink_to(places[0])
    named = [tmp_path / "data", places[1]]
    for number, file in enumerate([tmp_path / "data/base.rtdc", places[0] / "base.rtdc", "base.rtdc"]):
        link = h5py.ExternalLink(str(file), "events/image")
        path = new_file(tmp_path / "data" / f"{number}.rtdc", events__image=link)
        assert np.array_equal(look_at_all(path, named)[0], frames)


@pytest.mark.parametrize("number", [0, 2])
def test_external_storage(places, outside, number):
    """Bytes of any file can be made to look like frames."""
    raw = places[number] / "raw.bin"
    raw.write_bytes(bytes(range(200)) * 3)
    path = new_file(places[0] / "raw.rtdc")
    with h5py.File(path, "a") as h5:
        h5.create_dataset("events/image", (3, 10, 20), "u1", external=[(str(raw), 0, 600)])
    if number:
        assert_refused(path, places, outside)
    else:
        assert look_at_all(path, places)[0][2, 9].tolist() == list(range(180, 200))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_virtual_dataset(places, outside, frames, number):
    """Frames that are put together from other files are judged by these, also in the second place."""
    layout = h5py.VirtualLayout((COUNT, 80, 250), "u1")
    layout[:] = h5py.VirtualSource(str(places[number] / "base.rtdc"), "whole", shape=(COUNT, 80, 250))
    path = new_file(places[0] / "virtual.rtdc")
    second = h5py.VirtualLayout((COUNT, 80, 250), "u1")
    second[:] = h5py.VirtualSource("virtual.rtdc", "events/image", shape=(COUNT, 80, 250))
    with h5py.File(path, "a") as h5:
        h5.create_virtual_dataset("events/image", layout)
    with h5py.File(places[0] / "second.rtdc", "w") as h5:
        h5.create_virtual_dataset("events/image", second)
    for name in ("virtual.rtdc", "second.rtdc"):
        if number == 2:
            assert_refused(places[0] / name, places, outside)
        else:
            assert np.array_equal(look_at_all(places[0] / name, places)[0], frames)


def test_virtual_dataset_with_numbered_sources_is_refused(places, outside):
    """Names that HDF5 makes up later cannot be judged."""
    space = h5py.h5s.create_simple((COUNT, 80, 250), (h5py.h5s.UNLIMITED, 80, 250))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (COUNT, 80, 250), (COUNT, 80, 250))
    source = h5py.h5s.create_simple((COUNT, 80, 250))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_virtual(space, b"base%b.rtdc", b"events/image", source)
    path = new_file(places[0] / "virtual.rtdc")
    with h5py.File(path, "a") as h5:
        space.select_all()
        h5py.h5d.create(h5.create_group("events").id, b"image", h5py.h5t.STD_U8LE, space, properties)
    assert_refused(path, places, outside)


def add_basin(path, **definition):
    with h5py.File(path, "a") as h5:
        h5["basins/x"] = np.array([json.dumps({"type": "file", **definition}).encode()])
    return path


@pytest.mark.parametrize(
    "definition", [{"features": ["image"]}, {"features": ["temp"]}, {}, {"features": ["image"], "mapping": "map"}]
)
@pytest.mark.parametrize("relative", [True, False])
def test_basins_elsewhere_are_refused(places, outside, frames, definition, relative):
    """A basin outside is an error where it may matter, and is not opened; unless the operator allows it."""
    own = frames if definition.get("features") == ["temp"] else None
    path = new_file(places[0] / "basin.rtdc", own, events__map=np.arange(COUNT))
    add_basin(path, paths=[target(places, 2, relative)], **definition)
    assert_refused(path, places, outside)
    assert np.array_equal(look_at_all(path, places, basins=True)[0], frames)


def test_basin_takes_the_candidate_that_may_be_read(places, outside, frames):
    """A result names its measurement twice; the path from another computer is passed over unseen."""
    path = add_basin(new_file(places[0] / "basin.rtdc"), paths=[target(places, 2, False), "base.rtdc"])
    assert np.array_equal(look_at_all(path, places)[0], frames)
    assert not outside.names()


def test_basin_of_a_basin_is_judged(places, outside, frames):
    """Files that may be read lead no further than the measurement itself."""
    add_basin(new_file(places[0] / "middle.rtdc"), paths=[target(places, 2, False)], features=["image"])
    path = add_basin(new_file(places[0] / "first.rtdc"), paths=["middle.rtdc"], features=["image"])
    assert_refused(path, places, outside)
    new_file(places[0] / "linked.rtdc", events__image=h5py.ExternalLink(target(places, 2, False), "events/image"))
    path = add_basin(new_file(places[0] / "other.rtdc"), paths=["linked.rtdc"], features=["image"])
    assert_refused(path, places, outside)


def test_internal_basin_is_judged(places, outside, frames):
    """The group of an internal basin may be a link, too."""
    path = new_file(places[0] / "a.rtdc", frames, basin_events=h5py.ExternalLink(target(places, 2, False), "events"))
    add_basin(path, type="internal", paths=["basin_events"], features=["temp"])
    assert_refused(path, places, outside)


def test_measurement_that_is_a_link_itself_is_judged(places, outside):
    """A link that took the place of a file since it was found leads nowhere else, either."""
    inside, path = places[0] / "inside.rtdc", places[0] / "link.rtdc"
    inside.symlink_to("base.rtdc")
    path.symlink_to(places[2] / "base.rtdc")
    jobs = [Job(file, places[0] / "out.rtdc", trusted_folders=tuple(places[:2])) for file in (inside, path)]
    assert inspect_file(jobs[0]).verdict == "complete"
    for judge in (inspect_file, process_measurement):
        with pytest.raises(MeasurementError, match=r"symbolic link leads to .*move or copy") as caught:
            judge(jobs[1])
        assert caught.value.reason == "outside"
    assert not outside.names()


@pytest.mark.parametrize("odd", ["a\0b", "x" * 5000, "", ".", "\n", "loop", "pipe"])
def test_odd_basin_paths_are_passed_over(places, frames, odd):
    """Names that cannot be files, or are none, are no reason to stop or to wait."""
    (places[0] / "loop").symlink_to("loop")
    os.mkfifo(places[0] / "pipe")
    path = add_basin(new_file(places[0] / "basin.rtdc"), paths=[odd, "base.rtdc"])
    assert np.array_equal(look_at_all(path, places)[0], frames)


def test_without_a_daemon_all_links_are_followed(places, frames):
    """Whoever names a file on the command line trusts it."""
    file = str(places[2] / "base.rtdc")
    path = new_file(places[0] / "link.rtdc", events__image=h5py.ExternalLink(file, "events/image"))
    assert inspect_measurement(Job(path, places[0] / "out.rtdc")).frames == COUNT


def test_links_without_end_are_damage(places):
    """Links that lead to each other are not followed for ever."""
    path = new_file(
        places[0] / "circle.rtdc", events__image=h5py.SoftLink("/events/x"), events__x=h5py.SoftLink("/events/image")
    )
    with pytest.raises(MeasurementError) as caught:
        look_at_all(path, places)
    assert caught.value.reason == "damaged"


def test_link_to_nothing_is_damage(places):
    """HDF5 would look for the file in other places."""
    link = h5py.ExternalLink("nothing.rtdc", "events/image")
    with pytest.raises(MeasurementError) as caught:
        look_at_all(new_file(places[0] / "a.rtdc", events__image=link), places)
    assert caught.value.reason == "damaged"

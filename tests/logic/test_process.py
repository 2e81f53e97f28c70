"""Whole jobs: persistent workers, faults in the middle, and what must never be left behind."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import os
import pathlib
import shutil
import signal
import threading
import warnings

import dclab
import h5py
import hdf5plugin  # noqa: F401 -- registers the Zstandard filter
import numpy as np
import psutil
import pytest
from dclab.rtdc_dataset import check as dclab_check

from dcnumd.errors import JobCancelledError, MeasurementError, MethodError, ResultError
from dcnumd.logic.inspect import inspect_measurement
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.report.processing import read_run
from dcnumd.segm.session import SegmentTask
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

pytestmark = pytest.mark.slow

SMALL = MeasurementSpec(size=(45, 100), frames=420, seed=3)
OTHER = MeasurementSpec(size=(80, 320), frames=260, seed=4)


@pytest.fixture(scope="module", autouse=True)
def stop_workers():
    """End the engine's workers after the last test of this module."""
    yield
    engine.close()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return two simulated measurements of different frame shape."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = folder / "small.rtdc", folder / "other.rtdc"
    for path, spec in zip(paths, (SMALL, OTHER), strict=True):
        write_measurement(path, spec)
    return paths


def job_for(path, folder, **changes):
    """Return a job with two workers whose result lies in `folder`."""
    settings = {"num_workers": 2, "basin_strategy": "drain", **changes}
    return Job(path, folder / f"{path.stem}_dcn.rtdc", **settings)


@pytest.fixture(scope="module")
def usual(recordings, tmp_path_factory):
    """Return what came of both measurements; nobody changes the results."""
    folder = tmp_path_factory.mktemp("usual")
    return [process_measurement(job_for(path, folder)) for path in recordings]


def read_events(path):
    """Return all datasets of a result's events."""
    with h5py.File(path, locking=False) as h5:
        return {name: dataset[:] for name, dataset in h5["events"].items()}


def assert_same_events(path, other):
    """Compare two results bit by bit."""
    one, two = read_events(path), read_events(other)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_workers_and_memory_stay_across_files_of_different_shape(recordings, tmp_path):
    """Six measurements with frames of two shapes: the same processes, the same shared memory."""
    pids, descriptors, sizes = set(), set(), []
    for number in range(6):
        path = recordings[number % 2]
        result = process_measurement(job_for(path, tmp_path / str(number)))
        assert result.events > 0
        pids.add(result.worker_pids)
        register = engine.pipeline(2).register
        descriptors.add(tuple(slot.handle.descriptor for slot in register.slots))
        sizes.append(register.slots[0].handle.size)
    assert len(pids) == 1
    assert len(descriptors) == 1
    assert len(set(sizes[1:])) == 1, "after the largest shape was seen, slots do not grow"


def test_worker_killed_in_the_middle_costs_nothing_but_time(recordings, usual, tmp_path):
    """SIGKILL to a worker while frames are processed: the result is that of an undisturbed run."""
    killed = []

    def kill_one(progress):
        if progress.stage == "segmentation" and not killed:
            killed.append(engine.pipeline(2).worker_pids[0])
            os.kill(killed[0], signal.SIGKILL)

    result = process_measurement(job_for(recordings[1], tmp_path), on_progress=kill_one)
    assert killed
    assert_same_events(usual[1].path_out, result.path_out)


def test_workers_die_with_the_server_they_were_forked_from(recordings, usual, tmp_path):
    """SIGKILL to the server: none of its workers goes on in the slots of those that replace them."""
    workers = [psutil.Process(pid) for pid in engine.pipeline(2).worker_pids]
    (server,) = {worker.ppid() for worker in workers}
    killed = []

    def kill_server(progress):
        if progress.stage == "segmentation" and psutil.pid_exists(server) and not killed:
            killed.append(server)
            os.kill(server, signal.SIGKILL)
            psutil.wait_procs(workers, timeout=5)

    result = process_measurement(job_for(recordings[1], tmp_path), on_progress=kill_server)
    # nobody may care for the orphans, but none of them runs
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert_same_events(usual[1].path_out, result.path_out)


@pytest.mark.parametrize("chunk", [1, 7, 420])
def test_chunks_of_the_input_do_not_change_the_result(chunk, usual, tmp_path):
    """However the instrument stores its frames, the events are the same."""
    path = tmp_path / "chunked.rtdc"
    write_measurement(path, dataclasses.replace(SMALL, chunk=chunk, compression="gzip"))
    process_measurement(job_for(path, tmp_path))
    assert_same_events(usual[0].path_out, tmp_path / "chunked_dcn.rtdc")


@pytest.mark.parametrize("stage", ["background", "segmentation"])
def test_cancelled_job_leaves_nothing_and_the_next_one_runs(stage, recordings, tmp_path):
    """Whenever a job is stopped, no file is left, hidden or not; the engine goes on."""
    stop = threading.Event()
    job = job_for(recordings[0], tmp_path)

    def stop_at(progress):
        if progress.stage == stage:
            stop.set()

    with pytest.raises(JobCancelledError):
        process_measurement(job, on_progress=stop_at, cancel=stop.is_set)
    assert list(tmp_path.iterdir()) == []
    assert process_measurement(job).outcome == "done"


def test_input_that_changes_meanwhile_is_not_published(recordings, tmp_path):
    """A result of a file that somebody wrote to is thrown away, and the fault is one that may pass."""
    path = tmp_path / "growing.rtdc"
    path.write_bytes(recordings[0].read_bytes())

    def touch(_progress):
        with path.open("ab") as file:
            file.write(b"\0")

    with pytest.raises(MeasurementError, match="changed while it was processed") as caught:
        process_measurement(job_for(path, tmp_path / "out"), on_progress=touch)
    assert caught.value.transient
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("replaced", [True, False])
def test_input_that_is_moved_meanwhile_is_not_published(replaced, recordings, tmp_path):
    """Another file in its place is a change that may pass; no file at all is none."""
    path = tmp_path / "moved.rtdc"
    path.write_bytes(recordings[0].read_bytes())

    def move(_progress):
        if path.exists() and not (tmp_path / "elsewhere.rtdc").exists():
            path.rename(tmp_path / "elsewhere.rtdc")
            if replaced:
                path.write_bytes(recordings[1].read_bytes())

    with pytest.raises(MeasurementError) as caught:
        process_measurement(job_for(path, tmp_path / "out"), on_progress=move)
    assert (caught.value.reason, caught.value.transient) == (("changed", True) if replaced else ("vanished", False))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("again", ["dated", "copied"])
def test_input_with_the_same_content_is_no_change(again, recordings, tmp_path):
    """A new date, or another copy of the same file in its place, costs no attempt: the content is what counts."""
    path = tmp_path / "touched.rtdc"
    path.write_bytes(recordings[0].read_bytes())
    times = itertools.count(10**9)

    def touch(_progress):
        if again == "copied":
            (tmp_path / "copy.rtdc").write_bytes(recordings[0].read_bytes())
            (tmp_path / "copy.rtdc").replace(path)
        date = next(times)
        os.utime(path, (date, date))

    result = process_measurement(job_for(path, tmp_path / "out"), on_progress=touch)
    assert (result.outcome, next(times) > 10**9 + 1) == ("done", True)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_few_frames_are_processed(frames, tmp_path):
    """Where dcnum crashes, a short recording still gives a result; one frame is its own background."""
    path = tmp_path / "short.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=frames, density=3, seed=1))
    result = process_measurement(job_for(path, tmp_path))
    assert result.frames == frames
    with h5py.File(result.path_out, locking=False) as h5:
        assert h5.attrs["experiment:event count"] == result.events == len(h5["events/mask"])
        if frames == 1:
            assert result.events == 0, "nothing differs from its own background"


def test_measurement_without_cells_gives_a_result_without_events(tmp_path):
    """No event is a result, too: all features are there and empty, and dclab can read the metadata."""
    path = tmp_path / "empty.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=230, density=0, seed=1))
    result = process_measurement(job_for(path, tmp_path))
    assert result.events == 0
    with h5py.File(result.path_out, locking=False) as h5:
        assert h5["events/deform"].shape == (0,)
        assert h5["events/mask"].shape == (0, 45, 100)
        assert h5.attrs["pipeline:dcnum yield"] == 0


def test_existing_result_is_kept_replaced_or_refused(recordings, tmp_path):
    """`existing` decides; a file that is not ours is never taken for a result."""
    job = job_for(recordings[0], tmp_path)
    assert process_measurement(job).outcome == "done"
    before = job.path_out.stat().st_ino
    again = process_measurement(job)
    assert (again.outcome, again.reason) == ("skipped", "output_exists")
    assert job.path_out.stat().st_ino == before
    with pytest.raises(ResultError) as caught:
        process_measurement(job_for(recordings[0], tmp_path, existing="fail"))
    assert caught.value.reason == "output_exists"
    assert process_measurement(job_for(recordings[0], tmp_path, existing="replace")).outcome == "done"
    assert job.path_out.stat().st_ino != before
    assert (again.frames, again.events) == (SMALL.frames, len(read_events(job.path_out)["deform"]))


def spoil_hash(h5):
    h5.attrs["pipeline:dcnum hash"] = "0" * 32


def spoil_yield(h5):
    h5.attrs["pipeline:dcnum yield"] += 1


def spoil_count(h5):
    h5.attrs["experiment:event count"] += 1


def spoil_identifier(h5):
    h5.attrs["experiment:run identifier"] = "another " + h5.attrs["experiment:run identifier"]


def spoil_length(h5):
    h5["events/deform"].resize(len(h5["events/deform"]) - 1, axis=0)


def spoil_chunks(h5):
    # a chunk that was never written: HDF5 gives zeros
    values = h5["events/deform"]
    new = h5.create_dataset("new", values.shape, values.dtype, maxshape=(None,), chunks=values.chunks)
    del h5["events/deform"]
    h5["events/deform"] = new


@pytest.mark.parametrize("spoil", [spoil_hash, spoil_yield, spoil_count, spoil_identifier, spoil_length, spoil_chunks])
def test_existing_result_that_is_not_whole_is_not_taken_for_one(spoil, recordings, usual, tmp_path):
    """Whatever is wrong with the file in its place, it does not count as done, and is not touched."""
    job = job_for(recordings[0], tmp_path)
    shutil.copyfile(usual[0].path_out, job.path_out)
    assert process_measurement(job).reason == "output_exists"
    with h5py.File(job.path_out, "r+") as h5:
        spoil(h5)
    before = job.path_out.read_bytes()
    again = process_measurement(job)
    assert (again.outcome, again.reason) == ("skipped", "output_differs")
    assert job.path_out.read_bytes() == before


def test_whatever_has_the_name_of_the_result_stays(recordings, usual, tmp_path):
    """Text, a truncated result, a folder, a pipe, a broken link: nothing waits for it, and nothing harms it."""
    job = job_for(recordings[0], tmp_path)
    content = usual[0].path_out.read_bytes()
    makers = {
        "text": lambda path: path.write_text("not a measurement"),
        "half": lambda path: path.write_bytes(content[: len(content) // 2]),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
        "link": lambda path: path.symlink_to(tmp_path / "nowhere"),
    }
    for name, make in makers.items():
        path = tmp_path / f"{name}.rtdc"
        make(path)
        status = path.lstat()
        assert process_measurement(dataclasses.replace(job, path_out=path)).reason == "output_differs", name
        assert os.path.samestat(path.lstat(), status), name
    assert len(list(tmp_path.iterdir())) == len(makers)


def test_processed_input_is_not_computed_again(usual, tmp_path):
    """The result of a result of the same pipeline has the same events."""
    first = usual[0]
    second = process_measurement(job_for(first.path_out, tmp_path))
    assert second.reason == "already_processed"
    assert second.pphash == first.pphash
    assert_same_events(first.path_out, second.path_out)


@pytest.mark.parametrize("strategy", ["drain", "tap"])
def test_dclab_opens_the_result_and_has_nothing_to_object(strategy, recordings, tmp_path):
    """Images, masks and scalars are found by dclab, through basins, too."""
    result = process_measurement(job_for(recordings[1], tmp_path, basin_strategy=strategy))
    with dclab.new_dataset(result.path_out) as dataset, h5py.File(recordings[1], locking=False) as source:
        frames = dataset["basinmap0"][:] if "basinmap0" in dataset else read_events(result.path_out)["basinmap0"]
        np.testing.assert_array_equal(dataset["image"][3], source["events/image"][frames[3]])
        np.testing.assert_array_equal(dataset["time"][:], source["events/time"][:][frames])
        assert dataset["image_bg"][3].shape == (80, 320)
        assert dataset["mask"][3].any()
        assert len(dataset["deform"]) == result.events
    with warnings.catch_warnings():
        # the check does not follow basins and says so
        warnings.filterwarnings("ignore", message="Ignored basin")
        violations, alerts, _ = dclab_check.check_dataset(result.path_out)
    assert violations == []
    assert alerts == []


def test_dclab_finds_images_whatever_the_strings_are(recordings, tmp_path):
    """Date, time and instrument as fixed-length strings: dclab knows the measurement, and the result as its own."""
    path = tmp_path / "fixed.rtdc"
    path.write_bytes(recordings[0].read_bytes())
    with h5py.File(path, "a", locking=False) as h5:
        for key in ("experiment:date", "experiment:time", "setup:identifier"):
            h5.attrs[key] = np.bytes_(h5.attrs[key])
    result = process_measurement(job_for(path, tmp_path, basin_strategy="tap"))
    with dclab.new_dataset(result.path_out) as dataset, dclab.new_dataset(path) as source:
        identifier = source.get_measurement_identifier()
        assert dataset.get_measurement_identifier() == f"{identifier}_dcn-{result.pphash[:7]}"
        assert len(dataset["image"]) == len(dataset["time"]) == result.events


def test_logs_of_long_names_have_no_long_lines(recordings, tmp_path):
    """However long paths and warnings are, dclab has nothing to object; job and path can be read again."""
    folder = tmp_path.joinpath(*["Zellen µm 0123456789 " * 8] * 3, "x" * 200, os.fsdecode(b"\xff" * 40))
    folder.mkdir(parents=True)
    path = folder / "M001.rtdc"
    path.write_bytes(recordings[0].read_bytes())
    with h5py.File(os.fsencode(path), "a", locking=False) as h5:
        h5.attrs["setup:identifier"] = "RC-" + "ü" * 150
        h5.attrs["imaging:pixel size"] = 0.2
        h5["logs/cytoshot-acquisition"][1] = b"Device name: naiad 1.0"
    folders = (folder, tmp_path)
    job = job_for(path, folder / "out", basin_strategy="tap", trusted_folders=folders)
    result = process_measurement(job)
    (tmp_path / "short.rtdc").hardlink_to(result.path_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, alerts, _ = dclab_check.check_dataset(tmp_path / "short.rtdc")
    assert [alert for alert in alerts if "line length" in alert] == []
    with HDF5Data(tmp_path / "short.rtdc") as data:
        (lines,) = [lines for name, lines in data.logs.items() if name.startswith("dcnumd-job")]
        described = json.loads("\n".join(lines))
        assert described == json.loads("".join(lines))
        assert "".join(described["job"]["path_in"]) == str(path)
        assert ["".join(name) for name in described["job"]["trusted_folders"]] == [str(name) for name in folders]
        run = read_run(data.logs)
        assert (run.path_in, run.frames) == (str(path), 420)
        (log,) = [lines for name, lines in data.logs.items() if name.startswith("dcnumd-log")]
        assert "known camera fault" in "".join(log).replace("    ", "")


def link(name, to):
    """Make a symbolic link and the folder that it is in."""
    name.parent.mkdir(parents=True, exist_ok=True)
    to.mkdir(parents=True, exist_ok=True)
    name.symlink_to(os.path.relpath(to, name.parent))


@pytest.mark.parametrize("linked", ["srv/results", "srv/acq", "srv/acq/day", "srv", "M001.rtdc", "dots"])
def test_results_find_their_measurement_after_a_move(linked, recordings, tmp_path):
    """Wherever there are symbolic links, a tree that is moved as a whole keeps its images, in dclab and here."""
    tree, elsewhere = tmp_path / "a", tmp_path / "a" / "disk" / "very" / "deep"
    folder, results = tree / "srv" / "acq" / "day", tree / "srv" / "results" / "day"
    if linked.startswith("srv"):
        link(tree / linked, elsewhere / "there")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "M001.rtdc"
    if linked == "M001.rtdc":
        link(tree / "raw", elsewhere / "raw")
        (elsewhere / "raw" / "0001.rtdc").write_bytes(recordings[0].read_bytes())
        path.symlink_to(os.path.relpath(tree / "raw" / "0001.rtdc", folder))
    else:
        path.write_bytes(recordings[0].read_bytes())
    if linked == "dots":
        link(tree / "way" / "in", elsewhere / "way")
        results = tree / "way" / "in" / ".." / "results"
    result = process_measurement(job_for(path, results, basin_strategy="tap"))
    moved = tmp_path / "b" / result.path_out.relative_to(tree)
    tree.rename(tmp_path / "b")
    with dclab.new_dataset(moved) as dataset, h5py.File(recordings[0], locking=False) as source:
        frames = read_events(moved)["basinmap0"]
        np.testing.assert_array_equal(dataset["image"][3], source["events/image"][frames[3]])
        np.testing.assert_array_equal(dataset["time"][:], source["events/time"][:][frames])
    with HDF5Data(moved) as data:
        np.testing.assert_array_equal(data["image"][3], source_image(recordings[0], frames[3]))


def source_image(path, frame):
    with h5py.File(path, locking=False) as h5:
        return h5["events/image"][frame]


def test_inspection_tells_what_processing_will_say(recordings, usual, tmp_path):
    """The identifier is known before the work, from the same settings."""
    inspection, result = inspect_measurement(job_for(recordings[0], tmp_path)), usual[0]
    assert (inspection.ppid, inspection.pphash, inspection.frames) == (result.ppid, result.pphash, result.frames)


@pytest.mark.parametrize(("flicker", "expected"), [(0.0, "o=0"), (4.0, "o=1")])
def test_automatic_offset_correction_follows_the_flicker_check(flicker, expected, tmp_path):
    """Flicker switches the offset on, steady light switches it off; the identifier says which."""
    path = tmp_path / "auto.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=210, flicker=flicker, seed=2))
    settings = PipelineSettings(background_kwargs={"offset_correction": "auto"})
    assert expected in inspect_measurement(Job(path, tmp_path / "out.rtdc", settings)).ppid


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segmenter_code": "tresh"}, "unknown segmenter 'tresh'"),
        ({"background_code": "median"}, "median"),
        (
            {"segmenter_kwargs": {"threshold": 1}},
            "pipeline.segmenter.threshold: unknown key; did you mean pipeline.segmenter.thresh",
        ),
        ({"mask_kwargs": {"disk": 1}}, "pipeline.segmenter.mask.disk: unknown key; "),
        ({"background_kwargs": {"kernel": 3}}, "kernel"),
        ({"segmenter_kwargs": {"thresh": "dark"}}, "pipeline.segmenter.thresh: got 'dark'; a number is expected"),
        (
            {"segmenter_kwargs": {"num_workers": 3}},
            "pipeline.segmenter.num_workers: unknown key; allowed here are thresh",
        ),
        ({"mask_kwargs": {"clear_border": 3}}, "clear_border: got 3; true or false is expected"),
        ({"background_kwargs": {"kernel_size": True}}, "kernel_size: got True; a whole number is expected"),
    ],
)
def test_unknown_methods_and_keywords_are_named(settings, message, recordings, tmp_path):
    """A method error says what there is instead, before anything is written."""
    job = Job(recordings[0], tmp_path / "out.rtdc", PipelineSettings(**settings))
    with pytest.raises(MethodError, match=message):
        process_measurement(job)
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_text_are_processed(recordings, tmp_path):
    """A file name with bytes that are not UTF-8 does not stop the job or its logs."""
    path = tmp_path / os.fsdecode(b"Zellen \xff\xe4 ;.rtdc")
    path.write_bytes(recordings[0].read_bytes())
    result = process_measurement(job_for(path, tmp_path / "out", basin_strategy="tap"))
    with h5py.File(os.fsencode(result.path_out), locking=False) as h5:
        assert len(h5["events/mask"]) == result.events
        (log,) = [h5["logs"][name][:] for name in h5["logs"] if name.startswith("dcnumd-log")]
        assert b"\\udcff" in b"".join(log)


def test_nothing_of_a_file_stays_open_after_its_job(recordings, tmp_path):
    """Idle workers hold neither the measurement nor scratch files, so disks can be freed and unmounted."""
    kwargs = {"background_code": "rollmed", "background_kwargs": {"kernel_size": 20}}
    process_measurement(job_for(recordings[0], tmp_path, settings=PipelineSettings(**kwargs)))
    pipeline = engine.pipeline(2)
    pool = pipeline._segmenter.pool
    for index in range(2):
        # an answer to this comes after the workers have let go
        pool.submit(index, SegmentTask(0, 0, 0))
    pool.drain()
    for pid in pipeline.worker_pids:
        links = [str(link.readlink()) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        assert not [link for link in links if ".rtdc" in link]


def test_file_descriptors_do_not_add_up(recordings, tmp_path):
    """Job after job, also without the garbage collector, the process has no more open files than before."""
    folder = pathlib.Path("/proc/self/fd")
    process_measurement(job_for(recordings[0], tmp_path / "first"))
    gc.collect()
    gc.disable()
    try:
        counts = []
        for number in range(4):
            process_measurement(job_for(recordings[0], tmp_path / str(number)))
            inspect_measurement(job_for(recordings[0], tmp_path / str(number)))
            counts.append(len(list(folder.iterdir())))
    finally:
        gc.enable()
    assert max(counts[1:]) <= counts[0]

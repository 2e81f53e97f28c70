"""A daemon that segments with models: real models, real processes."""

from __future__ import annotations

import json
import pathlib

import h5py
import psutil
import pytest

from tests.support.daemon import Daemon
from tests.support.faults import published, result_of
from tests.support.models import G1, G2, needs_torch
from tests.support.usual import SETTINGS, table

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, needs_torch]


def recorded(folder: pathlib.Path, region: str) -> pathlib.Path:
    """Publish a measurement in a region of a wide chip."""
    hidden = published(folder.parent, f"{region}.part", seed=len(region))
    with h5py.File(hidden, "r+") as h5:
        h5.attrs.update({"setup:chip region": region, "setup:channel width": 30.0})
    return hidden.rename(folder / f"{region}.rtdc")


def with_torch(process: psutil.Process) -> set[int]:
    """Return which of a process and those below it have loaded torch."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        if any("libtorch" in file.path for file in one.memory_maps()):
            found.add(one.pid)
    return found


def test_folders_have_models_of_their_own(tmp_path, shared_model):
    """Each measurement is segmented with the model of its folder if it is made for it; only the workers load torch."""
    folders = [tmp_path / name for name in ("first", "second")]
    segmenter = "pipeline.segmenter.code = 'torchmpo'\npipeline.segmenter.model_file = '{}.dcnm'\n"
    tables = [
        table(folder, rescan=1.0, more=segmenter.format(model)) for folder, model in zip(folders, (G1, G2), strict=True)
    ]
    for folder in folders:
        folder.mkdir()
    models = {str(shared_model(model).parent) for model in (G1, G2)}
    config = tmp_path / "config.toml"
    config.write_text(
        f"{tables[0]}pipeline.segmenter.fallback = 'thresh'\n{tables[1]}"
        f"[state]\nfolder = '{tmp_path}/state'\n[models]\nfolders = {json.dumps(sorted(models))}\n{SETTINGS}"
    )
    made, other, refused = recorded(folders[0], "channel"), recorded(folders[0], "reservoir"), recorded(folders[1], "x")
    daemon = Daemon.start(config)
    try:
        ids = [daemon.wait_for("job.finished", path=str(path))["ppid"].split("|")[3] for path in (made, other)]
        assert ids == [f"torchmpo:m={G1}.dcnm:cle=1^f=1^clo=0", "thresh:t=-6:cle=1^f=1^clo=2"]
        settled = daemon.wait_for("file.settled", path=str(other))
        assert (settled["fallback"], settled["not_applicable"]) == (
            "thresh",
            ["only experiments in channel region supported"],
        )
        failed = daemon.wait_for("job.failed", path=str(refused))
        assert (failed["reason"], failed["will_retry"]) == ("not_applicable", False)
        for reason in ("must be a Rivercyte data file", "channel width must be 20 micrometers"):
            assert reason in failed["error"]
        workers = {event["pid"] for event in daemon.matching("worker.started", role="segmenter")}
        assert with_torch(psutil.Process(daemon.process.pid)) == workers
        assert daemon.stop() == 0
    finally:
        daemon.close()
    with h5py.File(result_of(made)) as h5:
        assert h5.attrs["pipeline:dcnum segmenter"] == ids[0]

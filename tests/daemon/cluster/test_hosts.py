"""Instrument, server and worker as three computers, in network namespaces: cables that are pulled."""

from __future__ import annotations

import pytest

from tests.soak.results import temporary_files
from tests.support.cluster import HURRIED, being_processed
from tests.support.faults import result_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.soak]


@pytest.fixture
def run_daemon(facility, start_daemon, write_config):
    """Return a function that starts a daemon on the instrument."""

    def run(**settings):
        config = write_config(facility.cluster.config(**settings))
        return start_daemon(config=config, environment=HURRIED, enter=facility.instrument.enter)

    return run


@pytest.fixture(scope="module")
def node(facility):
    """Return the computer of a worker of the same name."""
    host = facility.network.host("node")
    worker = facility.cluster.start_worker("node", host=host)
    yield host
    # It was cut off by the first test, and was ready again.
    assert len(worker.matching("worker.ready")) == 2
    assert worker.stop() == 0


def test_a_worker_that_was_cut_off_is_used_again(facility, node, run_daemon, long):
    """Its job counts as lost, but it goes on; when it is given the job again, there is nothing to do any more."""
    daemon = run_daemon()
    path = long("long")
    being_processed(path)
    facility.network.unplug(node)
    lost = daemon.wait_for("job.failed", path=str(path))
    assert (lost["reason"], lost["will_retry"]) == ("worker_lost", True)
    wait_until(result_of(path).exists)
    result = result_of(path).stat().st_ino
    facility.network.plug_in(node)
    skipped = daemon.wait_for("job.skipped", path=str(path))
    assert skipped["reason"] == "output_exists"
    assert result_of(path).stat().st_ino == result
    assert daemon.stop() == 0


def test_an_instrument_that_was_cut_off_loses_no_attempt(facility, node, run_daemon, long):
    """The job goes on, and the result is there when the cable is back."""
    daemon = run_daemon()
    path = long("long")
    being_processed(path)
    facility.network.unplug(facility.instrument)
    assert daemon.wait_for("job.returned")["reason"] == "executor_unreachable"
    daemon.wait_for("executor.unreachable")
    wait_until(result_of(path).exists)
    facility.network.plug_in(facility.instrument)
    daemon.wait_for("executor.recovered")
    daemon.wait_for("job.skipped", path=str(path), reason="output_exists")
    assert {event["attempt"] for event in daemon.matching("job.started")} == {1}
    assert not daemon.matching("job.failed")
    assert temporary_files([path.parent]) == []
    assert daemon.stop() == 0

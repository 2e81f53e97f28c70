"""How fast files grow, as the live page and the API tell it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from dcnumd.config.values import Settings
from dcnumd.daemon.live.growth import REST_SECONDS, Growth
from dcnumd.daemon.live.view import View
from dcnumd.daemon.measurements.counters import Counters
from tests.support.works import in_works

SETTINGS = Settings()
PATIENT = dataclasses.replace(SETTINGS, watch=dataclasses.replace(SETTINGS.watch, settle_seconds=30.0))


def test_rate_is_averaged_while_a_file_grows_and_ends_when_it_rests():
    """A single size has no rate; a file that is written in bursts has a steady one; one at rest has none at once."""
    growth = Growth()

    def rate(size, now):
        return growth.rates({"M1.rtdc": size}, now)["M1.rtdc"].bytes_per_second

    assert rate(1000, 0.0) is None
    assert rate(1000, 0.0) is None
    assert rate(3000, 1.0) == 2000.0
    assert rate(3000, 2.0) == 1000.0
    assert rate(5000, 2.5) == 1600.0
    assert rate(5000, 2.5 + REST_SECONDS) is not None
    assert rate(5000, 2.6 + REST_SECONDS) is None
    assert rate(9000, 4.6 + REST_SECONDS) == pytest.approx(8000 / (4.6 + REST_SECONDS), abs=0.1)
    assert growth.rates({"M2.rtdc": 1}, 9.0)["M2.rtdc"].bytes_per_second is None
    assert rate(9000, 9.1) is None, "a file that was gone meanwhile begins anew"


def test_file_that_is_written_again_has_no_negative_rate():
    growth = Growth()
    growth.rates({"M1.rtdc": 1000}, 0.0)
    assert growth.rates({"M1.rtdc": 10}, 1.0)["M1.rtdc"].bytes_per_second is None


@in_works(PATIENT, with_jobs=False)
async def test_file_that_settles_is_shown_without_a_rate(works, tmp_path):
    """While it grows it has one; once it rests it stays in the list until it has settled, and has none."""
    view = View(works.settings, Counters(), tuple, int)
    view.attach(works.session)
    path = tmp_path / "M1.rtdc"
    path.write_bytes(bytes(1000))
    await works.offer(path)
    rates = []
    for size in (2000, 3000, 3000, 3000):
        path.write_bytes(bytes(size))
        await works.offer(path)
        (recording,) = view.snapshot().recording
        rates.append((recording.size, recording.bytes_per_second))
        await asyncio.sleep(REST_SECONDS - 0.5)
    assert rates[0] == (2000, None)
    assert rates[1][1] > 0
    assert rates[-1] == (3000, None)

"""Which processors count."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from dcnumd.processes.processors import physical_cores
from dcnumd.segm.segm_thresh import SegmentThresh


def test_cores_are_those_that_may_be_used():
    """The affinity of the process counts, and that of the config."""
    allowed = sorted(os.sched_getaffinity(0))
    assert physical_cores(allowed[:1]) == 1
    assert 1 <= physical_cores() <= len(allowed)
    script = (
        "import json, os, dcnumd.processes.processors as m; "
        f"os.sched_setaffinity(0, [{allowed[-1]}]); print(json.dumps(m.physical_cores()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == 1


def test_segmenter_has_a_worker_for_each_core():
    """Two threads of one core do not compute faster than one."""
    assert SegmentThresh().num_workers == physical_cores()

"""Runs dcnumd on one measurement several times in one process, as the daemon does file after file.

``python warm_driver.py RUNS '{"path_in": …, "path_out": …, …}'`` prints the seconds of each run as JSON.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time

from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement


def main() -> None:
    """Process the measurement again and again; the first run is cold."""
    runs, options = int(sys.argv[1]), json.loads(sys.argv[2])
    settings = PipelineSettings(background_code=options.pop("background_code"))
    path_in, path_out = pathlib.Path(options.pop("path_in")), pathlib.Path(options.pop("path_out"))
    job = Job(path_in=path_in, path_out=path_out, settings=settings, existing="replace", **options)
    measured = []
    for _ in range(runs):
        started = time.perf_counter()
        result = process_measurement(job, on_progress=None, cancel=lambda: False)
        seconds = time.perf_counter() - started
        measured.append({"seconds": seconds, "stages": dict(result.stages), "workers": list(result.worker_pids)})
    print(json.dumps(measured))


if __name__ == "__main__":  # its workers import this module
    main()

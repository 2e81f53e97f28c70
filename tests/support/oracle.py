"""dcnum as a black box: a process of its own that makes reference results.

One process serves all tests, so that dcnum is imported once; where it hangs it is killed and asked once more.
dcnum's own processes, some for each measurement, are forked from one that has loaded dcnum, which takes a fraction of
the time that fresh interpreters would take; all else is as dcnum does it.
"""

from __future__ import annotations

import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

SERVER = """
import json, multiprocessing, os, pathlib, sys

def fork_instead_of_spawn():
    multiprocessing.set_forkserver_preload(["dcnum.logic", "dcnum.feat.feat_background", "dcnum.segm"])
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("forkserver" if method == "spawn" else method)

def main():
    fork_instead_of_spawn()
    from dcnum.logic import DCNumJobRunner, DCNumPipelineJob
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        for name in ("path_in", "path_out"):
            request[name] = pathlib.Path(request[name])
        mapping = request.get("data_kwargs", {}).get("index_mapping")
        if isinstance(mapping, dict):
            request["data_kwargs"]["index_mapping"] = slice(*mapping["slice"])
        job = DCNumPipelineJob(**request)
        with DCNumJobRunner(job=job) as runner:
            runner.run()
        answers.write(json.dumps({"state": runner.state, "error": runner.error_tb}) + "\\n")
        answers.flush()

if __name__ == "__main__":
    main()
"""
THREADS = ("OMP", "MKL", "NUMEXPR", "NUMPY", "OPENBLAS", "NUMBA")
SINGLE_THREADED = {f"{name}_NUM_THREADS": "1" for name in THREADS} | {"VECLIB_MAXIMUM_THREADS": "1"}
SECONDS_PER_RUN = 60


class DcnumError(Exception):
    """dcnum could not process the file; the message is its own traceback."""


class Oracle:
    """Makes dcnum's result for a measurement."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._script = folder / "dcnum_server.py"
        self._script.write_text(SERVER)
        self._log = folder / "dcnum.log"
        self._process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, self._script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **SINGLE_THREADED},
                start_new_session=True,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        answers, stdout = self._answers, process.stdout
        self._reader = threading.Thread(target=lambda: [answers.put(line) for line in stdout], daemon=True)
        self._reader.start()
        return process

    def process(self, path_in: pathlib.Path, path_out: pathlib.Path, **settings: object) -> pathlib.Path:
        """Return dcnum's result; settings are those of its job class."""
        request = json.dumps({"path_in": str(path_in), "path_out": str(path_out), "num_procs": 2, **settings})
        for attempt in range(2):
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            print(request, file=self._process.stdin, flush=True)
            try:
                answer = json.loads(self._answers.get(timeout=SECONDS_PER_RUN))
            except queue.Empty:
                self.close()
                path_out.unlink(missing_ok=True)
                if attempt:
                    raise DcnumError(f"dcnum hung twice on {path_in} with {settings}") from None
                continue
            if answer["state"] != "done":
                raise DcnumError(str(answer["error"]))
            return path_out
        raise AssertionError("not reached")

    def close(self) -> None:
        """End dcnum with all its processes."""
        if self._process is not None:
            # dcnum's workers share its session
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._reader.join()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

"""dcnum as a black box, in a process of its own that makes reference results.

The process serves several tests, so that dcnum is imported once. If it hangs, it is killed and the measurement is tried
again. dcnum's own processes are forked from one that has loaded dcnum, which is much faster than starting interpreters;
everything else is as in dcnum.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

SERVER = """
import json, logging, multiprocessing, os, pathlib, queue, sys, threading, time, traceback

real_sleep = time.sleep
spawning = multiprocessing.get_context("spawn")

class DaemonThread(threading.Thread):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, daemon=True)

class ThreadQueue(queue.Queue):
    def get(self, block=True, timeout=None):
        return super().get(block, None if timeout is None else min(timeout, 0.002))
    def cancel_join_thread(self): pass
    def close(self): pass
    def join_thread(self): pass

class ThreadContext:
    Process, Queue = DaemonThread, ThreadQueue
    def __getattr__(self, name):
        return getattr(spawning, name)

def threads_instead_of_processes():
    context = ThreadContext()
    multiprocessing.get_context = lambda method=None: context
    time.sleep = lambda seconds: real_sleep(min(seconds, 0.001))

def fork_instead_of_spawn():
    multiprocessing.set_forkserver_preload(["dcnum.logic", "dcnum.feat.feat_background", "dcnum.segm"])
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("forkserver" if method == "spawn" else method)

def answer(answers, state, error):
    answers.write(json.dumps({"state": state, "error": error}) + "\\n")
    answers.flush()

class Failure(logging.Handler):
    # A worker that has failed is waited for until the end of days.
    def __init__(self, answers):
        super().__init__(logging.ERROR)
        self.answers = answers
    def emit(self, record):
        if "Traceback" in record.getMessage():
            answer(self.answers, "failed", record.getMessage())
            os._exit(1)

def run(request):
    from dcnum.logic import DCNumJobRunner, DCNumPipelineJob
    for name in ("path_in", "path_out"):
        request[name] = pathlib.Path(request[name])
    mapping = request.get("data_kwargs", {}).get("index_mapping")
    if isinstance(mapping, dict):
        request["data_kwargs"]["index_mapping"] = slice(*mapping["slice"])
    with DCNumJobRunner(job=DCNumPipelineJob(**request)) as runner:
        try:
            runner.run()
        except Exception:
            return "error", traceback.format_exc()
    return runner.state, runner.error_tb

def main(how):
    threads_instead_of_processes() if how == "threads" else fork_instead_of_spawn()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if how == "threads":
        logging.getLogger("dcnum").addHandler(Failure(answers))
    for line in sys.stdin:
        try:
            state, error = run(json.loads(line))
        except Exception:
            state, error = "error", traceback.format_exc()
        answer(answers, state, error)

if __name__ == "__main__":
    main(sys.argv[1])
"""
THREADS = ("OMP", "MKL", "NUMEXPR", "NUMPY", "OPENBLAS", "NUMBA")
SINGLE_THREADED = {f"{name}_NUM_THREADS": "1" for name in THREADS} | {"VECLIB_MAXIMUM_THREADS": "1"}
# dcnum imports openvino while its result is open. That forks a process, which then has the lock of the result.
UNLOCKED = {"HDF5_USE_FILE_LOCKING": "FALSE"}
SECONDS_PER_RUN = 120
"""With models, each of its processes imports torch, which takes long on a busy computer."""


class DcnumError(Exception):
    """dcnum could not process the file; the message is its own traceback."""


class DcnumHungError(DcnumError):
    """dcnum did not finish in time."""


class Oracle:
    """Makes dcnum's result for a measurement.

    Parameters
    ----------
    folder
        Folder for dcnum's log and the script that runs it.
    threads
        Whether dcnum uses threads of one process, with memory for one slot (its option `debug`) and without its
        pauses, which takes a tenth of the time for a short measurement. Otherwise it uses several processes, as for
        its users.
    seconds
        Time for one measurement after which dcnum counts as hanging [s].
    attempts
        Number of attempts for a measurement before `DcnumHungError` is raised.
    """

    def __init__(
        self, folder: pathlib.Path, *, threads: bool = False, seconds: float = SECONDS_PER_RUN, attempts: int = 2
    ) -> None:
        self._script = folder / "dcnum_server.py"
        self._script.write_text(SERVER)
        self._log = folder / "dcnum.log"
        self._threads = threads
        self._seconds = seconds
        self._attempts = attempts
        self._process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, self._script, "threads" if self._threads else "processes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **SINGLE_THREADED, **UNLOCKED},
                start_new_session=True,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        lines = itertools.chain(process.stdout, [""])
        answers = self._answers
        self._reader = threading.Thread(target=lambda: [answers.put(line) for line in lines], daemon=True)
        self._reader.start()
        return process

    def process(self, path_in: pathlib.Path, path_out: pathlib.Path, **settings: object) -> pathlib.Path:
        """Process a measurement by dcnum, and return the path of its result.

        Parameters
        ----------
        path_in, path_out
            The measurement, and its result.
        settings
            Arguments of dcnum's job class.

        Raises
        ------
        DcnumError
            If dcnum fails or hangs.
        """
        how = {"num_procs": 1, "debug": True} if self._threads else {"num_procs": 2}
        request = json.dumps({"path_in": str(path_in), "path_out": str(path_out), **how, **settings})
        for _ in range(self._attempts):
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = self._start()
            print(request, file=self._process.stdin, flush=True)
            try:
                answer = self._answers.get(timeout=self._seconds)
            except queue.Empty:
                self.close()
                path_out.unlink(missing_ok=True)
                continue
            if not answer:
                self.close()
                raise DcnumError(f"dcnum ended by itself, see {self._log}")
            fields = json.loads(answer)
            if fields["state"] == "failed":
                self.close()
            if fields["state"] != "done":
                raise DcnumError(str(fields["error"]))
            return path_out
        raise DcnumHungError(f"dcnum hung {self._attempts} times on {path_in} with {settings}")

    def close(self) -> None:
        """End dcnum with all its processes."""
        if self._process is not None:
            # dcnum's workers belong to its process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
            self._reader.join()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

"""Every command in the documents is run here, or by another test, or cannot be run with a reason."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.spec import MeasurementSpec

TOP = pathlib.Path(__file__).parents[2]
BLOCK = re.compile(r"^ *```(?:sh|console)\b[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
HERE = (
    r".venv/bin/dcnumd (process|check -c my|simulate /srv)\b.*",
    r"cp config.toml my.toml",
    r"\$EDITOR my.toml",
    r"export DCNUMD_CONFIG=.*",
    r"(sudo -E )?dcnumd (status|history|why|report|retry|acknowledge|forget|check -c)\b(?!.*--watch).*",
    r"dcnumd completion bash \| sudo tee .*",
    r"jq .* M001_data_dcn.json",
    r"find /srv/results .* -exec jq .*",
    r"sudo sqlite3 .*",
)
"""Commands that `test_quick_commands_work` runs, as regular expressions of whole commands."""
ELSEWHERE = {
    r"python3 -m venv .venv && .*/dcnumd demo": "simulate/test_demo.py::test_demo_processes_what_it_records",
    r".venv/bin/dcnumd demo --keep .*": "simulate/test_demo.py::test_demo_processes_what_it_records",
    r".venv/bin/dcnumd run -c .*": "docs/test_operator.py::test_the_exercise_works_as_it_is_written",
    r"(mkdir|cat|echo|ls|.venv/bin/dcnumd (check|simulate|status|history|why)) .*\bpractice\b.*": (
        "docs/test_operator.py::test_the_exercise_works_as_it_is_written"
    ),
    r"dcnumd models .*": "commands/test_models.py::test_model_tells_for_which_measurements_it_is_made",
    r"dcnumd status --watch": "commands/test_status.py::test_screen_on_a_terminal",
    r"sudo /opt/dcnumd/bin/dcnumd install-service.*--dry-run": (
        "systemd/test_units.py::test_a_dry_run_writes_nothing_and_shows_everything"
    ),
    r"sudo /opt/dcnumd/bin/dcnumd install-service(?!.*--dry-run).*": (
        "systemd/test_units.py::test_what_is_written_is_sound"
    ),
    r"dcnumd (check|process) .*segmenter.code=adaptive": (
        "docs/test_example.py::test_it_finds_the_cells_in_several_processes"
    ),
    r"model=.*|dcnumd (check|process) .*segmenter.code=network .*": (
        "docs/test_example.py::test_network_finds_the_cells_where_it_is_made_for_the_measurement"
    ),
    r"pip install .": "docs/test_example.py::test_it_finds_the_cells_in_several_processes",
    r"(mkdir compared|PYTHONPATH=. python check_with_dcnum.py .*)": (
        "docs/test_code.py::test_the_comparison_with_dcnum"
    ),
    r".venv/bin/python -m benchmarks --page .*": (
        "benchmarks/test_benchmarks.py::test_one_command_runs_cases_and_fills_a_page"
    ),
    r"openssl (req|x509) .*|dask scheduler --protocol tls .*": (
        "daemon/cluster/test_security.py::test_only_those_with_a_certificate_connect"
    ),
    r"dask scheduler .*|dcnumd worker .*": (
        "daemon/cluster/test_jobs.py::test_jobs_run_on_workers_that_see_the_folder_under_another_name"
    ),
    r"dask worker .*": "daemon/cluster/test_jobs.py::test_a_plain_worker_of_dask_processes_jobs",
    r"dcnumd process .* --executor dask .*": (
        "daemon/cluster/test_process.py::test_an_archive_is_processed_by_several_workers"
    ),
    r".venv/bin/mkdocs serve": "docs/test_site.py::test_links_lead_somewhere",
}
"""Commands that another test runs, with the same options or fewer."""
NOT_RUN = {
    r"(sudo )?python3 -m venv \S+( && .*pip install -q (-e )?\S+)?( && .*pytest)?": "installs from a package index",
    r"sudo /opt/dcnumd/bin/pip install .*": "installs from a package index",
    r"(.venv/bin/|.*python3\.\d+ -m )(python -m )?pytest.*": "is this run",
    r".venv/bin/ruff check .*": "is a part of .ci/run",
    r".venv/bin/python -m benchmarks torch": "needs torch and a model, and takes long on processors",
    r".venv/bin/python -m benchmarks (early|live)": "means something on an idle computer only, and takes minutes",
    r"git .*|cd dcnumd|export LD_PRELOAD=.*": "needs a server, other versions of Python, or a release",
    r"podman .*": "needs a container engine; tests/container follows the Containerfile without one",
    r"sudo (-u dcnumd )?/opt/dcnumd/bin/dcnumd check .*": "needs the user of the service",
    r"(sudo )?(systemctl|systemd-sysusers|journalctl|setfacl|userdel|mount) .*": (
        "needs systemd and root; tests/systemd boots a service in a container"
    ),
    r"sudo (mkdir|rm|install|chown) .*|printf .*|openssl .*": "changes the system",
    r"#!/bin/sh.*|journalctl.*": "needs the journal of a service",
    r"curl .*": "needs a service with a live page and token; tests/web asks for the same paths",
}
"""Commands that no test runs, with the reason."""

pytestmark = pytest.mark.skipif(not (TOP / "docs").exists(), reason="the documents are not part of an installation")


def documents():
    """Return all documents."""
    return [*sorted(TOP.glob("*.md")), *sorted((TOP / "docs").rglob("*.md"))]


def commands(block):
    """Yield each command of a shell block, without its comment; continued lines are one command."""
    if block.startswith("#!"):
        yield block.splitlines()[0]
        return
    whole = re.sub(r"<<END\n.*?\n *END\n", "<<END\n", block, flags=re.DOTALL)
    command = ""
    for line in re.sub(r"\\\n\s*", "", whole).splitlines():
        command = without_comment(f"{command} {line.strip()}".strip())
        if command and is_whole(command):
            yield command
            command = ""


def without_comment(command):
    """Return a command up to the first ``#`` outside of quotes."""
    places = [match.start() for match in re.finditer(r"(?:^|\s+)#\s", command)]
    return next((command[:place] for place in places if is_quoted_right(command[:place])), command)


def is_quoted_right(command):
    """Return whether all quotes of a command are closed."""
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def is_whole(command):
    """Return whether a command does not continue in the next line."""
    return is_quoted_right(command) and not command.endswith("|")


def kinds(command):
    """Return under which keys of the three tables a command is."""
    return [pattern for table in (HERE, ELSEWHERE, NOT_RUN) for pattern in table if re.fullmatch(pattern, command)]


BLOCKS = [[*commands(block)] for path in documents() for block in BLOCK.findall(path.read_text("utf-8"))]
ALL = [command for block in BLOCKS for command in block]
SCRIPTS = ["\n".join(one for one in block if re.fullmatch("|".join(HERE), one)) for block in BLOCKS]
"""The commands of each block that are run here; those of one block belong together."""


def test_each_command_is_run_or_has_a_reason():
    """A new command in a document has to be run, or to be put into a table."""
    assert [command for command in ALL if not kinds(command)] == []


def test_nothing_is_excused_that_is_not_there():
    """Each line of the tables is for a command, and each test that they name exists."""
    used = {pattern for command in ALL for pattern in kinds(command)}
    assert {*HERE, *ELSEWHERE, *NOT_RUN} - used == set()
    for name in ELSEWHERE.values():
        path, _, function = name.partition("::")
        assert f"def {function}(" in (TOP / "tests" / path).read_text("utf-8"), name


def test_commands_are_found_whole():
    """Continued lines belong together, and comments are none of the command."""
    block = "a \\\n  b | # why\n  jq 'x\n  y'  # c\n\n# d\ne # f\ncat > g <<END\nh\nEND\n"
    assert [*commands(block)] == ["a b | jq 'x y'", "e", "cat > g <<END"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with what a daemon has processed or refused, and programs that stand for installed ones."""
    folder = tmp_path_factory.mktemp("commands")
    for name in ("acquisition", "state", "backup", "bash_completion.d", "bin"):
        (folder / name).mkdir()
    programs = {
        "dcnumd": f'exec "{sys.executable}" -m dcnumd "$@"',
        "sudo": 'while [ "$1" = -E ]; do shift; done; exec "$@"',
        "edit": f'sed -i "s#/srv/acquisition#{folder}/acquisition#" "$1"',
    }
    for name, script in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    write_measurement(folder / "acquisition" / "M001_data.rtdc", MeasurementSpec(size=(60, 160), frames=250, seed=5))
    (folder / "acquisition" / "M002_data.rtdc").write_bytes(b"no measurement")
    (folder / "site.toml").write_text(
        f'watch = {{folders = ["{folder}/acquisition"], settle_seconds = 0.2}}\noutput.folder = "{folder}/results"\n'
        f'state.folder = "{folder}/state"\nresources = {{num_workers = 1, min_free_gb = 0.01, nice = 0}}\n'
    )
    shell(folder, "dcnumd run --once", folder)
    sample = (TOP / "config.toml").read_text("utf-8")
    (folder / "results" / "config.toml").write_text(sample)
    (folder / "results" / "my.toml").write_text(sample.replace("/srv", str(folder)))
    return folder


def shell(folder, script, current):
    """Run commands with the paths of this computer, and return its process."""
    paths = {
        ".venv/bin/": "",
        "/opt/dcnumd/bin/": "",
        "/data/results": f"{folder}/others",
        "/data/": f"{folder}/acquisition/",
        "/srv/": f"{folder}/",
        "/etc/dcnumd/config.toml": f"{folder}/site.toml",
        "/etc/": f"{folder}/",
        "/var/lib/dcnumd": f"{folder}/state",
        " report FILE": " report M001_data_dcn.rtdc",
        " forget FILE": f" forget {folder}/acquisition/M002_data.rtdc",
        " FILE": f" {folder}/acquisition/M001_data.rtdc",
        " --realtime": " --realtime --frames 50",
    }
    for ours, local in paths.items():
        script = script.replace(ours, local)
    environment = {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "DCNUMD_CONFIG": f"{folder}/site.toml",
        "EDITOR": f"{folder}/bin/edit",
    }
    options = {"cwd": current, "env": environment, "capture_output": True, "text": True, "timeout": 240}
    return subprocess.run(["bash", "-ec", script], check=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("script", [*filter(None, dict.fromkeys(SCRIPTS))])
def test_quick_commands_work(place, script):
    """They end without an error, as they are written but for the paths."""
    for program in ("jq", "sqlite3"):
        if re.search(rf"\b{program} ", script) and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    done = shell(place, script, place / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr

"""Who may import whom, as the design says; and what must stay light."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "dcnumd"
GROUND_FLOOR = {"config", "errors", "extras", "kernels", "processes", "reasons", "shared_memory", "status", "words"}
BELOW = {
    "meta": set(),
    "read": {"meta"},
    "write": {"meta", "read"},
    "segm": {"meta", "read", "write"},
    "feat": {"meta", "read", "write"},
    "logic": {"meta", "read", "write", "segm", "feat"},
    "report": {"meta", "read", "write", "segm", "feat", "logic"},
    "routing": {"config", "logic", "report"},
    "daemon": {"routing", "meta", "read", "write", "logic", "report", "config", "web"},
    "web": {"config", "report"},
    "simulate": {"config"},
    "commands": {"routing", "meta", "read", "logic", "report", "config", "daemon", "simulate"},
    "cli": {"commands", "config", "simulate"},
    "__main__": {"cli"},
}
LIGHT = (
    "dcnumd.cli",
    "dcnumd.routing",
    "dcnumd.config.file",
    "dcnumd.logic.job",
    "dcnumd.logic.models",
    "dcnumd.meta.features",
    "dcnumd.meta.ppid",
    "dcnumd.report.request",
    "dcnumd.daemon.supervisor",
)


def room(module):
    """Return the first part of a module's name below the package."""
    return module.removeprefix("dcnumd").removeprefix(".").split(".")[0]


def imports(path):
    """Yield every module of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dcnumd":
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if node.module == "dcnumd" else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "dcnumd")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    """No module imports upwards or sideways."""
    own = room(".".join(("dcnumd", *path.relative_to(PACKAGE).with_suffix("").parts)))
    if own == "__init__":
        assert not list(imports(path))
        return
    allowed = BELOW.get(own, set()) | GROUND_FLOOR | {own, "__version__"}
    for module in imports(path):
        assert room(module) in allowed | {""}, f"{path.relative_to(PACKAGE)} imports {module}"


def test_the_daemon_knows_the_live_page_in_one_place_only():
    """What is done with measurements does not depend on who looks on."""
    rooms = {path.parent.name for path in (PACKAGE / "daemon").rglob("*.py") if "web" in map(room, imports(path))}
    assert rooms == {"live"}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_numerical_code(module):
    """The supervisor and the command line start in a blink: no numpy, h5py or numba."""
    code = f"import sys, {module}; print(sorted({{'numpy', 'h5py', 'numba', 'scipy', 'torch'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dcnum_is_never_imported_by_the_package():
    """The oracle of the tests is not a dependency; dclab is an extra, which one module imports when it is needed."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign = {name.split(".")[0] for name in names} & {"dcnum", "cv2", "mahotas", "dclab"}
            if path == PACKAGE / "report" / "isoelastics.py" and getattr(node, "col_offset", 0):
                foreign.discard("dclab")
            assert not foreign, path


def modules():
    """Return all modules of the package with their syntax trees."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("dcnumd", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imported(tree):
    """Yield the modules of ours that a syntax tree imports, also inside of functions and for annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(graph):
    """Return the groups of names that refer to each other, directly or not."""
    reach = {name: set(others) for name, others in graph.items()}
    for middle in graph:
        for name, others in reach.items():
            if middle in others:
                reach[name] = others | reach[middle]
    return {name for name, others in reach.items() if name in others}


def test_no_module_imports_itself_on_a_detour():
    """Whatever a module needs lies below it; also what only its annotations need, or one of its functions."""
    graph = {
        name: {other for other in imported(tree) if other in MODULES and other != name}
        for name, tree in MODULES.items()
    }
    packages = {name for name in MODULES if any(other.startswith(f"{name}.") for other in MODULES)}
    assert circles({name: others - packages for name, others in graph.items()}) == set()


DAEMON = {
    "clock": set(),
    "ledger": {"clock"},
    "folders": {"clock", "ledger"},
    "measurements": {"clock", "ledger", "folders"},
    "systemd": {"clock"},
    "recordings": {"clock", "ledger", "folders", "measurements"},
    "cluster": {"clock", "folders", "measurements", "systemd"},
    "workers": {"logs", "measurements", "recordings", "cluster"},
    "session": {"clock", "ledger", "folders", "measurements", "recordings", "workers"},
    "live": {"clock", "ledger", "folders", "measurements", "session"},
}
"""Rooms and modules of the daemon that others build on, and what each may import of it."""


@pytest.mark.parametrize("room_name", sorted(DAEMON))
def test_rooms_of_the_daemon_import_downwards(room_name):
    """The ledger knows nothing of folders, folders nothing of measurements, and measurements nothing of a session."""
    prefix = f"dcnumd.daemon.{room_name}"
    for name, tree in MODULES.items():
        if name == prefix or name.startswith(f"{prefix}."):
            rooms = {other.split(".")[2] for other in imported(tree) if other.startswith("dcnumd.daemon.")}
            assert rooms & set(DAEMON) - {room_name} <= DAEMON[room_name], name
            assert rooms - set(DAEMON) - {"logs"} == set(), name


STEPS = {"move", "finish", "recover", "close_others"}
"""Methods of the ledger that move a measurement along."""


def test_only_the_lifecycle_moves_measurements():
    """Who looks for a measurement's way finds all of its steps, and all of their log events, in one module.

    That a name is no measurement's at all, folders tell themselves.
    """
    for name, tree in MODULES.items():
        if name.startswith("dcnumd.daemon") and name != "dcnumd.daemon.measurements.lifecycle":
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = ast.unparse(node.func.value)
                    moves = node.func.attr in STEPS and "ledger" in owner
                    assert not moves, f"{name}: {ast.unparse(node)}"
                    logs = node.func.attr in {"info", "warning", "error"} and "log" in owner
                    event = node.args[0].value if logs and isinstance(node.args[0], ast.Constant) else ""
                    is_name = event == "file.ignored" and name.startswith("dcnumd.daemon.folders.")
                    assert not event.startswith(("file.", "job.")) or is_name, f"{name}: {event}"


def test_nothing_is_imported_by_its_name_but_commands():
    """Who reads the code, or a tool, sees each import; only the command line loads its commands by name."""
    for name, tree in MODULES.items():
        if name != "dcnumd.cli":
            calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
            assert not [call for call in calls if call.endswith(("import_module", "__import__"))], name


def test_classes_and_constructors_stay_small():
    """A class fits into a head, and values that belong together are one."""
    for name, tree in MODULES.items():
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            assert node.end_lineno - node.lineno < 300, f"{name}.{node.name} is too long"
            for made in node.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                    number = len(made.args.posonlyargs + made.args.args + made.args.kwonlyargs) - 1
                    assert number <= 6, f"{name}.{node.name} takes {number} parameters"

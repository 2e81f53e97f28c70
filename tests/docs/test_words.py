"""What the documents name exists: commands and options, settings, configurations; and what exists is named."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shlex
import tomllib

import click
import pytest

from dcnumd.cli import COMMANDS, cli
from dcnumd.commands.check_pipeline import LARGE_FRAME, USUAL_FRAME
from dcnumd.config.file import load_settings
from dcnumd.config.values import ReportLimits, Settings
from dcnumd.errors import DcnumdError
from dcnumd.feat.feat_background.base import get_available_background_methods
from dcnumd.logic import memory
from dcnumd.logic.job import PipelineSettings
from dcnumd.meta.keywords import method_keywords
from dcnumd.report.wording import WARNINGS
from dcnumd.segm.segm_thresh import SegmentThresh
from tests.support.events import event_names

TOP = pathlib.Path(__file__).parents[2]
DOCS = TOP / "docs"
BLOCK = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
CALL = re.compile(r"\s*(?:[A-Z_]+=\S+ +)*(?:sudo +(?:-u +\w+ +|-E +)?)?(?:[\w./-]*/)?dcnumd +(?=\S)")
"""The beginning of a call, as root or another user, in an environment."""
SECTIONS = tuple(field.name for field in dataclasses.fields(Settings) if not field.metadata.get("internal"))
KEY = re.compile(rf"(?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+")
ELSEWHERE = {"pipeline.segmenter.noise_factor", "pipeline.segmenter.least", "report.blocked"}
"""Keywords of the example's segmenter, and a condition that no log event announces."""

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the documents are not part of an installation")


def documents():
    """Return the text of each document."""
    paths = [*sorted(TOP.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
    return {str(path.relative_to(TOP)): path.read_text("utf-8") for path in paths}


def blocks(text, *languages):
    """Yield the code blocks of a document in some languages."""
    return (content for language, content in BLOCK.findall(text) if language in languages)


def inline(text):
    """Yield what a document has in backticks outside of blocks."""
    return (match[1] for match in INLINE.finditer(BLOCK.sub("", text)))


def commands(text):
    """Yield the arguments of each call of dcnumd in a document."""
    for block in blocks(text, "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            yield from calls(line)
    for code in inline(text):
        if re.match(r"(sudo (-u \w+ )?)?(\S*/)?dcnumd [a-z-]", code):
            yield from calls(code.replace("[", "").replace("]", ""))


def calls(line):
    """Yield the arguments of each call of dcnumd in a line of a shell."""
    for part in re.split(r"&&|\|\|?|;", line):
        if match := CALL.match(part):
            yield shlex.split(part[match.end() :], comments=True)


def command(name):
    """Return the click command of a name."""
    return cli.get_command(click.Context(cli), name)


def complaint(arguments):
    """Return what is wrong with the arguments of a call, if anything is."""
    name, *rest = arguments
    if name.startswith("-"):
        return None if name in {"-h", "--help", "--version"} else f"there is no option {name}"
    if name not in COMMANDS:
        return f"there is no command {name}"
    found = command(name)
    try:
        given, _, _ = found.make_parser(click.Context(found, help_option_names=["-h", "--help"])).parse_args(rest)
    except click.UsageError as error:
        return error.format_message()
    try:
        load_settings(None, [text for text in given.get("overrides") or () if "adaptive" not in text])
    except DcnumdError as error:
        return error.message
    return None


def configuration():
    """Return every key that a config may have, from the sample and from the methods."""
    sample = re.sub(r"^# (?=\w+ = )", "", (TOP / "config.toml").read_text("utf-8"), flags=re.MULTILINE)
    keys = {*dotted(tomllib.loads(sample))}
    for method in get_available_background_methods().values():
        keys |= {f"pipeline.background.{one.name}" for one in method_keywords(method, "check_user_kwargs")}
    keys |= {f"pipeline.segmenter.{one.name}" for one in method_keywords(SegmentThresh, "segment_algorithm")}
    return keys


def dotted(table, prefix=""):
    """Yield the keys of a table and of those in it, also the names of the tables."""
    for key, value in table.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")


@pytest.mark.parametrize("name", documents())
def test_commands_exist_with_their_options(name):
    """Each call of dcnumd in a document is one that the command line takes."""
    wrong = {" ".join(call): fault for call in commands(documents()[name]) if (fault := complaint(call))}
    assert wrong == {}


def test_faults_of_commands_are_found():
    """The test above sees what is wrong."""
    text = (
        "```sh\nsudo dcnumd runn\ndcnumd process M --framez 3\nx && .venv/bin/dcnumd check --set watch.foo=1\n"
        "dcnumd -V\n```\nand `dcnumd retry FILE --now`, but not `dcnumd status [--json]`"
    )
    found = [complaint(call) for call in commands(text)]
    assert len(found) == 6
    assert [fault is None for fault in found] == [False, False, False, False, False, True]


def test_every_command_is_in_the_documents():
    """Nobody has to find one by chance."""
    shown = {call[0] for text in documents().values() for call in commands(text)}
    assert set(COMMANDS) <= shown


@pytest.mark.parametrize("name", documents())
def test_settings_exist(name):
    """What looks like a key of the config in a document is one, or an event of that name."""
    known = configuration() | event_names() | ELSEWHERE
    text = documents()[name]
    named = {key for code in inline(text) for key in KEY.findall(code.split("=")[0]) if not code.endswith(".toml")}
    named = {key for key in named if not re.search(r"\.(py|md|json|toml|html|sqlite|j2|css|request|info)$", key)}
    assert named - known == set()


@pytest.mark.parametrize("name", documents())
def test_configurations_are_accepted(name, tmp_path):
    """A block of TOML in a document with sections of the config can be read as one."""
    for number, block in enumerate(blocks(documents()[name], "toml")):
        if "--8<--" in block or not set(tomllib.loads(block)) & set(SECTIONS):
            continue
        path = tmp_path / f"{number}.toml"
        path.write_text(block, "utf-8")
        load_settings(path)


def test_every_setting_of_reports_and_the_page_is_explained():
    """The engineer's guide says what each is for, the operator's what the limits mean."""
    manuals = (DOCS / "operations.md").read_text("utf-8") + (DOCS / "operator.md").read_text("utf-8")
    wanted = {key for key in configuration() if key.startswith(("report.", "web."))} - {"report.limits", "report.plot"}
    named = {key for code in inline(manuals) for key in KEY.findall(code)}
    assert wanted - named == set()


UNUSUAL = re.compile(
    r"\bso (?:long|often|many|much)\b(?! that| as)|\b(?:"
    "hardly|surely|anew|at rest|at hand|a glance|a look|of ours|says itself|how right|in a blink|with their reason|"
    "tells? (?:its|the) story|(?:takes?|took) no results|taken (?:away|up)|set aside|go(?:es)? on|held against|"
    r"told (?:once|of|by)|is told|mend(?:s|ed)?|cures?|rooms?|sound|for good)\b",
    re.IGNORECASE,
)
"""Phrases that are unusual in technical English; the documents have standard terms for what they mean."""


@pytest.mark.parametrize("name", [*documents(), "config.toml", "dcnumd/daemon/events.schema.json"])
def test_english_is_plain(name):
    """No phrase of the list above is in a document; codes and programs may have them as names."""
    text = (TOP / name).read_text("utf-8")
    text = " ".join((INLINE.sub("", BLOCK.sub("", text)) if name.endswith(".md") else text).split())
    assert {match[0] for match in UNUSUAL.finditer(text)} == set()


def test_unusual_phrases_are_found():
    """The test above sees phrases of each kind, and leaves others alone."""
    text = "It was left alone for so long, needs a look, is none of ours, and tells its story."
    assert len(UNUSUAL.findall(text)) == 4
    assert not UNUSUAL.search("It is so long that it waits as long as others. Looks good; the background is dark.")


def section(text, heading):
    """Return what is below a heading, until the next one of its rank."""
    rank = heading.partition(" ")[0]
    _, _, below = BLOCK.sub("", text).partition(f"\n{heading}\n")
    assert below, heading
    return re.split(rf"^#{{1,{len(rank)}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text):
    """Return the codes in the first column of tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [code for cell in cells for code in INLINE.findall(cell)]


def test_every_warning_of_the_traffic_light_has_its_cure():
    """The operator finds each check by its name, with the limit that decides."""
    source = "".join(path.read_text("utf-8") for path in (TOP / "dcnumd" / "report").glob("check*.py"))
    names = set(re.findall(r'(?:Check|above|unknown)\(\s*"(\w+)"', source))
    below = section((DOCS / "operator.md").read_text("utf-8"), "### Each warning and its remedy")
    described = first_cells(below)
    assert names <= set(described)
    assert all(f'"{name}"' in source for name in described)
    assert sorted(described) == sorted(WARNINGS)
    limits = {key.removeprefix("report.limits.") for key in KEY.findall(below) if key.startswith("report.limits.")}
    assert limits == {field.name for field in dataclasses.fields(ReportLimits)}


def test_the_memory_for_sizing_is_what_follows_from_the_settings():
    """The table says what `dcnumd check` would say."""
    below = section((DOCS / "operations.md").read_text("utf-8"), "## Sizing")
    rows = re.findall(r"^\| (\d+) \| (\d+) MB \| ([\d.]+) GB \|$", below, re.MULTILINE)
    assert [int(workers) for workers, *_ in rows] == [1, 2, 4, 8]
    for workers, usual, large in rows:
        works = [memory.expected_workload(shape, PipelineSettings()) for shape in (USUAL_FRAME, LARGE_FRAME)]
        others = memory.beside_pipeline(reports=True)
        found = [memory.in_mb(others + memory.usually_needed(int(workers), work)) for work in works]
        assert (f"{found[0]}", f"{found[1] / 1000:.1f}") == (usual, large)
    assert f"{memory.in_mb(memory.REPORT_BYTES)} MB of it are for reports" in below
    assert f"lines, {-(-memory.ISOELASTICS_BYTES // 10**6)} MB more" in below


def test_every_route_is_described():
    """The page about the API names each path that the server's own description has."""
    routes = json.loads((TOP / "dcnumd" / "web" / "openapi.json").read_text("utf-8"))["paths"]
    text = (DOCS / "reference" / "api.md").read_text("utf-8")
    assert {route for route in routes if f"`{route}`" not in text} == set()


def test_every_figure_of_a_report_is_described():
    """Whoever reads the JSON file finds each of its fields, and no other."""
    described = first_cells((DOCS / "reference" / "report.md").read_text("utf-8"))
    schema = json.loads((TOP / "dcnumd" / "report" / "report.schema.json").read_text("utf-8"))
    assert sorted([*described, "format", "version"]) == sorted(schema["properties"])


def test_every_metric_is_described():
    """Whoever writes an alert knows what there is to watch."""
    in_source = set(re.findall(r'"(dcnumd_[a-z_]+)"', (TOP / "dcnumd" / "web" / "metrics.py").read_text("utf-8")))
    manual = section((DOCS / "operations.md").read_text("utf-8"), "### By HTTP")
    assert len(in_source) > 20
    assert {name.removesuffix("_info") for name in first_cells(manual)} == in_source

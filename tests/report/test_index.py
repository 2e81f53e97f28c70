"""The index of a folder is a page that is always whole, has each measurement once, and belongs to dcnumd."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.parse

import pytest

from dcnumd.errors import ResultError
from dcnumd.report import index_row
from dcnumd.report.index import NAME, OTHER_NAME, update_index
from dcnumd.report.request import IndexRow
from tests.support.disks import mounted

ROW = IndexRow(
    key="a/M1_dcn.rtdc",
    name="M1.rtdc",
    sample="HL60",
    recorded="2026-11-21 10:00:00",
    finished="2026-11-21T10:05:00+00:00",
    state="done",
    events=12345,
    light="green",
    link="a/M1_dcn.html",
    thumbnail=b"\x89PNG picture",
)
FAILED = IndexRow(
    key="b/M2.rtdc",
    name="M2.rtdc",
    sample="",
    recorded="",
    finished="2026-11-21T10:06:00+00:00",
    state="failed",
    texts=("no_images", "M2.rtdc: has no images"),
)
REPORT = {
    "format": "dcnumd-report",
    "version": 1,
    "result": "M7_dcn.rtdc",
    "made": "2026-11-20T09:00:00+00:00",
    "sample": "Blut",
    "recorded": "2026-11-20 08:00:00",
    "events": 77,
    "light": "yellow",
    "checks": [
        {"name": "few_events", "state": "warning", "text": "Only 77 events."},
        {"name": "flicker", "state": "ok", "text": "No flicker."},
    ],
}

KILLED = """
import pathlib, sys
from dcnumd.report.index import update_index
from dcnumd.report.request import IndexRow
folder, number = pathlib.Path(sys.argv[1]), 0
while True:
    number += 1
    rows = [
        IndexRow(f"{number}-{i}", "M.rtdc", "", "", f"{number:08d}", "done", events=1, thumbnail=bytes(3000))
        for i in range(50)
    ]
    update_index(folder, rows, None, removed=[f"{number - 4}-{i}" for i in range(50)])
    print(number, flush=True)
"""


class Page(html.parser.HTMLParser):
    """A page as a browser reads it: the cells and links of its rows, and the names of all its elements."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.links, self.elements, self._cell = [], [], [], None
        # What is no UTF-8 raises.
        self.content = path.read_bytes().decode()
        self.feed(self.content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        attributes = dict(attrs)
        if tag == "tr" and "data-key" in attributes:
            self.rows.append({"key": json.loads(attributes["data-key"]), "light": attributes["data-light"]})
        elif tag in {"td", "th"} and self.rows:
            self._cell = attributes["class"]
            self.rows[-1][self._cell] = ""
        elif tag == "a":
            self.links.append(attributes["href"])
        elif tag == "img":
            self.rows[-1]["picture"] = attributes["src"]

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self._cell = None

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][self._cell] += data


def keys(folder, name=NAME):
    return [row["key"] for row in Page(folder / name).rows]


def changed(row, **values):
    return dataclasses.replace(row, **values)


def test_index_shows_what_came_of_each_measurement(tmp_path):
    """A result has its link, picture, figures and light in words; a failed one its code and sentence; newest first."""
    yellow = changed(
        ROW, key="c", light="yellow", events=3, texts=("Only 3 events.",), finished="2026-11-21T10:07:00+00:00"
    )
    assert update_index(tmp_path / "new", [ROW, yellow], [FAILED]) == tmp_path / "new" / NAME
    page = Page(tmp_path / "new" / NAME)
    looked_at, failed, good = page.rows
    assert [looked_at["key"], failed["key"], good["key"]] == ["c", "b/M2.rtdc", "a/M1_dcn.rtdc"]
    assert (good["name"], good["sample"], good["recorded"]) == ("a/M1.rtdc", "HL60", "2026-11-21 10:00:00")
    assert (good["events"], good["light"]) == ("12,345", "Looks good")
    assert good["picture"] == "data:image/png;base64,iVBORyBwaWN0dXJl"
    assert looked_at["light"] == "Please check Only 3 events."
    assert failed["light"] == "Failed no_images M2.rtdc: has no images"
    assert failed["events"] == ""
    assert page.links == ["a/M1_dcn.html"] * 2
    assert "12,348 events in all" in page.content
    assert [text.name for text in (tmp_path / "new").iterdir()] == [NAME]


def test_index_is_changed_row_by_row(tmp_path):
    """Rows are added, replaced and removed; failures are replaced as a whole, or left as they are."""
    update_index(tmp_path, [ROW], [FAILED])
    update_index(tmp_path, [changed(ROW, key="new", finished="2026-11-21T11:00:00+00:00")], None)
    assert keys(tmp_path) == ["new", FAILED.key, ROW.key]
    update_index(tmp_path, [changed(ROW, sample="other", finished="2026-11-21T12:00:00+00:00")], None)
    assert keys(tmp_path) == [ROW.key, "new", FAILED.key]
    assert [row["sample"] for row in Page(tmp_path / NAME).rows] == ["other", "HL60", ""]
    update_index(tmp_path, [], [changed(FAILED, key="another")], removed=["new", "unknown"])
    assert keys(tmp_path) == [ROW.key, "another"]
    update_index(tmp_path, [changed(ROW, key="another")], None, removed=["another"])
    assert sorted(keys(tmp_path)) == sorted([ROW.key, "another"])
    assert {row["light"] for row in Page(tmp_path / NAME).rows} == {"Looks good"}


def test_failure_and_result_of_one_name_are_two_rows(tmp_path):
    """A result stays when a measurement of its name fails, and when that failure is settled."""
    update_index(tmp_path, [ROW], [changed(FAILED, key=ROW.key)])
    assert keys(tmp_path) == [ROW.key, ROW.key]
    update_index(tmp_path, [], [])
    assert [row["light"] for row in Page(tmp_path / NAME).rows] == ["Looks good"]


def test_index_is_not_written_again_without_need(tmp_path):
    """An update that changes nothing leaves the very same file."""
    update_index(tmp_path, [ROW], [FAILED])
    before = (tmp_path / NAME).stat()
    update_index(tmp_path, [ROW], [FAILED], removed=["unknown"])
    after = (tmp_path / NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]


def test_empty_index_is_a_page(tmp_path):
    """Without any measurement the page says so."""
    update_index(tmp_path, [], None)
    page = Page(tmp_path / NAME)
    assert page.rows == []
    assert "No measurement of this folder has been processed yet" in page.content


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>.rtdc",
        "\"quotes\" & 'more' <b>.rtdc",
        "two\nlines\r\nand a tab\t.rtdc",
        "-- --> <!-- </tr></table></script>.rtdc",
        "M\udcff\udc80.rtdc",
        "細胞 клетка خلية μ 🧫.rtdc",
        "back\u202eward\x00\x1b[31m\u2028.rtdc",
        "half \ud800.rtdc",
        "{{ 7 * 7 }} {% raw %} %20 &amp; #1?a=b;c.rtdc",
        "",
        "x" * 5000,
    ],
)
def test_names_are_escaped_and_survive(name, tmp_path):
    """Whatever a name or sentence has in it is text of its row, and its key is found again."""
    rows = [
        changed(ROW, key=name, name=name, sample=name, recorded=name, texts=(name, name)),
        changed(FAILED, key=f"f{name}", name=name, sample=name, texts=(name, name)),
    ]
    plain, special = tmp_path / "plain", tmp_path / "special"
    update_index(plain, [ROW], [FAILED])
    update_index(special, rows[:1], rows[1:])
    page = Page(special / NAME)
    assert {row["key"] for row in page.rows} == {name, f"f{name}"}
    assert all(row["sample"] == index_row.shown(name) for row in page.rows)
    assert [tag for tag in page.elements if tag not in {"p", "code"}] == [
        tag for tag in Page(plain / NAME).elements if tag not in {"p", "code"}
    ]
    # the page is read as it was written: nothing is added twice
    update_index(special, rows[:1], [])
    assert keys(special) == [name]
    update_index(special, [], None, removed=[name])
    assert keys(special) == []


def test_shown_text_can_be_seen():
    """Bytes that are no text and characters without a face become escapes; letters stay."""
    assert index_row.shown("a\udcffb\nc\u202ed") == "a\\xffb\\nc\\u202ed"
    assert index_row.shown("कर्म\u200cचारी 5\u00a0µm") == "कर्म\u200cचारी 5\u00a0µm"


@pytest.mark.parametrize(
    "name", ["a b.html", "a#1?x=%20.html", "M\udcff.html", "javascript:alert(1)", "ä/ü\n&\"'.html", "../up.html"]
)
def test_links_lead_to_the_file(name, tmp_path):
    """A link has the bytes of the file's name and no scheme of its own."""
    update_index(tmp_path, [changed(ROW, link=name)], None)
    (link,) = Page(tmp_path / NAME).links
    parts = urllib.parse.urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert link.isascii()
    assert urllib.parse.unquote_to_bytes(parts.path) == os.fsencode(name)


@pytest.mark.parametrize("link", ["/etc/passwd", "//host/a.html", "half \ud800.html", ""])
def test_links_that_lead_away_are_none(link, tmp_path):
    """The name is shown without a link."""
    update_index(tmp_path, [changed(ROW, link=link)], None)
    assert Page(tmp_path / NAME).links == []
    assert Page(tmp_path / NAME).rows[0]["name"] == "M1.rtdc"


def test_large_pictures_are_left_out(tmp_path):
    """The page stays small."""
    update_index(tmp_path, [changed(ROW, thumbnail=bytes(2**20))], None)
    assert (tmp_path / NAME).stat().st_size < 2**16


def write_reports(folder):
    """Write a report, as data and as page, and files that are none."""
    (folder / "day 1").mkdir(parents=True)
    (folder / "day 1" / "M7_dcn.json").write_text(json.dumps(REPORT))
    (folder / "day 1" / "M7_dcn.html").write_text("report")
    (folder / "other.json").write_text('{"format": "other"}')
    (folder / "list.json").write_text('["dcnumd-report"]')
    (folder / "broken.json").write_text('{"format": "dcnumd-report", ')
    (folder / "empty.json").write_text("")
    (folder / "wrong.json").write_text(json.dumps({**REPORT, "light": "blue"}))
    (folder / "deep.json").write_text("[" * 100_000 + '"dcnumd-report"')
    (folder / "link.json").symlink_to(folder / "day 1" / "M7_dcn.json")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    odd = {**REPORT, "events": "many", "sample": 3, "checks": [3, {"state": "alarm", "text": None}], "result": ""}
    (folder / "odd.json").write_text(json.dumps(odd))


def test_lost_index_is_made_of_the_reports(tmp_path):
    """Each report as data becomes a row with its verdict; other files, links and pipes are passed over."""
    write_reports(tmp_path)
    update_index(tmp_path, [ROW], None)
    page = Page(tmp_path / NAME)
    assert [row["key"] for row in page.rows] == [ROW.key, "odd.rtdc", "day 1/M7_dcn.rtdc"]
    _, odd, report = page.rows
    assert (report["sample"], report["recorded"], report["events"]) == ("Blut", "2026-11-20 08:00:00", "77")
    assert report["light"] == "Please check Only 77 events."
    assert (odd["sample"], odd["events"], odd["light"]) == ("", "", "Please check")
    assert page.links == ["a/M1_dcn.html", "odd.json", "day%201/M7_dcn.html"]


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "row lost", "row cut", "other version"])
def test_damaged_index_is_made_again(damage, tmp_path):
    """Whole rows are kept, and those of reports come back."""
    update_index(tmp_path, [ROW, changed(ROW, key="second", finished="2026-11-21T09:00:00+00:00")], [FAILED])
    write_reports(tmp_path)
    path = tmp_path / NAME
    content = path.read_bytes()
    rows = [line for line in content.split(b"\n") if line.startswith(b"<tr data-key")]
    damaged = {
        "cut": content[: content.index(rows[1]) + 50],
        "empty": b"",
        "zeros": bytes(len(content)),
        "row lost": content.replace(rows[2] + b"\n", b""),
        "row cut": content.replace(rows[1], rows[1][:-20]),
        "other version": content.replace(b"dcnumd-index 2", b"dcnumd-index 1"),
    }[damage]
    kept = {"cut": [FAILED.key], "row lost": [FAILED.key, ROW.key], "row cut": [FAILED.key, "second"]}.get(damage, [])
    path.write_bytes(damaged)
    update_index(tmp_path, [], None)
    assert keys(tmp_path) == [*kept, "odd.rtdc", "day 1/M7_dcn.rtdc"]
    (tmp_path / "odd.json").unlink()
    update_index(tmp_path, [ROW], None)
    assert "odd.rtdc" in keys(tmp_path), "a whole page is not made again"


def state_of(status):
    """Return what a change of a file would change; reading a folder may change its access time."""
    return status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@pytest.mark.parametrize("kind", ["page", "folder", "link", "broken link", "pipe"])
def test_index_of_somebody_else_is_left_alone(kind, tmp_path):
    """The page gets another name, and keeps it when the first becomes free; only then the rows stay together."""
    folder, target = tmp_path / "out", tmp_path / "target.html"
    folder.mkdir()
    update_index(tmp_path / "own", [ROW], None)
    target.write_bytes((tmp_path / "own" / NAME).read_bytes())
    before = state_of(target.stat())
    path = folder / NAME
    if kind == "page":
        path.write_text("<!DOCTYPE html><title>theirs</title>")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target if kind == "link" else tmp_path / "nowhere")
    status = state_of(path.lstat())
    assert update_index(folder, [ROW], None) == folder / OTHER_NAME
    update_index(folder, [], [FAILED])
    assert keys(folder, OTHER_NAME) == [FAILED.key, ROW.key]
    assert state_of(path.lstat()) == status
    assert state_of(target.stat()) == before
    path.rmdir() if kind == "folder" else path.unlink()
    assert update_index(folder, [], [], root=folder) == folder / OTHER_NAME
    assert keys(folder, OTHER_NAME) == [ROW.key]


def test_both_names_are_taken(tmp_path):
    """The error says what to do, and both files stay."""
    for name in (NAME, OTHER_NAME):
        (tmp_path / name).write_text("theirs")
    with pytest.raises(ResultError, match="move one of them away") as caught:
        update_index(tmp_path, [ROW], None)
    assert caught.value.reason == "output_exists"
    assert {path.read_text() for path in tmp_path.iterdir()} == {"theirs"}


def test_links_do_not_lead_out_of_the_root(tmp_path):
    """A folder that is a link to somewhere else is refused; nothing is written there."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "bad").symlink_to(elsewhere)
    for folder in (root / "bad", root / "bad" / "new"):
        with pytest.raises(ResultError, match="leads out") as caught:
            update_index(folder, [ROW], None, root=root)
        assert caught.value.reason == "outside"
    assert list(elsewhere.iterdir()) == []


def test_folders_that_cannot_be_written_are_named(tmp_path):
    """The reason is that of any result: read-only, full, or no folder."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        update_index(disk, [ROW], None)
        before = (disk / NAME).read_bytes()
        many = [changed(ROW, key=f"{i}", thumbnail=bytes(60_000)) for i in range(20)]
        with pytest.raises(ResultError, match="no space left") as caught:
            update_index(disk, many, None)
        assert (caught.value.reason, caught.value.transient) == ("no_space", True)
        assert (disk / NAME).read_bytes() == before
        assert list(disk.iterdir()) == [disk / NAME]
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(ResultError, match="Read-only") as caught:
            update_index(disk, [FAILED], None)
        assert caught.value.reason == "output_read_only"
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match="cannot be written"):
        update_index(tmp_path / "file", [ROW], None)
    with pytest.raises(ResultError, match="cannot be read") as caught:
        update_index(tmp_path / ("x" * 300), [ROW], None)
    assert caught.value.reason == "output_name"


def test_killed_process_leaves_a_whole_page(tmp_path):
    """Whenever it is killed, the page has all rows of some update."""
    for extra in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, text=True) as process:
            for _ in range(5 + extra):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        content = (tmp_path / NAME).read_text()
        rows = [line for line in content.split("\n") if line.startswith("<tr data-key")]
        assert content.endswith(f"</html>\n<!-- dcnumd-index 2: {len(rows)} rows -->\n")
        assert len(rows) % 50 == 0


def test_thousands_of_rows_are_updated_at_once(tmp_path):
    """One more measurement takes a small part of the work of making the page; the others are not made again."""
    rows = [
        changed(ROW, key=f"M{i}", finished=f"2026-11-{1 + i // 1440:02d}T{i // 60 % 24:02d}:{i % 60:02d}:00+00:00")
        for i in range(5000)
    ]
    rows = [changed(row, thumbnail=os.urandom(800)) for row in rows]
    begin = time.process_time()
    update_index(tmp_path, rows, None)
    whole = time.process_time() - begin
    times = []
    for number in range(10):
        begin = time.process_time()
        update_index(tmp_path, [changed(ROW, key=f"new {number}")], None)
        times.append(time.process_time() - begin)
    assert (tmp_path / NAME).read_bytes().count(b"\n<tr data-key") == 5010
    # The share is about a tenth; a busy computer slows both.
    assert min(times) < whole / 4


def test_page_needs_nothing_else(tmp_path):
    """No address but those of the rows is in the page, and the only script is the page's own."""
    update_index(tmp_path, [ROW], [FAILED])
    page = Page(tmp_path / NAME)
    assert page.elements.count("script") == 1
    assert "http:" not in page.content
    assert "https:" not in page.content
    assert "default-src 'none'" in page.content
    assert pathlib.Path(tmp_path / NAME).stat().st_size < 40_000


@pytest.mark.parametrize("wrong", [{"result": "."}, {"result": "a/.."}, {"events": True}])
def test_report_that_names_no_file_or_number_keeps_no_index_from_being_made(wrong, tmp_path):
    """Its row has the name of the report, and no number of events."""
    (tmp_path / "odd.json").write_text(json.dumps({**REPORT, **wrong}))
    update_index(tmp_path, [ROW], None)
    expected = "odd.rtdc" if "result" in wrong else REPORT["result"].rpartition("/")[2]
    _, row = sorted(Page(tmp_path / NAME).rows, key=lambda row: row["key"] != ROW.key)
    assert row["key"] == expected
    assert row["events"] == ("" if "events" in wrong else "77")


def names(folder):
    return [row["name"] for row in Page(folder / NAME).rows]


def test_measurements_of_one_name_have_their_folder(tmp_path):
    """A name that only one has stays short; it becomes long when another one comes, and short again when that goes."""
    update_index(tmp_path, [ROW], None)
    assert names(tmp_path) == ["M1.rtdc"]
    other = changed(ROW, key="x/b <2>/M1_dcn.rtdc", finished="2026-11-21T10:07:00+00:00", link="")
    failure = changed(FAILED, key="x/c/M1.rtdc", name="M1.rtdc", finished="2026-11-21T10:08:00+00:00")
    update_index(tmp_path, [other, changed(ROW, key="a/M2_dcn.rtdc", name="M2.rtdc")], [failure])
    assert names(tmp_path) == ["c/M1.rtdc", "b <2>/M1.rtdc", "M2.rtdc", "a/M1.rtdc"]
    assert Page(tmp_path / NAME).links == ["a/M1_dcn.html"] * 2

    before = (tmp_path / NAME).stat()
    update_index(tmp_path, [other, ROW], [failure])
    assert (tmp_path / NAME).stat().st_ino == before.st_ino, "nothing has changed"

    update_index(tmp_path, [], [], removed=[other.key])
    assert names(tmp_path) == ["M2.rtdc", "M1.rtdc"]


def test_damaged_key_of_a_row_does_not_keep_others_from_being_named(tmp_path):
    """Such a row counts as one in the folder of the index."""
    update_index(tmp_path, [ROW], None)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b"&#34;a/M1_dcn.rtdc&#34;", b"{&#34;"))
    update_index(tmp_path, [changed(ROW, key="b/M1_dcn.rtdc")], None)
    content = path.read_text()
    assert ">M1.rtdc</a>" in content
    assert ">b/M1.rtdc</a>" in content

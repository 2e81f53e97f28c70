"""Lets the pages refer to files of the project that are not pages, and the site contain them.

In the repository, ``[README](../README.md)`` leads to the README and ``[config](../config.toml)`` to the sample. The
site has the Markdown documents at the top of the project as pages, and each other file that a page refers to as a file
to read or download. Cells of tables get labels, so that tables are readable on a phone, and the list of commands gets
the help of each command.
"""

from __future__ import annotations

import html
import itertools
import pathlib
import re

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from dcnumd.cli import COMMANDS, cli

TOP = pathlib.Path(__file__).parents[1]
PAGES = {name: name.lower() for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
"""Documents at the top of the project, and their names in the site; mkdocs would take "README.md" for "index.md"."""
LINK_UP = re.compile(r"\]\(((?:\.\./)+)([\w./-]+)")
"""Start of a link that leads upwards."""
LINK_FROM_TOP = re.compile(r"\]\((docs/|(?!https?:|#))")
"""Start of a link in a document at the top of the project."""
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
HEADING = re.compile(r"<th[^>]*>(.*?)</th>", re.DOTALL)
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents at the top of the project, and the files outside of ``docs`` that pages refer to."""
    for name, uri in PAGES.items():
        text = (TOP / name).read_text("utf-8")
        content = LINK_FROM_TOP.sub(lambda match: "](" if match[1] else "](../", text)
        files.append(File.generated(config, uri, content=content))
    wanted = {target for page in files.documentation_pages() for target in targets(page.src_uri, page.content_string)}
    for target in sorted(wanted - {*PAGES}):
        files.append(File.generated(config, f"files/{target}", abs_src_path=str(TOP / target)))
    return files


def targets(uri: str, markdown: str) -> set[str]:
    """Return the files outside of ``docs`` that a page refers to, as paths from the top of the project."""
    above = uri.count("/") + 1
    links = {match[2] for match in LINK_UP.finditer(markdown) if match[1].count("/") == above}
    return {link for link in links if (TOP / link).is_file()}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- called by name
    """Turn links that leave ``docs`` into links within the site, and complete the list of commands."""
    uri = page.file.src_uri
    known = targets(uri, markdown)

    def inwards(match: re.Match[str]) -> str:
        if match[2] not in known:
            return match[0]
        return "](" + "../" * uri.count("/") + PAGES.get(match[2], f"files/{match[2]}")

    inward = LINK_UP.sub(inwards, markdown)
    return inward + command_help() if uri == "reference/commands.md" else inward


def command_help() -> str:
    """Return a section with the help of each command."""
    lines = ["", "## Options", ""]
    program = click.Context(cli, info_name="dcnumd", terminal_width=78, **cli.context_settings)
    for name in COMMANDS:
        command = cli.get_command(program, name)
        context = click.Context(command, info_name=name, parent=program)
        lines += [f"### {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- called by name
    """Give each cell of a table the text above its column, which `site.css` shows on narrow screens."""
    return TABLE.sub(labelled, content)


def labelled(table: re.Match[str]) -> str:
    """Return a table whose cells have labels."""
    labels = [html.escape(html.unescape(TAG.sub("", heading)).strip()) for heading in HEADING.findall(table[0])]

    def row(cells: re.Match[str]) -> str:
        label = itertools.chain(labels, itertools.repeat(""))
        return re.sub(r"<td", lambda _: f'<td data-label="{next(label)}"', cells[0])

    return ROW.sub(row, table[0])

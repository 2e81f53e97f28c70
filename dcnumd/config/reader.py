"""Conversion of TOML tables to frozen dataclasses by their annotations, with precise error messages.

The metadata of a field may restrict its values: ``minimum``, ``minimum_or_0`` (0 is allowed as well), ``maximum``,
``above`` (exclusive), ``file_name`` (part of a file name), ``pattern`` (a regular expression and its description),
``empty`` (a list may be empty), ``ends`` (a list has two rising numbers, or is empty), and ``path_pairs`` (keys and
values of a table are absolute paths). ``short`` names the key of a section that may be written as a text instead, with
the value of this key. ``rest`` marks a mapping for keys without a field, of which ``files`` lists those that are paths
or names of files; ``internal`` marks a field without a key.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import pathlib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from dcnumd.errors import ConfigError

S = TypeVar("S")


@dataclasses.dataclass(frozen=True, slots=True)
class SectionReader:
    """Converts tables to dataclasses, and errors to messages of one line."""

    file: str
    """Name of the config file in messages."""
    folder: pathlib.Path | None
    """Folder that relative paths are relative to; None means the current folder."""
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Keys that are not from the config file, with the text that messages give as their origin."""
    mistakes: list[ConfigError] = dataclasses.field(default_factory=list)
    """Errors of the tables that were read so far."""

    def error(self, key: str, problem: str) -> ConfigError:
        """Return the error for a key or section; it names an override of the key, or of one in the section, if any."""
        blamed = (origin for name, origin in self.origins.items() if name == key or name.startswith(f"{key}."))
        return ConfigError(f"{next(blamed, self.file)}: {key}: {problem}")

    def read(self, kind: type[S], table: Mapping[str, Any], prefix: str = "") -> S:
        """Return an instance of the dataclass `kind` with the values in `table`; `prefix` precedes keys in messages.

        Unknown keys and invalid values are left out and added to `mistakes`; call `finish` when all tables are read.
        """
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in _fields(kind) if not f.metadata.get("internal")}
        rest = next((name for name, field in fields.items() if field.metadata.get("rest")), None)
        values: dict[str, Any] = {}
        for key, value in table.items():
            dotted = f"{prefix}{key}"
            try:
                if key in fields and key != rest:
                    values[key] = self._value(dotted, value, hints[key], fields[key].metadata)
                elif rest is not None:
                    is_file = key in fields[rest].metadata.get("files", ())
                    values.setdefault(rest, {})[key] = (self._file if is_file else self._finite)(dotted, value)
                else:
                    raise self.error(dotted, _unknown_key(key, list(fields), prefix))
            except ConfigError as mistake:
                self.mistakes.append(mistake)
        return kind(**values)

    def finish(self) -> None:
        """Raise one error for all mistakes, if there are any.

        Raises
        ------
        ConfigError
            If there are several mistakes, the error has a note for each of them.
        """
        # A section that several groups share is read for each of them.
        messages = list(dict.fromkeys(mistake.message for mistake in self.mistakes))
        if len(messages) == 1:
            raise self.mistakes[0]
        if messages:
            error = ConfigError("; ".join(messages))
            for message in messages:
                error.add_note(message)
            raise error

    def _value(self, key: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
        origin = typing.get_origin(hint)
        if dataclasses.is_dataclass(hint):
            if isinstance(value, str) and "short" in metadata:
                value = {metadata["short"]: value}
            self._expect(key, value, dict, "a text or a section" if "short" in metadata else "a section")
            return self.read(typing.cast("type[Any]", hint), value, f"{key}.")
        if origin is Mapping:
            self._expect(key, value, dict, "a section")
            return self._path_pairs(key, value) if metadata.get("path_pairs") else dict(self._finite(key, value))
        if origin is types.UnionType:
            hint = next(member for member in typing.get_args(hint) if member is not types.NoneType)
            if hint is pathlib.Path and value == "":
                return None
        if origin is tuple:
            return self._values(key, value, typing.get_args(hint)[0], metadata)
        if typing.get_origin(hint) is typing.Literal:
            return self._choice(key, value, typing.get_args(hint))
        if hint is pathlib.Path:
            return self._path(key, value)
        return self._scalar(key, value, hint, metadata)

    def _values(self, key: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
        if metadata.get("ends"):
            return self._ends(key, value, metadata)
        self._expect(key, value, list, "a list of whole numbers" if hint is int else "a list of texts")
        if not value and not metadata.get("empty"):
            raise self.error(key, "got an empty list; at least one entry is needed")
        # An entry that is repeated has no meaning in any list; a folder would be watched twice.
        return tuple(dict.fromkeys(self._value(key, item, hint, metadata) for item in value))

    def _path_pairs(self, key: str, value: Mapping[str, Any]) -> dict[str, str]:
        for here, there in value.items():
            if not isinstance(there, str) or not (here.startswith("/") and there.startswith("/")):
                raise self.error(key, f"got {here!r} = {there!r}; two absolute paths as text are expected")
        return dict(value)

    def _ends(self, key: str, value: Any, metadata: Mapping[str, Any]) -> tuple[float, ...]:
        words = "a list of two numbers, the smaller one first,"
        self._expect(key, value, list, words)
        ends = tuple(self._scalar(key, item, float, metadata) for item in value)
        if ends and (len(ends) != 2 or ends[0] >= ends[1]):
            raise self.error(key, f"got {value!r}; {words} is expected")
        return ends

    def _choice(self, key: str, value: Any, allowed: tuple[str, ...]) -> str:
        if value in allowed:
            return str(value)
        raise self.error(key, f"got {value!r}; allowed are {', '.join(map(repr, allowed))}")

    def _file(self, key: str, value: Any) -> Any:
        """Return the path of a file, or its name if it is given without a folder; methods judge other values."""
        is_path = isinstance(value, str) and ("/" in value or value.startswith("~"))
        return os.fspath(self._path(key, value)) if is_path else self._finite(key, value)

    def _path(self, key: str, value: Any) -> pathlib.Path:
        self._expect(key, value, str, "a path as text")
        if not value:
            raise self.error(key, "got an empty path")
        base = None if key in self.origins else self.folder
        return pathlib.Path(os.path.abspath((base or pathlib.Path()) / pathlib.Path(value).expanduser()))  # noqa: PTH100 -- resolve() would follow links

    def _scalar(self, key: str, value: Any, kind: type, metadata: Mapping[str, Any]) -> Any:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                value = math.inf if value > 0 else -math.inf
        self._expect(key, value, kind, words[kind])
        self._finite(key, value)
        if "minimum" in metadata and value < metadata["minimum"]:
            raise self.error(key, f"got {value}; {metadata['minimum']} or more is allowed")
        if value and value < metadata.get("minimum_or_0", value):
            raise self.error(key, f"got {value}; 0, or {metadata['minimum_or_0']} or more is allowed")
        if "maximum" in metadata and value > metadata["maximum"]:
            raise self.error(key, f"got {value}; {metadata['maximum']} or less is allowed")
        if "above" in metadata and value <= metadata["above"]:
            raise self.error(key, f"got {value}; more than {metadata['above']} is allowed")
        if "pattern" in metadata and not re.fullmatch(metadata["pattern"][0], value):
            raise self.error(key, f"got {value!r}; {metadata['pattern'][1]} is expected")
        if metadata.get("file_name") and (not value or set(value) & set("/\0")):
            raise self.error(key, f"got {value!r}; a text that can be part of a file name is needed")
        return value

    def _finite(self, key: str, value: Any) -> Any:
        """Return `value`, unless it contains NaN or infinity, which TOML allows and no method can use."""
        if isinstance(value, dict):
            for name, inner in value.items():
                self._finite(f"{key}.{name}", inner)
        elif isinstance(value, list):
            for inner in value:
                self._finite(key, inner)
        elif isinstance(value, float) and not math.isfinite(value):
            raise self.error(key, f"got {value}; a finite number is expected")
        return value

    def _expect(self, key: str, value: Any, kind: type, words: str) -> None:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"got {_shown(value)}; {words} is expected")


def _fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _shown(value: Any) -> str:
    return "a section" if isinstance(value, dict) else f"{value!r}"


def _unknown_key(key: str, known: list[str], prefix: str) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"unknown key; did you mean {prefix}{close[0]}?"
    return f"unknown key; allowed here are {', '.join(sorted(known))}"

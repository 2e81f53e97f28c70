"""The log events, as defined by the schema in the package."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

import jsonschema

import dcnumd


@functools.cache
def event_schema() -> dict[str, Any]:
    """Return the schema of the log events."""
    text = (importlib.resources.files(dcnumd) / "daemon" / "events.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def event_names() -> set[str]:
    """Return the names of all events."""
    return {name for name in event_schema()["$defs"] if "." in name}


def event_fields(name: str) -> set[str]:
    """Return the fields that the lines of an event may have, those of every line included."""
    definitions = event_schema()["$defs"]
    fields: set[str] = set()
    definition = definitions[name]
    while True:
        fields |= set(definition["properties"])
        if "$ref" not in definition:
            return fields
        definition = definitions[definition["$ref"].rpartition("/")[2]]


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = event_schema()
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})


def fault_of(event: dict[str, Any]) -> str | None:
    """Return how an event violates the schema; None if it does not."""
    name = "shortened" if "shortened_from" in event else str(event.get("event"))
    if name not in event_schema()["$defs"]:
        return f"there is no event {name!r}"
    errors = sorted(_validator(name).iter_errors(event), key=lambda error: error.json_path)
    return "; ".join(f"{error.json_path}: {error.message}" for error in errors) or None

"""Folders that are searched for files that settings name without a folder, such as models.

The registry holds for this process only; whoever starts a process passes on the path that was found.
"""

from __future__ import annotations

import contextlib
import os
import pathlib

search_path_registry: dict[str, list[pathlib.Path]] = {}
"""Registered folders of each topic, in the order in which they are searched."""


def register_search_path(topic: str, search_path: str | os.PathLike[str]) -> None:
    """Register a folder for a topic, such as ``torch_model_files``."""
    folders = search_path_registry.setdefault(topic, [])
    folder = pathlib.Path(search_path)
    if folder not in folders:
        folders.append(folder)


def find_file(topic: str, file_name: str) -> pathlib.Path:
    """Return the path of a file in the first registered folder of a topic that contains it.

    Folders that cannot be read are passed over.

    Raises
    ------
    KeyError
        No registered folder contains the file.
    """
    folders = search_path_registry.get(topic, [])
    for folder in folders:
        with contextlib.suppress(OSError):
            if (folder / file_name).is_file():
                return folder / file_name
    raise KeyError(f"Could not find {file_name} for {topic} in the registered folders {[*map(str, folders)]}")

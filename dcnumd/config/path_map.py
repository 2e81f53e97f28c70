"""Names of files on this computer and on the workers of a cluster, which may mount the same share elsewhere."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Self


@dataclasses.dataclass(frozen=True, slots=True)
class PathMap:
    """Pairs of folders: where files are here, and where the same files are on the workers."""

    pairs: tuple[tuple[pathlib.Path, pathlib.Path], ...]
    """Folders here and there, the longest path here first; without any, all paths are the same."""

    @classmethod
    def of(cls, paths: Mapping[str, str]) -> Self:
        """Return the map for the setting ``executor.paths``."""
        pairs = ((pathlib.Path(here), pathlib.Path(there)) for here, there in paths.items())
        return cls(tuple(sorted(pairs, key=lambda pair: len(pair[0].parts), reverse=True)))

    def covers(self, path: pathlib.Path) -> bool:
        """Return whether it is known where `path` is on the workers."""
        return not self.pairs or any(path.is_relative_to(here) for here, _ in self.pairs)

    def there(self, path: pathlib.Path) -> pathlib.Path:
        """Return the path on the workers of a file or folder on this computer.

        Raises
        ------
        ValueError
            No folder of this map contains `path`.
        """
        if not self.pairs:
            return path
        for here, there in self.pairs:
            if path.is_relative_to(here):
                return there / path.relative_to(here)
        raise ValueError(f"{path}: in none of the folders {', '.join(str(here) for here, _ in self.pairs)}")

"""What instruments and operators do to a watched folder, at random."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
import random
import time
from collections.abc import Callable
from typing import Self

import h5py
import numpy as np

from tests.support.daemon import draw_measurement
from tests.support.places import MountedFolder, can_mount

NAMES = ("a.rtdc", "b (2).rtdc", "ü.rtdc")
FOLDERS = (".", "x", "x/y")
DATES = (0.0, 1.0e9, 4.0e9)
FIRST_FRAMES = 9


@dataclasses.dataclass
class Content:
    """What is in a file now."""

    version: int
    """Unique; also the number of frames of a measurement."""
    broken: bool = False
    growing: h5py.File | None = None
    """Its writer has it open."""
    heard_before: int = 0
    """Events of the log when a broken one was put there."""


class World:
    """A watched folder, and what is in it; each action returns what it did, or nothing if it could not.

    Parameters
    ----------
    folder
        An empty folder for everything.
    seed
        Decides all actions.
    """

    def __init__(self, folder: pathlib.Path, seed: int) -> None:
        self.folder = folder
        self.watched = folder / "acquisition"
        self.rng = random.Random(seed)
        self.files: dict[str, Content] = {}
        self.place: MountedFolder | None = None
        self.is_mounted = True
        self.placed: collections.Counter[tuple[str, int]] = collections.Counter()
        """How often each measurement was put under each name."""
        self.spoiled: collections.Counter[str] = collections.Counter()
        """How often something broken was put under each name."""
        self.begun: set[str] = set()
        """Names under which a recording was written in place."""
        self.stack = contextlib.ExitStack()
        self._versions = itertools.count(FIRST_FRAMES)
        self._folders = itertools.count()

    def __enter__(self) -> Self:
        for name in ("acquisition", "store", "tmp"):
            (self.folder / name).mkdir()
        if can_mount():
            self.place = self.stack.enter_context(MountedFolder(self.watched, self.folder / "store"))
        return self

    def __exit__(self, *_: object) -> None:
        for content in self.files.values():
            if content.growing is not None:
                content.growing.close()
        self.stack.close()

    @property
    def disk(self) -> pathlib.Path:
        """Where the files are, whether the watched folder is mounted or not."""
        return self.folder / "store" if self.place is not None else self.watched

    def log(self) -> list[dict[str, object]]:
        """Return all events of all daemons so far."""
        return []

    def new_tree(self) -> str:
        """Return a name for a folder that was never there."""
        return f"tree {next(self._folders)}"

    def create(self) -> str:
        """Write a measurement elsewhere and rename it into place."""
        name = self._any_name()
        if self._is_growing(name):
            return ""
        version = next(self._versions)
        hidden = self._prepare(name).with_name(".writing")
        draw_measurement(hidden, frames=version, seed=version)
        hidden.rename(self.disk / name)
        verb = "replace" if name in self.files else "create"
        self.put(name, Content(version))
        return f"{verb} {name} ({version} frames)"

    def spoil(self) -> str:
        """Put something broken under a name."""
        name = self._any_name()
        if self._is_growing(name):
            return ""
        version = next(self._versions)
        hidden = self._prepare(name).with_name(".writing")
        if self.rng.random() < 0.5:
            hidden.write_bytes(self.rng.randbytes(3000 + version))
        else:
            with h5py.File(hidden, "w") as h5:
                h5["events/deform"] = np.zeros(version)
        heard = len(self.log())
        hidden.rename(self.disk / name)
        self.put(name, Content(version, broken=True, heard_before=heard))
        self.spoiled[name] += 1
        return f"put something broken at {name}"

    def begin(self) -> str:
        """Begin to write a measurement in place."""
        name = self._any_name()
        if name in self.files:
            return ""
        version = next(self._versions)
        path = self._prepare(name)
        draw_measurement(path.with_name(".writing"), frames=FIRST_FRAMES, seed=version)
        with h5py.File(path.with_name(".writing")) as source:
            h5 = h5py.File(path, "w")
            events = h5.create_group("events")
            for feature, values in source["events"].items():
                events.create_dataset(feature, data=values[:], maxshape=(None, *values.shape[1:]))
            h5.attrs.update(source.attrs)
        path.with_name(".writing").unlink()
        h5.flush()
        self.files[name] = Content(version, growing=h5)
        self.begun.add(name)
        return f"begin {name}"

    def append(self) -> str:
        """Append to a measurement that is being written, without its end."""
        name = self._some(lambda content: content.growing is not None)
        if name is None:
            return ""
        h5 = self.files[name].growing
        assert h5 is not None
        self._extend(h5, len(h5["events/image"]) + 1)
        h5.flush()
        return f"append to {name}"

    def finish(self) -> str:
        """Finish a measurement that is being written."""
        name = self._some(lambda content: content.growing is not None)
        if name is None:
            return ""
        content = self.files[name]
        assert content.growing is not None
        version = max(next(self._versions), len(content.growing["events/image"]) + 1)
        self._versions = itertools.count(version + 1)
        self._extend(content.growing, version)
        self._name_it(content.growing, version)
        content.growing.close()
        self.put(name, Content(version))
        return f"finish {name} ({version} frames)"

    def reopen(self) -> str:
        """Append to a finished measurement, in one go; a reader's lock would make that fail."""
        name = self._some(lambda content: not content.broken and content.growing is None)
        if name is None:
            return ""
        version = next(self._versions)
        with h5py.File(self.disk / name, "a") as h5:
            if h5["events/image"].maxshape[0] is not None:
                return ""
            self._name_it(h5, version)
            for feature, values in list(h5["events"].items()):
                old = values[:]
                del h5["events"][feature]
                h5["events"][feature] = longer(old, version)
        self.put(name, Content(version))
        return f"write {name} anew in place ({version} frames)"

    def rename(self) -> str:
        """Give a file another name, perhaps in another folder."""
        name = self._some(lambda content: content.growing is None)
        target = self._any_name()
        if name is None or target in self.files:
            return ""
        heard = len(self.log())
        (self.disk / name).rename(self._prepare(target))
        content = dataclasses.replace(self.files.pop(name), heard_before=heard)
        self.spoiled[target] += content.broken
        self.put(target, content)
        return f"rename {name} to {target}"

    def delete(self) -> str:
        """Remove a file."""
        name = self._some(lambda content: content.growing is None)
        if name is None:
            return ""
        (self.disk / name).unlink()
        del self.files[name]
        return f"delete {name}"

    def touch(self) -> str:
        """Give a file a date of now or of another time."""
        name = self._some(lambda content: not content.broken)
        if name is None:
            return ""
        date = self.rng.choice([*DATES, time.time()])
        os.utime(self.disk / name, (date, date))
        return f"touch {name}: {date:.0f}"

    def move_tree_in(self) -> str:
        """Move a new folder with measurements in its folders into the watched folder."""
        top = self.new_tree()
        tree = self.disk / f".{top}"
        names = [f"{top}/1.rtdc", f"{top}/deep/er/2.rtdc"]
        versions = [next(self._versions) for _ in names]
        for name, version in zip(names, versions, strict=True):
            path = self.disk / f".{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_measurement(path, frames=version, seed=version)
        tree.rename(self.disk / top)
        for name, version in zip(names, versions, strict=True):
            self.put(name, Content(version))
        return f"move in {top}"

    def pause(self) -> str:
        """Let time pass, sometimes more than what a file must be left alone for."""
        seconds = self.rng.choice([0.05, 0.1, 0.3, 0.6])
        time.sleep(seconds)
        return f"pause {seconds} s"

    def unmount(self) -> str:
        """Have an empty folder in place of the watched one."""
        if self.place is None or not self.is_mounted:
            return ""
        self.place.unmount()
        self.is_mounted = False
        return "unmount"

    def remount(self) -> str:
        """Have the watched folder back."""
        if self.place is None or self.is_mounted:
            return ""
        self.place.mount()
        self.is_mounted = True
        return "remount"

    def _prepare(self, name: str) -> pathlib.Path:
        path = self.disk / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, content: Content) -> None:
        """Note what is under a name now."""
        self.files[name] = content
        self.placed[name, content.version] += 1

    def _any_name(self) -> str:
        return os.path.normpath(f"{self.rng.choice(FOLDERS)}/{self.rng.choice(NAMES)}")

    def _some(self, accepts: Callable[[Content], bool]) -> str | None:
        names = sorted(name for name, content in self.files.items() if accepts(content))
        return self.rng.choice(names) if names else None

    def _is_growing(self, name: str) -> bool:
        return name in self.files and self.files[name].growing is not None

    @staticmethod
    def _extend(h5: h5py.File, frames: int) -> None:
        for dataset in h5["events"].values():
            count = len(dataset)
            dataset.resize(frames, axis=0)
            dataset[count:] = longer(dataset[:count], frames)[count:]

    @staticmethod
    def _name_it(h5: h5py.File, version: int) -> None:
        h5.attrs["experiment:event count"] = version
        h5.attrs["experiment:sample"] = f"version {version}"
        h5.attrs["setup:identifier"] = f"ZMD-VERSION-{version}"


def longer(values: np.ndarray, frames: int) -> np.ndarray:
    """Return the values of a feature for other frames: images come again, numbers and times go on."""
    if values.ndim == 1:
        return np.arange(frames) * (values[1] - values[0]) + values[0]
    return np.resize(values, (frames, *values.shape[1:]))

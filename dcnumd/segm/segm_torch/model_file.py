"""Model files (``.dcnm``): where they are, whether they are intact, and what they say of themselves.

A model is code. Nothing in a file is run or unpickled here; whoever does that passes on the very bytes that
`ModelFile.read` has checked. This module imports only the standard library, so that the supervisor and the command
line can read models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence

from dcnumd.errors import ModelError
from dcnumd.meta import paths
from dcnumd.segm.segm_torch.model_meta import ModelMeta, Wiring, parse_meta

SUFFIX = ".dcnm"
TOPIC = "torch_model_files"
"""Topic of the folders of models in `dcnumd.meta.paths`."""
META_NAME = "dcnum_meta.json"
MAGIC_1 = b"PK\x03\x04"
"""First bytes of a zip archive, hence of version 1."""
MAGIC_2 = b"DCNM"
"""First bytes of version 2, instead of those of a zip archive."""
DIGEST_LENGTH = 32
"""Number of hexadecimal digits of an MD5, with which version 2 ends."""
NAME_DIGITS = 5
"""Number of digits of the MD5 at the end of the file's stem."""

MAX_FILE_BYTES = 2**31
"""Largest size of a model file [bytes]."""
MAX_META_BYTES = 2**20
"""Largest size of the metadata [bytes]."""
MAX_UNPACKED_BYTES = 2**32
"""Largest size of all members of an archive together [bytes]."""
USUAL_UNPACKED_BYTES = 2**26
"""Size of all members of an archive together up to which any compression is believed [bytes]."""
MAX_RATIO = 200
"""Largest factor by which a larger archive may grow when it is unpacked; weights shrink to a half at best."""
NATIVE_CODE = ("data/aotinductor/", "data/constants/opaque_obj", "data/constants/custom_obj")
"""Parts of names in an exported program: compiled libraries, and objects that the loader creates with any class."""
MAX_MEMBERS = 100_000
"""Largest number of members of an archive."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that was found intact."""

    path: pathlib.Path
    """Absolute path."""
    size: int
    """Size of the file [bytes]."""
    md5: str
    """MD5 of the file, hexadecimal."""
    version: int
    """Version of the file format, 1 or 2."""
    meta: ModelMeta

    @property
    def file_name(self) -> str:
        """Name of the file, which stands for the model in pipeline identifiers."""
        return self.path.name

    def read(self) -> bytes:
        """Return the content of the file.

        Raises
        ------
        ModelError
            Reason ``model_missing`` or ``model_damaged``: the file is gone, or it is not the same any more.
        """
        content = _read_bytes(self.path)
        if _md5(content) != self.md5:
            raise ModelError(f"{self.path}: the file has changed since it was checked")
        return content

    def read_network(self) -> bytes:
        """Return the network of a model, as torch loads it; for version 2 this is a member of the file.

        Raises
        ------
        ModelError
            As for `read`; or the network is an archive that grows too much when it is unpacked, or that contains more
            than numbers and a graph.
        """
        content = self.read()
        if self.version == 1:
            return content
        with _open_archive(self.path, content) as archive:
            network = archive.read(f"{self.meta.identifier}.pt2")
        # it is an archive, too, which torch unpacks
        with _open_archive(self.path, network) as archive:
            found = [name for name in archive.namelist() if any(part in name for part in NATIVE_CODE)]
        if found:
            raise ModelError(f"{self.path}: the network contains {found[0]}, which is native code", "model_unsupported")
        return network

    def wiring(self, backend: str | None = None, device: str | None = None) -> Wiring:
        """Return the best way to run the model for which backend and device, if they are given, are these.

        A backend and a device together are used even if the model does not name them.

        Raises
        ------
        ModelError
            Reason ``model_unsupported``: the model names no such way.
        """
        if device == "cuda":
            device = "cuda:0"
        if backend is not None and device is not None:
            return Wiring(backend, device)
        for option in self.meta.wiring_options:
            place = "cuda:0" if option.device == "cuda" else option.device
            if backend in {None, option.backend} and device in {None, place}:
                return Wiring(option.backend, place)
        known = ", ".join(f"{option.backend} on {option.device}" for option in self.meta.wiring_options) or "none"
        wanted = " and ".join(
            f"{name} {value!r}" for name, value in (("backend", backend), ("device", device)) if value is not None
        )
        raise ModelError(
            f"{self.path}: the model has no way to run with {wanted or 'neither backend nor device given'}, "
            f"it names {known}",
            "model_unsupported",
        )


def find_model(model: str | os.PathLike[str], folders: Sequence[str | os.PathLike[str]] = ()) -> pathlib.Path:
    """Return the absolute path of a model file.

    Parameters
    ----------
    model
        Path of the file, or its name, which is looked for in folders.
    folders
        Folders to look in first; then those that are registered in `dcnumd.meta.paths` follow.

    Raises
    ------
    ModelError
        Reason ``model_missing``: there is no such file.
    """
    path = pathlib.Path(model)
    unread = []
    for candidate in (path, *(pathlib.Path(folder, path.name) for folder in folders)):
        try:
            if candidate.is_file():
                return candidate.absolute()
        except OSError as error:
            # a folder that cannot be entered, or a name that is too long
            unread.append(f"; {candidate}: {error.strerror}")
    with contextlib.suppress(KeyError):
        return paths.find_file(TOPIC, path.name).absolute()
    looked = [os.fspath(folder) for folder in folders] + list(map(str, paths.search_path_registry.get(TOPIC, ())))
    where = f" nor in {', '.join(looked)}" if looked else ", and no folder of models is known"
    raise ModelError(f"model file {os.fspath(model)!r} is not there{where}{''.join(unread)}", "model_missing")


def list_models(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Return the paths of all files in a folder that have the suffix of models, sorted by name."""
    return sorted(path.absolute() for path in pathlib.Path(folder).iterdir() if path.suffix == SUFFIX)


def read_model(path: str | os.PathLike[str]) -> ModelFile:
    """Check a model file, and return it with its metadata.

    An unchanged file is read once in each process.

    Raises
    ------
    ModelError
        Reason ``model_missing``, ``model_damaged``, or ``model_unsupported``.
    """
    place = pathlib.Path(path).absolute()
    return _read_cached(place, _stamp(place))


@functools.lru_cache(maxsize=64)
def _read_cached(path: pathlib.Path, _stamp_of_file: tuple[int, ...]) -> ModelFile:
    content = _read_bytes(path)
    md5 = _md5(content)
    digits = path.stem.rpartition("_")[2]
    if digits != md5[:NAME_DIGITS]:
        raise ModelError(
            f"{path}: the MD5 of the file begins with {md5[:NAME_DIGITS]}, but its name ends with {digits[-20:]!r}; "
            "the file was damaged, or renamed"
        )
    version = {MAGIC_1: 1, MAGIC_2: 2}.get(content[:4])
    if version is None:
        raise ModelError(f"{path}: begins with {content[:4]!r}, expected {MAGIC_1!r} (version 1) or {MAGIC_2!r} (2)")
    if version == 2 and _md5(memoryview(content)[:-DIGEST_LENGTH]).encode() != content[-DIGEST_LENGTH:]:
        raise ModelError(f"{path}: does not end with the MD5 of what comes before it; the file is damaged")
    with _open_archive(path, content) as archive:
        meta = _read_meta(path, archive, version)
    return ModelFile(path, len(content), md5, version, meta)


def _stamp(path: pathlib.Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", "model_missing") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        # opening a named pipe would wait for a writer
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ModelError(f"{path}: is not a file")
            if found.st_size > MAX_FILE_BYTES:
                raise ModelError(
                    f"{path}: has {found.st_size} bytes, more than the {MAX_FILE_BYTES} that a model may have",
                    "model_unsupported",
                )
            # a larger number would be allocated; one byte more ends the reading
            return file.read(found.st_size + 1)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", "model_missing") from error


def _md5(content: bytes | memoryview) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _open_archive(path: pathlib.Path, content: bytes) -> Iterator[zipfile.ZipFile]:
    """Open an archive, after its directory was found to be harmless."""
    file = io.BytesIO(content)
    file.write(MAGIC_1)
    try:
        with zipfile.ZipFile(file) as archive:
            _check_directory(path, archive, len(content))
            yield archive
    except (zipfile.BadZipFile, zlib.error, struct.error, KeyError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: cannot be read as an archive: {error}") from error


def _check_directory(path: pathlib.Path, archive: zipfile.ZipFile, size: int) -> None:
    """Make sure that unpacking an archive yields no more than it says, and that this is not too much."""
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or unpacked > min(MAX_UNPACKED_BYTES, max(USUAL_UNPACKED_BYTES, MAX_RATIO * size)):
        raise ModelError(
            f"{path}: an archive of {size} bytes has {len(members)} members, which take {unpacked} bytes unpacked; "
            "this is no model",
            "model_unsupported",
        )
    if len({member.filename for member in members}) < len(members):
        raise ModelError(f"{path}: two members of the archive have the same name")
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ModelError(f"{path}: {member.filename} is encrypted or packed by another method than deflate")


def _read_meta(path: pathlib.Path, archive: zipfile.ZipFile, version: int) -> ModelMeta:
    names = archive.namelist()
    if version == 1:
        # torch takes the folder of the first member for the one of all
        root = names[0].partition("/")[0] if names else ""
        name = f"{root}/extra/{META_NAME}"
    else:
        name = META_NAME
    if name not in names:
        raise ModelError(f"{path}: has no {name}; it is an archive, but not a model for dcnum", "model_unsupported")
    with archive.open(name) as file:
        text = file.read(MAX_META_BYTES + 1)
    if len(text) > MAX_META_BYTES:
        raise ModelError(f"{path}: {META_NAME} has more than {MAX_META_BYTES} bytes", "model_unsupported")
    try:
        meta = parse_meta(text, version)
    except ValueError as error:
        raise ModelError(f"{path}: {error}", "model_unsupported") from error
    if version == 2 and f"{meta.identifier}.pt2" not in names:
        raise ModelError(f"{path}: has no member {meta.identifier}.pt2, which the metadata name", "model_unsupported")
    return meta

"""Damaged measurements: sound small ones of several layouts, and what faults of disks, copies and strangers do to them.

The same seed makes the same files.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import h5py
import hdf5plugin
import numpy as np

from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

FRAMES = 64
SIZE = (48, 96)
HEADER_BYTES = 2048
EXTREMES = (0, 1, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a measurement is stored."""

    name: str
    libver: str
    keywords: dict[str, object]


CHUNKS = (16, *SIZE)
LAYOUTS = (
    Layout("zstd-v0", "earliest", {"chunks": CHUNKS, "fletcher32": True, **hdf5plugin.Zstd(clevel=3)}),
    Layout("zstd-v3", "latest", {"chunks": CHUNKS, "fletcher32": True, **hdf5plugin.Zstd(clevel=3)}),
    Layout("gzip-v0", "earliest", {"chunks": CHUNKS, "compression": "gzip"}),
    Layout("gzip-v3", "latest", {"chunks": CHUNKS, "compression": "gzip", "shuffle": True, "fletcher32": True}),
    Layout("plain-v0", "earliest", {"chunks": CHUNKS}),
    Layout("split-v3", "v110", {"chunks": (5, 20, 50), **hdf5plugin.Zstd(clevel=1)}),
    Layout("contiguous-v0", "earliest", {}),
    Layout("contiguous-v3", "latest", {}),
)


def write_layouts(folder: pathlib.Path) -> list[pathlib.Path]:
    """Write the same sound measurement once in each layout."""
    original = folder / "original.rtdc"
    write_measurement(original, MeasurementSpec(frames=FRAMES, size=SIZE, density=0.8, seed=11))
    paths = []
    for layout in LAYOUTS:
        path = folder / f"{layout.name}.rtdc"
        with h5py.File(original) as source, h5py.File(path, "w", libver=layout.libver) as target:
            _copy(source, target, layout.keywords)
        paths.append(path)
    original.unlink()
    return paths


def _copy(source: h5py.File, target: h5py.File, keywords: dict[str, object]) -> None:
    target.attrs.update(source.attrs)
    for name, dataset in source["events"].items():
        layout = keywords if dataset.ndim == 3 else {}
        target.create_dataset(f"events/{name}", data=dataset[:], **layout)
    for group in ("logs", "tables"):
        for name in source[group]:
            source.copy(source[group][name], target.require_group(group), name)
    target.create_dataset("logs/variable", data=["eins", "zwei", "drei" * 20], dtype=h5py.string_dtype())


@dataclasses.dataclass
class Material:
    """The bytes of a sound measurement, and where its frames are."""

    name: str
    content: bytes
    data: list[tuple[int, int]]

    @classmethod
    def of(cls, path: pathlib.Path) -> Material:
        """Read a measurement."""
        with h5py.File(path) as h5:
            image = h5["events/image"]
            if image.chunks is None:
                data = [(image.id.get_offset(), image.nbytes)]
            else:
                chunks = [image.id.get_chunk_info(number) for number in range(image.id.get_num_chunks())]
                data = [(chunk.byte_offset, chunk.size) for chunk in chunks]
        return cls(path.stem, path.read_bytes(), data)

    def place(self, rng: np.random.Generator, where: str) -> int:
        """Choose a byte of the header, of the frames, or of all that is not frames."""
        if where == "header":
            return int(rng.integers(HEADER_BYTES))
        offset, size = self.data[rng.integers(len(self.data))]
        if where == "data":
            return int(offset + rng.integers(size))
        while True:
            position = int(rng.integers(len(self.content)))
            if not any(start <= position < start + length for start, length in self.data):
                return position


Damage = Callable[[Material, np.random.Generator], bytes]


def _truncate(material: Material, rng: np.random.Generator) -> bytes:
    return material.content[: rng.integers(len(material.content))]


def _flip(where: str, most: int) -> Damage:
    def damage(material: Material, rng: np.random.Generator) -> bytes:
        content = bytearray(material.content)
        for _ in range(rng.integers(1, most + 1)):
            content[material.place(rng, where)] ^= 1 << int(rng.integers(8))
        return bytes(content)

    return damage


def _overwrite(where: str, filling: str) -> Damage:
    def damage(material: Material, rng: np.random.Generator) -> bytes:
        content = bytearray(material.content)
        start = material.place(rng, where)
        size = min(int(2 ** rng.uniform(0, 13)), len(content) - start)
        content[start : start + size] = bytes(size) if filling == "zeros" else rng.bytes(size)
        return bytes(content)

    return damage


def _extreme(where: str) -> Damage:
    """Put an absurd number where a size, a count or an address may be."""

    def damage(material: Material, rng: np.random.Generator) -> bytes:
        content = bytearray(material.content)
        for _ in range(rng.integers(1, 4)):
            width = int(rng.choice([1, 2, 4, 8]))
            start = min(material.place(rng, where) // width * width, len(content) - width)
            value = int(EXTREMES[rng.integers(len(EXTREMES))]) % 2 ** (8 * width)
            content[start : start + width] = value.to_bytes(width, "little")
        return bytes(content)

    return damage


def _blank_tail(material: Material, rng: np.random.Generator) -> bytes:
    kept = int(rng.integers(len(material.content)))
    return material.content[:kept] + bytes(len(material.content) - kept)


def _move(material: Material, rng: np.random.Generator) -> bytes:
    """Put a block where another one was."""
    content = bytearray(material.content)
    size = int(2 ** rng.uniform(3, 12))
    source, target = (int(rng.integers(len(content) - size)) for _ in range(2))
    content[target : target + size] = material.content[source : source + size]
    return bytes(content)


def _garbage(material: Material, rng: np.random.Generator) -> bytes:
    kept = int(rng.choice([0, 8, 96, 512]))
    return material.content[:kept] + rng.bytes(int(rng.integers(1, 20000)))


DAMAGES: dict[str, Damage] = {
    "truncated": _truncate,
    "flipped header": _flip("header", 3),
    "flipped metadata": _flip("metadata", 6),
    "flipped data": _flip("data", 3),
    "zeroed header": _overwrite("header", "zeros"),
    "zeroed metadata": _overwrite("metadata", "zeros"),
    "zeroed data": _overwrite("data", "zeros"),
    "garbage in header": _overwrite("header", "garbage"),
    "garbage in metadata": _overwrite("metadata", "garbage"),
    "garbage in data": _overwrite("data", "garbage"),
    "absurd number in header": _extreme("header"),
    "absurd number in metadata": _extreme("metadata"),
    "blank tail": _blank_tail,
    "moved block": _move,
    "garbage": _garbage,
}


def damage_material(material: Material, number: int, seed: int) -> tuple[str, bytes]:
    """Return what is done to a measurement, and what it is then."""
    rng = np.random.default_rng([seed, number])
    if number % 4 == 3 and (absurd := absurd_tampering(material, rng)) is not None:
        return absurd
    kind = list(DAMAGES)[number % len(DAMAGES)]
    return kind, DAMAGES[kind](material, rng)


def absurd_tampering(material: Material, rng: np.random.Generator) -> tuple[str, bytes] | None:
    """Change a measurement with HDF5's own means, so that all its checksums are right."""
    kind = list(TAMPERINGS)[rng.integers(len(TAMPERINGS))]
    image = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    image.set_fapl_core(backing_store=False)
    image.set_file_image(material.content)
    with h5py.File(h5py.h5f.open(material.name.encode(), h5py.h5f.ACC_RDWR, fapl=image)) as h5:
        TAMPERINGS[kind](h5, rng)
        h5.flush()
        return kind, h5.id.get_file_image()


def _new_image(shape: tuple[int, ...], chunks: tuple[int, ...] | None, dtype: str = "u1") -> Callable[..., None]:
    def tamper(h5: h5py.File, _rng: np.random.Generator) -> None:
        del h5["events/image"]
        h5.create_dataset("events/image", shape, dtype, chunks=chunks)
        if rng_count := h5.attrs.get("experiment:event count"):
            h5.attrs["experiment:event count"] = type(rng_count)(min(shape[0], 2**31 - 1))

    return tamper


def _new_item(name: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...] | None) -> Callable[..., None]:
    def tamper(h5: h5py.File, _rng: np.random.Generator) -> None:
        if name in h5:
            del h5[name]
        h5.create_dataset(name, shape, dtype, chunks=chunks)

    return tamper


def _attribute(name: str, *values: object) -> Callable[..., None]:
    def tamper(h5: h5py.File, rng: np.random.Generator) -> None:
        h5.attrs[name] = values[rng.integers(len(values))]

    return tamper


def _scalar(name: str, *values: float) -> Callable[..., None]:
    def tamper(h5: h5py.File, rng: np.random.Generator) -> None:
        data = h5[f"events/{name}"]
        value = np.array(values[rng.integers(len(values))])
        with np.errstate(invalid="ignore"):
            data[-int(rng.integers(1, 40)) :] = value.astype(data.dtype)

    return tamper


def _link_circle(h5: h5py.File, _rng: np.random.Generator) -> None:
    del h5["events/image"]
    h5["events/image"] = h5py.SoftLink("/events/mask")
    h5["events/mask"] = h5py.SoftLink("/events/image")


def _external_link(h5: h5py.File, _rng: np.random.Generator) -> None:
    h5["logs/other"] = h5py.ExternalLink("/etc/hostname", "x")


def _basin(**definition: object) -> Callable[..., None]:
    def tamper(h5: h5py.File, _rng: np.random.Generator) -> None:
        import json  # noqa: PLC0415 -- only here

        h5["basins/x"] = np.array([json.dumps(definition).encode()])

    return tamper


NUMBERS = (-1.0, 0.0, 1e-300, 1e300, float("inf"), float("nan"))

TAMPERINGS: dict[str, Callable[[h5py.File, np.random.Generator], None]] = {
    "2**40 frames": _new_image((2**40, 80, 320), (10, 80, 320)),
    "2**31 frames": _new_image((2**31, 80, 320), (1000, 80, 320)),
    "2**26 frames": _new_image((2**26, 80, 320), (1000, 80, 320)),
    "no frame written": _new_image((FRAMES, *SIZE), (16, *SIZE)),
    "a frame of 2**32 px": _new_image((2, 2**16, 2**16), (1, 2**10, 2**10)),
    "a chunk of 3 GiB": _new_image((10000, 320, 1000), (9000, 320, 1000)),
    "no pixels": _new_image((FRAMES, 0, 96), None),
    "frames of one pixel": _new_image((FRAMES, 1, 1), (16, 1, 1)),
    "float frames": _new_image((FRAMES, *SIZE), (16, *SIZE), "f4"),
    "2**40 times": _new_item("events/time", (2**40,), "f8", (1000,)),
    "2-D time": _new_item("events/time", (FRAMES, 3), "f8", None),
    "text as time": _new_item("events/time", (FRAMES,), "S8", None),
    "a log of 2**40 lines": _new_item("logs/huge", (2**40,), "S100", (1000,)),
    "a log of one line of 2 GB": _new_item("logs/huge", (1,), "S2000000000", None),
    "a table of 2**40 rows": _new_item("tables/huge", (2**40,), "i4,f8", (1000,)),
    "event count": _attribute("experiment:event count", *NUMBERS, "many", 2**62, [1, 2]),
    "pixel size": _attribute("imaging:pixel size", *NUMBERS, "small", b"0.2", [0.1, 0.2]),
    "frame rate": _attribute("imaging:frame rate", *NUMBERS, "fast", [1.0, 2.0]),
    "run identifier": _attribute("experiment:run identifier", "a\nb\x1b[31m", 7, [1, 2], b"\xff\xfe", "x" * 60000),
    "a large attribute": _attribute("setup:software version", "x" * 60000),
    "time": _scalar("time", *NUMBERS),
    "frame": _scalar("frame", *NUMBERS),
    "links in a circle": _link_circle,
    "external link": _external_link,
    "basin of itself": _basin(type="file", paths=["damaged.rtdc"], features=["image_bg", "temp"]),
    "basin without paths": _basin(type="file", features=["temp"]),
    "basin with odd values": _basin(type=3, paths=[None, 7, "\0"], features=["temp", 5], mapping=["x"]),
    "basin with odd paths": _basin(type="file", paths=[None, 7, "\0", "x" * 5000, ".", "\n"], features=["temp"]),
    "basin with a device": _basin(type="file", paths=["/dev/zero", "/dev/stdin"], features=["temp"]),
}

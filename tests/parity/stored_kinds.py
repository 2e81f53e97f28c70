"""The ways in which files store a number or a text, of which dcnum and dcnumd must make the same."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

FLOATS = ("f8", "f4", "f2", ">f8", ">f4")
WHOLE = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8")
TEXTS = ("str", "bytes")
"""Texts of variable and of fixed length."""


def store_number(attributes: h5py.AttributeManager, key: str, value: float, kind: str) -> None:
    """Store an attribute as a number of a kind, which must be able to hold it about."""
    attributes.create(key, value, dtype=np.dtype(kind))


def store_text(attributes: h5py.AttributeManager, key: str, value: str, kind: str) -> None:
    """Store an attribute as a text of a kind."""
    attributes[key] = value if kind == "str" else np.bytes_(value.encode())


def fits(values: npt.NDArray[Any], kind: str) -> bool:
    """Return whether numbers are in the range of a kind."""
    dtype = np.dtype(kind)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return bool(values.min() >= limits.min and values.max() <= limits.max)


def draw_kind(rng: np.random.Generator, values: npt.ArrayLike, kinds: tuple[str, ...] = (*FLOATS, *WHOLE)) -> str:
    """Return a kind that can hold numbers; the usual ones are more frequent."""
    array = np.asarray(values, np.float64)
    usual = [kind for kind in kinds if kind in {"f8", "f4", "i8", "u4", "u8"} and fits(array, kind)]
    rare = [kind for kind in kinds if fits(array, kind)]
    return str(rng.choice(usual if usual and rng.random() < 0.7 else rare))

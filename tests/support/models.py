"""Model files for tests: those in ../shared/data, and files that are made here without torch."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from dcnumd.extras import lacking
from dcnumd.segm.segm_torch.torch_setup import missing_compiler

G1 = "unet-dcnum-test_g1_910c2"
"""A model for frames of 64x256 px in the channel."""
G2 = "unet-dcnum-test_g2_17ec6"
"""A model for frames of 80x320 px with more rules."""


def describe(**changes: Any) -> dict[str, Any]:
    """Return the metadata of a model for frames of 64x256 px, with changes; a change to None removes an item."""
    usual = {
        "name": "Model of a test",
        "identifier": "net",
        "date": "2026-11-29",
        "description": "Finds what is dark.",
        "preprocessing": {"norm_mean": 0.5, "norm_std": 0.1, "image_shape": [64, 256]},
        "validation": [],
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def describe_2(**changes: Any) -> dict[str, Any]:
    """Return the metadata of a model of version 2, with changes; see `describe`."""
    usual = {
        "model_file_format": "TorchScript",
        "image_shape": [64, 256],
        "preprocessing": None,
        "wiring_options": [{"backend": "torch.jit", "device": "cpu"}],
    }
    return describe(**(usual | changes))


def archive(members: Mapping[str, bytes | str], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as made:
        for name, content in members.items():
            made.writestr(zipfile.ZipInfo(name), content, packing)
    return file.getvalue()


def save(folder: pathlib.Path, content: bytes, stem: str = "net") -> pathlib.Path:
    """Write a model file under a name with its MD5."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = folder / f"{stem}_{digest[:5]}.dcnm"
    path.write_bytes(content)
    return path


def save_1(folder: pathlib.Path, meta: Mapping[str, Any] | str, **members: bytes) -> pathlib.Path:
    """Write a file of version 1 without a network."""
    text = meta if isinstance(meta, str) else json.dumps(meta)
    content = archive({"net/data.pkl": b"", "net/extra/dcnum_meta.json": text, **members}, zipfile.ZIP_STORED)
    return save(folder, content)


def seal(content: bytes) -> bytes:
    """Return an archive as a file of version 2."""
    content = b"DCNM" + content[4:]
    return content + hashlib.md5(content, usedforsecurity=False).hexdigest().encode()


def save_2(folder: pathlib.Path, meta: Mapping[str, Any], network: bytes | None = None) -> pathlib.Path:
    """Write a file of version 2, by default with an archive in place of a network."""
    network = archive({"net/data.pkl": b""}) if network is None else network
    members = {f"{meta.get('identifier', '')}.pt2": network, "dcnum_meta.json": json.dumps(meta)}
    return save(folder, seal(archive(members)))


needs_torch = pytest.mark.skipif(bool(lacking("torch")), reason=lacking("torch"))
"""Marks tests that run networks."""
needs_compiler = pytest.mark.skipif(bool(missing_compiler()), reason=missing_compiler())
"""Marks tests that compile networks to machine code."""
needs_openvino = pytest.mark.skipif(bool(lacking("openvino")), reason=lacking("openvino"))
"""Marks tests that run networks with openvino."""

"""Model files: what is read from them, where they are found, and which files are refused with which reason."""

from __future__ import annotations

import json
import os
import struct
import zipfile

import pytest

from dcnumd.errors import ModelError
from dcnumd.meta import paths
from dcnumd.segm.segm_torch.model_file import find_model, list_models, read_model
from dcnumd.segm.segm_torch.model_meta import MAX_TEXT, Wiring
from tests.support.models import G1, G2, archive, describe, describe_2, save, save_1, save_2, seal


@pytest.fixture(autouse=True)
def no_registered_folders(monkeypatch):
    monkeypatch.setattr(paths, "search_path_registry", {})


def test_a_real_model_of_version_1(shared_model):
    model = read_model(shared_model(G1))
    assert (model.version, model.size, model.md5[:5]) == (1, 163253, "910c2")
    assert model.file_name == f"{G1}.dcnm"
    meta = model.meta
    assert (meta.name, meta.date) == ("Test model for dcnum", "2024-06-07")
    assert meta.description.startswith("This is a small test model")
    assert meta.image_shape == (64, 256)
    assert (meta.preprocessing.norm_mean, meta.preprocessing.norm_std) == (0.487, 0.084)
    assert [rule.key for rule in meta.rules] == ["setup:chip region", "testing-fail"]
    assert model.read() == model.path.read_bytes()


def test_a_model_of_version_2(tmp_path):
    network = archive({"net/data.pkl": b"1"})
    meta = describe_2(batch_size=10, model_file_format="ExportedProgram")
    model = read_model(save_2(tmp_path, meta, network))
    assert (model.version, model.meta.batch_size, model.meta.file_format) == (2, 10, "ExportedProgram")
    assert model.meta.image_shape == (64, 256)
    assert model.meta.preprocessing is None
    assert model.read_network() == network
    # 0 is for any number, as if it was not there
    for given in (0, None):
        assert read_model(save_2(tmp_path, describe_2(batch_size=given))).meta.batch_size == 0


def test_backend_and_device_that_are_not_given_are_the_first_that_fit(tmp_path):
    options = [("inductor", "cpu"), ("openvino", "cpu"), ("cudagraphs", "cuda")]
    wiring = [{"backend": backend, "device": device} for backend, device in options]
    model = read_model(save_2(tmp_path, describe_2(wiring_options=wiring)))
    assert model.wiring() == Wiring("inductor", "cpu")
    assert model.wiring(device="cpu") == Wiring("inductor", "cpu")
    assert model.wiring(backend="openvino") == Wiring("openvino", "cpu")
    assert model.wiring(device="cuda") == Wiring("cudagraphs", "cuda:0")
    assert model.wiring(backend="torch.eager", device="cpu") == Wiring("torch.eager", "cpu")
    with pytest.raises(ModelError, match="no way to run with device 'gpu', it names inductor on cpu") as error:
        model.wiring(device="gpu")
    assert error.value.reason == "model_unsupported"
    silent = read_model(save_2(tmp_path, describe_2(wiring_options=[])))
    with pytest.raises(ModelError, match="neither backend nor device"):
        silent.wiring()


def test_models_are_found_by_path_and_by_name(tmp_path, shared_model, monkeypatch):
    model = shared_model(G1)
    assert find_model(model) == model
    assert find_model(str(model)) == model
    assert find_model(model.name, [tmp_path, model.parent]) == model
    # the folder has been moved, and the new one is known
    assert find_model(tmp_path / "gone" / model.name, [model.parent]) == model
    with pytest.raises(ModelError, match="is not there, and no folder of models is known") as error:
        find_model(model.name)
    assert error.value.reason == "model_missing"
    with pytest.raises(ModelError, match=f"nor in {tmp_path}"):
        find_model(model.name, [tmp_path])
    paths.register_search_path("torch_model_files", model.parent)
    assert find_model(model.name) == model
    monkeypatch.chdir(model.parent)
    assert find_model(model.name) == model


def test_folders_that_cannot_be_read_are_passed_over_and_named(tmp_path, shared_model):
    model = shared_model(G1)
    # all of these are errors for whoever asks for a file in them; a folder without rights is none for root
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    unread = [tmp_path / ("x" * 300), tmp_path / "loop", tmp_path / "file"]
    unread[2].touch()
    for folder in unread:
        paths.register_search_path("torch_model_files", folder)
    with pytest.raises(ModelError, match=r"is not there nor in .*; .*: File name too long$") as error:
        find_model(model.name, unread)
    assert error.value.reason == "model_missing"
    assert find_model(model.name, [*unread, model.parent]) == model
    paths.register_search_path("torch_model_files", model.parent)
    assert find_model(model.name, unread) == model
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(ModelError, match="is not there"):
            find_model(name)


def test_models_in_a_folder_are_listed_by_name(shared_model):
    first, second = shared_model(G1), shared_model(G2)
    (first.parent / "readme.txt").touch()
    assert list_models(first.parent) == [first, second]


def test_files_are_found_in_the_first_folder_that_has_them(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.register_search_path("mantra", tmp_path / name)
    (tmp_path / "two" / "file").touch()
    assert paths.find_file("mantra", "file") == tmp_path / "two" / "file"
    (tmp_path / "one" / "file").touch()
    assert paths.find_file("mantra", "file") == tmp_path / "one" / "file"
    for topic, name in (("mantra", "other"), ("other", "file")):
        with pytest.raises(KeyError, match="Could not find"):
            paths.find_file(topic, name)


def test_a_changed_file_is_read_again_and_never_passed_on(tmp_path):
    path = save_1(tmp_path, describe())
    model = read_model(path)
    other = path.read_bytes().replace(b"Finds", b"Fonds")
    path.write_bytes(other)
    with pytest.raises(ModelError, match="has changed"):
        model.read()
    with pytest.raises(ModelError, match="damaged, or renamed"):
        read_model(path)


def test_names_and_ends_must_have_the_md5(tmp_path, shared_model):
    content = shared_model(G1).read_bytes()
    renamed = tmp_path / "unet_00000.dcnm"
    renamed.write_bytes(content)
    with pytest.raises(ModelError, match=r"begins with 910c2, but its name ends with '00000'") as error:
        read_model(renamed)
    assert error.value.reason == "model_damaged"
    sealed = seal(archive({"dcnum_meta.json": "{}"}))
    with pytest.raises(ModelError, match="does not end with the MD5"):
        read_model(save(tmp_path, sealed[:60] + b"x" + sealed[61:]))


@pytest.mark.parametrize("kept", [0, 3, 4, 40, 5000, 163252])
def test_truncated_files_are_refused(tmp_path, shared_model, kept):
    with pytest.raises(ModelError) as error:
        read_model(save(tmp_path, shared_model(G1).read_bytes()[:kept]))
    assert error.value.reason == "model_damaged"


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="No such file") as error:
        read_model(tmp_path / "gone_00000.dcnm")
    assert error.value.reason == "model_missing"
    os.mkfifo(tmp_path / "pipe_00000.dcnm")
    with pytest.raises(ModelError, match="is not a file"):
        read_model(tmp_path / "pipe_00000.dcnm")
    (tmp_path / "huge_00000.dcnm").touch()
    os.truncate(tmp_path / "huge_00000.dcnm", 2**40)
    with pytest.raises(ModelError, match="more than the") as error:
        read_model(tmp_path / "huge_00000.dcnm")
    assert error.value.reason == "model_unsupported"


def test_archives_that_grow_too_much_are_refused(tmp_path):
    zeros = bytes(2**27)
    with pytest.raises(ModelError, match="unpacked; this is no model") as error:
        read_model(save_2(tmp_path, describe_2(), zeros))
    assert error.value.reason == "model_unsupported"
    # an archive in the archive
    model = read_model(save_2(tmp_path, describe_2(), archive({"net/data.pkl": zeros})))
    with pytest.raises(ModelError, match="unpacked; this is no model"):
        model.read_network()
    # a directory that promises less than there is
    packed = bytearray(archive({"net/data.pkl": b"", "net/extra/dcnum_meta.json": b" " * 2**21}))
    entry = packed.rindex(b"PK\x01\x02")
    packed[entry + 24 : entry + 28] = struct.pack("<I", 10)
    with pytest.raises(ModelError):
        read_model(save(tmp_path, bytes(packed)))
    with pytest.raises(ModelError, match="more than 1048576 bytes"):
        read_model(save_1(tmp_path, " " * 2**21))


def test_strange_archives_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no net/extra/dcnum_meta\.json; it is an archive, but not a model"):
        read_model(save(tmp_path, archive({"net/data.pkl": b""})))
    with pytest.raises(ModelError, match="another method than deflate"):
        read_model(save(tmp_path, archive({"net/extra/dcnum_meta.json": b"{}"}, zipfile.ZIP_LZMA)))
    twice = archive({"net/extra/dcnum_meta.json": b"{}", "net/extra/dcnum_meta.jso_": b"{}"})
    with pytest.raises(ModelError, match="the same name"):
        read_model(save(tmp_path, twice.replace(b"jso_", b"json")))
    meta = json.dumps(describe_2(identifier="other"))
    with pytest.raises(ModelError, match=r"no member other\.pt2"):
        read_model(save(tmp_path, seal(archive({"net.pt2": b"", "dcnum_meta.json": meta}))))


BAD_META = {
    "not valid JSON": "{",
    "not valid JSON: maximum recursion": "[" * 100_000,
    "NaN is not a number": '{"preprocessing": {"norm_mean": NaN}}',
    "contains a list": "[]",
    "preprocessing is missing": describe(preprocessing=None),
    "must have norm_mean": describe(preprocessing={"norm_mean": 1}),
    "and nothing else": describe(preprocessing={"norm_mean": 1, "norm_std": 1, "gamma": 1}),
    "norm_std is 0": describe(preprocessing={"norm_mean": 1, "norm_std": 0}),
    "norm_mean is a text": describe(preprocessing={"norm_mean": "1", "norm_std": 1}),
    "norm_mean is true or false": describe(preprocessing={"norm_mean": True, "norm_std": 1}),
    "norm_std is a number that cannot": describe(preprocessing={"norm_mean": 1, "norm_std": 10**400}),
    "image_shape is not a list of height": describe(preprocessing={"norm_mean": 1, "norm_std": 1, "image_shape": [64]}),
    "each from 1 to 16384": describe(preprocessing={"norm_mean": 1, "norm_std": 1, "image_shape": [64, 10**9]}),
    "from 1 to": describe(preprocessing={"norm_mean": 1, "norm_std": 1, "image_shape": [0, 64]}),
    "batch_size": describe(batch_size=-1),
    "name is a number": describe(name=1),
    "name is a text, expected a text of at most": describe(name="x" * (MAX_TEXT + 1)),
    "validation is not a list": describe(validation={}),
    "validation is not a list of at most 1000": describe(validation=[{}] * 1001),
    "without type or key": describe(validation=[{"type": "meta"}]),
    "regexp is a number": describe(validation=[{"type": "meta", "key": "a", "regexp": 1}]),
    "allow-missing-key is a text": describe(validation=[{"type": "meta", "key": "a", "allow-missing-key": "no"}]),
    "value is a text": describe(validation=[{"type": "meta", "key": "a", "value": "20"}]),
    "value is a list of 0": describe(validation=[{"type": "meta", "key": "a", "value": []}]),
    "without backend or device": describe(wiring_options=[{"backend": "torch.jit"}]),
}


@pytest.mark.parametrize("message", BAD_META)
def test_absurd_metadata_are_refused(tmp_path, message):
    path = save_1(tmp_path, BAD_META[message])
    with pytest.raises(ModelError, match=message) as error:
        read_model(path)
    assert error.value.reason == "model_unsupported"
    assert str(path) in str(error.value)


def test_drafts_of_version_2_are_refused(tmp_path):
    for given, stated in ((None, "missing"), ("Pickle", "Pickle")):
        with pytest.raises(ModelError, match=f"model_file_format is {stated}, expected TorchScript") as error:
            read_model(save_2(tmp_path, describe_2(model_file_format=given)))
        assert error.value.reason == "model_unsupported"

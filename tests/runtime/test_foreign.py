"""Hostile, damaged and foreign torch files: refused in one line, and nothing of them runs."""

from __future__ import annotations

import builtins
import collections
import io
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch

from pwm.errors import UserError
from pwm.runtime.foreign import Stub, fingerprint, is_mappable, load_foreign, load_layout, place


class Box(Stub):
    pass


STUBS = {"elsewhere.Box": Box}


class Call:
    """Pickles as a call of ``function`` when it is loaded."""

    def __init__(self, function, *arguments):
        self.value = (function, arguments)

    def __reduce__(self):
        return self.value


class Build:
    """Pickles as a Box that gets ``state`` through the BUILD instruction."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return (foreign_box(), (), self.state)


def foreign_box():
    """The class ``elsewhere.Box`` as the writing program has it."""
    module = sys.modules.setdefault("elsewhere", types.ModuleType("elsewhere"))
    if not hasattr(module, "Box"):
        module.Box = type("Box", (), {"__module__": "elsewhere"})
    return module.Box


def written(tmp_path, value, name="file.pt", **options):
    foreign_box()
    path = tmp_path / name
    torch.save(value, path, **options)
    sys.modules.pop("elsewhere", None)
    return path


def repacked(path, changes, compression=zipfile.ZIP_STORED):
    """The archive with some records replaced; ``changes``: record name -> bytes."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in source.namelist():
            archive.writestr(name, changes.get(name.partition("/")[2], source.read(name)))
    return path


def refusal(path, stubs=STUBS):
    """The one line that the file is refused with; the folder stays as it was."""
    before = sorted((p.name, p.stat().st_size) for p in path.parent.iterdir())
    with pytest.raises(UserError) as caught:
        load_foreign(path, stubs)
    assert sorted((p.name, p.stat().st_size) for p in path.parent.iterdir()) == before
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and str(path) in text
    assert len(text) < 400 + len(str(path))
    return text


@pytest.fixture
def no_calls(monkeypatch):
    """Fails when one of the functions that the hostile files ask for is called."""
    calls = []
    for home, name in ((os, "system"), (subprocess, "Popen"), (builtins, "eval")):
        monkeypatch.setattr(home, name, lambda *a, _n=name, **k: calls.append(_n))
    yield
    assert calls == []


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_and_stubs_arrive(tmp_path, zipped):
    weights = torch.arange(12.0).reshape(3, 4)
    value = {"model": {"w": weights}, "box": Build({"mean": 3, "rows": weights[1]}), "n": 7}
    path = written(tmp_path, value, _use_new_zipfile_serialization=zipped)
    assert is_mappable(path) == zipped
    loaded = load_foreign(str(path), STUBS)
    torch.testing.assert_close(loaded["model"]["w"], weights, rtol=0, atol=0)
    assert type(loaded["box"]) is Box and loaded["box"].mean == 3 and loaded["n"] == 7
    torch.testing.assert_close(loaded["box"].rows, weights[1], rtol=0, atol=0)


def test_a_large_file_is_mapped_and_not_read(tmp_path):
    path = written(tmp_path, {"x": torch.zeros(1 << 24)})
    loaded = load_foreign(path, {})["x"]
    loaded[0] = 1.0  # a private map: the file keeps its content
    assert load_foreign(path, {})["x"][0] == 0
    assert str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), f"{os.system.__module__}.system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Call(exec, f"open({str(mark)!r}, 'w')"), "exec"),
        (lambda mark: Call(open, str(mark), "w"), "io.open"),
        # protocol 2 spells subprocess with its name of Python 2
        (lambda mark: Call(subprocess.Popen, ["touch", str(mark)]), "commands.Popen"),
        (lambda mark: Call(getattr, torch.Size([2]), "count"), "getattr"),
        (lambda mark: Call(torch.load, str(mark)), "torch.serialization.load"),
        (lambda mark: {"model": [Call(os.makedirs, str(mark))]}, "os.makedirs"),
        (lambda mark: Build({"mean": Call(os.mkdir, str(mark))}), f"{os.mkdir.__module__}.mkdir"),
    ],
)
def test_hostile_calls_are_named_and_not_made(tmp_path, make, name, zipped):
    mark = tmp_path / "mark"
    path = written(tmp_path, {"w": torch.ones(2), "x": make(mark)},
                   _use_new_zipfile_serialization=zipped)  # fmt: skip
    assert f"asks for '{name}', which is not on the list" in refusal(path)
    assert not mark.exists()


PROGRAMS = {
    "os.system by hand": b"cos\nsystem\n(S'touch mark'\ntR.",
    "posix by text opcodes": b"cposix\nsystem\nX\x04\x00\x00\x00echo\x85R.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04echo\x85R.",
    "inst": b"(S'echo'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'echo'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "eval": b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    "escape in a name": b"\x80\x02cos\n\x1b[31msystem\n)R.",
    "name that does not end": b"\x80\x02cos\n" + b"x" * 5000,
    "empty": b"",
    "nothing": b".",
    "memo": b"\x80\x02h\x05.",
    "build on a string": b"\x80\x02X\x01\x00\x00\x00ab}b.",
    "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "storage of nothing": b"\x80\x02X\x07\x00\x00\x00storageNNNt.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "text of 2 GB": b"\x80\x02X\xff\xff\xff\x7f.",
    "bytes that are no program": bytes(range(256)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_tampered_programs(tmp_path, name, no_calls):
    path = written(tmp_path, {"w": torch.ones(4)})
    text = refusal(repacked(path, {"data.pkl": PROGRAMS[name]}))
    assert "asks for" in text or "damaged" in text


@pytest.mark.parametrize(
    "state",
    [
        7, [1], ("a", {"b": 1}), {"__class__": 3}, {"__dict__": {}}, {5: 1},
        ({"a": 1}, {"__class__": collections.OrderedDict}), {"__setstate__": None},
    ],
)  # fmt: skip
def test_a_stub_takes_nothing_but_plain_attributes(tmp_path, state):
    assert "damaged or not made of plain tensors" in refusal(written(tmp_path, Build(state)))


def test_a_stub_is_not_called_with_arguments(tmp_path):
    class Odd:
        def __reduce__(self):
            return (foreign_box(), (1, 2))

    foreign_box()
    sys.modules["elsewhere"].Box = type("Box", (), {"__module__": "elsewhere"})
    assert "TypeError" in refusal(written(tmp_path, Odd()))


def test_names_that_other_code_allowed_stay_refused_here(tmp_path):
    path = written(tmp_path, Call(math.sqrt, 9.0))
    with torch.serialization.safe_globals([(math.sqrt, "math.sqrt")]):
        assert torch.load(path, weights_only=True) == 3.0
        assert "asks for 'math.sqrt'" in refusal(path)
        assert (math.sqrt, "math.sqrt") in torch.serialization.get_safe_globals()
    before = set(torch.serialization.get_safe_globals())
    load_foreign(written(tmp_path, Build({}), "box.pt"), STUBS)
    assert set(torch.serialization.get_safe_globals()) == before
    assert "asks for 'elsewhere.Box'" in refusal(tmp_path / "box.pt", {})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [1, 4, 20, 100, 0.3, 0.5, 0.9, 0.999, -1])
def test_truncated(tmp_path, keep, zipped):
    value = {"w": torch.randn(300, 7), "v": torch.randn(90), "box": Build({"mean": 1})}
    path = written(tmp_path, value, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert re.search("truncated|damaged|not a torch file", refusal(path))


def test_every_single_damaged_byte_of_the_program(tmp_path, no_calls):
    """Whatever a flipped byte makes of the program: values or one line, no other error."""
    path = written(tmp_path, {"w": torch.arange(4.0), "box": Build({"mean": 1})})
    archive = zipfile.ZipFile(path)
    name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
    program = archive.read(name)
    for position in range(0, len(program), 3):
        broken = bytearray(program)
        broken[position] ^= 0x15
        path.unlink()
        repacked(written(tmp_path, {"w": torch.arange(4.0)}), {"data.pkl": bytes(broken)})
        try:
            load_foreign(path, STUBS)
        except UserError as error:
            assert "\n" not in str(error)


def _rebuild(size, stride, offset=0, numel=4):
    """Program for one float tensor on storage 0 with the given geometry."""
    tuple_of = lambda values: b"(" + b"".join(_int(v) for v in values) + b"t"  # noqa: E731
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((" + _text("storage")
        + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + _int(numel) + b"tQ"
        + _int(offset) + tuple_of(size) + tuple_of(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip


def _int(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def _text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def test_the_program_of_a_tensor_by_hand(tmp_path):
    path = repacked(written(tmp_path, torch.arange(4.0)), {"data.pkl": _rebuild([2, 2], [2, 1])})
    assert load_foreign(path, {}).tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    "program",
    [
        _rebuild([1 << 40], [1]),
        _rebuild([4], [1], offset=1 << 40),
        _rebuild([4], [1], offset=-2),
        _rebuild([1 << 20], [1], numel=1 << 20),
        _rebuild([4], [-1]),
        _rebuild([1 << 62, 1 << 62], [1, 1]),
        _rebuild([-4], [1]),
    ],
)
def test_tensors_that_reach_past_their_storage(tmp_path, program):
    path = repacked(written(tmp_path, torch.arange(4.0)), {"data.pkl": program})
    assert "damaged" in refusal(path)


def test_compressed_records_are_refused(tmp_path):
    path = written(tmp_path, torch.zeros(1000))
    assert "compressed" in refusal(repacked(path, {}, zipfile.ZIP_DEFLATED))


def test_a_record_table_that_reaches_past_the_file(tmp_path):
    path = written(tmp_path, torch.zeros(1000))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"data/0") + 4)
    struct.pack_into("<II", data, entry + 20, 1 << 30, 1 << 30)
    path.write_bytes(data)
    assert "reaches past the end" in refusal(path)


def test_other_files(tmp_path):
    (tmp_path / "text.pt").write_text("hello, this is no tensor file at all")
    assert "is not a torch file" in refusal(tmp_path / "text.pt")
    (tmp_path / "empty.pt").touch()
    assert "is empty" in refusal(tmp_path / "empty.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Call(os.getcwd)))
    assert "is not a torch file" in refusal(tmp_path / "plain.pkl")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    assert "zip archive but not a torch file" in refusal(tmp_path / "a.zip")
    with pytest.raises(UserError, match="does not exist"):
        load_foreign(tmp_path / "none.pt", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="can't be read"):
        load_foreign(tmp_path / "folder", {})


def test_torchscript_is_refused(tmp_path):
    with zipfile.ZipFile(written(tmp_path, torch.ones(2)), "a") as archive:
        archive.writestr("file/constants.pkl", b"\x80\x02).")
    assert "TorchScript" in refusal(tmp_path / "file.pt")


def test_fingerprints_tell_content_apart(tmp_path):
    a = written(tmp_path, torch.arange(1000.0), "a.pt")
    again = written(tmp_path, torch.arange(1000.0), "again.pt")
    other = torch.arange(1000.0)
    other[77] += 1
    b = written(tmp_path, other, "b.pt")
    assert fingerprint(a) == fingerprint(again) != fingerprint(b)
    with pytest.raises(UserError, match="before 1.6"):
        fingerprint(written(tmp_path, other, "c.pt", _use_new_zipfile_serialization=False))


def test_fingerprints_of_files_without_checksums(tmp_path):
    """Torch can be told to leave them out; the ends and the middle of each record are looked at."""
    values = torch.arange(100_000.0)
    torch.serialization.set_crc32_options(False)
    try:
        paths = [written(tmp_path, values, "a.pt"), written(tmp_path, values, "again.pt")]
        for index in (0, 50_000, -1):
            other = values.clone()
            other[index] += 1
            paths.append(written(tmp_path, other, f"{index}.pt"))
    finally:
        torch.serialization.set_crc32_options(True)
    first, again, *others = map(fingerprint, paths)
    assert first == again and len({first, *others}) == 4
    torch.testing.assert_close(load_foreign(paths[0], {}), values, rtol=0, atol=0)


def read_at(path, tensor):
    count = tensor.numel() * tensor.element_size()
    content = bytearray(path.read_bytes()[place(path, tensor) :][:count])
    return torch.frombuffer(content, dtype=tensor.dtype).reshape(tensor.shape)


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "a", "b"]])
def test_the_places_of_tensors_that_are_not_read(tmp_path, order):
    values = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(90, 97, dtype=torch.int16),
              "c": torch.arange(20.0).reshape(4, 5)[1:3]}  # fmt: skip
    path = written(tmp_path, {"box": Build({name: values[name] for name in order})})
    layout = load_layout(path, STUBS)["box"]
    for name, tensor in values.items():
        found = getattr(layout, name)
        assert found.device.type == "meta" and found.shape == tensor.shape
        torch.testing.assert_close(read_at(path, found), tensor, rtol=0, atol=0)
    with pytest.raises(UserError, match="before 1.6"):
        load_layout(written(tmp_path, values, _use_new_zipfile_serialization=False), STUBS)


@pytest.mark.parametrize(
    "program",
    [
        _rebuild([2], [1], numel=2), _rebuild([5], [1], numel=5), _rebuild([2, 2], [1, 2]),
        _rebuild([1 << 30], [0]), _rebuild([4], [1], offset=1), _rebuild([2], [2]),
    ],
)  # fmt: skip
def test_no_place_of_what_the_archive_does_not_hold_row_by_row(tmp_path, program):
    path = repacked(written(tmp_path, torch.arange(4.0)), {"data.pkl": program})
    with pytest.raises(UserError, match="not stored row by row and whole|damaged") as caught:
        place(path, load_layout(path, {}))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_the_place_of_a_tensor_by_hand(tmp_path):
    path = repacked(written(tmp_path, torch.arange(4.0)), {"data.pkl": _rebuild([1, 2], [2, 1], 2)})
    assert read_at(path, load_layout(path, {})).tolist() == [[2.0, 3.0]]


def test_a_program_of_many_megabytes_is_not_read(tmp_path):
    path = repacked(written(tmp_path, torch.ones(4)), {"data.pkl": b"." + bytes(65 << 20)})
    assert "its pickle is 68157441 bytes long" in refusal(path)


def test_a_big_endian_file(tmp_path):
    path = repacked(written(tmp_path, torch.ones(4)), {"byteorder": b"big"})
    assert "comes from a big-endian machine" in refusal(path)

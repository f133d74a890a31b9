"""Bad input of ``pwm convert tdmpc2-data``: one clear line, exit code 2, nothing on disk."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from damage import Touch, tree
from data.helpers import source_fields, write_chunk

from pwm.cli import main

WALK, PENDULUM = 1, 7


def fails(root, capsys, arguments, *needles, checking=False):
    """Exit code 2, ``needles`` in one line of stderr, nothing new or changed under ``root``.

    While it is ``checking`` values the command has said what it is about to do.
    """
    before = tree(root)
    assert main(["convert", "tdmpc2-data", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    *others, line = captured.err.strip().splitlines()
    assert captured.out == "" and line.startswith("pwm: error: ")
    assert not others or (checking and not any("error" in other for other in others))
    for needle in needles:
        assert str(needle) in line, line
    assert tree(root) == before


@pytest.fixture
def chunk(tmp_path):
    return write_chunk(tmp_path / "chunk_0.pt", source_fields([WALK, PENDULUM]))


def test_arguments(tmp_path, chunk, capsys):
    out = ["--out", tmp_path / "d"]
    fails(tmp_path, capsys, [*out], "FILE", "pwm convert tdmpc2-data --help")
    fails(tmp_path, capsys, [chunk], "--out DIR")
    fails(tmp_path, capsys, [chunk, *out, "--task-set", "mt31"], "mt30 or mt80", "'mt31'")
    fails(
        tmp_path, capsys, [chunk, *out, "--task-set", "mt80"], chunk, "(24, 6)", "--task-set mt30"
    )
    fails(tmp_path, capsys, [chunk, *out, "--tasks", "walker-wlak"], "'walker-wlak'", "walker-walk")
    fails(tmp_path, capsys, [chunk, *out, "--tasks", "mw-reach"], "metaworld/reach is not in mt30")
    fails(tmp_path, capsys, [chunk, *out, "--tasks", "walker-walk,cup-spin"],
          "no episode of dmc/cup-spin", "hold: dmc/walker-walk, dmc/pendulum-swingup")  # fmt: skip
    fails(tmp_path, capsys, [chunk, *out, "--horizon", "3"], "--horizon")


def test_files(tmp_path, chunk, capsys):
    out = ["--out", tmp_path / "d"]
    fails(tmp_path, capsys, [tmp_path / "no.pt", *out], "no.pt does not exist")
    (tmp_path / "empty").mkdir()
    fails(tmp_path, capsys, [tmp_path / "empty", *out], "holds no chunk_*.pt")
    fails(tmp_path, capsys, [chunk, chunk, *out], "given twice")
    (tmp_path / "copy.pt").write_bytes(chunk.read_bytes())
    fails(tmp_path, capsys, [chunk, tmp_path / "copy.pt", *out], "copy.pt", "chunk_0.pt",
          "hold the same")  # fmt: skip
    (tmp_path / "text.pt").write_text("no tensors in here at all")
    fails(tmp_path, capsys, [tmp_path / "text.pt", *out], "text.pt is not a torch file")
    torch.save({"model": {"w": torch.ones(3)}}, tmp_path / "model.pt")
    fails(tmp_path, capsys, [chunk, tmp_path / "model.pt", *out], "model.pt lacks the fields")


@pytest.mark.parametrize("checksums", [True, False])
def test_files_without_checksums_are_told_apart(tmp_path, capsys, checksums):
    torch.serialization.set_crc32_options(checksums)
    try:
        paths = [
            write_chunk(tmp_path / f"chunk_{seed}.pt", source_fields([WALK], seed=seed))
            for seed in (0, 1)
        ]
    finally:
        torch.serialization.set_crc32_options(True)
    copy = tmp_path / "copy.pt"
    copy.write_bytes(paths[1].read_bytes())
    out = ["--out", str(tmp_path / "d")]
    fails(tmp_path, capsys, [*paths, copy, *out], "copy.pt and", "chunk_1.pt hold the same")
    assert main(["convert", "tdmpc2-data", *map(str, paths), *out]) == 0


@pytest.mark.parametrize("keep", [10, 0.6])
def test_a_truncated_file_among_good_ones(tmp_path, chunk, capsys, keep):
    other = write_chunk(tmp_path / "chunk_1.pt", source_fields([WALK], seed=1))
    data = other.read_bytes()
    other.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    fails(tmp_path, capsys, [chunk, other, "--out", tmp_path / "d"], "chunk_1.pt", "truncated")


def test_a_hostile_file_among_good_ones(tmp_path, chunk, capsys):
    fields = source_fields([WALK], seed=1) | {"more": Touch(tmp_path / "mark")}
    other = write_chunk(tmp_path / "chunk_1.pt", fields)
    fails(tmp_path, capsys, [chunk, other, "--out", tmp_path / "d"], "chunk_1.pt asks for",
          f"'{os.system.__module__}.system'", "nothing was run")  # fmt: skip


def without(name):
    fields = source_fields([WALK])
    del fields[name]
    return fields


def with_index(index):
    fields = source_fields([WALK, WALK])
    fields["task"][1] = index
    return fields


def reach_of_500_steps():
    return source_fields([65], steps=500, task_set="mt80")


@pytest.mark.parametrize(
    ("make", "needles"),
    [
        (lambda: without("action"), ["lacks the field action"]),
        (lambda: source_fields([WALK]) | {"obs": torch.zeros(1, 21, 24, dtype=torch.float64)},
         ["field 'obs'", "torch.float64"]),
        (lambda: with_index(44), ["episode 1 has task index 44", "0 to 29"]),
        (lambda: source_fields([WALK]) | {"obs": torch.zeros(1, 21, 30)},
         ["(30, 6)", "mt30: (24, 6), mt80: (39, 6)"]),
        (lambda: source_fields([WALK], steps=501), ["episodes of 501 steps"]),
        (reach_of_500_steps, ["metaworld/reach has episodes of 100 steps, not 500"]),
    ],
)  # fmt: skip
def test_content(tmp_path, capsys, make, needles):
    path = write_chunk(tmp_path / "chunk_5.pt", make())
    fails(tmp_path, capsys, [path, "--out", tmp_path / "d"], path, *needles)


@pytest.mark.parametrize(
    ("name", "place", "value", "needles"),
    [
        ("obs", (1, 20, 2), np.nan, ["field 'obs'", "holds nan at step 20"]),
        ("action", (1, 1, 0), np.inf, ["field 'action'", "holds inf at step 1"]),
        ("obs", (1, 3, 3), 0.5, ["holds 0.5 in the padding behind its 3 numbers", "at step 3"]),
    ],
)
def test_values(tmp_path, chunk, capsys, name, place, value, needles):
    fields = source_fields([WALK, PENDULUM], seed=1)
    fields[name][place] = value
    path = write_chunk(tmp_path / "chunk_1.pt", fields)
    fails(tmp_path, capsys, [chunk, path, "--out", tmp_path / "d"], path,
          "episode 1 (dmc/pendulum-swingup)", "--tasks", *needles, checking=True)  # fmt: skip


def test_files_that_do_not_belong_together(tmp_path, chunk, capsys):
    out = ["--out", tmp_path / "d"]
    shorter = write_chunk(tmp_path / "chunk_1.pt", source_fields([WALK], steps=10))
    fails(tmp_path, capsys, [chunk, shorter, *out], "chunk_1.pt", "(10, 24, 6)", "(20, 24, 6)")
    wider = write_chunk(tmp_path / "chunk_1.pt", source_fields([WALK], task_set="mt80"))
    fails(tmp_path, capsys, [chunk, wider, *out], "(20, 39, 6)", "data sets of their own")


def test_where_to(tmp_path, chunk, capsys):
    (tmp_path / "file").write_text("text")
    fails(tmp_path, capsys, [chunk, "--out", tmp_path / "file"], "file is not a folder")
    fails(tmp_path, capsys, [chunk, "--out", tmp_path / "file" / "d"], "file is not a folder")
    fails(tmp_path, capsys, [chunk, "--out", tmp_path], "holds other files already")
    out = tmp_path / "d"
    assert main(["convert", "tdmpc2-data", str(chunk), "--out", str(out)]) == 0
    capsys.readouterr()
    fails(tmp_path, capsys, [chunk, "--out", out], "holds a finished conversion")
    (out / "convert.json").write_text('{"complete": 1}')
    fails(tmp_path, capsys, [chunk, "--out", out, "--resume"], "convert.json is damaged")
    (out / "convert.json").write_text("{")
    fails(tmp_path, capsys, [chunk, "--out", out, "--resume"], "convert.json is not valid JSON")

"""Writers that are killed or run out of disk lose nothing that was finished."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pwm.data import EpisodeDataset
from pwm.errors import UserError

from .helpers import FOLDER, NAME, episode, store, writer

ONE_FOLDER = """
import sys, numpy as np
from pwm.data import EpisodeWriter
with EpisodeWriter(sys.argv[1], "x/task", obs_dim=3, action_dim=2, episode_length=50,
                   collector="test") as w:
    for i in range(10**6):
        o = np.full((1001, 3), i % 1000, np.float32)
        w.append(o, o[1:, :2], o[1:, 0], terminated=False, seed=i)
        print(i, flush=True)
"""
MANY_FOLDERS = """
import sys, numpy as np
from pwm.data import EpisodeWriter
print("ready", flush=True)
for i in range(10**6):
    for j in range(2):
        with EpisodeWriter(f"{sys.argv[1]}/{i}", "x/task", obs_dim=3, action_dim=2,
                           episode_length=50, collector=f"test {j}") as w:
            o = np.full((6, 3), j, np.float32)
            w.append(o, o[1:, :2], o[1:, 0], terminated=False, seed=j)
"""


def start(code, path):
    process = subprocess.Popen([sys.executable, "-c", code, str(path)],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


def kill(process, delay):
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    return process.communicate()[0]


@pytest.mark.parametrize("torn", ["rows", "record"])
def test_what_a_killed_writer_left_is_ignored_and_cut_off(tmp_path, torn):
    store(tmp_path / "d", [4, 9])
    folder = tmp_path / "d" / FOLDER
    with (folder / "observations.bin").open("ab") as handle:
        handle.write(b"\x01" * 40)
    if torn == "record":
        with (folder / "index.bin").open("ab") as handle:
            handle.write(b"\x01" * 20)
    assert list(EpisodeDataset.open(tmp_path / "d").tasks[NAME].lengths) == [4, 9]
    store(tmp_path / "d", [5])
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert list(task.lengths) == [4, 9, 5]
    task.check_finite()
    np.testing.assert_array_equal(task.observations[task.offsets[2] :], episode(5, 0)[0])


@pytest.mark.parametrize("attempt", range(3))
def test_killed_process_loses_no_finished_episode(tmp_path, attempt):
    process = start(ONE_FOLDER, tmp_path / "d")
    with pytest.raises(UserError, match="another process is writing"):
        writer(tmp_path / "d")
    reported = 1 + len(kill(process, random.uniform(0, 0.1)).splitlines())
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert task.num_episodes in (reported, reported + 1)
    for index, offset in enumerate(task.offsets):
        rows = slice(offset, offset + 1001)
        assert (task.observations[rows] == index % 1000).all()
        assert (task.rewards[rows][1:] == index % 1000).all()
    store(tmp_path / "d", [5])
    again = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert again.num_episodes == task.num_episodes + 1
    np.testing.assert_array_equal(again.observations[-6:], episode(5, 0)[0])


@pytest.mark.parametrize("attempt", range(4))
def test_a_kill_while_a_folder_is_made_leaves_it_usable(tmp_path, attempt):
    kill(start(MANY_FOLDERS, tmp_path), random.uniform(0, 0.1))
    folders = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    for number, folder in enumerate(folders):
        with writer(folder) as open_writer:
            stored = open_writer.num_episodes
            open_writer.append(*episode(3), terminated=False, seed=0)
        assert stored == 2 or number == len(folders) - 1
        task = EpisodeDataset.open(folder).tasks[NAME]
        assert list(task.lengths) == [5] * stored + [3]
        for index in range(stored):
            assert (task.observations[6 * index : 6 * index + 6] == index).all()
            assert task.collectors[task.collector_ids[index]] == f"test {index}"


def test_every_stage_of_a_first_opening_can_be_taken_up(tmp_path):
    """What a kill leaves between any two of the files that a new writer makes."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".dataset.json.123.tmp").write_text('{"for')
    for name in "cdef":
        (tmp_path / name / FOLDER).mkdir(parents=True)
        (tmp_path / name / "dataset.json").write_text('{"format": 1}')
    for name in "def":
        (tmp_path / name / FOLDER / ".lock").touch()
    writer(tmp_path / "model").close()
    facts = (tmp_path / "model" / FOLDER / "task.json").read_bytes()
    for name in "ef":
        (tmp_path / name / FOLDER / "task.json").write_bytes(facts)
    (tmp_path / "f" / FOLDER / "observations.bin").touch()
    for name in "abcdef":
        store(tmp_path / name, [4])
        assert EpisodeDataset.open(tmp_path / name).tasks[NAME].num_episodes == 1


@pytest.mark.parametrize("call", range(1, 6))
def test_full_disk(tmp_path, monkeypatch, call):
    """Each of the five files in turn cannot be written: nothing misaligned follows."""
    calls, real = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        real(descriptor)

    store(tmp_path / "d", [4])
    with writer(tmp_path / "d") as open_writer:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            open_writer.append(*episode(6, 1), terminated=False, seed=1)
        monkeypatch.setattr(os, "fsync", real)
        with pytest.raises(UserError, match="an earlier write to .* failed"):
            open_writer.append(*episode(7, 2), terminated=False, seed=2)
    store(tmp_path / "d", [8])
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    # the record's own fsync is the last call: by then the whole episode is in the files
    assert list(task.lengths) == ([4, 6, 8] if call == 5 else [4, 8])
    for length, offset, seed in zip(task.lengths, task.offsets, [0, 1, 0][-3:], strict=False):
        o, a, r = episode(length, 0 if length == 8 else seed)
        np.testing.assert_array_equal(task.observations[offset : offset + length + 1], o)
        np.testing.assert_array_equal(task.actions[offset + 1 : offset + length + 1], a)
        np.testing.assert_array_equal(task.rewards[offset + 1 : offset + length + 1], r)

"""The store: what was committed is never lost, what was not is never seen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pwm.data import (
    EpisodeDataset,
    EpisodeWriter,
    best_tenth_mean,
    observation_moments,
    open_datasets,
)
from pwm.errors import UserError

from .helpers import write_task

NAME, FOLDER = "x/task", "tasks/x__task"


def writer(path, **changes):
    options = dict(obs_dim=3, action_dim=2, episode_length=50, collector="test")
    return EpisodeWriter(path, NAME, **{**options, **changes})


def episode(steps, seed=0, obs=3, action=2):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(steps + 1, obs)).astype(np.float32),
            rng.uniform(-1, 1, (steps, action)).astype(np.float32),
            rng.normal(size=steps).astype(np.float32))  # fmt: skip


def store(path, lengths, **changes):
    with writer(path, **changes) as open_writer:
        for seed, length in enumerate(lengths):
            open_writer.append(*episode(length, seed), terminated=seed == 1, seed=seed, success=0.5)


def test_round_trip(tmp_path):
    store(tmp_path / "d", [4, 9])
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert (task.num_episodes, task.num_steps, task.episode_length) == (2, 13, 50)
    assert isinstance(task.observations, np.memmap) and isinstance(task.actions, np.memmap)
    for index, (offset, length) in enumerate(zip(task.offsets, task.lengths, strict=True)):
        o, a, r = episode(length, index)
        rows = slice(offset, offset + length + 1)
        np.testing.assert_array_equal(task.observations[rows], o)
        np.testing.assert_array_equal(task.actions[rows][1:], a)
        np.testing.assert_array_equal(task.rewards[rows][1:], r)
        assert np.isnan(task.actions[offset]).all() and np.isnan(task.rewards[offset])
        assert task.returns[index] == pytest.approx(r.sum(dtype=np.float64))
        assert task.terminated[rows].tolist() == [0] * length + [int(index == 1)]
    assert list(task.seeds) == [0, 1] and list(task.success) == [0.5, 0.5]
    assert list(task.ended) == [False, True] and task.any_terminated()


def test_append_keeps_what_is_there(tmp_path):
    store(tmp_path / "d", [4, 9])
    before = np.array(EpisodeDataset.open(tmp_path / "d").tasks[NAME].observations)
    store(tmp_path / "d", [2], collector="other")
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert list(task.lengths) == [4, 9, 2] and task.collectors == ("test", "other")
    assert list(task.collector_ids) == [0, 0, 1]
    np.testing.assert_array_equal(task.observations[: len(before)], before)


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


KILLED = """
import sys, numpy as np
from pwm.data import EpisodeWriter
with EpisodeWriter(sys.argv[1], "x/task", obs_dim=3, action_dim=2, episode_length=50,
                   collector="test") as w:
    for i in range(10**6):
        o = np.full((1001, 3), i % 1000, np.float32)
        w.append(o, o[1:, :2], o[1:, 0], terminated=False, seed=i)
        print(i, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05])
def test_killed_process_loses_no_finished_episode(tmp_path, delay):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "d")],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    reported = 3 + len(process.communicate()[0].splitlines())
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert task.num_episodes in (reported, reported + 1)
    for index, offset in enumerate(task.offsets):
        rows = slice(offset, offset + 1001)
        assert (task.observations[rows] == index % 1000).all()
        assert (task.rewards[rows][1:] == index % 1000).all()
    store(tmp_path / "d", [5])
    assert EpisodeDataset.open(tmp_path / "d").tasks[NAME].num_episodes == task.num_episodes + 1


def test_second_writer_is_locked_out(tmp_path):
    with writer(tmp_path / "d"), pytest.raises(UserError, match="another process is writing"):
        writer(tmp_path / "d")
    writer(tmp_path / "d").close()


def test_unfit_episodes_are_refused_and_leave_no_trace(tmp_path):
    store(tmp_path / "d", [4])
    before = {p: p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()}
    o, a, r = episode(6)
    bad_o, bad_r = o.copy(), r.copy()
    bad_o[3, 1], bad_r[2] = np.nan, np.inf
    with writer(tmp_path / "d") as open_writer:
        for arrays, message in (
            ((o[:-1], a, r), "needs observations"),
            ((o[:, :2], a, r), "needs observations"),
            ((o[:1], a[:0], r[:0]), "needs observations"),
            ((bad_o, a, r), "observations hold nan at step 3"),
            ((o, a, bad_r), "rewards hold inf at step 2"),
        ):
            with pytest.raises(UserError, match=message):
                open_writer.append(*arrays, terminated=False, seed=0)
    with pytest.raises(UserError, match="obs_dim is 3, but x/task has 5"):
        writer(tmp_path / "d", obs_dim=5)
    assert {p: p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()} == before


def test_damaged_files_are_named(tmp_path):
    store(tmp_path / "d", [4, 9])
    folder = tmp_path / "d" / FOLDER
    path = folder / "rewards.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"rewards.bin is truncated"):
        EpisodeDataset.open(tmp_path / "d")
    with pytest.raises(UserError, match=r"rewards.bin is truncated"):
        writer(tmp_path / "d")
    path.unlink()
    with pytest.raises(UserError, match=r"rewards.bin does not exist"):
        EpisodeDataset.open(tmp_path / "d")
    path.write_bytes(whole)
    index = np.fromfile(folder / "index.bin", np.uint8)
    index[0] = 7
    index.tofile(folder / "index.bin")
    with pytest.raises(UserError, match=r"index.bin is damaged at episode 0"):
        EpisodeDataset.open(tmp_path / "d")
    with pytest.raises(UserError, match="does not exist"):
        EpisodeDataset.open(tmp_path / "none")


def test_values_that_are_not_finite_are_located(tmp_path):
    store(tmp_path / "d", [4, 9])
    folder = tmp_path / "d" / FOLDER
    observations = np.fromfile(folder / "observations.bin", "<f4").reshape(-1, 3)
    observations[5 + 7, 2] = np.inf  # episode 1 begins at row 5
    observations.tofile(folder / "observations.bin")
    with pytest.raises(UserError, match=r"observations.bin holds inf in episode 1 at step 7"):
        EpisodeDataset.open(tmp_path / "d").check_finite()
    EpisodeDataset.open(tmp_path / "d").check_finite(["x/other"])


def test_folders_with_other_dims_do_not_merge(tmp_path):
    store(tmp_path / "a", [4])
    with writer(tmp_path / "b", obs_dim=4) as open_writer:
        open_writer.append(*episode(3, obs=4), terminated=False, seed=0)
    with pytest.raises(UserError, match=r"has dims \(3, 2\)"):
        open_datasets([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UserError, match="given twice"):
        open_datasets([tmp_path / "a", tmp_path / "a"])


def test_best_tenth_by_hand():
    assert best_tenth_mean(np.arange(20.0)) == pytest.approx(18.5)
    assert best_tenth_mean(np.arange(21.0)) == pytest.approx(19.0)  # 2.1 rounds up to 3
    assert best_tenth_mean(np.array([4.0])) == 4.0


def test_moments_are_those_of_all_rows(tmp_path):
    write_task(tmp_path / "a", NAME, 1, [3, 8], (2, 1))
    write_task(tmp_path / "b", NAME, 1, [5], (2, 1), first=2)
    datasets = open_datasets([tmp_path / "a", tmp_path / "b"])
    rows = np.concatenate([d.tasks[NAME].observations for d in datasets]).astype(np.float64)
    mean, std = observation_moments(datasets, NAME)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-9)

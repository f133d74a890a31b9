"""The store: what was committed is never lost, what was not is never seen."""

from __future__ import annotations

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

from .helpers import NAME, episode, store, write_task, writer


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


def test_second_writer_is_locked_out(tmp_path):
    with writer(tmp_path / "d"), pytest.raises(UserError, match="another process is writing"):
        writer(tmp_path / "d")
    writer(tmp_path / "d").close()


def test_tasks_of_one_folder_can_be_written_together(tmp_path):
    options = dict(obs_dim=3, action_dim=2, episode_length=50, collector="test")
    with (
        writer(tmp_path / "d") as first,
        EpisodeWriter(tmp_path / "d", "x/two", **options) as second,
    ):
        first.append(*episode(3), terminated=False, seed=0)
        second.append(*episode(5), terminated=False, seed=0)
    tasks = EpisodeDataset.open(tmp_path / "d").tasks
    assert {id_: task.num_steps for id_, task in tasks.items()} == {NAME: 3, "x/two": 5}


def test_a_reader_sees_what_is_committed_while_a_writer_works(tmp_path):
    with writer(tmp_path / "d") as open_writer:
        for count in (1, 2):
            open_writer.append(*episode(4, count), terminated=False, seed=0)
            task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
            assert task.num_episodes == open_writer.num_episodes == count
            assert task.num_steps == open_writer.num_steps == 4 * count
            np.testing.assert_array_equal(task.observations[-5:], episode(4, count)[0])


def test_facts_of_a_task_are_kept(tmp_path):
    store(tmp_path / "d", [4], metadata={"checkpoint": "runs/a", "steps": 7})
    store(tmp_path / "d", [4], collector="other")
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    assert (task.id, task.obs_dim, task.action_dim) == (NAME, 3, 2)
    assert task.metadata["checkpoint"] == "runs/a" and task.metadata["steps"] == 7
    assert task.metadata["collectors"] == ["test", "other"]


def test_opening_maps_the_rows_and_does_not_read_them(tmp_path):
    store(tmp_path / "d", [4])
    task = EpisodeDataset.open(tmp_path / "d").tasks[NAME]
    for name in ("observations", "actions", "rewards", "terminated"):
        rows = getattr(task, name)
        assert isinstance(rows, np.memmap) and rows.mode == "r", name
        with pytest.raises(ValueError, match="read-only"):
            rows[0] = 0
    assert task.num_bytes == 5 * (3 * 4 + 2 * 4 + 4 + 1)


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


def bytes_of(root):
    return {p.name: p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_many_at_once_are_the_same_as_one_by_one(tmp_path):
    o, a, r = (np.stack(arrays) for arrays in zip(*(episode(7, s) for s in range(4)), strict=True))
    r *= np.float32(10.0) ** np.arange(-18, 17, 5, dtype=np.float32)
    facts = dict(terminated=True, success=1.0)
    with writer(tmp_path / "one") as open_writer:
        for i in range(4):
            open_writer.append(o[i], a[i], r[i], seed=i, **facts)
    with writer(tmp_path / "many") as open_writer:
        open_writer.append_many(o[:1], a[:1], r[:1], seeds=[0], **facts)
        open_writer.append_many(o[1:], a[1:], r[1:], seeds=[1, 2, 3], **facts)
        assert (open_writer.num_episodes, open_writer.num_steps) == (4, 28)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "many")


def test_one_unfit_episode_among_many_keeps_all_out(tmp_path):
    store(tmp_path / "d", [4])
    before = bytes_of(tmp_path / "d")
    o, a, r = (np.stack(arrays) for arrays in zip(episode(6, 0), episode(6, 1), strict=True))
    bad = a.copy()
    bad[1, 2, 1] = -np.inf
    with writer(tmp_path / "d") as open_writer:
        for arrays, seeds, message in (
            ((o, bad, r), [0, 1], "actions hold -inf at step 2"),
            ((o[:, :-1], a, r), [0, 1], "needs observations"),
            ((o, a[..., :1], r), [0, 1], "needs observations"),
            ((o, a, r), [0], "with 1 seeds can't be stored together"),
            ((o[:1], a, r), [0, 1], "can't be stored together"),
            ((o[0], a[0], r[0]), [0], "can't be stored together"),
            ((o[:0], a[:0], r[:0]), [], "can't be stored together"),
        ):
            with pytest.raises(UserError, match=message):
                open_writer.append_many(*arrays, terminated=False, seeds=seeds)
    assert bytes_of(tmp_path / "d") == before


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

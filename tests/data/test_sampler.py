"""The samplers are exact: every valid window, none else, uniformly."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pwm.data import EpisodeDataset, StateSampler, WindowSampler, open_datasets
from pwm.errors import UserError

from .helpers import decode, windows, write_task

DIMS = {0: (2, 1), 1: (4, 3), 2: (1, 2)}
NAMES = ["x/small", "x/large", "x/thin"]
TWO = NAMES[:2]
lengths = st.lists(st.integers(1, 30), min_size=1, max_size=4)
sets = st.fixed_dictionaries({task: lengths for task in DIMS})


def sampler(datasets, horizon, batch=64, tasks=TWO, **options) -> WindowSampler:
    return WindowSampler(datasets, tasks=tasks, horizon=horizon, batch_size=batch, obs_dim=4,
                         action_dim=3, **{"seed": 0, "stream": "test", **options})  # fmt: skip


def starts(batch) -> list[tuple[int, int, int]]:
    return [decode(x) for x in batch.observations[0, :, 0].tolist()]


def write_folders(root: Path, episodes, split_at: int):
    """Three tasks; the first ``split_at`` episodes of each lie in one folder, others in a second"""
    for task, all_lengths in episodes.items():
        first, second = all_lengths[:split_at], all_lengths[split_at:]
        if first:
            write_task(root / "a", NAMES[task], task, first, DIMS[task])
        if second:
            write_task(root / "b", NAMES[task], task, second, DIMS[task], first=len(first))
    return open_datasets([folder for folder in (root / "a", root / "b") if folder.exists()])


def chi_square(found, valid) -> float:
    """Distance of the draws' counts from a uniform one over ``valid``."""
    counts, expected = Counter(found), len(found) / len(valid)
    return sum((counts[x] - expected) ** 2 / expected for x in valid)


@settings(max_examples=20, deadline=None)
@given(episodes=sets, horizon=st.integers(1, 12), split_at=st.integers(0, 4))
def test_windows_are_exact_copies_and_cover_everything(episodes, horizon, split_at):
    """Ragged episodes of three tasks in two folders."""
    valid = windows(episodes, horizon)
    with tempfile.TemporaryDirectory() as folder:
        datasets = write_folders(Path(folder), episodes, split_at)
        if {task for task, _, _ in valid} != set(DIMS):
            with pytest.raises(UserError, match=f"no episode of at least {horizon} steps"):
                sampler(datasets, horizon, tasks=NAMES)
            return
        options = dict(batch=40 * len(valid), tasks=NAMES)
        source = sampler(datasets, horizon, memory_limit=0, **options)
        assert source.num_windows == len(valid)
        batch = source.sample(0)
        check_copies(batch, horizon, episodes)
        assert set(starts(batch)) == valid
        same = sampler(datasets, horizon, **options).sample(0)
        for name, tensor in vars(batch).items():
            assert torch.equal(tensor, getattr(same, name)), "memory and disk differ"


def check_copies(batch, horizon, episodes):
    """Every column is one stored window: consecutive steps, own padding, right task and end."""
    assert all(tensor.isfinite().all() for tensor in vars(batch).values())
    o, a, r, ends = (getattr(batch, name).numpy()
                     for name in ("observations", "actions", "rewards", "terminated"))  # fmt: skip
    found = starts(batch)
    assert batch.task.tolist() == [task for task, _, _ in found]
    expected = o[0, :, 0] + np.arange(horizon + 1)[:, None]
    np.testing.assert_array_equal(r, expected[1:])
    for task, (wide, narrow) in DIMS.items():
        mine = batch.task.numpy() == task
        rows = expected[:, mine, None]
        np.testing.assert_array_equal(o[:, mine, :wide], rows.repeat(wide, 2))
        np.testing.assert_array_equal(a[:, mine, :narrow], rows[1:].repeat(narrow, 2))
        assert (o[:, mine, wide:] == 0).all() and (a[:, mine, narrow:] == 0).all()
    last = [t + horizon == episodes[task][e] and e % 2 == 0 for task, e, t in found]
    assert (ends[:-1] == 0).all() and ends[-1].tolist() == last


@settings(max_examples=20, deadline=None)
@given(episodes=sets, horizon=st.integers(1, 4), split_at=st.integers(0, 4),
       fraction=st.floats(0.01, 1), seed=st.integers(0, 2**31))  # fmt: skip
def test_train_and_holdout_share_no_episode_and_miss_none(
    episodes, horizon, split_at, fraction, seed
):
    """Whatever episodes are too short and wherever they lie; a lone one is in both splits."""
    valid = windows(episodes, horizon)
    with tempfile.TemporaryDirectory() as folder:
        datasets = write_folders(Path(folder), episodes, split_at)
        for task in {task for task, _, _ in valid}:
            usable = {episode for number, episode, _ in valid if number == task}
            found = {}
            for split in ("train", "holdout", "all"):
                source = sampler(datasets, horizon, batch=3000, tasks=[NAMES[task]], split=split,
                                 seed=seed, holdout_fraction=fraction)  # fmt: skip
                drawn = starts(source.sample(0))
                found[split] = {episode for _, episode, _ in drawn}
                mine = {w for w in valid if w[0] == task and w[1] in found[split]}
                assert set(drawn) <= mine and source.num_windows == len(mine)
            assert found["train"] | found["holdout"] == found["all"] == usable
            if len(usable) == 1:
                assert found["train"] == found["holdout"] == usable
            else:
                held = min(max(1, round(fraction * len(usable))), len(usable) - 1)
                assert not found["train"] & found["holdout"] and len(found["holdout"]) == held


@pytest.fixture
def ragged(tmp_path):
    """Two tasks; windows of 3 steps: small 1 + 5 + 3, large 8 + 2."""
    write_task(tmp_path / "d", NAMES[0], 0, [3, 7, 2, 5], DIMS[0])
    write_task(tmp_path / "d", NAMES[1], 1, [10, 4], DIMS[1])
    return [EpisodeDataset.open(tmp_path / "d")]


def test_uniform_over_windows(ragged):
    source = sampler(ragged, 3, batch=1000)
    found = [x for step in range(38) for x in starts(source.sample(step))]
    valid = windows({0: [3, 7, 2, 5], 1: [10, 4]}, 3)
    assert set(found) == valid and len(valid) == 19
    assert chi_square(found, valid) < 42.3  # 99.9 % quantile for 18 degrees of freedom


def test_uniform_within_weighted_tasks_of_two_folders(tmp_path):
    """Folders with few and many windows: neither is favoured, with weights or without."""
    episodes = {0: [4, 20, 6], 1: [3, 9, 12], 2: [5]}
    valid = windows(episodes, 3)  # 24, 18 and 3 of them, in one folder only 2, 1 and 3
    datasets = write_folders(tmp_path, episodes, split_at=1)
    plain = starts(sampler(datasets, 3, batch=45_000, tasks=NAMES).sample(0))
    assert chi_square(plain, valid) < 78.7  # 99.9 %, 44 degrees
    weighted = sampler(datasets, 3, batch=40_000, tasks=NAMES, task_weights=[2, 5, 1]).sample(1)
    shares = np.bincount(weighted.task.numpy()) / 40_000
    np.testing.assert_allclose(shares, [0.25, 0.625, 0.125], atol=0.012)
    for task, bound in ((0, 49.7), (1, 40.8), (2, 13.8)):  # 99.9 %, 23, 17 and 2 degrees
        mine = {w for w in valid if w[0] == task}
        assert chi_square([w for w in starts(weighted) if w[0] == task], mine) < bound


def test_task_weights(ragged):
    source = sampler(ragged, 3, batch=20_000, task_weights=[3, 1])
    batch = source.sample(0)
    assert (batch.task == 0).float().mean() == pytest.approx(0.75, abs=0.02)
    counts = Counter(x for x in starts(batch) if x[0] == 1)
    assert max(counts.values()) < 1.3 * min(counts.values()) and len(counts) == 10
    alone = sampler(ragged, 3, task_weights=[0, 1]).sample(0)
    assert (alone.task == 1).all()
    for weights in ([1], [1, -1], [0, 0], [1, float("nan")]):
        with pytest.raises(UserError, match="--task-weights"):
            sampler(ragged, 3, task_weights=weights)


def test_a_batch_depends_on_seed_stream_and_step_alone(ragged):
    source = sampler(ragged, 3)
    first = source.sample(5).observations
    source.sample(6)
    assert torch.equal(source.sample(5).observations, first)
    reopened = [EpisodeDataset.open(ragged[0].path)]
    assert torch.equal(sampler(reopened, 3).sample(5).observations, first)
    assert torch.equal(sampler(ragged, 3, memory_limit=0).sample(5).observations, first)
    others = (source.sample(6), sampler(ragged, 3, seed=1).sample(5),
              sampler(ragged, 3, stream="other").sample(5))  # fmt: skip
    assert not any(torch.equal(other.observations, first) for other in others)


def test_the_split_follows_the_seed_and_not_the_stream(tmp_path):
    write_task(tmp_path / "d", NAMES[0], 0, [6] * 20, DIMS[0])
    datasets = [EpisodeDataset.open(tmp_path / "d")]

    def held(**options):
        source = sampler(datasets, 3, batch=2000, tasks=NAMES[:1], split="holdout",
                         holdout_fraction=0.2, **options)  # fmt: skip
        return frozenset(episode for _, episode, _ in starts(source.sample(0)))

    assert held() == held(stream="other") and len(held()) == 4
    assert len({held(seed=seed) for seed in range(5)}) > 1


def test_nothing_is_held_out_of_a_fraction_of_zero(ragged):
    for split in ("train", "holdout"):
        assert sampler(ragged, 3, split=split, holdout_fraction=0.0).num_windows == 19


def test_states_are_uniform_over_all_rows_and_padded(tmp_path):
    datasets = write_folders(tmp_path, {0: [3, 7, 2, 5], 1: [4]}, split_at=1)

    def states(**options):
        return StateSampler(datasets, task=NAMES[0], batch_size=21_000, obs_dim=4,
                            **{"seed": 0, "stream": "s", **options})  # fmt: skip

    drawn = states().sample(1)
    assert drawn.shape == (21_000, 4) and drawn.dtype == torch.float32
    assert torch.equal(drawn[:, 0], drawn[:, 1]) and (drawn[:, 2:] == 0).all()
    found = [decode(x) for x in drawn[:, 0].tolist()]
    rows = {(0, e, t) for e, length in enumerate([3, 7, 2, 5]) for t in range(length + 1)}
    assert set(found) == rows and len(rows) == 21
    assert chi_square(found, rows) < 45.3  # 99.9 %, 20 degrees
    assert torch.equal(states().sample(1), drawn)
    assert torch.equal(states(memory_limit=0).sample(1), drawn)
    for other in (states().sample(2), states(seed=1).sample(1), states(stream="t").sample(1)):
        assert not torch.equal(other, drawn)
    with pytest.raises(UserError, match="no episodes of task 'x/none'"):
        StateSampler(datasets, task="x/none", batch_size=2, obs_dim=4, seed=0, stream="s")

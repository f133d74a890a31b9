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

DIMS = {0: (2, 1), 1: (4, 3)}
NAMES = ["x/small", "x/large"]
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def sampler(datasets, horizon, batch=64, tasks=NAMES, **options) -> WindowSampler:
    return WindowSampler(datasets, tasks=tasks, horizon=horizon, batch_size=batch, obs_dim=4,
                         action_dim=3, **{"seed": 0, "stream": "test", **options})  # fmt: skip


def starts(batch) -> list[tuple[int, int, int]]:
    return [decode(x) for x in batch.observations[0, :, 0].tolist()]


@settings(max_examples=30, deadline=None)
@given(small=lengths, large=lengths, horizon=st.integers(1, 6), split_at=st.integers(0, 6))
def test_windows_are_exact_copies_and_cover_everything(small, large, horizon, split_at):
    """Ragged episodes of two tasks; the large task lies in two folders."""
    valid = windows({0: small, 1: large}, horizon)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_task(root / "a", NAMES[0], 0, small, DIMS[0])
        first, second = large[:split_at], large[split_at:]
        if first:
            write_task(root / "a", NAMES[1], 1, first, DIMS[1])
        if second:
            write_task(root / "b", NAMES[1], 1, second, DIMS[1], first=len(first))
        datasets = open_datasets([root / "a"] + ([root / "b"] if second else []))
        if {task for task, _, _ in valid} != {0, 1}:
            with pytest.raises(UserError, match="no episode of at least"):
                sampler(datasets, horizon)
            return
        source = sampler(datasets, horizon, batch=40 * len(valid), memory_limit=0)
        assert source.num_windows == len(valid)
        batch = source.sample(0)
        check_copies(batch, horizon)
        found = starts(batch)
        assert set(found) == valid
        same = sampler(datasets, horizon, batch=40 * len(valid)).sample(0)
        for name, tensor in vars(batch).items():
            assert torch.equal(tensor, getattr(same, name)), "memory and disk differ"


def check_copies(batch, horizon):
    """Every column is one stored window: consecutive steps, own padding, right task."""
    o, a, r = (x.numpy() for x in (batch.observations, batch.actions, batch.rewards))
    assert np.isfinite(o).all() and np.isfinite(a).all() and np.isfinite(r).all()
    for column, start in enumerate(starts(batch)):
        task, episode, t = start
        assert batch.task[column] == task
        wide, narrow = DIMS[task]
        expected = o[0, column, 0] + np.arange(horizon + 1)
        np.testing.assert_array_equal(o[:, column, :wide], expected[:, None].repeat(wide, 1))
        np.testing.assert_array_equal(a[:, column, :narrow], expected[1:, None].repeat(narrow, 1))
        np.testing.assert_array_equal(r[:, column], expected[1:])
        assert (o[:, column, wide:] == 0).all() and (a[:, column, narrow:] == 0).all()
        ends = batch.terminated[:, column].numpy()
        assert (ends[:-1] == 0).all() and (ends[-1] == 0 or episode % 2 == 0)


@pytest.fixture
def ragged(tmp_path):
    """Two tasks; windows of 3 steps: small 1 + 5 + 3, large 8 + 2."""
    write_task(tmp_path / "d", NAMES[0], 0, [3, 7, 2, 5], DIMS[0])
    write_task(tmp_path / "d", NAMES[1], 1, [10, 4], DIMS[1])
    return [EpisodeDataset.open(tmp_path / "d")]


def test_uniform_over_windows(ragged):
    source = sampler(ragged, 3, batch=1000)
    counts = Counter(x for step in range(38) for x in starts(source.sample(step)))
    valid = windows({0: [3, 7, 2, 5], 1: [10, 4]}, 3)
    assert set(counts) == valid and len(valid) == 19
    expected = 38_000 / 19
    chi_square = sum((counts[w] - expected) ** 2 / expected for w in valid)
    assert chi_square < 42.3  # 99.9 % quantile for 18 degrees of freedom


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
    assert torch.equal(sampler(ragged, 3).sample(5).observations, first)
    others = (source.sample(6), sampler(ragged, 3, seed=1).sample(5),
              sampler(ragged, 3, stream="other").sample(5))  # fmt: skip
    assert not any(torch.equal(other.observations, first) for other in others)


def test_train_and_holdout_share_no_episode_and_miss_none(tmp_path):
    write_task(tmp_path / "d", NAMES[0], 0, [6] * 20, DIMS[0])
    datasets = [EpisodeDataset.open(tmp_path / "d")]
    for seed in range(5):
        episodes = {}
        for split in ("train", "holdout", "all"):
            source = sampler(datasets, 3, batch=2000, tasks=NAMES[:1], split=split, seed=seed,
                             holdout_fraction=0.2)  # fmt: skip
            episodes[split] = {episode for _, episode, _ in starts(source.sample(0))}
        assert len(episodes["holdout"]) == 4 and not episodes["train"] & episodes["holdout"]
        assert episodes["train"] | episodes["holdout"] == episodes["all"] == set(range(20))


def test_a_single_episode_is_in_both_splits(tmp_path):
    write_task(tmp_path / "d", NAMES[0], 0, [6], DIMS[0])
    datasets = [EpisodeDataset.open(tmp_path / "d")]
    for split in ("train", "holdout"):
        assert sampler(datasets, 3, tasks=NAMES[:1], split=split).num_windows == 4


def test_states_are_uniform_over_all_rows_and_padded(ragged):
    source = StateSampler(ragged, task=NAMES[0], batch_size=21_000, obs_dim=4, seed=0, stream="s")
    states = source.sample(1)
    assert states.shape == (21_000, 4) and (states[:, 2:] == 0).all()
    counts = Counter(decode(x) for x in states[:, 0].tolist())
    rows = {(0, e, t) for e, length in enumerate([3, 7, 2, 5]) for t in range(length + 1)}
    assert set(counts) == rows and len(rows) == 21
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 45.3  # 99.9 %, 20 degrees
    assert torch.equal(source.sample(1), states) and not torch.equal(source.sample(2), states)
    from_disk = StateSampler(ragged, task=NAMES[0], batch_size=21_000, obs_dim=4, seed=0,
                             stream="s", memory_limit=0)  # fmt: skip
    assert torch.equal(from_disk.sample(1), states)
    with pytest.raises(UserError, match="no episodes"):
        StateSampler(ragged, task="x/none", batch_size=2, obs_dim=4, seed=0, stream="s")

"""Replay ring: windows stay within episodes, the oldest make room, draws are uniform and repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pwm.data import Replay
from pwm.errors import UserError


def replay(capacity=200, horizon=3, batch_size=64, seed=0):
    return Replay(
        capacity, obs_dim=2, action_dim=1, horizon=horizon, batch_size=batch_size, seed=seed
    )


def add(buffer, number, steps, terminated=False):
    """Episode whose values tell its number and step: 1000 number + step."""
    rows = 1000.0 * number + np.arange(steps + 1)
    buffer.add(np.stack([rows, -rows], 1), rows[1:, None], rows[1:], terminated)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    capacity=st.integers(13, 90),
    horizon=st.integers(1, 4),
)
def test_every_window_lies_in_one_episode_that_is_kept(lengths, capacity, horizon):
    buffer = replay(capacity, horizon)
    for number, steps in enumerate(lengths, 1):
        add(buffer, number, steps, terminated=True)
    kept = [(n, s) for n, s in enumerate(lengths, 1)][-buffer.num_episodes :]
    assert sum(s + 1 for _, s in kept) <= capacity
    assert buffer.num_windows == sum(max(0, s - horizon + 1) for _, s in kept)
    if not buffer.num_windows:
        with pytest.raises(UserError, match="no episode of at least"):
            buffer.sample(0)
        return
    batch = buffer.sample(0)
    first = batch.observations[0, :, 0].numpy()
    number, step = first // 1000, first % 1000
    steps = np.array([lengths[int(n) - 1] for n in number])
    assert (step + horizon <= steps).all() and number.min() >= kept[0][0]
    for t in range(horizon):
        assert (batch.observations[t + 1, :, 0].numpy() == first + t + 1).all()
        assert (batch.actions[t, :, 0].numpy() == first + t + 1).all()
        assert (batch.rewards[t].numpy() == first + t + 1).all()
        assert (batch.terminated[t].numpy() == (step + t + 1 == steps)).all()
    assert (batch.task == 0).all()


def test_the_oldest_go_first_and_no_more_than_needed():
    buffer = replay(capacity=30)
    for number in (1, 2, 3):
        add(buffer, number, 9)  # 10 rows each: full
    assert buffer.num_episodes == 3
    add(buffer, 4, 4)  # overwrites a half of episode 1
    assert buffer.num_episodes == 3
    seen = {int(x) // 1000 for x in buffer.sample(0).observations[0, :, 0]}
    assert seen == {2, 3, 4}


def test_uniform_over_windows():
    buffer = replay(batch_size=20_000)
    add(buffer, 1, 3)  # one window
    add(buffer, 2, 12)  # ten
    values, counts = np.unique(buffer.sample(0).observations[0, :, 0], return_counts=True)
    assert len(values) == 11
    assert abs(counts / 20_000 - 1 / 11).max() < 0.01


def test_same_seed_and_step_same_batch():
    first, second, other = replay(), replay(), replay(seed=1)
    for buffer in (first, second, other):
        add(buffer, 1, 50)
    assert (first.sample(5).rewards == second.sample(5).rewards).all()
    assert (first.sample(5).rewards != first.sample(6).rewards).any()
    assert (first.sample(5).rewards != other.sample(5).rewards).any()


def test_an_episode_longer_than_the_buffer():
    with pytest.raises(UserError, match="--buffer-size"):
        add(replay(capacity=10), 1, 10)

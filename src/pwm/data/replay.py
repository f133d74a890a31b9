"""Replay buffer: the newest episodes of a task in memory, sampled in windows."""

from __future__ import annotations

import zlib
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

from pwm.data.sampler import Batch, counted_generator
from pwm.errors import UserError
from pwm.seeding import stream_seed


class Replay:
    """Whole episodes of one task in a ring of ``capacity`` rows; the oldest make room.

    Like the data sets on disk, an episode of T steps takes T + 1 rows, windows of H steps are
    drawn uniformly over all that lie within one episode, and the batch of a step depends on the
    content, the seed and the step alone.

    Args:
        capacity: rows in memory; memory is taken as it fills.

    Raises:
        UserError: an episode that does not fit into the capacity, or sampling without a window.
    """

    def __init__(
        self, capacity: int, *, obs_dim: int, action_dim: int, horizon: int, batch_size: int,
        seed: int, stream: str = "replay",
    ):  # fmt: skip
        self.capacity, self.horizon, self.batch_size = capacity, horizon, batch_size
        self._observations = np.zeros((capacity, obs_dim), np.float32)
        self._actions = np.zeros((capacity, action_dim), np.float32)
        self._rewards = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, np.float32)
        self._episodes: deque[tuple[int, int]] = deque()  # first row, steps
        self._next = 0
        self._key = [stream_seed(seed, stream), zlib.crc32(stream.encode())]
        self._count_windows()

    @property
    def num_bytes(self) -> int:
        """Memory that a full buffer takes."""
        rows = (self._observations, self._actions, self._rewards, self._terminated)
        return sum(array.nbytes for array in rows)

    @property
    def num_episodes(self) -> int:
        return len(self._episodes)

    @property
    def num_windows(self) -> int:
        """All valid windows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def add(
        self, observations: NDArray, actions: NDArray, rewards: NDArray, terminated: bool
    ) -> None:
        """Take in an episode: observations [T+1, O], actions [T, A], rewards [T]."""
        steps = len(rewards)
        if steps + 1 > self.capacity:
            raise UserError(
                f"an episode of {steps} steps does not fit into a replay of {self.capacity} rows; "
                "raise --buffer-size"
            )
        if self._next + steps + 1 > self.capacity:
            self._evict(self._next, self.capacity)
            self._next = 0
        first, last = self._next, self._next + steps
        self._evict(first, last + 1)
        self._observations[first : last + 1] = observations
        self._actions[first + 1 : last + 1] = actions
        self._rewards[first + 1 : last + 1] = rewards
        self._terminated[first : last + 1] = 0
        self._terminated[last] = terminated
        self._episodes.append((first, steps))
        self._next = last + 1
        self._count_windows()

    def _evict(self, begin: int, end: int) -> None:
        """Forget the episodes with a row in [begin, end); the oldest are always the next ones."""
        while self._episodes:
            first, steps = self._episodes[0]
            if first >= end or first + steps < begin:
                return
            self._episodes.popleft()

    def _count_windows(self) -> None:
        usable = [(row, n - self.horizon + 1) for row, n in self._episodes if n >= self.horizon]
        rows, counts = np.array(usable, np.int64).reshape(-1, 2).T
        self._rows, self._ends = rows, np.cumsum(counts)
        self._starts = self._ends - counts

    def sample(self, step: int) -> Batch:
        """The batch of ``step``; tasks are all 0."""
        if not self.num_windows:
            raise UserError(f"the replay holds no episode of at least {self.horizon} steps")
        window = counted_generator(self._key, step).integers(self.num_windows, size=self.batch_size)
        episode = np.searchsorted(self._ends, window, side="right")
        first = self._rows[episode] + window - self._starts[episode]
        rows = first + np.arange(self.horizon + 1)[:, None]
        arrays = (
            self._observations[rows], self._actions[rows[1:]], self._rewards[rows[1:]],
            self._terminated[rows[1:]], np.zeros(self.batch_size, np.int64),
        )  # fmt: skip
        return Batch(*(torch.from_numpy(array) for array in arrays))

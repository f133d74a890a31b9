"""What every batched task shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mujoco.batch import Batch

Floats = NDArray[np.float64]

INF = float("inf")
# Columns of MuJoCo's row-major 3 x 3 matrices.
XX, XZ, ZZ = 0, 2, 8


class BatchTask(ABC):
    """Reads observations and rewards of N simulations from the arrays that a batch refreshes.

    Args:
        batch: ``mujoco.batch.Batch`` whose model carries the task's episode-independent changes
            (target sizes, damping), that is, one on which an episode has begun before.
    """

    # Model fields that the task draws anew for every episode.
    episode_fields: tuple[str, ...] = ()

    def __init__(self, batch: Batch):
        self.model = batch.model
        self.qpos: Floats = batch.bind("qpos")
        self.qvel: Floats = batch.bind("qvel")

    @abstractmethod
    def observe(self) -> tuple[Floats, ...]:
        """Return the observation's parts in dict order, float64 [N, part], possibly views."""

    @abstractmethod
    def reward(self) -> Floats:
        """Return the reward of the present states for one control step, float64 [N]."""


def tolerance(
    x: Floats,
    lower: float = 0.0,
    upper: float = 0.0,
    *,
    margin: float = 0.0,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Floats:
    """Vectorised ``dm_control.utils.rewards.tolerance`` with the sigmoids that the tasks use.

    Args:
        x: any shape.
        lower, upper: bounds between which the value is 1.
        margin: distance from the bounds at which the value has fallen to ``value_at_margin``;
            with 0 it is 0 everywhere outside.
        sigmoid: "gaussian", "linear" or "quadratic".

    Returns:
        Values in [0, 1] of the shape of ``x``.

    Raises:
        ValueError: unknown sigmoid.
    """
    inside = (lower <= x) & (x <= upper)
    if margin == 0:
        return inside.astype(np.float64)
    distance = np.maximum(lower - x, x - upper) / margin
    if sigmoid == "gaussian":
        outside = np.exp(-0.5 * (distance * np.sqrt(-2 * np.log(value_at_margin))) ** 2)
    elif sigmoid == "linear":
        scaled = distance * (1 - value_at_margin)
        outside = np.where(scaled < 1, 1 - scaled, 0.0)
    elif sigmoid == "quadratic":
        scaled = distance * np.sqrt(1 - value_at_margin)
        outside = np.where(scaled < 1, 1 - scaled**2, 0.0)
    else:
        raise ValueError(f"unknown sigmoid '{sigmoid}'")
    return np.where(inside, 1.0, outside)


def norm(vectors: Floats) -> Floats:
    """Euclidean norms along the last axis: [N, k] -> [N].

    ``np.linalg.norm`` of a single vector calls the BLAS dot product, which may fuse multiply and
    add; ``vecdot`` calls the same routine for every row, so the last bits agree.
    """
    vectors = np.ascontiguousarray(vectors)
    return np.sqrt(np.vecdot(vectors, vectors))

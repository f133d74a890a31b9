"""Sizes of a world model of TD-MPC2 or PWM, found from the shapes of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.errors import UserError
from pwm.models.tdmpc2_layouts import EMBEDDING, PARTS, Structure, is_stacked, own_names
from pwm.models.world_model import WorldModel, WorldModelConfig

# (encoder width, its hidden layers, hidden width, latent) -> name of the released size
_SIZES = {
    (256, 1, 384, 128): "1M",
    (256, 1, 512, 512): "5M",
    (1024, 2, 1024, 512): "19M",
    (1024, 2, 1024, 768): "19M",
    (1792, 3, 1792, 768): "48M",
    (4096, 4, 4096, 1376): "317M",
}
_REPAIR = "get a fresh copy of the file"


@dataclass(frozen=True)
class Sizes:
    """What the shapes say. ``embedded_tasks`` 0: single-task, without an embedding."""

    obs_dim: int
    action_dim: int
    embedded_tasks: int
    task_dim: int
    latent_dim: int
    hidden_dim: int
    encoder_dim: int
    encoder_layers: int
    num_bins: int
    num_q: int
    termination: bool

    @property
    def name(self) -> str:
        """Size as TD-MPC2 calls it, or "custom"."""
        widths = (self.encoder_dim, self.encoder_layers, self.hidden_dim, self.latent_dim)
        return _SIZES.get(widths, "custom")

    def config(
        self,
        tasks: Sequence[str],
        obs_dims: Sequence[int],
        action_dims: Sequence[int],
        episode_lengths: Sequence[int | None],
        **options: Any,
    ) -> WorldModelConfig:
        """Config of the model for these tasks, in the order of the embedding's rows."""
        return WorldModelConfig(
            tasks=tuple(tasks), obs_dims=tuple(obs_dims), action_dims=tuple(action_dims),
            episode_lengths=tuple(episode_lengths), task_dim=self.task_dim,
            latent_dim=self.latent_dim, hidden_dim=self.hidden_dim, encoder_dim=self.encoder_dim,
            encoder_layers=self.encoder_layers, num_bins=self.num_bins, num_q=self.num_q,
            policy_prior=self.num_q > 0, termination=self.termination,
            termination_on_next=self.termination, **options,
        )  # fmt: skip


def find_sizes(path: Path, structure: Structure, tensors: Mapping[str, Tensor]) -> Sizes:
    """Sizes on which most of the tensors agree; :func:`check_shapes` finds the others.

    Raises:
        UserError: shapes that make no such model.
    """

    def most(*values: int | None) -> int:
        """The most frequent value that is known."""
        known = [value for value in values if value is not None]
        return Counter(known).most_common(1)[0][0] if known else 0

    def size(name: str, axis: int) -> int | None:
        shape = tensors[name].shape if name in tensors else ()
        return shape[axis] if -len(shape) <= axis < len(shape) else None

    def less(value: int | None, by: int) -> int | None:
        return None if value is None else value - by

    last = f"_encoder.state.{structure.encoder_layers - 1}"
    latent = most(size(f"{last}.weight", 0), size(f"{last}.bias", 0), size("_dynamics.2.bias", 0))
    hidden = most(*(size(f"{name}.0.bias", 0) for name in ("_dynamics", "_reward", "_pi")))
    width = size("_encoder.state.0.weight", 0)
    encoder_dim = most(width, *(size(f"_encoder.state.0.{part}", 0) for part in PARTS[1:]))
    joint = most(*(size(f"{name}.0.weight", -1) for name in ("_dynamics", "_reward", "_Qs.params")))
    beside = less(size("_pi.0.weight", 1), latent)
    halves = [(size(f"_pi.2.{part}", 0) or 0) // 2 for part in PARTS[:2]]
    if not structure.embedding and beside and joint - latent - most(*halves) == beside > 0:
        raise UserError(f"{path} lacks the key {EMBEDDING}: its networks read {beside} features of "
                        f"the task; {_REPAIR}")  # fmt: skip
    votes = [size(EMBEDDING, 1), beside, *(joint - latent - half for half in halves if half)]
    task_dim = most(*votes) if structure.embedding else 0
    actions = most(joint - latent - task_dim, *(half for half in halves if half))
    sizes = Sizes(
        obs_dim=most(size("_encoder.state.0.weight", 1)) - task_dim, action_dim=actions,
        embedded_tasks=most(size(EMBEDDING, 0)), task_dim=task_dim, latent_dim=latent,
        hidden_dim=hidden, encoder_dim=encoder_dim, encoder_layers=structure.encoder_layers - 1,
        num_bins=most(size("_reward.2.bias", 0), size("_reward.2.weight", 0),
                      size("_Qs.params.2.bias", 1)),
        num_q=most(*(size(f"{name}.0.bias", 0) for name in ("_Qs.params", "_target_Qs_params")),
                   size("_Qs.params.0.weight", 0)),
        termination=structure.termination,
    )  # fmt: skip
    _check_possible(path, structure, sizes)
    return sizes


def _check_possible(path: Path, structure: Structure, sizes: Sizes) -> None:
    counts = [sizes.obs_dim, sizes.action_dim, sizes.latent_dim, sizes.hidden_dim,
              sizes.encoder_dim, sizes.num_bins]  # fmt: skip
    if structure.embedding:
        counts += [sizes.embedded_tasks, sizes.task_dim]
    if min(counts) < 1 or sizes.latent_dim % 8 or (structure.values and sizes.num_q < 2):
        raise UserError(
            f"{path}: its shapes make no model of TD-MPC2: latent {sizes.latent_dim} (a multiple "
            f"of 8), hidden {sizes.hidden_dim}, encoder {sizes.encoder_dim}, {sizes.obs_dim} "
            f"observations, {sizes.action_dim} actions, {sizes.num_q} Q heads (at least 2); "
            f"{_REPAIR}"
        )
    if sizes.num_bins == 1 and structure.values:
        raise UserError(f"{path}: its rewards are single numbers, not bins; this is not supported")


def check_shapes(
    path: Path, sizes: Sizes, tensors: Mapping[str, Tensor], keys: Mapping[str, str]
) -> None:
    """Raise UserError for a tensor of another shape than a model of these sizes has.

    Args:
        keys: name of a tensor -> its key in the file.
    """
    count = max(1, sizes.embedded_tasks)
    config = sizes.config(
        [str(i) for i in range(count)], [sizes.obs_dim] * count, [sizes.action_dim] * count,
        [None] * count,
    )  # fmt: skip
    with torch.device("meta"):
        own = WorldModel(config).state_dict()
    for name, tensor in tensors.items():
        shape = tuple(own[own_names(name, sizes.num_q)[0]].shape)
        expected = (sizes.num_q, *shape) if is_stacked(name) else shape
        if tuple(tensor.shape) != expected:
            raise UserError(
                f"{path}: '{keys[name]}' has shape {tuple(tensor.shape)}, expected {expected} by "
                f"the other tensors; {_REPAIR}"
            )

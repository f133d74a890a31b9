"""Agent files of PWM's published code (arXiv 2407.02466), read without running any of it.

A file is a dictionary: ``actor`` and ``critic`` on the latents of ``world_model`` (state dicts),
running moments ``obs_rms``, ``rew_rms`` and ``ret_rms`` (or None), and three optimizers' states.
The world model was trained, and the actor acts, on observations (s - mean) / sqrt(var + 1e-5)
clipped to +-5, and on rewards normalised likewise, where the file has such moments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.errors import UserError
from pwm.models.actor import Actor, ActorConfig
from pwm.models.tdmpc2_checkpoint import ForeignModel, check_finite, listed
from pwm.models.tdmpc2_sizes import Sizes
from pwm.models.world_model import WorldModelConfig
from pwm.runtime.foreign import Stub

OBS_LIMIT = 5.0
_EPSILON = 1e-5
_MOMENTS = ("obs_rms", "rew_rms", "ret_rms")
_TRAINING = ("actor_opt", "critic_opt", "world_model_opt")
_KEYS = {"actor", "critic", "world_model", *_MOMENTS, *_TRAINING}


class RunningMeanStd(Stub):
    """Stand-in for the one class that such a file needs: attributes mean, var, count, shape."""

    mean: Tensor
    var: Tensor


STUBS = {"pwm.utils.running_mean_std.RunningMeanStd": RunningMeanStd}


def is_agent(content: Any) -> bool:
    """Whether the content of a torch file is an agent of PWM."""
    return isinstance(content, dict) and "world_model" in content and "model" not in content


@dataclass(frozen=True)
class PWMAgent:
    """World model and actor of one file, checked.

    Attributes:
        actor: weights by the names of :class:`pwm.models.actor.Actor`, without its mask; empty
            when ``actor_problem`` says why it can't be taken over.
        obs_mean, obs_scale: [O] normalisation of observations, or None.
        reward_mean, reward_std: what turns the model's reward back into reward units, or None.
    """

    model: ForeignModel
    actor: dict[str, Tensor]
    actor_config: ActorConfig
    actor_problem: str
    obs_mean: Tensor | None = None
    obs_scale: Tensor | None = None
    reward_mean: float | None = None
    reward_std: float | None = None

    @classmethod
    def of_file(cls, path: Path, content: Mapping[str, Any]) -> PWMAgent:
        """From the content of a file that :func:`is_agent`.

        Raises:
            UserError: a damaged or incomplete world model, moments of another size, or rewards
                that are both normalised and coded in bins.
        """
        if unknown := sorted(str(key) for key in set(content) - _KEYS):
            raise UserError(f"{path} is no agent of PWM: it holds {listed(unknown)} as well")
        state = content["world_model"]
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise UserError(f"{path}: 'world_model' is no state dict; get a fresh copy of the file")
        model = ForeignModel.of_state(path, state, "PWM")
        obs = _moments(path, "obs_rms", content.get("obs_rms"), model.sizes.obs_dim)
        reward = _moments(path, "rew_rms", content.get("rew_rms"), 1)
        if reward is not None and model.sizes.num_bins != 1:
            raise UserError(f"{path}: its rewards are in bins and normalised, which no published "
                            "model is; this can't be converted")  # fmt: skip
        actor, config, problem = _actor(path, content.get("actor"), model.sizes)
        return cls(
            model, actor, config, problem,
            obs_mean=None if obs is None else obs[0],
            obs_scale=None if obs is None else 1 / obs[1],
            reward_mean=None if reward is None else float(reward[0]),
            reward_std=None if reward is None else float(reward[1]),
        )  # fmt: skip

    def options(self) -> dict[str, Any]:
        """Fields of the model's config that follow from the moments."""
        return {} if self.obs_mean is None else {
            "normalize_observations": True, "obs_limit": OBS_LIMIT}  # fmt: skip

    def own_state(self, config: WorldModelConfig) -> dict[str, Tensor]:
        """State dict of the world model, its rewards in reward units."""
        state = self.model.own_state()
        if self.obs_mean is not None and self.obs_scale is not None:
            rows = len(config.tasks)
            state["obs_mean"] = self.obs_mean.repeat(rows, 1)
            state["obs_scale"] = self.obs_scale.repeat(rows, 1)
        if self.reward_std is not None and self.reward_mean is not None:
            weight, bias = "reward_head.out.weight", "reward_head.out.bias"
            state[weight] = state[weight] * self.reward_std
            state[bias] = state[bias] * self.reward_std + self.reward_mean
        return state


def _moments(path: Path, key: str, value: Any, width: int) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation, [width] each, as PWM normalises with them."""
    if value is None:
        return None
    both: list[Tensor] = []
    for name in ("mean", "var"):
        found = getattr(value, name, None)
        if not isinstance(found, Tensor) or found.numel() != width:
            raise UserError(f"{path}: '{key}' has no {name} of {width} numbers; get a fresh copy "
                            "of the file")  # fmt: skip
        both.append(found.detach().float().reshape(width))
    mean, var = both
    check_finite(path, f"{key}.mean", mean)
    check_finite(path, f"{key}.var", var)
    if (var < 0).any():
        raise UserError(f"{path}: '{key}.var' is negative; get a fresh copy of the file")
    return mean, torch.sqrt(var + _EPSILON)


def _actor(path: Path, state: Any, sizes: Sizes) -> tuple[dict[str, Tensor], ActorConfig, str]:
    """Weights and config of the actor, or the reason why it has no place here."""
    config = ActorConfig()
    if not isinstance(state, dict) or not state:
        return {}, config, "the file has none"
    own: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            return {}, config, "it is no state dict"
        name = "log_std" if key == "logstd" else key.replace("mu_net.", "body.", 1)
        own[name] = tensor.detach()
    matrices = [
        key for key in own if re.fullmatch(r"body\.\d+\.weight", key) and own[key].ndim == 2
    ]
    widths = [own[key].shape[0] for key in sorted(matrices, key=lambda key: int(key.split(".")[1]))]
    if not widths or "log_std" not in own:
        return {}, config, "it is no Gaussian policy of linear layers"
    config = ActorConfig(units=tuple(widths[:-1]))
    with torch.device("meta"):
        wanted = Actor(sizes.latent_dim, torch.ones(sizes.action_dim), config).state_dict()
    shapes = {key: (t.shape, t.dtype) for key, t in wanted.items() if key != "mask"}
    if {key: (t.shape, t.dtype) for key, t in own.items()} != shapes:
        return {}, config, "its layers are not Linear, Mish, LayerNorm in turn"
    for key, tensor in own.items():
        check_finite(path, f"actor {key}", tensor)
    # the original clamps the weight itself: it is never below the floor that was set there
    floor = min(config.min_log_std, float(own["log_std"].min()))
    return own, replace(config, min_log_std=floor), ""

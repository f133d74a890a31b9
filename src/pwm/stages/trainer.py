"""State and update of one policy extraction: actor, critics, optimizers, random streams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pwm.algorithms.normalizers import RunningMoments
from pwm.algorithms.pwm import (
    PWMConfig,
    actor_loss,
    behavior_loss,
    behavior_weights,
    critic_loss,
    critic_targets,
)
from pwm.errors import UserError
from pwm.models.actor import Actor, ActorConfig
from pwm.models.critic import CriticConfig, CriticEnsemble
from pwm.models.frozen import FrozenTaskModel
from pwm.models.pretrained import load_into
from pwm.models.world_model import WorldModel
from pwm.runtime.run_folder import checkpoint_path, load_state
from pwm.seeding import stream_seed


@dataclass(frozen=True)
class TrainerConfig:
    """What a policy's updates depend on."""

    update: PWMConfig
    actor: ActorConfig
    critic: CriticConfig
    updates: int
    learning_rate: float
    final_learning_rate: float
    seed: int
    actor_average: float = 0.0
    compile: bool = False


class StartStates(Protocol):
    """Where imagined rollouts begin: observations [B, O] as a pure function of the step."""

    def sample(self, step: int) -> Tensor: ...


class Window(Protocol):
    """Real steps: observations [N+1, B, O], actions [N, B, A], rewards and terminated [N, B]."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor


class Windows(Protocol):
    """Where the behaviour prior learns from, as a pure function of the step."""

    def sample(self, step: int) -> Window: ...


class PolicyTrainer:
    """Improves one actor-critic against a frozen world model, one :meth:`update` at a time.

    Start states are a function of the step number; noise and minibatch order come from a
    generator whose state is part of a checkpoint, so a resumed run repeats the one that was not
    killed.
    """

    def __init__(
        self,
        model: WorldModel,
        task: str,
        states: StartStates,
        config: TrainerConfig,
        device: str,
        windows: Windows | None = None,
    ):
        if config.update.behavior_weight and windows is None:
            raise ValueError("a behaviour prior needs windows of real data")
        self.windows = windows
        self.config, self.task, self.device = config, task, device
        self.states = states
        self.model = FrozenTaskModel(model, model.task_index(task))
        torch.manual_seed(stream_seed(config.seed, "policy", task))
        latent = model.config.latent_dim
        self.actor = Actor(latent, self.model.action_mask, config.actor).to(device)
        self._average = AveragedModel(
            self.actor, multi_avg_fn=get_ema_multi_avg_fn(config.actor_average)
        )
        self.critic = CriticEnsemble(latent, config.critic).to(device)
        self.moments = RunningMoments().to(device)
        self.generator = torch.Generator().manual_seed(stream_seed(config.seed, "noise", task))
        adam = dict(lr=config.learning_rate, betas=(0.7, 0.95), fused=True)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **adam)  # type: ignore[arg-type]
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), **adam)  # type: ignore[arg-type]
        self._actor_loss, self._critic_loss = actor_loss, critic_loss
        if config.compile:
            self._actor_loss = torch.compile(actor_loss)
            self._critic_loss = torch.compile(critic_loss)

    def update(self, step: int) -> dict[str, Tensor]:
        """One actor update and its critic updates; ``step`` counts from 1. Metrics stay tensors."""
        self._set_learning_rate(step)
        observations = self.states.sample(step).to(self.device, non_blocking=True)
        with torch.no_grad():
            z0 = self.model.encode(observations)
        update = self.config.update
        shape = (update.horizon, z0.shape[0], self.model.action_mask.shape[0])
        noise = torch.randn(shape, generator=self.generator).to(self.device, non_blocking=True)
        loss, rollout, metrics = self._actor_loss(
            self.model, self.actor, self.critic, self.moments, z0, noise, update
        )
        if update.behavior_weight:
            behavior = self._behavior_loss(step)
            loss = loss + update.behavior_weight * behavior
            metrics["behavior_loss"] = behavior.detach()
        parameters = list(self.actor.parameters())
        # Gradients of the actor alone: nothing else is asked for, so nothing else is computed.
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(parameters, update.actor_clip)
        self.actor_optimizer.step()
        self._average.update_parameters(self.actor)
        latents, targets = critic_targets(self.critic, rollout, update)
        value_loss = self._fit_critic(latents, targets)
        return {**metrics, "actor_grad_norm": norm.detach(), "critic_loss": value_loss,
                "target_mean": targets.mean()}  # fmt: skip

    @property
    def deployed(self) -> Actor:
        """The actor to evaluate and keep: the running average of the trained one's weights."""
        module = self._average.module
        assert isinstance(module, Actor)
        return module

    def _behavior_loss(self, step: int) -> Tensor:
        """Distance to the better actions of the data, on real latents."""
        assert self.windows is not None
        window = self.windows.sample(step)
        ends_of_window = window.observations[[0, -1]].to(self.device, non_blocking=True)
        with torch.no_grad():
            first, last = self.model.encode(ends_of_window)
        actions, rewards, ends = (
            tensor.to(self.device, non_blocking=True)
            for tensor in (window.actions[0], window.rewards, window.terminated)
        )
        weights = behavior_weights(self.critic, first, last, rewards, ends, self.config.update)
        return behavior_loss(self.actor, first, actions, weights)

    def _fit_critic(self, latents: Tensor, targets: Tensor) -> Tensor:
        """Several passes of shuffled minibatches; returns the mean loss of the last pass."""
        update = self.config.update
        size = latents.shape[0] // update.critic_minibatches
        losses: list[Tensor] = []
        for _ in range(update.critic_passes):
            order = torch.randperm(latents.shape[0], generator=self.generator).to(self.device)
            losses = []
            for rows in order[: size * update.critic_minibatches].split(size):
                loss = self._critic_loss(self.critic, latents[rows], targets[rows])
                self.critic_optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.critic.parameters(), update.critic_clip)
                self.critic_optimizer.step()
                losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _set_learning_rate(self, step: int) -> None:
        c = self.config
        done = (step - 1) / c.updates
        rate = c.learning_rate + (c.final_learning_rate - c.learning_rate) * done
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def require_finite(self, metrics: dict[str, Tensor], step: int) -> None:
        """Stop with a clear line when a loss or gradient is NaN or infinite."""
        for name, value in metrics.items():
            if not torch.isfinite(value):
                raise UserError(
                    f"{self.task}: {name} is {float(value)} at update {step}; earlier checkpoints "
                    "are kept, try a lower --learning-rate"
                )

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What is worth keeping beside the policy itself."""
        return {"critic": self.critic.state_dict()}

    def state(self) -> dict[str, Any]:
        """Everything else that a resumed run needs."""
        return {
            "actor": self.actor.state_dict(),
            "average": self._average.state_dict(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "moments": self.moments.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load(self, folder: Path, step: int) -> None:
        """Go back to the checkpoint of ``step`` in ``folder``."""
        source = checkpoint_path(folder, step)
        state = load_state(source / "state.pt")
        load_into(self.critic, source / "critic.safetensors")
        self.actor.load_state_dict(state["actor"])
        self._average.load_state_dict(state["average"])
        self.actor_optimizer.load_state_dict(state["actor_optimizer"])
        self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.moments.load_state_dict(state["moments"])
        self.generator.set_state(state["generator"])

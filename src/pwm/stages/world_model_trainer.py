"""State and update of a world model in training: networks, optimizers, random streams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.algorithms.tdmpc2 import (
    ValueConfig,
    ValueNoise,
    ValueScale,
    discounts,
    joint_loss,
    prior_loss,
    td_targets,
    update_targets,
)
from pwm.algorithms.world_model import WorldModelLossConfig, encode_next, world_model_loss
from pwm.errors import UserError
from pwm.models.pretrained import load_into
from pwm.models.world_model import WorldModel
from pwm.runtime.run_folder import RunFolder, checkpoint_path, load_state
from pwm.seeding import stream_seed


@dataclass(frozen=True)
class WorldModelTraining:
    """What a world model's updates depend on."""

    loss: WorldModelLossConfig = WorldModelLossConfig()
    values: ValueConfig = ValueConfig()
    learning_rate: float = 3e-4
    encoder_lr_scale: float = 0.3
    gradient_clip: float = 20.0
    seed: int = 0
    compile: bool = False


def training_of(config: Any) -> WorldModelTraining:
    """The part of a stage's settings (pretrain's, tdmpc2's) that concerns the updates."""
    return WorldModelTraining(
        loss=WorldModelLossConfig(
            config.rho, config.consistency_weight, config.reward_weight, config.termination_weight
        ),
        values=ValueConfig(config.value_weight, config.prior_entropy, config.target_rate),
        learning_rate=config.learning_rate, encoder_lr_scale=config.encoder_lr_scale,
        gradient_clip=config.gradient_clip, seed=config.seed, compile=config.compile,
    )  # fmt: skip


class WorldModelTrainer:
    """Improves a world model, and its Q heads and policy prior if it has them.

    Everything random in an update follows from the seed and the update's number, so a resumed run
    repeats the one that was not killed, bit for bit on a CPU.
    """

    def __init__(self, model: WorldModel, settings: WorldModelTraining, device: str = "cpu"):
        self.model, self.settings, self.device = model, settings, device
        self.optimizer = make_optimizer(model, settings)
        self.scale = ValueScale(settings.values.target_rate).to(device)
        self.gamma = discounts(model.config.episode_lengths).to(device)
        self.prior_parameters: list[Tensor] = []
        if model.prior_head is not None:
            self.prior_parameters = list(model.prior_head.parameters())
            self.prior_optimizer = torch.optim.Adam(
                self.prior_parameters, lr=settings.learning_rate, eps=1e-5, fused=True
            )
        self._world_model_loss: Any = world_model_loss
        self._joint_loss: Any = joint_loss
        if settings.compile:
            self._world_model_loss = torch.compile(world_model_loss)
            self._joint_loss = torch.compile(joint_loss)

    def set_learning_rate(self, rate: float) -> None:
        """Of all networks; the encoder's is scaled."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        if self.prior_parameters:
            self.prior_optimizer.param_groups[0]["lr"] = rate

    def update(self, step: int, *batch: Tensor) -> dict[str, Tensor]:
        """One optimisation step; returns metric tensors and never waits for the device.

        Args:
            step: number of the update, which seeds its random numbers.
            batch: observations [H+1, B, O], actions [H, B, A], rewards and terminated [H, B],
                task [B].
        """
        if self.model.q_heads is None:
            loss, metrics = self._world_model_loss(self.model, *batch, self.settings.loss)
            return {**metrics, "grad_norm": self._descend(loss)}
        return self._update_with_values(step, *batch)

    def _update_with_values(
        self, step: int, observations: Tensor, actions: Tensor, rewards: Tensor,
        terminated: Tensor, task: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """TD-MPC2's update: model and Q heads, then the prior, then the target heads."""
        model, s = self.model, self.settings
        seed = stream_seed(s.seed, "values", step)
        torch.manual_seed(seed)  # for the dropout in the Q heads
        steps, size = rewards.shape
        noise = ValueNoise.draw(
            steps, size, model.config.action_dim, model.config.num_q,
            torch.Generator().manual_seed(seed), self.device,
        )  # fmt: skip
        encoded = encode_next(model, observations, task)
        targets = td_targets(model, encoded, rewards, terminated, task, self.gamma[task], noise)
        loss, latents, metrics = self._joint_loss(
            model, observations[0], encoded, actions, rewards, terminated, task, targets, s.loss,
            s.values.value,
        )  # fmt: skip
        metrics["grad_norm"] = self._descend(loss)
        if self.prior_parameters:
            metrics |= self._improve_prior(latents, task, noise)
        update_targets(model, s.values.target_rate)
        return metrics

    def _descend(self, loss: Tensor) -> Tensor:
        """Gradient step of everything but the prior; returns the norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        self.optimizer.step()
        return norm.detach()

    def _improve_prior(self, latents: Tensor, task: Tensor, noise: ValueNoise) -> dict[str, Tensor]:
        loss, metrics = prior_loss(
            self.model, latents, task, noise, self.scale, self.settings.loss.rho,
            self.settings.values.entropy,
        )  # fmt: skip
        # Gradients of the prior alone: nothing else is asked for, so nothing else is computed.
        gradients = torch.autograd.grad(loss, self.prior_parameters)
        for parameter, gradient in zip(self.prior_parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(self.prior_parameters, self.settings.gradient_clip)
        self.prior_optimizer.step()
        return {**metrics, "prior_grad_norm": norm.detach()}

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """What :class:`pwm.WorldModel` loads."""
        return {"world_model": self.model.state_dict()}

    def state(self) -> dict[str, Any]:
        """Everything else that a resumed run needs."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.prior_parameters:
            state["prior_optimizer"] = self.prior_optimizer.state_dict()
            state["scale"] = self.scale.state_dict()
        return state

    def load(self, folder: Path, step: int) -> dict[str, Any]:
        """Go back to the checkpoint of ``step`` in ``folder``; returns its state."""
        source = checkpoint_path(folder, step)
        load_into(self.model, source / "world_model.safetensors")
        state = load_state(source / "state.pt")
        self.optimizer.load_state_dict(state["optimizer"])
        if self.prior_parameters:
            self.prior_optimizer.load_state_dict(state["prior_optimizer"])
            self.scale.load_state_dict(state["scale"])
        return state


def make_optimizer(model: WorldModel, settings: WorldModelTraining) -> torch.optim.Adam:
    """Adam over all weights but the prior's and the target heads' (the task embedding too), the
    encoder at its own rate."""
    encoder = list(model.encoder.parameters())
    apart = [part for part in (model.prior_head, model.target_q_heads) if part is not None]
    known = {id(p) for p in encoder} | {id(p) for part in apart for p in part.parameters()}
    rest = [p for p in model.parameters() if id(p) not in known]
    groups = [
        {"params": rest, "scale": 1.0},
        {"params": encoder, "scale": settings.encoder_lr_scale},
    ]
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)


def require_finite(metrics: dict[str, Tensor], step: int, run: RunFolder) -> None:
    """Stop with a clear line when a loss or gradient of update ``step`` is NaN or infinite."""
    for name, value in metrics.items():
        if not torch.isfinite(value):
            raise UserError(
                f"training diverged: {name} is {float(value)} at update {step}; the last good "
                f"checkpoint in {run.checkpoints} is kept, try a lower --learning-rate"
            )

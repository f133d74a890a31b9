"""Load world models and policies from run folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pwm.errors import UserError
from pwm.models.actor import Actor, ActorConfig
from pwm.models.layers import normalized, pad_features
from pwm.models.two_hot import symlog
from pwm.models.world_model import WorldModel, WorldModelConfig
from pwm.runtime.run_folder import RunFolder, checkpoint_path, checkpoint_steps, load_weights

# Stages whose runs hold a world model.
WORLD_MODEL_STAGES = ("pretrain", "convert", "tdmpc2")


def slug(task_id: str) -> str:
    """Task id as a file name: ``dmc/walker-walk`` -> ``dmc__walker-walk``."""
    return task_id.replace("/", "__")


def latest_checkpoint(folder: Path, remedy: str) -> Path:
    """Newest complete checkpoint in ``folder``; UserError with ``remedy`` when there is none."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise UserError(f"{folder} holds no complete checkpoint; {remedy}")
    return checkpoint_path(folder, steps[-1])


def load_into(module: nn.Module, path: Path) -> None:
    """Fill ``module`` with a safetensors file; UserError names what does not match."""
    weights = load_weights(path)
    expected = module.state_dict()
    missing, unexpected = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unexpected:
        raise UserError(
            f"{path} does not fit its config.json: missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: '{name}' has shape {tuple(tensor.shape)}, config.json asks for "
                f"{tuple(expected[name].shape)}"
            )
    module.load_state_dict(weights)


def load_world_model(run: str | Path, device: str | torch.device = "cpu") -> WorldModel:
    """World model of a ``pwm pretrain`` run, in evaluation mode. See WorldModel.from_pretrained."""
    folder = RunFolder.open(run, stage=WORLD_MODEL_STAGES)
    if "model" not in folder.config:
        raise UserError(f"{folder.path / 'config.json'} lacks the field 'model'")
    model = WorldModel(WorldModelConfig.from_dict(folder.config["model"]))
    source = latest_checkpoint(folder.checkpoints, "let 'pwm pretrain --resume' finish")
    load_into(model, source / "world_model.safetensors")
    model.source = str(run)
    return model.to(device).eval()


class Policy(nn.Module):
    """A deployable policy for one task: encoder with the task's embedding, then the actor.

    Carries no dynamics or reward: it maps real observations to actions, one forward pass a step.
    """

    embedded: Tensor
    obs_mean: Tensor
    obs_scale: Tensor

    def __init__(self, config: WorldModelConfig, task: str, actor_config: ActorConfig):
        super().__init__()
        index = config.tasks.index(task)
        self.task, self.config = task, config
        self.obs_dim, self.action_dim = config.obs_dims[index], config.action_dims[index]
        model = WorldModel(config)
        self.encoder = model.encoder
        self.register_buffer("embedded", torch.zeros(config.task_dim))
        if config.normalize_observations:
            self.register_buffer("obs_mean", model.obs_mean[index].clone())
            self.register_buffer("obs_scale", model.obs_scale[index].clone())
        self.actor = Actor(config.latent_dim, model.action_masks[index], actor_config)

    @classmethod
    def build(cls, model: WorldModel, task: str, actor: Actor) -> Policy:
        """Put a trained actor and the encoder of its world model together (copies nothing)."""
        policy = cls(model.config, task, actor.config)
        policy.encoder, policy.actor = model.encoder, actor
        index = torch.tensor(model.task_index(task), device=actor.mask.device)
        if model.embedding is not None:
            policy.embedded = model.embedding(index).detach()
        if model.config.normalize_observations:
            policy.obs_mean, policy.obs_scale = model.obs_mean[index], model.obs_scale[index]
        return policy

    def encode(self, obs: Tensor) -> Tensor:
        """[..., obs] real observation of the task, padded or not -> [..., D]."""
        padded = pad_features(obs, self.config.obs_dim)
        if self.config.symlog_observations:
            padded = symlog(padded)
        if self.config.normalize_observations:
            limit = self.config.obs_limit
            padded = normalized(padded, self.obs_mean, self.obs_scale, limit)
        task = self.embedded.expand(*obs.shape[:-1], -1)
        return self.encoder(torch.cat([padded, task], dim=-1))

    @torch.no_grad()
    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """[..., obs] -> [..., action] in [-1, 1], without padding; deterministic without noise."""
        return self.actor(self.encode(obs), noise)[..., : self.action_dim]

    def act(self, obs: Any) -> Any:
        """NumPy observation(s) -> NumPy action(s), for environment loops."""
        tensor = torch.as_tensor(obs, dtype=torch.float32, device=self.embedded.device)
        return self(tensor).cpu().numpy()

    @classmethod
    def from_pretrained(
        cls, run: str | Path, task: str | None = None, device: str | torch.device = "cpu"
    ) -> Policy:
        """Load the policy of ``task`` (may be left out when the run has only one).

        Raises:
            UserError: no policy run, unknown task, or damaged files.
        """
        folder = RunFolder.open(run, stage="extract")
        tasks = policy_tasks(folder)
        if task is None and len(tasks) == 1:
            task = tasks[0]
        if task not in tasks:
            raise UserError(f"{run} holds policies for {', '.join(tasks)}; choose one, not {task}")
        config = WorldModelConfig.from_dict(folder.config["model"])
        facts: dict[str, Any] = dict(folder.config["actor"])
        facts["units"] = tuple(facts["units"])
        actor = ActorConfig(**facts)
        policy = cls(config, task, actor)
        source = latest_checkpoint(
            folder.checkpoints / slug(task), f"let 'pwm extract --resume' finish {task}"
        )
        load_into(policy, source / "policy.safetensors")
        return policy.to(device).eval()


def policy_tasks(folder: RunFolder) -> list[str]:
    """Task ids of a policy run."""
    tasks = folder.config.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise UserError(f"{folder.path / 'config.json'} lacks the field 'tasks'")
    return tasks


def actor_facts(config: ActorConfig) -> dict[str, Any]:
    """Actor config as plain JSON values."""
    return asdict(config)

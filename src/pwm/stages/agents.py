"""Who acts: the extracted actor of a policy run, or a world model by planning or its prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pwm.algorithms.planner import PlannerConfig, PlanNoise, plan, planning_discount, shifted
from pwm.errors import UserError
from pwm.models.planning import PlanningModel
from pwm.models.pretrained import WORLD_MODEL_STAGES, Policy, policy_tasks
from pwm.models.world_model import WorldModel
from pwm.runtime.run_folder import RunFolder
from pwm.seeding import stream_seed
from pwm.stages.rollout import Act

POLICIES = ("actor", "plan", "prior")


@dataclass
class Agent:
    """A policy for one task, ready to act in its environments.

    Attributes:
        start: number of environments -> action function of a new batch of episodes, which all
            begin with its first call.
    """

    task: str
    action_dim: int
    start: Callable[[int], Act]


@dataclass(frozen=True)
class AgentConfig:
    """How to act. ``seed`` seeds the planner's random numbers."""

    policy: str = "actor"
    device: str = "cpu"
    seed: int = 0
    planner: PlannerConfig = PlannerConfig()
    compile: bool = False


def agent_tasks(folder: RunFolder, policy: str) -> list[str]:
    """Tasks that ``policy`` can act in; UserError when the run does not hold such a policy."""
    if policy not in POLICIES:
        raise UserError(f"--policy is one of {', '.join(POLICIES)}, not '{policy}'")
    if policy == "actor":
        if folder.stage in WORLD_MODEL_STAGES:
            raise UserError(
                f"{folder.path} holds a world model, no actor; use --policy plan or prior, or get "
                f"an actor with: pwm extract --world-model {folder.path} --data DIR --out RUN"
            )
        return policy_tasks(folder)
    if folder.stage not in WORLD_MODEL_STAGES:
        model = folder.config["config"].get("world_model", "the world model's run")
        raise UserError(
            f"{folder.path} holds extracted policies; --policy {policy} belongs to their world "
            f"model: pwm evaluate {model} --policy {policy}"
        )
    return list(folder.config["model"]["tasks"])


def default_policy(folder: RunFolder) -> str:
    """What a run is for: world models plan, policy runs act."""
    return "plan" if folder.stage in WORLD_MODEL_STAGES else "actor"


def load_agent(run: str | Path, task: str, config: AgentConfig) -> Agent:
    """Agent of ``task`` from a run folder; loads the weights.

    Raises:
        UserError: the run has no such policy or task, or its files are damaged.
    """
    if config.policy == "actor":
        policy = Policy.from_pretrained(run, task, config.device)
        return Agent(task, policy.action_dim, lambda count: policy.act)
    return world_model_agent(WorldModel.from_pretrained(run, config.device), task, config)


def world_model_agent(model: WorldModel, task: str, config: AgentConfig) -> Agent:
    """Agent that plans with ``model`` or follows its policy prior's mean."""
    index = model.task_index(task)
    frozen = PlanningModel(model, index).eval()
    width = model.config.action_dims[index]
    if config.policy == "prior":

        @torch.no_grad()
        def act(observations: NDArray[np.float32]) -> NDArray[np.float32]:
            obs = torch.as_tensor(observations, dtype=torch.float32, device=config.device)
            return frozen.prior(frozen.encode(obs), None)[:, :width].cpu().numpy()

        return Agent(task, width, lambda count: act)
    return Agent(task, width, lambda count: PlanningAct(frozen, count, config).act)


class PlanningAct:
    """Plans for ``count`` environments together, each going on from its own last plan."""

    def __init__(self, model: PlanningModel, count: int, config: AgentConfig):
        self.model, self.config = model, config
        self.width = model.config.action_dims[model.task]
        self.gamma = planning_discount(model.config.episode_lengths[model.task])
        self.generator = torch.Generator().manual_seed(stream_seed(config.seed, "planner"))
        actions = model.action_mask.shape[0]
        self.mean = torch.zeros(config.planner.horizon, count, actions, device=config.device)
        self.begins = torch.ones(count, dtype=torch.bool, device=config.device)

    @torch.no_grad()
    def act(self, observations: NDArray[np.float32], explore: bool = False) -> NDArray[np.float32]:
        """Observations [E, O] -> actions [E, A]."""
        obs = torch.as_tensor(observations, dtype=torch.float32, device=self.config.device)
        c = self.config
        envs, num_q = obs.shape[0], self.model.config.num_q
        noise = PlanNoise.draw(
            envs, num_q, self.mean.shape[-1], c.planner, self.generator, c.device
        )
        start = shifted(self.mean, self.begins)
        z = self.model.encode(obs)
        found = plan(self.model, z, start, noise, self.gamma, c.planner, explore, c.compile)
        self.mean, self.begins = found.mean, torch.zeros_like(self.begins)
        return found.action[:, : self.width].cpu().numpy()

    def reset(self, ended: NDArray[np.bool_]) -> None:
        """Environments [E] whose next observation begins an episode."""
        self.begins |= torch.as_tensor(ended, device=self.begins.device)

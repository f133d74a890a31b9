"""Model-predictive path integral control in latent space, as TD-MPC2 plans (arXiv 2310.16828).

Many environments plan at once. Shapes: E environments, N = P + S trajectories (P proposed by the
policy prior, S Gaussian samples), H horizon, D latent, A action, I iterations. All randomness
comes in as a :class:`PlanNoise`, so that a plan is a pure function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pwm.errors import UserError
from pwm.models.planning import PlanningModel


@dataclass(frozen=True)
class PlannerConfig:
    """TD-MPC2's settings. ``iterations`` 0 means 6, or 8 from 20 action dims on."""

    horizon: int = 3
    iterations: int = 0
    samples: int = 512
    policy_samples: int = 24
    elites: int = 64
    temperature: float = 0.5
    min_std: float = 0.05
    max_std: float = 2.0

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.iterations < 0:
            raise UserError("a planner needs a horizon of at least 1 and iterations of at least 0")
        if not 0 <= self.policy_samples < self.samples or not 1 <= self.elites <= self.samples:
            raise UserError(
                f"{self.samples} samples are too few for {self.policy_samples} policy samples and "
                f"{self.elites} elites; use --plan-samples 512"
            )

    def rounds(self, action_dim: int) -> int:
        return self.iterations or (8 if action_dim >= 20 else 6)


def planning_discount(episode_length: int | None) -> float:
    """TD-MPC2's heuristic gamma = clip((L/5 - 1) / (L/5), 0.95, 0.995), L in agent steps.

    Tasks without a time limit get the upper end.
    """
    if episode_length is None:
        return 0.995
    fifth = episode_length / 5
    return min(max((fifth - 1) / fifth, 0.95), 0.995)


@dataclass
class PlanNoise:
    """All random numbers of one plan.

    Attributes:
        policy: [H, E, P, A] standard normal, of the prior's trajectories.
        samples: [I, H, E, S, A] standard normal, around the mean.
        terminal: [I, E, N, A] standard normal, of the action at the end of every trajectory.
        pairs: [I, 2] the two Q heads that value an iteration's trajectories.
        gumbel: [E, elites] standard Gumbel, which draws the elite.
        exploration: [E, A] standard normal, added to the action outside evaluation.
    """

    policy: Tensor
    samples: Tensor
    terminal: Tensor
    pairs: Tensor
    gumbel: Tensor
    exploration: Tensor

    @staticmethod
    def draw(
        envs: int, num_q: int, action_dim: int, config: PlannerConfig, generator: torch.Generator,
        device: str | torch.device = "cpu",
    ) -> PlanNoise:  # fmt: skip
        """Draw from a CPU generator, so that a seed gives the same plan on every device."""
        c, rounds = config, config.rounds(action_dim)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, non_blocking=True)

        uniform = torch.rand(envs, c.elites, generator=generator).clamp(1e-20, 1 - 1e-7)
        ranks = torch.rand(rounds, num_q, generator=generator).argsort(-1)[:, :2]
        return PlanNoise(
            policy=normal(c.horizon, envs, c.policy_samples, action_dim),
            samples=normal(rounds, c.horizon, envs, c.samples - c.policy_samples, action_dim),
            terminal=normal(rounds, envs, c.samples, action_dim),
            pairs=ranks.to(device, non_blocking=True),
            gumbel=-torch.log(-torch.log(uniform)).to(device),
            exploration=normal(envs, action_dim),
        )

    def of(self, envs: slice) -> PlanNoise:
        """The part that some of the environments use."""
        return PlanNoise(
            self.policy[:, envs], self.samples[:, :, envs], self.terminal[:, envs], self.pairs,
            self.gumbel[envs], self.exploration[envs],
        )  # fmt: skip


@dataclass
class Plan:
    """Result of one plan: action [E, A]; mean and std [H, E, A] of the last iteration."""

    action: Tensor
    mean: Tensor
    std: Tensor


# Trajectories that a CPU thread follows together; more would not stay in its cache.
ROWS_PER_THREAD = 1024


@torch.no_grad()
def plan(
    model: PlanningModel,
    z: Tensor,
    mean: Tensor,
    noise: PlanNoise,
    gamma: float,
    config: PlannerConfig,
    explore: bool = False,
    compile: bool = False,
) -> Plan:
    """Improve a Gaussian over action sequences and draw the action to take.

    Args:
        z: [E, D] latents of the current observations.
        mean: [H, E, A] where to start: :func:`shifted` means of the step before, or zeros.
        explore: add exploration noise to the action, for collecting data.
        compile: run the iterations compiled: half a minute of compilation, once for a size of
            model and of block of environments.
    """
    envs = block = len(z)
    if z.device.type == "cpu":
        # equal blocks, so that one compiled graph does
        most = max(1, ROWS_PER_THREAD * torch.get_num_threads() // config.samples)
        block = max(count for count in range(1, most + 1) if envs % count == 0)
    plans = [
        _plan(model, z[part], mean[:, part], noise.of(part), gamma, config, explore, compile)
        for part in (slice(first, first + block) for first in range(0, envs, block))
    ]
    if len(plans) == 1:
        return plans[0]
    return Plan(
        torch.cat([p.action for p in plans]),
        torch.cat([p.mean for p in plans], dim=1),
        torch.cat([p.std for p in plans], dim=1),
    )


def _plan(
    model: PlanningModel,
    z: Tensor,
    mean: Tensor,
    noise: PlanNoise,
    gamma: float,
    config: PlannerConfig,
    explore: bool,
    compile: bool,
) -> Plan:
    """:func:`plan` for so many environments as are best done together."""
    proposed, policy_end = _policy_trajectories(model, z, noise.policy, gamma)
    known = model.state_part(z)
    std = torch.full_like(mean, config.max_std)
    step = _compiled_iteration() if compile else _iteration
    for samples, terminal, pair in zip(noise.samples, noise.terminal, noise.pairs, strict=True):
        elites, score, mean, std = step(
            model, known, proposed, policy_end, mean, std, samples, terminal, pair, gamma, config
        )
    picked = (score.log() + noise.gumbel).argmax(1)
    action = elites[0, torch.arange(len(picked), device=z.device), picked]
    if explore:
        action = action + std[0] * noise.exploration
    return Plan(action.clamp(-1, 1), mean, std)


def _iteration(
    model: PlanningModel,
    known: Tensor,
    proposed: Tensor,
    policy_end: _End,
    mean: Tensor,
    std: Tensor,
    samples: Tensor,
    terminal: Tensor,
    pair: Tensor,
    gamma: float,
    config: PlannerConfig,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample, roll out, keep the elites, refit.

    Args:
        known: [E, hidden] what the current latents contribute to the first layers.

    Returns:
        Elite actions [H, E, K, A] and their scores [E, K]; new mean and std [H, E, A].
    """
    sampled = mean.unsqueeze(2) + std.unsqueeze(2) * samples
    sampled = sampled.clamp(-1, 1) * model.action_mask
    value = _values(model, policy_end, _rollout(model, known, sampled, gamma), terminal, pair)
    value, chosen = value.nan_to_num(0.0).topk(config.elites, dim=1)
    actions = torch.cat([proposed, sampled], dim=2)
    index = chosen[None, :, :, None].expand(len(actions), -1, -1, actions.shape[-1])
    elites = actions.gather(2, index)
    score = torch.exp(config.temperature * (value - value[:, :1]))
    score = score / score.sum(1, keepdim=True)
    mean, std = _refit(elites, score, config)
    return elites, score, mean * model.action_mask, std * model.action_mask


@cache
def _compiled_iteration() -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    # Model, task, pair of Q heads and step are inputs of a graph and make no new one; a second
    # size makes a second graph, good for all further ones.
    return torch.compile(_iteration)


def shifted(mean: Tensor, first_step: Tensor) -> Tensor:
    """Means [H, E, A] of the last plan, one step on; zeros where an episode begins.

    Args:
        first_step: [E] bool, environments that have just been reset.
    """
    moved = torch.cat([mean[1:], torch.zeros_like(mean[:1])])
    return torch.where(first_step[None, :, None], 0.0, moved)


@dataclass
class _End:
    """Where trajectories end: latents [E, n, D], discounted rewards [E, n], and the weight of the
    value that follows [E, n] (0 after a predicted termination)."""

    z: Tensor
    rewards: Tensor
    weight: Tensor


def _policy_trajectories(
    model: PlanningModel, z: Tensor, noise: Tensor, gamma: float
) -> tuple[Tensor, _End]:
    """Actions [H, E, P, A] that the prior proposes, and where they lead.

    They are the same in every iteration, so they are rolled out once.
    """
    envs, count = z.shape[0], noise.shape[2]
    state = z.repeat_interleave(count, 0)
    track = _Track(z.new_zeros(envs * count), gamma)
    actions = []
    for eps in noise:
        action = model.prior(state, eps.flatten(0, 1))
        actions.append(action.unflatten(0, (envs, count)))
        state = track.add(model, *model.step(state, action))
    return torch.stack(actions), track.end(state, envs)


def _rollout(model: PlanningModel, known: Tensor, actions: Tensor, gamma: float) -> _End:
    """Roll action sequences [H, E, n, A] out.

    All sequences of an environment begin in one latent, whose products ``known`` [E, hidden] are
    made once for all iterations.
    """
    envs, count = actions.shape[1:3]
    track = _Track(known.new_zeros(envs * count), gamma)
    first, *rest = actions.flatten(1, 2)
    part = known if envs == 1 else known.repeat_interleave(count, 0)
    state = track.add(model, *model.first_step(part, first))
    for action in rest:
        state = track.add(model, *model.step(state, action))
    return track.end(state, envs)


class _Track:
    """Sum of discounted rewards along trajectories that a termination may cut."""

    def __init__(self, rewards: Tensor, gamma: float):
        self.rewards, self.gamma = rewards, gamma
        self.weight = torch.ones_like(rewards)

    def add(self, model: PlanningModel, z: Tensor, logits: Tensor, ends: Tensor | None) -> Tensor:
        self.rewards = torch.addcmul(self.rewards, self.weight, model.decode(logits))
        self.weight = self.weight * self.gamma
        if ends is not None:
            self.weight = self.weight * (ends <= 0)  # terminated with probability over 1/2
        return z

    def end(self, z: Tensor, envs: int) -> _End:
        split = (envs, -1)
        return _End(z.unflatten(0, split), self.rewards.view(split), self.weight.view(split))


def _values(
    model: PlanningModel, policy: _End, sampled: _End, noise: Tensor, pair: Tensor
) -> Tensor:
    """Value [E, N]: rewards, and the mean of two Q heads at a sampled prior action."""
    z = torch.cat([policy.z, sampled.z], dim=1).flatten(0, 1)
    action = model.prior(z, noise.flatten(0, 1))
    last = model.q_mean(z, action, pair).view(noise.shape[:2])
    rewards = torch.cat([policy.rewards, sampled.rewards], dim=1)
    return rewards + torch.cat([policy.weight, sampled.weight], dim=1) * last


def _refit(elites: Tensor, score: Tensor, config: PlannerConfig) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation of elites [H, E, K, A] under scores [E, K]."""
    weights = score[None, :, :, None]
    total = score.sum(1)[None, :, None] + 1e-9
    mean = (weights * elites).sum(2) / total
    spread = (weights * (elites - mean.unsqueeze(2)).square()).sum(2) / total
    return mean, spread.sqrt().clamp(config.min_std, config.max_std)

"""The needed FLOPs by arithmetic are those that the updates really do: nothing is wasted."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from torch.utils.flop_counter import FlopCounterMode

from pwm.algorithms import planner
from pwm.models.planning import PlanningModel
from pwm.models.world_model import WorldModel
from pwm.stages.extract import ExtractConfig, trainer_config
from pwm.stages.pretrain_config import PretrainConfig
from pwm.stages.trainer import PolicyTrainer
from pwm.stages.world_model_trainer import WorldModelTrainer, training_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import flops  # noqa: E402
import planning  # noqa: E402

BATCH, HORIZON = 32, 6


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def config():
    return tiny_config(latent_dim=64, hidden_dim=48, encoder_dim=40, task_dim=8)


def test_extraction_computes_no_unneeded_gradient():
    settings = ExtractConfig(horizon=HORIZON, critic_passes=2, behavior_weight=0.0)

    class States:
        def sample(self, step):
            return torch.randn(BATCH, 5)

    model = WorldModel(config()).freeze()
    trainer = PolicyTrainer(model, "dmc/a", States(), trainer_config(settings), "cpu")
    needed = flops.extraction_update(
        model.config, BATCH, HORIZON, settings.actor_units, settings.critic_units,
        settings.critics, settings.critic_passes,
    )  # fmt: skip
    assert counted(lambda: trainer.update(1)) == pytest.approx(sum(needed.values()), rel=0.02)


@pytest.mark.parametrize("num_q", [0, 3])
def test_world_model_update(num_q):
    settings = PretrainConfig(horizon=HORIZON)
    model = WorldModel(replace(config(), num_q=num_q, policy_prior=num_q > 0))
    trainer = WorldModelTrainer(model, training_of(settings))
    batch = (
        torch.randn(HORIZON + 1, BATCH, 5), torch.rand(HORIZON, BATCH, 2),
        torch.rand(HORIZON, BATCH), torch.zeros(HORIZON, BATCH), torch.randint(2, (BATCH,)),
    )  # fmt: skip
    needed = flops.world_model_update(model.config, BATCH, HORIZON)
    if num_q:
        needed += flops.value_update(model.config, BATCH, HORIZON)
    assert counted(lambda: trainer.update(1, *batch)) == pytest.approx(needed, rel=0.02)


@torch.no_grad()
def test_a_plan_evaluates_nothing_unneeded():
    model = WorldModel(tiny_config(num_q=4, policy_prior=True)).double()  # products that count
    c, settings = model.config, planner.PlannerConfig(samples=40, policy_samples=6, elites=8)
    frozen = PlanningModel(model, 1)
    noise = planner.PlanNoise.draw(1, 4, c.action_dim, settings, torch.Generator())
    noise = planner.PlanNoise(**{
        name: value.double() if value.is_floating_point() else value
        for name, value in vars(noise).items()
    })  # fmt: skip
    z, mean = torch.rand(1, c.latent_dim).double(), torch.zeros(3, 1, c.action_dim).double()
    whole = counted(lambda: planner.plan(frozen, z, mean, noise, 0.99, settings))
    once = counted(
        lambda: (planner._policy_trajectories(frozen, z, noise.policy, 0.99), frozen.state_part(z))
    )
    assert whole - once == planning.needed(c, settings)

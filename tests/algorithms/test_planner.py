"""Planner: equal to plain formulas with the same noise, alone and in a batch; masks; warm start."""

import gc
import math
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from torch._dynamo.utils import counters

from pwm.algorithms.planner import (
    PlannerConfig,
    PlanNoise,
    _refit,
    plan,
    planning_discount,
    shifted,
)
from pwm.errors import UserError
from pwm.models.inference import _packed, mish_
from pwm.models.planning import PlanningModel
from pwm.models.world_model import WorldModel

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from reference_planner import ReferencePlanner

GAMMA = 0.97
CONFIG = PlannerConfig(samples=40, policy_samples=6, elites=8)


def random_model(**options):
    torch.manual_seed(0)
    model = WorldModel(tiny_config(num_q=4, policy_prior=True, **options)).double()
    for parameter in model.parameters():
        parameter.data = parameter + 0.3 * torch.randn_like(parameter)
    return model.eval()


def double(noise):
    return PlanNoise(**{
        name: value.double() if value.is_floating_point() else value
        for name, value in vars(noise).items()
    })  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {}, {"termination": True}, {"termination": True, "termination_on_next": True},
        {"symlog_observations": True},
    ],
)  # fmt: skip
def test_equals_the_plain_formulas_for_every_environment_of_a_batch(options):
    model, task, envs = random_model(**options), 1, 3
    fast = PlanningModel(model, task)
    slow = ReferencePlanner(model, task, GAMMA, CONFIG)
    obs = torch.randn(envs, model.config.obs_dim).double()
    mean = torch.rand(3, envs, 2).double() - 0.5
    noise = double(PlanNoise.draw(envs, 4, 2, CONFIG, torch.Generator().manual_seed(5)))
    found = plan(fast, fast.encode(obs), mean, noise, GAMMA, CONFIG)
    latents = model.encode(obs, torch.tensor(task))
    for env in range(envs):
        action, last_mean, last_std = slow.plan(
            latents[env], mean[:, env], noise.of(slice(env, env + 1))
        )
        torch.testing.assert_close(found.action[env], action)
        torch.testing.assert_close(found.mean[:, env], last_mean)
        torch.testing.assert_close(found.std[:, env], last_std)


def float_setting(envs, seed=5):
    """Source and planning model, whose weights are packed, and inputs of a plan."""
    model = random_model().float()
    obs, start = torch.randn(envs, 5), torch.rand(3, envs, 2) - 0.5
    noise = PlanNoise.draw(envs, 4, 2, CONFIG, torch.Generator().manual_seed(seed))
    return model, PlanningModel(model, 1), obs, start, noise


@torch.no_grad()
def test_packed_float32_weights_equal_the_plain_formulas():
    model, fast, obs, start, noise = float_setting(2)
    if torch.backends.mkldnn.is_available():
        assert fast._from_both.packed and fast._q[0].packed
    found = plan(fast, fast.encode(obs), start, noise, GAMMA, CONFIG)
    slow = ReferencePlanner(model, 1, GAMMA, CONFIG)
    latents = model.encode(obs, torch.tensor(1))
    for env in range(2):
        expected = slow.plan(latents[env], start[:, env], noise.of(slice(env, env + 1)))
        ours = found.action[env], found.mean[:, env], found.std[:, env]
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("envs", [3, 4])
@torch.no_grad()
def test_blocks_of_environments_change_nothing(envs, monkeypatch):
    _, fast, obs, start, noise = float_setting(envs)
    z = fast.encode(obs)
    together = plan(fast, z, start, noise, GAMMA, CONFIG, explore=True)
    rows = 2 * CONFIG.samples // torch.get_num_threads()
    monkeypatch.setattr("pwm.algorithms.planner.ROWS_PER_THREAD", rows)
    apart = plan(fast, z, start, noise, GAMMA, CONFIG, explore=True)
    for name, value in vars(together).items():
        torch.testing.assert_close(getattr(apart, name), value, atol=1e-5, rtol=1e-5)


def test_packed_weights_go_with_their_model():
    gc.collect()
    before = len(_packed)
    _, fast, *_ = float_setting(1)
    assert not fast._from_both.packed or len(_packed) > before
    del fast
    gc.collect()
    assert len(_packed) == before


@torch.no_grad()
def test_a_planning_model_is_a_snapshot():
    model, fast, obs, _, _ = float_setting(1)
    before = fast.prior(fast.encode(obs), None)
    for parameter in model.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(fast.prior(fast.encode(obs), None), before)
    with pytest.raises(TypeError, match="snapshot"):
        fast.load_state_dict(PlanningModel(model, 1).state_dict())


def test_single_task_model_without_embedding():
    model = random_model(
        tasks=("dmc/a",), obs_dims=(5,), action_dims=(2,), episode_lengths=(500,), task_dim=0
    )
    fast, slow = PlanningModel(model, 0), ReferencePlanner(model, 0, GAMMA, CONFIG)
    obs = torch.randn(1, 5).double()
    noise = double(PlanNoise.draw(1, 4, 2, CONFIG, torch.Generator().manual_seed(5)))
    start = torch.zeros(3, 1, 2).double()
    found = plan(fast, fast.encode(obs), start, noise, GAMMA, CONFIG)
    action, _, _ = slow.plan(model.encode(obs)[0], start[:, 0], noise)
    torch.testing.assert_close(found.action[0], action)


@torch.no_grad()
def test_compiled_equals_eager_and_one_graph_serves_all_models():
    _, fast, obs, start, noise = float_setting(2)
    counters.clear()
    eager = plan(fast, fast.encode(obs), start, noise, GAMMA, CONFIG)
    compiled = plan(fast, fast.encode(obs), start, noise, GAMMA, CONFIG, compile=True)
    torch.testing.assert_close(compiled.mean, eager.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compiled.action, eager.action, atol=1e-4, rtol=1e-4)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 1 and not counters["graph_break"]
    other = PlanningModel(random_model().float(), 0)  # another task, other pairs of Q heads
    noise = PlanNoise.draw(2, 4, 2, CONFIG, torch.Generator().manual_seed(6))
    plan(other, other.encode(obs), start, noise, GAMMA, CONFIG, compile=True)
    assert counters["stats"]["unique_graphs"] == graphs


def test_the_world_model_stays_as_it_was():
    model = random_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z = torch.rand(2, model.config.latent_dim).double()
    expected = model.next(z, torch.ones(2, 2).double(), torch.tensor(0))
    PlanningModel(model, 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    again = model.next(z, torch.ones(2, 2).double(), torch.tensor(0))
    torch.testing.assert_close(again, expected)


def test_padded_actions_stay_zero_also_when_exploring():
    model = random_model()
    fast = PlanningModel(model, 0)  # one real action of two
    noise = double(PlanNoise.draw(5, 4, 2, CONFIG, torch.Generator().manual_seed(5)))
    z = fast.encode(torch.randn(5, 5).double())
    start = torch.zeros(3, 5, 2).double()
    quiet = plan(fast, z, start, noise, GAMMA, CONFIG)
    loud = plan(fast, z, start, noise, GAMMA, CONFIG, explore=True)
    for found in (quiet, loud):
        assert found.action[:, 1].abs().sum() == found.mean[..., 1].abs().sum() == 0
    expected = (quiet.action + quiet.std[0] * noise.exploration).clamp(-1, 1)
    torch.testing.assert_close(loud.action, expected)


def test_planning_finds_the_better_action():
    """Values that grow with the first action: the planner must push it to the border."""
    model = random_model()
    fast = PlanningModel(model, 1)
    fast.decode = lambda logits: logits[..., 0]
    fast.q_mean = lambda z, action, pair: torch.zeros(len(z)).double()

    def reward_is_action(joint_or_part, action):
        return torch.rand(len(action), 16).double(), action[:, :1], None

    fast.step = fast.first_step = reward_is_action
    config = PlannerConfig()
    noise = double(PlanNoise.draw(2, 4, 2, config, torch.Generator().manual_seed(5)))
    z = fast.encode(torch.randn(2, 5).double())
    found = plan(fast, z, torch.zeros(3, 2, 2).double(), noise, GAMMA, config)
    assert (found.mean[..., 0] > 0.9).all()
    assert (found.action[:, 0] > 0.8).all()


def test_refit_by_hand():
    elites = torch.tensor([[[[0.0], [1.0]]]], dtype=torch.float64)  # H 1, E 1, K 2, A 1
    score = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    mean, std = _refit(elites, score, PlannerConfig())
    assert float(mean) == pytest.approx(0.75)
    assert float(std) == pytest.approx(math.sqrt(0.25 * 0.75**2 + 0.75 * 0.25**2))
    narrow, _ = _refit(torch.ones_like(elites), score, PlannerConfig()), None
    assert float(narrow[1]) == 0.05


def test_warm_start_moves_on_and_forgets_at_a_reset():
    mean = torch.arange(6.0).view(3, 2, 1)
    moved = shifted(mean, torch.tensor([False, True]))
    assert moved[:, 0, 0].tolist() == [2.0, 4.0, 0.0]
    assert moved[:, 1, 0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "length, gamma", [(500, 0.99), (100, 0.95), (50, 0.95), (5000, 0.995), (None, 0.995)]
)
def test_discount_by_episode_length(length, gamma):
    assert planning_discount(length) == pytest.approx(gamma)


def test_mish_everywhere():
    x = torch.tensor([-1e4, -50.0, -3.0, 0.0, 1e-9, 2.0, 50.0, 1e4])
    torch.testing.assert_close(mish_(x.clone()), torch.nn.functional.mish(x))


def test_noise_is_reproducible_and_pairs_differ():
    first, second = (
        PlanNoise.draw(2, 5, 3, CONFIG, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name
    assert (first.pairs[:, 0] != first.pairs[:, 1]).all()
    assert first.pairs.min() >= 0 and first.pairs.max() < 5


def test_bad_settings_and_models_without_values():
    with pytest.raises(UserError, match="too few"):
        PlannerConfig(samples=20)
    with pytest.raises(UserError, match="horizon"):
        PlannerConfig(horizon=0)
    with pytest.raises(UserError, match="no Q heads"):
        PlanningModel(WorldModel(tiny_config()), 0)

"""World model: shapes, task handling, frozen copy, exact sizes."""

import pytest
import torch
from conftest import tiny_config

from pwm.errors import UserError
from pwm.models.actor import Actor
from pwm.models.frozen import FrozenTaskModel
from pwm.models.pretrained import Policy
from pwm.models.world_model import TaskEmbedding, WorldModel, WorldModelConfig
from pwm.presets import pretrain_preset


def test_leading_dims_are_free(tiny_model):
    c = tiny_model.config
    for lead in [(), (3,), (4, 3)]:
        obs = torch.randn(*lead, c.obs_dim, dtype=torch.float64)
        action = torch.rand(*lead, c.action_dim, dtype=torch.float64)
        for task in (torch.tensor(1), torch.ones(lead, dtype=torch.long)):
            z = tiny_model.encode(obs, task)
            assert z.shape == (*lead, c.latent_dim)
            assert tiny_model.next(z, action, task).shape == z.shape
            assert tiny_model.reward(z, action, task).shape == lead


def test_narrow_observations_and_actions_are_zero_padded(tiny_model):
    obs, action = torch.randn(2, 3).double(), torch.rand(2, 1).double()
    padded_obs = torch.cat([obs, torch.zeros(2, 2)], -1)
    padded_action = torch.cat([action, torch.zeros(2, 1)], -1)
    task = torch.tensor(0)
    z = tiny_model.encode(obs, task)
    torch.testing.assert_close(z, tiny_model.encode(padded_obs, task))
    torch.testing.assert_close(
        tiny_model.next(z, action, task), tiny_model.next(z, padded_action, task)
    )


def test_tasks_change_the_output_and_single_task_models_ignore_them(tiny_model):
    obs = torch.randn(2, 5).double()
    assert not torch.allclose(
        tiny_model.encode(obs, torch.tensor(0)), tiny_model.encode(obs, torch.tensor(1))
    )
    config = tiny_config(
        tasks=("dmc/a",), obs_dims=(5,), action_dims=(2,), episode_lengths=(None,), task_dim=0
    )
    single = WorldModel(config)
    torch.testing.assert_close(
        single.encode(obs.float()), single.encode(obs.float(), torch.tensor([7, 9]))
    )


def test_multi_task_model_asks_for_the_task(tiny_model):
    with pytest.raises(ValueError, match="task indices"):
        tiny_model.encode(torch.randn(2, 5).double())


def test_embedding_norm_is_limited_at_lookup_only():
    embedding = TaskEmbedding(2, 3)
    embedding.table.weight.data = torch.tensor([[3.0, 0.0, 4.0], [0.3, 0.0, 0.4]])
    rows = embedding(torch.tensor([0, 1]))
    torch.testing.assert_close(rows[0], torch.tensor([0.6, 0.0, 0.8]))
    torch.testing.assert_close(rows[1], torch.tensor([0.3, 0.0, 0.4]))
    assert embedding.table.weight[0, 0] == 3.0


def test_latents_are_simplices_and_new_models_predict_no_reward():
    model = WorldModel(tiny_config())
    z = model.encode(torch.randn(6, 5), torch.tensor(0))
    torch.testing.assert_close(z.view(6, 2, 8).sum(-1), torch.ones(6, 2))
    reward = model.reward(z, torch.rand(6, 2), torch.tensor(0))
    torch.testing.assert_close(reward, torch.zeros(6), atol=1e-5, rtol=0)


def test_action_masks_follow_the_action_dims(tiny_model):
    assert tiny_model.action_masks.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("termination", [False, True])
def test_frozen_task_model_gives_the_same_numbers(task, termination):
    model = WorldModel(tiny_config(termination=termination)).double()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    frozen = FrozenTaskModel(model, task)
    index = torch.tensor(task)
    obs, action = torch.randn(4, 5).double(), torch.rand(4, 2).double()
    z = frozen.encode(obs)
    torch.testing.assert_close(z, model.encode(obs, index))
    z_next, logits, ends = frozen.step(z, action)
    torch.testing.assert_close(z_next, model.next(z, action, index))
    torch.testing.assert_close(logits, model.reward_logits(z, action, index))
    if termination:
        torch.testing.assert_close(ends, model.terminated_logits(z, action, index))
    else:
        assert ends is None
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_observations_are_normalised_task_by_task():
    """Moments of one task leave the other alone; every consumer of the encoder agrees."""
    model = WorldModel(tiny_config(normalize_observations=True)).double()
    plain = WorldModel(tiny_config()).double()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "obs_" not in k})
    mean, std = torch.tensor([1.0, -2.0, 5.0]), torch.tensor([2.0, 0.5, 0.0])
    model.set_observation_moments(0, mean, std)
    obs = torch.randn(4, 3).double()
    # the third feature never changes: it is centred only
    scaled = (obs - mean) / torch.tensor([2.0, 0.5, 1.0])
    first, second = torch.tensor(0), torch.tensor(1)
    expected = plain.encode(scaled, first)
    torch.testing.assert_close(model.encode(obs, first), expected)
    torch.testing.assert_close(FrozenTaskModel(model, 0).encode(obs), expected)
    policy = Policy.build(model, "dmc/a", Actor(16, model.action_masks[0]).double())
    torch.testing.assert_close(policy.encode(obs), expected)
    torch.testing.assert_close(model.encode(obs, second), plain.encode(obs, second))
    mixed = model.encode(obs, torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(mixed[::2], expected[::2])


# size: parameters of TD-MPC2's released mt30 models, their number of Q heads, latent on mt30
RELEASED = {
    "1m": (1_426_427, 2),
    "5m": (5_241_066, 5),
    "19m": (16_031_210, 5),
    "48m": (48_242_410, 5),
    "317m": (317_316_889, 8),
}


@pytest.mark.parametrize("size", RELEASED)
def test_sizes_are_those_of_the_released_models(size):
    """Ours plus TD-MPC2's policy prior and Q heads must give the published count exactly."""
    preset = pretrain_preset(f"mt30-{size}")
    c = WorldModelConfig(
        tasks=tuple(f"t{i}" for i in range(30)), obs_dims=(24,) * 30, action_dims=(6,) * 30,
        episode_lengths=(500,) * 30, task_dim=preset.task_dim, latent_dim=preset.latent_dim,
        hidden_dim=preset.hidden_dim, encoder_dim=preset.encoder_dim,
        encoder_layers=preset.encoder_layers,
    )  # fmt: skip
    with torch.device("meta"):
        ours = WorldModel(c).num_parameters()
    total, heads = RELEASED[size]
    hidden = normed(c.hidden_dim, c.hidden_dim)
    prior = normed(c.latent_dim + c.task_dim, c.hidden_dim) + hidden + linear(c.hidden_dim, 12)
    value = normed(c.latent_dim + c.task_dim + 6, c.hidden_dim) + hidden
    value += linear(c.hidden_dim, 101)
    assert ours + prior + heads * value == total


def normed(inputs: int, outputs: int) -> int:
    """Parameters of Linear -> LayerNorm."""
    return linear(inputs, outputs) + 2 * outputs


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def test_config_round_trip_is_strict():
    config = tiny_config()
    assert WorldModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(UserError, match="unknown fields"):
        WorldModelConfig.from_dict({**config.to_dict(), "surprise": 1})
    with pytest.raises(UserError, match="incomplete"):
        WorldModelConfig.from_dict({"tasks": ["a"]})
    with pytest.raises(UserError, match="multiple"):
        tiny_config(latent_dim=20)


def test_unknown_task_is_named_with_a_suggestion(tiny_model):
    with pytest.raises(UserError, match="Did you mean 'dmc/a'"):
        tiny_model.task_index("dmc/aa")

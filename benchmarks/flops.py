"""Floating-point operations that one update needs, by arithmetic (matrix products only).

A linear map of ``rows`` inputs costs 2 rows i o forward, the same again for the gradient of its
input and the same again for the gradient of its weight. Only what the algorithm needs is counted:
no weight gradients of a frozen model, no gradient of the first layer's input when nobody uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pwm.models.world_model import WorldModelConfig

Layers = Sequence[tuple[int, int]]


def forward(layers: Layers) -> int:
    """FLOPs a row of a chain of linear maps."""
    return sum(2 * i * o for i, o in layers)


def input_gradient(layers: Layers, first: int | None = None) -> int:
    """FLOPs a row of back-propagating to the inputs; ``first`` limits the first layer's inputs."""
    (i, o), *rest = layers
    return 2 * (i if first is None else first) * o + forward(rest)


def chain(*widths: int) -> Layers:
    return list(zip(widths[:-1], widths[1:], strict=True))


def world_model_update(c: WorldModelConfig, batch: int, horizon: int) -> int:
    """Forward and backward of the world-model loss over ``horizon`` steps."""
    joint, rows = c.latent_dim + c.task_dim + c.action_dim, batch * horizon
    learned = c.latent_dim + c.task_dim  # inputs of the first layers that need a gradient
    encoder = chain(c.obs_dim + c.task_dim, *[c.encoder_dim] * c.encoder_layers, c.latent_dim)
    dynamics = chain(joint, c.hidden_dim, c.hidden_dim, c.latent_dim)
    reward = chain(joint, c.hidden_dim, c.hidden_dim, c.num_bins)
    total = rows * forward(encoder)  # targets
    total += batch * (2 * forward(encoder) + input_gradient(encoder, c.task_dim))
    for head in (dynamics, reward):
        total += rows * (2 * forward(head) + input_gradient(head, learned))
    return total


def value_update(c: WorldModelConfig, batch: int, horizon: int) -> int:
    """What Q heads and policy prior add to :func:`world_model_update`."""
    joint, state = c.latent_dim + c.task_dim + c.action_dim, c.latent_dim + c.task_dim
    rows, more = batch * horizon, batch * (horizon + 1)
    q = chain(joint, c.hidden_dim, c.hidden_dim, c.num_bins)
    prior = chain(state, c.hidden_dim, c.hidden_dim, 2 * c.action_dim)
    total = rows * (forward(prior) + 2 * forward(q))  # TD targets
    total += c.num_q * rows * (2 * forward(q) + input_gradient(q, state))
    total += more * 2 * (forward(q) + input_gradient(q, c.action_dim))
    total += more * (2 * forward(prior) + input_gradient(prior, 0))
    return total


def extraction_update(
    c: WorldModelConfig,
    batch: int,
    horizon: int,
    actor_units: Sequence[int],
    critic_units: Sequence[int],
    critics: int,
    passes: int,
) -> dict[str, int]:
    """{"actor": ..., "critic": ...} of one extraction update."""
    rows, inputs = batch * horizon, c.latent_dim + c.action_dim
    encoder = chain(c.obs_dim + c.task_dim, *[c.encoder_dim] * c.encoder_layers, c.latent_dim)
    dynamics = chain(inputs, c.hidden_dim, c.hidden_dim, c.latent_dim)
    reward = chain(inputs, c.hidden_dim, c.hidden_dim, c.num_bins)
    actor = chain(c.latent_dim, *actor_units, c.action_dim)
    critic = chain(c.latent_dim, *critic_units, 1)
    total = batch * forward(encoder)
    total += rows * sum(forward(head) + input_gradient(head) for head in (dynamics, reward))
    total += rows * (2 * forward(actor) + input_gradient(actor, 0))
    total += critics * batch * (forward(critic) + input_gradient(critic))
    training = critics * rows * forward(critic)  # values for the targets
    training += passes * critics * rows * (2 * forward(critic) + input_gradient(critic, 0))
    return {"actor": total, "critic": training}

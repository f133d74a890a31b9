"""Checkpoints as TD-MPC2 and PWM write them, with random weights, and plain formulas on them.

Everything here is spelled out by hand from the files' facts and knows nothing of pwm.models: the
reference reads the raw state dict of each layout.
"""

from __future__ import annotations

import sys
import types
from collections import OrderedDict
from contextlib import contextmanager

import torch
from torch.nn import functional as F

PARTS = ("weight", "bias", "ln.weight", "ln.bias")
# FLAT: (linear, norm) of the layers of each network
FLAT = {
    "_encoder.state": (("1", "2"), ("4", "5")),
    "_dynamics": (("0.0", "0.1"), ("0.3", "0.4"), ("0.6", "1")),
    "_reward": (("0", "1"), ("3", "4"), ("6", None)),
    "_pi": (("0", "1"), ("3", "4"), ("6", None)),
}


def layer_keys(layout, network, index, norm):
    """Keys of weight, bias and, with ``norm``, weight and bias of the norm."""
    if layout == "FLAT":
        linear, ln = FLAT[network][index]
        keys = [f"{network}.{linear}.weight", f"{network}.{linear}.bias"]
        return keys + ([f"{network}.{ln}.weight", f"{network}.{ln}.bias"] if norm else [])
    if layout == "PWM":
        network = network.replace(".state", "")
    return [f"{network}.{index}.{part}" for part in PARTS[: 4 if norm else 2]]


def q_keys(layout, target, index, norm):
    count = 4 if norm else 2
    if layout in ("OLD", "FLAT"):
        network = "_target_Qs.params" if target else "_Qs.params"
        return [f"{network}.{4 * index + part}" for part in range(count)]
    network = "_target_Qs_params" if target else "_Qs.params"
    return [f"{network}.{index}.{part}" for part in PARTS[:count]]


class Weights:
    """Random numbers far from what layers start with: norms not 1, biases not 0."""

    def __init__(self, seed, device="cpu"):
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def normal(self, *shape):
        if self.device == "meta":
            return torch.empty(shape, device="meta")
        return torch.randn(shape, generator=self.generator)

    def layer(self, inputs, outputs, norm, stack=()):
        weight = 1.5 * self.normal(*stack, outputs, inputs) / inputs**0.5
        parts = [weight, 0.3 * self.normal(*stack, outputs)]
        if norm:
            parts += [1 + 0.3 * self.normal(*stack, outputs), 0.3 * self.normal(*stack, outputs)]
        return parts


def make_state(
    layout, *, tasks=0, obs=3, action=1, task_dim=8, latent=16, hidden=24, enc=20, enc_layers=2,
    num_q=3, bins=101, termination=False, log_std=(-10, 2), action_dims=None, seed=0, device="cpu",
):  # fmt: skip
    """State dict of ``layout``; ``enc_layers`` counts linear maps; ``tasks`` 0: single-task."""
    make, state = Weights(seed, device), OrderedDict()
    e = task_dim if tasks else 0
    if tasks:
        table = make.normal(tasks, task_dim)
        if device == "cpu":
            # lengths on both sides of 1, the limit at lookup
            table *= torch.linspace(0.2, 3, tasks)[:, None] / table.norm(dim=1, keepdim=True)
        state["_task_emb.weight"] = table
    joint = latent + e + action
    networks = {
        "_encoder.state": [obs + e, *[enc] * (enc_layers - 1), latent],
        "_dynamics": [joint, hidden, hidden, latent],
        "_reward": [joint, hidden, hidden, bins],
    }
    if layout != "PWM":
        networks["_pi"] = [latent + e, hidden, hidden, 2 * action]
    if termination:
        networks["_termination"] = [latent + e, hidden, hidden, 1]
    for network, widths in networks.items():
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            norm = network in ("_encoder.state", "_dynamics") or i < 2
            keys = layer_keys(layout, network, i, norm)
            state.update(zip(keys, make.layer(a, b, norm), strict=True))
    if layout == "PWM":
        return state
    widths = [joint, hidden, hidden, bins]
    for target in (False, True):
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            parts = make.layer(a, b, i < 2, stack=(num_q,))
            state.update(zip(q_keys(layout, target, i, i < 2), parts, strict=True))
    if layout in ("NEW", "NOV24"):
        _complete_new(layout, state, tasks, action, action_dims, log_std, num_q)
    return state


def _complete_new(layout, state, tasks, action, action_dims, log_std, num_q):
    copies = {"_Qs.params": ["_detach_Qs_params"], "_target_Qs_params": []}
    if layout == "NOV24":
        copies["_Qs.params"].append("_detach_Qs.params")
        copies["_target_Qs_params"].append("_target_Qs.params")
    for network, others in copies.items():
        for key in [key for key in state if key.startswith(network + ".")]:
            for other in others:
                state[other + key.removeprefix(network)] = state[key]
        for name in (network, *others):
            state[f"{name}.__batch_size"] = torch.Size([num_q])
            state[f"{name}.__device"] = None
    low, high = log_std
    state["log_std_min"] = torch.tensor(low)
    state["log_std_dif"] = torch.tensor(high) - torch.tensor(low)
    if tasks:
        masks = torch.zeros(tasks, action)
        for row, width in zip(masks, action_dims or [action] * tasks, strict=True):
            row[:width] = 1
        state["_action_masks"] = masks


def save(path, state):
    """Write ``{"model": state}`` and return the path."""
    torch.save({"model": state}, path)
    return path


def mlp(x, layers, last):
    """``last``: "simnorm" or None (plain linear)."""
    for i, (weight, bias, *norm) in enumerate(layers):
        x = torch.matmul(x, weight.t()) + bias
        if norm:
            mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
            x = (x - mean) / torch.sqrt(var + 1e-5) * norm[0] + norm[1]
        if i < len(layers) - 1:
            x = x * torch.tanh(torch.log(1 + torch.exp(x)))
        elif last == "simnorm":
            groups = x.reshape(*x.shape[:-1], -1, 8)
            x = torch.softmax(groups, -1).reshape(x.shape)
    return x


def decode(logits):
    value = (torch.softmax(logits, -1) * torch.linspace(-10, 10, logits.shape[-1])).sum(-1)
    return torch.sign(value) * (torch.exp(value.abs()) - 1)


class Reference:
    """Forward passes from a raw state dict. ``task``: index or None; everything is [B, ...]."""

    def __init__(self, state, layout, log_std=(-10.0, 2.0), masks=None):
        self.state, self.layout, self.log_std, self.masks = state, layout, log_std, masks

    def layers(self, network, count, norm_last):
        found = []
        for i in range(count):
            keys = layer_keys(self.layout, network, i, norm_last or i < count - 1)
            found.append([self.state[key] for key in keys])
        return found

    def with_task(self, x, task):
        table = self.state.get("_task_emb.weight")
        if table is None:
            return x
        # torch's own limit of the norm, on a copy because it writes into the table
        row = F.embedding(torch.tensor(task), table.clone(), max_norm=1)
        return torch.cat([x, row.expand(len(x), -1)], -1)

    def encode(self, obs, task):
        names = {"FLAT": "_encoder.state.", "PWM": "_encoder."}
        prefix = names.get(self.layout, "_encoder.state.")
        linear = [k for k, v in self.state.items() if k.startswith(prefix) and v.ndim == 2]
        x = self.with_task(obs, task)
        return mlp(x, self.layers("_encoder.state", len(linear), True), "simnorm")

    def next(self, z, action, task):
        x = torch.cat([self.with_task(z, task), action], -1)
        return mlp(x, self.layers("_dynamics", 3, True), "simnorm")

    def reward_logits(self, z, action, task):
        x = torch.cat([self.with_task(z, task), action], -1)
        return mlp(x, self.layers("_reward", 3, False), None)

    def reward(self, z, action, task):
        return decode(self.reward_logits(z, action, task))

    def termination_logits(self, z_next, task):
        x = self.with_task(z_next, task)
        return mlp(x, self.layers("_termination", 3, False), None).squeeze(-1)

    def q_values(self, z, action, task, target=False):
        x = torch.cat([self.with_task(z, task), action], -1)
        stacked = [[self.state[k] for k in q_keys(self.layout, target, i, i < 2)] for i in range(3)]
        members = range(len(stacked[0][0]))
        return torch.stack([
            decode(mlp(x, [[part[q] for part in layer] for layer in stacked], None))
            for q in members
        ])  # fmt: skip

    def prior(self, z, task, noise):
        raw = mlp(self.with_task(z, task), self.layers("_pi", 3, False), None)
        mean, std = raw.split(raw.shape[-1] // 2, -1)
        low, high = self.log_std
        log_std = low + 0.5 * (high - low) * (torch.tanh(std) + 1)
        mask = torch.ones_like(mean) if self.masks is None else self.masks[task]
        return torch.tanh(mean * mask + torch.exp(log_std * mask) * noise * mask)


@contextmanager
def foreign_moments():
    """The class of PWM's running moments, importable under its own name while files are made."""
    name = "pwm.utils.running_mean_std"
    module = types.ModuleType(name)
    module.RunningMeanStd = type("RunningMeanStd", (), {"__module__": name})
    sys.modules[name] = module
    try:
        yield module.RunningMeanStd
    finally:
        del sys.modules[name]


def make_actor(latent, action, units=(12, 10, 9), seed=5):
    """State dict of PWM's Gaussian actor: Linear, activation, norm in turn."""
    make, state = Weights(seed), OrderedDict()
    widths = [latent, *units, action]
    for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        weight, bias, *norm = make.layer(a, b, i < len(units))
        state[f"mu_net.{3 * i}.weight"], state[f"mu_net.{3 * i}.bias"] = weight, bias
        if norm:
            state[f"mu_net.{3 * i + 2}.weight"], state[f"mu_net.{3 * i + 2}.bias"] = norm
    state["logstd"] = torch.full((action,), -1.2)
    return state


def actor_mean(state, z):
    """Mean action of PWM's actor from its raw state dict."""
    count = sum(key.endswith(".weight") and v.ndim == 2 for key, v in state.items())
    x = z
    for i in range(count):
        x = x @ state[f"mu_net.{3 * i}.weight"].t() + state[f"mu_net.{3 * i}.bias"]
        if i < count - 1:
            x = F.mish(x)
            norm = [state[f"mu_net.{3 * i + 2}.{kind}"] for kind in ("weight", "bias")]
            x = F.layer_norm(x, x.shape[-1:], *norm)
    return torch.tanh(x)


def save_agent(path, world_model, actor, obs_moments=None, reward_moments=None, **changes):
    """Write an agent file of PWM. Moments are (mean, var) or None."""
    with foreign_moments() as moments_class:

        def moments(values):
            if values is None:
                return None
            made = moments_class()
            made.mean, made.var, made.count = *values, 1234.5
            made.shape = tuple(values[0].shape)
            return made

        critic = OrderedDict((f"params.{i}", torch.randn(3, 4)) for i in range(10))
        optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
        content = {
            "actor": actor, "critic": critic, "world_model": world_model,
            "obs_rms": moments(obs_moments), "rew_rms": moments(reward_moments),
            "ret_rms": moments((torch.zeros(1), torch.ones(1))),
            "actor_opt": optimizer, "critic_opt": optimizer, "world_model_opt": optimizer,
        }  # fmt: skip
        torch.save({**content, **changes}, path)
    return path

"""Building blocks shared by all networks: normed linear layers, SimNorm, initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def simnorm(x: Tensor, group: int) -> Tensor:
    """Simplicial normalisation: softmax over consecutive groups of features.

    Every group of the result is a point of the probability simplex, which bounds the latent and
    keeps long rollouts smooth. Source: TD-MPC2 (arXiv 2310.16828), section 3.1.

    Args:
        x: [..., D] with D a multiple of ``group``.
        group: features in a group (8 in all published models).

    Returns:
        [..., D], each group non-negative with sum 1.
    """
    # exp and a short sum: torch's softmax over 8 entries takes several times as long. The input
    # is a LayerNorm's output, far inside the clamp, which keeps any input free of overflow.
    weights = x.clamp(-80.0, 80.0).exp().unflatten(-1, (-1, group))
    return (weights / weights.sum(-1, keepdim=True)).flatten(-2)


class _FastMish(torch.autograd.Function):
    """Mish with vectorised kernels: torch's own is several times slower on CPUs.

    tanh(softplus(x)) = n / (n + 2) with n = e^x (e^x + 2).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        t = x.clamp(max=20.0).exp_()
        n = (t + 2).mul_(t)
        ratio = n.div_(n + 2)
        ctx.save_for_backward(x, t, ratio)
        return x * ratio

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, t, ratio = ctx.saved_tensors
        # d/dx [x ratio] = ratio + x (1 - ratio^2) sigmoid(x)
        slope = torch.addcmul(ratio.new_ones(()), ratio, ratio, value=-1)
        slope.mul_(t).div_(t + 1).mul_(x).add_(ratio)
        return slope.mul_(grad)


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)) (Misra 2019, arXiv 1908.08681)."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _FastMish.apply(x)
    t = x.clamp(max=20.0).exp()
    n = t * (t + 2)
    return x * (n / (n + 2))


class Mish(nn.Module):
    """Module form of :func:`mish`."""

    def forward(self, x: Tensor) -> Tensor:
        return mish(x)


class SimNorm(nn.Module):
    """Module form of :func:`simnorm`."""

    def __init__(self, group: int = 8):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return simnorm(x, self.group)


class NormedLinear(nn.Module):
    """Linear -> (Dropout) -> LayerNorm -> activation (Mish unless given), the TD-MPC2 layer."""

    def __init__(
        self, inputs: int, outputs: int, activation: nn.Module | None = None, dropout: float = 0.0
    ):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.norm = nn.LayerNorm(outputs)
        self.activation = Mish() if activation is None else activation

    def finish(self, pre_activation: Tensor) -> Tensor:
        """Everything after the linear map; callers that fuse the linear maps start here."""
        return self.activation(self.norm(self.dropout(pre_activation)))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.linear(x))


class Head(nn.Module):
    """Hidden NormedLinear layers and a plain linear output.

    Args:
        inputs: input features.
        hidden: width of each hidden layer.
        outputs: output features.
        zero_last: start with an output of exactly zero (reward and value heads).
        dropout: share of the first hidden layer's features dropped in training.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        zero_last: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        widths = [inputs, *hidden]
        self.hidden = nn.ModuleList(
            NormedLinear(a, b, dropout=dropout if i == 0 else 0.0)
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.out = nn.Linear(widths[-1], outputs)
        self.zero_last = zero_last

    @property
    def first(self) -> NormedLinear:
        layer = self.hidden[0]
        assert isinstance(layer, NormedLinear)
        return layer

    def after_first(self, x: Tensor) -> Tensor:
        """Continue from the pre-activation of the first hidden layer."""
        x = self.first.finish(x)
        for layer in self.hidden[1:]:
            x = layer(x)
        return self.out(x)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)


def init_world_model_weights(module: nn.Module) -> None:
    """Truncated normal(0.02) weights, zero biases, embeddings uniform(-0.02, 0.02)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.uniform_(part.weight, -0.02, 0.02)
    for part in module.modules():
        if isinstance(part, Head) and part.zero_last:
            nn.init.zeros_(part.out.weight)


def normalized(x: Tensor, mean: Tensor, scale: Tensor, limit: float = 0.0) -> Tensor:
    """(x - mean) * scale over the last dimension, clipped to +-``limit`` unless that is 0."""
    x = (x - mean) * scale
    return x.clamp(-limit, limit) if limit else x


def pad_features(x: Tensor, width: int) -> Tensor:
    """Zero-pad the last dimension to ``width``; no copy when it already fits.

    Raises:
        ValueError: the tensor is wider than ``width``.
    """
    missing = width - x.shape[-1]
    if missing < 0:
        raise ValueError(f"{x.shape[-1]} features do not fit into {width}")
    return F.pad(x, (0, missing)) if missing else x

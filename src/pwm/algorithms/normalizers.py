"""Running statistics kept as tensors, so that updates never wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of all samples seen so far (Chan et al. 1983, parallel update).

    Starts from a pseudo-count of ``epsilon`` samples with mean 0 and variance 1.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = (), epsilon: float = 1e-4):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(epsilon, dtype=torch.float64))

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Take in [N, *shape] samples."""
        samples = samples.detach().to(self.mean.dtype)
        n = samples.shape[0]
        batch_mean = samples.mean(0)
        batch_var = samples.var(0, unbiased=False)
        delta = batch_mean - self.mean
        total = self.count + n
        second = self.var * self.count + batch_var * n + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.var.copy_(second / total)
        self.count.copy_(total)

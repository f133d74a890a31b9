"""Pieces of networks that are only evaluated: packed matrix products and cheap activations.

Nothing here keeps anything for a gradient.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pwm.models.layers import Head, NormedLinear

# Packed weights are opaque to torch's compiler. This operator takes their number, as a tensor, so
# that one compiled graph serves every model.
_packed: dict[int | float, list[tuple[Tensor, Tensor]]] = {}
_numbers = itertools.count()
_library = torch.library.Library("pwm", "DEF")
_library.define("packed_linear(Tensor x, Tensor number, Tensor which, SymInt outputs) -> Tensor")


def _packed_linear(x: Tensor, number: Tensor, which: Tensor, outputs: int) -> Tensor:
    weight, bias = _packed[number.item()][int(which.item())]
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")


def _packed_linear_shape(x: Tensor, number: Tensor, which: Tensor, outputs: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], outputs)


_library.impl("packed_linear", _packed_linear, "CPU")
torch.library.register_fake("pwm::packed_linear", _packed_linear_shape, lib=_library)


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep up to 512 MB of freed memory.

    Otherwise it gives the memory of activations back to the system and takes it again, page fault
    by page fault, in every layer: 5 to 10 % of a plan.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD
    mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, the largest there is


class Products:
    """Matrix products x W_k^T + b_k of equal shape, of which a call evaluates one.

    On CPUs float32 weights are kept in the blocked order of oneDNN, as torch's own compiler does
    with frozen weights: 10 to 20 % faster than the product with a row-major matrix, and float32
    throughout.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]):
        first = weights[0]
        self.outputs = first.shape[0]
        self.packed = (
            first.device.type == "cpu"
            and first.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
        )
        if not self.packed:
            self.weight, self.bias = torch.stack(list(weights)), torch.stack(list(biases))
            return
        _keep_freed_memory()
        number = next(_numbers)
        _packed[number] = [
            (torch.ops.mkldnn._reorder_linear_weight(weight), bias.contiguous())
            for weight, bias in zip(weights, biases, strict=True)
        ]
        weakref.finalize(self, _packed.pop, number)
        self.number = torch.tensor(number)
        self.zero = torch.tensor(0)

    def __call__(self, x: Tensor, which: Tensor | None = None) -> Tensor:
        """[B, I] -> [B, O] by product ``which`` [1] (None: the first)."""
        if self.packed:
            which = self.zero if which is None else which
            return torch.ops.pwm.packed_linear.default(x, self.number, which, self.outputs)
        return F.linear(x, _pick(self.weight, which), _pick(self.bias, which))


class Tails:
    """Networks of equal shape without their first product, of which a call evaluates one.

    Args:
        hidden: normed hidden layers of each network; the first one's product is left out.
        outputs: last product of each network.
    """

    def __init__(self, hidden: Sequence[Sequence[NormedLinear]], outputs: Sequence[nn.Linear]):
        self.layers: list[tuple[Tensor, Tensor, Products]] = []
        for depth, layers in enumerate(zip(*hidden, strict=True)):
            last = depth + 1 == len(hidden[0])
            following = outputs if last else [network[depth + 1].linear for network in hidden]
            self.layers.append((
                torch.stack([layer.norm.weight for layer in layers]),
                torch.stack([layer.norm.bias for layer in layers]),
                Products([part.weight for part in following], [part.bias for part in following]),
            ))  # fmt: skip

    @classmethod
    def of_heads(cls, heads: Sequence[Head]) -> Tails:
        return cls([list(head.hidden) for head in heads], [head.out for head in heads])  # type: ignore[arg-type]

    def __call__(self, x: Tensor, which: Tensor | None = None) -> Tensor:
        """Pre-activation [B, .] of the first layer -> output of network ``which``."""
        for scales, shifts, product in self.layers:
            x = layer_norm(x, _pick(scales, which), _pick(shifts, which))
            x = product(mish_(x), which)
        return x


def _pick(stack: Tensor, which: Tensor | None) -> Tensor:
    """One entry of a stack: a view of the first, or ``which`` [1] as a gather, which a compiled
    graph can do for any index."""
    return stack[0] if which is None else stack.index_select(0, which).squeeze(0)


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        return F.layer_norm(x, x.shape[-1:], scale, shift)
    # The compiler makes faster code of two plain sums than of its own moments.
    x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * scale + shift


def mish_(x: Tensor) -> Tensor:
    """Mish in place, as x - 2 x / ((e^x + 1)^2 + 1): few passes, right at both infinities."""
    n = x.exp().add_(1).square_().add_(1)
    return x.addcdiv_(x, n, value=-2)


def strided_simnorm_(x: Tensor, group: int) -> Tensor:
    """SimNorm in place over groups whose members lie D / group features apart in x [B, D]."""
    weights = x.clamp_(-80.0, 80.0).exp_().unflatten(-1, (group, -1))
    return weights.div_(weights.sum(-2, keepdim=True)).flatten(-2)

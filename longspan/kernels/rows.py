"""What a step does to its rows besides attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


class Norm:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, in float32 and rounded once (RMSNorm,
    https://arxiv.org/abs/1910.07467). weight [D] of any dtype; None: 1. dtype: of the result."""

    def __init__(self, weight: torch.Tensor | None, eps: float, dtype: torch.dtype) -> None:
        self.weight = None if weight is None else weight.float().contiguous()
        self.eps, self.dtype = eps, dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        out = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            out = out.mul_(self.weight)
        return out.to(self.dtype)


class Gate:
    """act(a) · b. kind: silu, gelu or gelu_tanh."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if self.kind == "silu":
            return functional.silu(a).mul_(b)
        return functional.gelu(a, approximate="tanh" if self.kind == "gelu_tanh" else "none").mul_(b)


class Linears:
    """Linear layers that read the same rows: x [..., K] times each weight [N, K], plus its bias [N] or None."""

    def __init__(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]) -> None:
        self.weights, self.biases = tuple(weights), tuple(biases)

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(functional.linear(x, w, b) for w, b in zip(self.weights, self.biases, strict=True))

"""What a step does to its rows besides attention: compiled kernels for few rows, torch for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from longspan.kernels.cpu.linear import FEW, KINDS, Prepared, rms_norm
from longspan.kernels.cpu.native import NATIVE, level


class Norm:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, in float32 and rounded once (RMSNorm,
    https://arxiv.org/abs/1910.07467). weight [D] of any dtype. dtype: of the result."""

    def __init__(self, weight: Tensor, eps: float, dtype: torch.dtype) -> None:
        self.weight, self.eps, self.dtype = weight, eps, dtype
        self.wide = weight.float()
        known = weight.dtype == dtype and weight.is_contiguous() and weight.is_cpu
        self.level = level() if NATIVE is not None and known and dtype in KINDS else None

    def __call__(self, x: Tensor) -> Tensor:
        if self.level is not None and x.dtype == self.dtype and x.is_contiguous():
            flat = x.view(-1, x.shape[-1])
            return rms_norm(flat, self.weight, self.eps, instructions=self.level).view(x.shape)
        wide = x.float()
        out = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return out.mul_(self.wide).to(self.dtype)


class Gate:
    """act(a) · b. kind: silu, gelu or gelu_pytorch_tanh."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        if self.kind == "silu":
            return functional.silu(a).mul_(b)
        return functional.gelu(a, approximate="tanh" if self.kind == "gelu_pytorch_tanh" else "none").mul_(b)


class Linears:
    """Linear layers that read the same rows x [..., K]. layers: each by itself. few: all of them, for few rows."""

    def __init__(self, layers: Sequence[Callable[[Tensor], Tensor]], few: Prepared | None) -> None:
        self.layers, self.few = tuple(layers), few

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.few is not None and x.numel() <= FEW * x.shape[-1]:
            flat, leading = x.reshape(-1, x.shape[-1]), x.shape[:-1]
            return tuple([out.view(*leading, -1) for out in self.few(flat)])
        return tuple([layer(x) for layer in self.layers])


class GatedLinear:
    """act(gate(x)) · up(x) of x [..., K]. kind: as in `Gate`. few: both and the activation, for few rows."""

    def __init__(
        self, gate: Callable[[Tensor], Tensor], up: Callable[[Tensor], Tensor], kind: str, few: Prepared | None
    ) -> None:
        self.gate, self.up, self.act, self.few = gate, up, Gate(kind), few

    def __call__(self, x: Tensor) -> Tensor:
        if self.few is not None and x.numel() <= FEW * x.shape[-1]:
            (out,) = self.few(x.reshape(-1, x.shape[-1]))
            return out.view(*x.shape[:-1], -1)
        return self.act(self.gate(x), self.up(x))

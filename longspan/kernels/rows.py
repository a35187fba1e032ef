"""What a step does to its rows besides attention: compiled kernels where they are faster, torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from longspan.kernels.cpu.linear import KINDS, Prepared, rms_norm
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


class SumNorm:
    """a + b, and the norm of that."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm

    def __call__(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        norm, columns = self.norm, a.shape[-1]
        if norm.level is None or not a.dtype == b.dtype == norm.dtype or not a.is_contiguous() or not b.is_contiguous():
            total = a + b
            return total, norm(total)
        x, residual, total = a.view(-1, columns), b.view(-1, columns), torch.empty_like(a)
        out = rms_norm(x, norm.weight, norm.eps, residual=residual, total=total, instructions=norm.level)
        return total, out.view(a.shape)


class Gate:
    """act(a) · b. kind: silu, gelu or gelu_pytorch_tanh."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        if self.kind == "silu":
            return functional.silu(a).mul_(b)
        return functional.gelu(a, approximate="tanh" if self.kind == "gelu_pytorch_tanh" else "none").mul_(b)


class Linears:
    """Linear layers that read the same rows x [..., K]. layers: each by itself. prepared: all of them, compiled."""

    def __init__(self, layers: Sequence[Callable[[Tensor], Tensor]], prepared: Prepared | None) -> None:
        self.layers, self.prepared = tuple(layers), prepared

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.prepared is not None and x.numel() <= self.prepared.most * x.shape[-1]:
            flat, leading = x.reshape(-1, x.shape[-1]).contiguous(), x.shape[:-1]
            return tuple([out.view(*leading, -1) for out in self.prepared(flat)])
        return tuple([layer(x) for layer in self.layers])


class GatedLinear:
    """act(gate(x)) · up(x) of x [..., K]. kind: as in `Gate`. prepared: both and the activation, compiled."""

    def __init__(
        self, gate: Callable[[Tensor], Tensor], up: Callable[[Tensor], Tensor], kind: str, prepared: Prepared | None
    ) -> None:
        self.gate, self.up, self.act, self.prepared = gate, up, Gate(kind), prepared

    def __call__(self, x: Tensor) -> Tensor:
        if self.prepared is not None and x.numel() <= self.prepared.most * x.shape[-1]:
            (out,) = self.prepared(x.reshape(-1, x.shape[-1]).contiguous())
            return out.view(*x.shape[:-1], -1)
        return self.act(self.gate(x), self.up(x))

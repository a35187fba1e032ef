"""What a step does to its rows besides attention: compiled kernels for few rows, torch for the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from longspan.kernels.cpu.linear import FEW, KINDS, Prepared, rms_norm, why_not
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
    """Linear layers that read the same rows: x [..., K] times each weight [N, K], plus its bias [N] or None."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        self.weights, self.biases = tuple(weights), tuple(biases)
        self.few = None if why_not(self.weights) is not None else Prepared(self.weights, self.biases)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.few is not None and x.numel() <= FEW * x.shape[-1]:
            flat, leading = x.reshape(-1, x.shape[-1]), x.shape[:-1]
            return tuple([out.view(*leading, -1) for out in self.few(flat)])
        return tuple(functional.linear(x, w, b) for w, b in zip(self.weights, self.biases, strict=True))


class GatedLinear:
    """act(x·gateᵀ) · (x·upᵀ) of x [..., K] and weights [N, K]. kind: as in `Gate`."""

    def __init__(self, gate: Tensor, up: Tensor, biases: Sequence[Tensor | None], kind: str) -> None:
        self.gate, self.weights, self.biases = Gate(kind), (gate, up), tuple(biases)
        self.few = None if why_not(self.weights, kind) is not None else Prepared(self.weights, self.biases, act=kind)

    def __call__(self, x: Tensor) -> Tensor:
        if self.few is not None and x.numel() <= FEW * x.shape[-1]:
            (out,) = self.few(x.reshape(-1, x.shape[-1]))
            return out.view(*x.shape[:-1], -1)
        a, b = (functional.linear(x, w, bias) for w, bias in zip(self.weights, self.biases, strict=True))
        return self.gate(a, b)

"""Activations times the matrices of a layer: few rows, where torch's own product reaches half the bandwidth, and many
where the processor multiplies float32 numbers faster than those that the matrices hold.

Matrices of codes and more than `FEW` rows in 16 bits are multiplied in bytes where the processor does that (AVX-512
VNNI): of each row 64 channels share a scale, 1/127 of the greatest of them, as peers do it (Q8_0 of llama.cpp, the
dynamic quantization of OpenVINO). Rows in float32 stay as they are, and with AMX torch multiplies what was opened.

Matrices are prepared once: their addresses are kept, their numbers stay where they are.

    qkv = Prepared([q.weight, k.weight, v.weight], [q.bias, None, None])
    q, k, v = qkv(x)                                             x [T, K], T ≤ qkv.most
    front = Prepared([gate.weight, up.weight], act="silu")       silu(x·gateᵀ) · (x·upᵀ)
    hidden, = front(x)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longspan.errors import UsageError
from longspan.kernels.cpu.native import NATIVE, level, why_none

FEW = 16
"""Rows up to which every product is faster here than torch's."""
ANY = 1 << 40
CODES = {"int8": 3, "int4": 4}
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
ACTS = {None: 0, "silu": 1, "swish": 1, "gelu": 2, "gelu_pytorch_tanh": 3}


class Prepared:
    """Matrices [N, K] that share their input, ready to be multiplied with rows [T, K].

    most: rows up to which that is faster than torch's product; more give right results too.

    weights: contiguous, on a CPU, of one dtype, which is that of the rows too; they must stay where they are.
    biases: one for each, or None. act: the weights are pairs of gate and up, and a result is act(x·gateᵀ) · (x·upᵀ),
    rounded once; see `ACTS`. codes: "int8" or "int4" when the weights are bytes as `codes.quantize` makes them of
    `columns` columns; rows and biases are then of `dtype`. instructions: see `native.level`. Raises UsageError for
    what these kernels do not do.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None] | None = None,
        *,
        act: str | None = None,
        codes: str | None = None,
        columns: int | None = None,
        dtype: torch.dtype | None = None,
        instructions: str | None = None,
    ) -> None:
        self.dtype = weights[0].dtype if dtype is None else dtype
        columns = weights[0].shape[1] if columns is None else columns
        wrong = why_not(weights, act, self.dtype)
        if NATIVE is None or wrong is not None:
            raise UsageError(f"prepared matrices: {wrong}")
        biases = [None] * len(weights) if biases is None else biases
        self.held = [*weights, *biases]
        self.results = [w.shape[0] for w in weights[:: 1 if act is None else 2]]
        kind = KINDS[self.dtype]
        stored = kind if codes is None else CODES[codes]
        self.native = NATIVE.Linear(level(instructions), kind, stored, columns, ACTS[act])
        for weight, bias in zip(weights, biases, strict=True):
            if bias is not None and (bias.dtype != self.dtype or not bias.is_contiguous()):
                raise UsageError(f"prepared matrices: a bias in {bias.dtype} to weights in {self.dtype}")
            self.native.add(weight.data_ptr(), 0 if bias is None else bias.data_ptr(), weight.shape[0])
        self.most = ANY if self.native.pays() else FEW
        self.run = self.native.run
        """run(threads, rows, address of x, address of each result): without any check or allocation."""

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The results [T, N] of x [T, K], which is contiguous and of the weights' dtype."""
        rows = x.shape[0]
        out = tuple([torch.empty((rows, n), dtype=self.dtype) for n in self.results])
        self.run(torch.get_num_threads(), rows, x.data_ptr(), *[o.data_ptr() for o in out])
        return out


def widened() -> list[str]:
    """Dtypes of which many rows are multiplied in float32 here, since that is faster."""
    if NATIVE is None:
        return []
    return [str(dtype).removeprefix("torch.") for dtype, kind in KINDS.items() if NATIVE.Linear.widens(kind)]


def in_bytes() -> bool:
    """Whether many rows in 16 bits and matrices of codes are multiplied in bytes here."""
    if NATIVE is None:
        return False
    some = NATIVE.Linear(level(), KINDS[torch.bfloat16], CODES["int8"], 64, 0)
    return bool(some.in_bytes() and some.pays())


def why_not(weights: Sequence[Tensor], act: str | None = None, dtype: torch.dtype | None = None) -> str | None:
    """What of these matrices is not for these kernels; None: nothing. dtype: of the rows; None: that of the weights."""
    first = weights[0]
    dtype = first.dtype if dtype is None else dtype
    if NATIVE is None:
        return why_none()
    if act not in ACTS:
        return f"act {act!r} is not known; known: {', '.join(str(name) for name in ACTS)}"
    if dtype not in KINDS or first.dtype not in (dtype, torch.uint8):
        return f"weights in {first.dtype} for rows in {dtype}"
    if any(w.device.type != "cpu" or not w.is_contiguous() for w in weights):
        return "weights that are not contiguous, or not on a CPU"
    if any(w.dtype != first.dtype or w.dim() != 2 or w.shape[1] != first.shape[1] for w in weights):
        return "weights of several dtypes, or that do not share their input"
    if act is not None and any(a.shape != b.shape for a, b in zip(weights[::2], weights[1::2], strict=True)):
        return "gates of other shapes than what they gate"
    return None


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    plus_one: bool = False,
    *,
    residual: Tensor | None = None,
    total: Tensor | None = None,
    out: Tensor | None = None,
    instructions: int | None = None,
) -> Tensor:
    """x [T, K] / root mean square · weight [K], or · (1 + weight); all contiguous and of one dtype.

    residual [T, K]: residual + x is what is normalized; it goes to `total`, or in the residual's place. out: where the
    result goes.
    instructions: number of an instruction set; None: the best.
    """
    assert NATIVE is not None, "compiled kernels"
    rows, columns = x.shape
    out = torch.empty_like(x) if out is None else out
    NATIVE.rms_norm(
        level() if instructions is None else instructions,
        torch.get_num_threads(),
        KINDS[x.dtype],
        rows,
        columns,
        x.data_ptr(),
        weight.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        0 if residual is None else (residual if total is None else total).data_ptr(),
        out.data_ptr(),
        eps,
        plus_one,
    )
    return out


def narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    """float32 numbers as those of a dtype of `KINDS`, without waking torch's threads, which would stand in the way of
    what comes next."""
    if NATIVE is None or x.dtype != torch.float32 or not x.is_contiguous() or not x.is_cpu or dtype not in KINDS:
        return x.to(dtype)
    if dtype == torch.float32:
        return x
    out = torch.empty(x.shape, dtype=dtype)
    NATIVE.narrow(level(), torch.get_num_threads(), KINDS[dtype], x.numel(), x.data_ptr(), out.data_ptr())
    return out

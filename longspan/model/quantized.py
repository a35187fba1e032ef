"""Linear layers whose weights are codes of 8 or 4 bits; see `longspan.kernels.codes`."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import warnings

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_unary

from longspan.errors import UsageError
from longspan.kernels import codes, cpu
from longspan.kernels.cpu import linear

WEIGHTS = ("stored", *codes.BITS)
BUFFER = 1 << 25
"""Bytes of weights that are numbers again at a time, while many rows are multiplied."""
MATRIX = 2
_PAGE_OUT = 21  # mman.h of Linux


def check(weights: str) -> None:
    """Raises UsageError for what weights cannot be kept as."""
    if weights not in WEIGHTS:
        raise UsageError(f"weights {weights!r} is not known; known: {', '.join(WEIGHTS)}")


class QuantizedLinear(nn.Module):
    """x [..., K] → [..., N], with weights of N·K·bits/8 bytes and 3 % more for their scales.

    Rows are multiplied with the codes; many of them in bytes where the processor multiplies these, see
    `longspan.kernels.cpu.linear`. Where torch is faster for many rows, and without compiled kernels, a block of output
    channels after the other is turned into numbers of x's dtype and multiplied by torch.
    """

    packed: Tensor

    def __init__(self, layer: nn.Linear, form: str) -> None:
        super().__init__()
        self.in_features, self.out_features, self.form = layer.in_features, layer.out_features, form
        self.register_buffer("packed", codes.quantize(layer.weight.detach(), codes.BITS[form]), persistent=False)
        self.bias = layer.bias
        self.dtype = layer.weight.dtype
        self._prepared: linear.Prepared | None = None

    def forward(self, x: Tensor) -> Tensor:
        return multiply(x, self)

    def multiply(self, x: Tensor) -> Tensor:
        """What `forward` gives."""
        rows = x.reshape(-1, self.in_features)
        prepared = self.prepared() if rows.device.type == "cpu" and rows.dtype == self.dtype else None
        if prepared is not None and 1 <= len(rows) <= prepared.most:
            (out,) = prepared(rows.contiguous())
        else:
            block = max(1, BUFFER // (self.in_features * x.element_size()))
            parts = [self._part(rows, prepared, n, block) for n in range(0, self.out_features, block)]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return out.view(*x.shape[:-1], self.out_features)

    def prepared(self) -> linear.Prepared | None:
        """The compiled product; None where there are no compiled kernels."""
        if cpu.NATIVE is None or self.packed.device.type != "cpu" or self.dtype not in linear.KINDS:
            return None
        if self._prepared is None or self._prepared.held[0] is not self.packed:
            self._prepared = linear.Prepared(
                [self.packed], [self.bias], codes=self.form, columns=self.in_features, dtype=self.dtype
            )
        return self._prepared

    def _part(self, rows: Tensor, prepared: linear.Prepared | None, start: int, block: int) -> Tensor:
        stop = min(start + block, self.out_features)
        if prepared is None:
            bits = codes.BITS[self.form]
            weight = codes.dequantize(self.packed[start:stop], self.in_features, bits, rows.dtype)
        else:
            weight = torch.empty((stop - start, self.in_features), dtype=rows.dtype)
            prepared.native.open(torch.get_num_threads(), start, stop, weight.data_ptr())
        return functional.linear(rows, weight, None if self.bias is None else self.bias[start:stop])


def multiply(x: Tensor, layer: QuantizedLinear) -> Tensor:
    """layer(x), as one function that a mode of torch's sees."""
    if has_torch_function_unary(x):
        return handle_torch_function(multiply, (x,), x, layer)
    return layer.multiply(x)


def quantize(model: transformers.PreTrainedModel, form: str) -> None:
    """Replace the linear layers of a model's decoder layers, one by one; with int8 its output head too.

    An embedding that is the head's weight as well stays as it is, and the head gets codes of its own. Matrices that
    are no linear layers, as those of fused experts, stay; a warning names them.
    """
    layers: nn.ModuleList = model.base_model.layers
    for layer in layers:
        _replace(layer, form)
    head = model.get_output_embeddings()
    if form == "int8" and isinstance(head, nn.Linear):
        model.set_output_embeddings(QuantizedLinear(head, form))
        _page_out(head.weight)  # of an embedding that is the head's weight too, rows come back as they are read
    left = sorted({name.rpartition(".")[2] for name, held in layers.named_parameters() if held.dim() > MATRIX})
    if left:
        warnings.warn(f"weights: {', '.join(left)} of fused experts stay as they are stored", stacklevel=2)


def _replace(module: nn.Module, form: str) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, QuantizedLinear(child, form))
            _page_out(child.weight)
        else:
            _replace(child, form)


def _page_out(weight: Tensor) -> None:
    """Let the system have the memory of a tensor that is not read any more. Checkpoints are mapped from their files,
    for as long as any tensor of them is in use; who reads one of the others after all gets it from there again."""
    if weight.device.type != "cpu":
        return
    first = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (weight.data_ptr() + weight.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if size > 0:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), _PAGE_OUT)

"""Numbers as codes of few bits, as `longspan.cache.formats.affine` and sketches define them."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.kernels.cpu.linear import KINDS
from longspan.kernels.cpu.native import NATIVE, level


def seal(x: Tensor, groups: int, bits: int, instructions: str | None = None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Codes, minimum and Δ of x [n, R, C], each row in `groups` of C / groups numbers.

    Codes are uint8: with 8 bits [n, R, C]; with 4 [n, R, ⌈C/2⌉], byte i of a row holding codes i and i + ⌈C/2⌉; with 2
    [n, R/4, C], byte i of row r holding those of rows r, r + R/4, …; the first in the lowest bits. Minimum and Δ are
    float16 [n, R, groups]. instructions: the instruction set to use; None: see `native.level`. None: these kernels do
    not serve, for want of compiled ones, for such a tensor, or since one of the numbers is beyond float16.
    """
    if NATIVE is None or not x.is_cpu or x.dtype not in KINDS or not x.is_contiguous():
        return None
    pages, rows, columns = x.shape
    size = {8: (rows, columns), 4: (rows, (columns + 1) // 2), 2: (rows // 4, columns)}[bits]
    codes = torch.empty((pages, *size), dtype=torch.uint8)
    low, step = torch.empty((2, pages, rows, groups), dtype=torch.float16)
    numbers = KINDS[x.dtype], pages, rows, columns, groups, bits
    places = x.data_ptr(), codes.data_ptr(), low.data_ptr(), step.data_ptr()
    fine = NATIVE.seal(level(instructions), torch.get_num_threads(), *numbers, *places)
    return (codes, low, step) if fine else None

"""A program's calls for a few rows as a tape: what the kernels know runs in C++, the rest as before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longspan.kernels.cpu.linear import FEW
from longspan.kernels.cpu.tape import Held, Tape
from longspan.kernels.rows import GatedLinear, Linears, Norm, SumNorm
from longspan.model.program.calls import Form, Value, each
from longspan.model.program.lines import Line
from longspan.model.program.simplify import PLUS, TIMES

Opaque = Callable[..., Any]
FURTHER = "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"
"""Further operands of `embedding`; but for max_norm none changes what it gives."""


class Taped:
    """The calls for one length of rows. Tensors in between lie in buffers that are used again and again.

    lines: the calls. forms: how each tensor lies, by number. inputs, outputs: numbers. dtype: of what is computed with.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        forms: Mapping[int, Form],
        inputs: int,
        outputs: Sequence[int],
        dtype: torch.dtype,
    ) -> None:
        self.tape, self._forms = Tape(dtype), forms
        self._rests: dict[int, Line] = {}  # what others do where the tape stops
        self._free: dict[int, list[Tensor]] = {}
        self._buffers: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._roots: dict[int, int] = {}
        self._alive: dict[int, set[int]] = {}
        for number in range(inputs):
            self._make(number)
        kept = {*range(inputs), *outputs}
        skip = False
        for line, after in zip(lines, [*lines[1:], None], strict=True):
            skip = not skip and self._line(line, after)
            for number in set(line.ends) - kept:
                self._end(number)
        self.inputs = [self._values[number] for number in range(inputs)]
        self.outputs = [self._values[number] for number in outputs]

    def __call__(self, opaque: Opaque, held: Held | None, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As `Program`. held: of the calls of the opaque function those that need not be called."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        at = self.tape.run(0, held)
        while at >= 0:
            self._do(self._rests[at], opaque)
            at = self.tape.run(at + 1, held)
        # numpy copies on this thread; torch would call its own, which then stand in the way
        return tuple([torch.from_numpy(output.numpy().copy()) for output in self.outputs])

    def _do(self, line: Line, opaque: Opaque) -> None:
        args, kwargs = each(self._value, (line.args, line.kwargs))
        if line.kind == "values":  # these are numbers, not marked as such
            args = tuple([self._values[number] for number in line.args])
        result = (opaque if line.kind == "opaque" else line.function)(*args, **kwargs)
        if type(line.outs) is int:
            self._values[line.outs].copy_(result)
            return
        for number, x in zip(line.outs, result, strict=True):
            if number >= 0:
                self._values[number].copy_(x)

    # putting it together

    def _line(self, line: Line, after: Line | None) -> bool:
        """Add one call. Whether the one after it is done with it."""
        if line.kind == "look":
            self._look(line)
            return False
        for number in (line.outs,) if type(line.outs) is int else line.outs:
            if number >= 0:
                self._make(number)
        if line.function is torch.isfinite and after is not None and self._finite(line, after):
            return True
        known = self._attend(line) if line.kind == "opaque" else self._known(line)
        if not known:
            self.tape.stop()
        if not known or line.kind == "opaque":
            self._rests[self.tape.size - 1] = line
        return False

    def _known(self, line: Line) -> bool:
        function, name = line.function, getattr(line.function, "__name__", "")
        given = [self._values[x] for x in line.args if line.kind == "values" or isinstance(x, Value)]
        if not given or any(not x.is_contiguous() for x in given):
            return False
        if isinstance(function, Linears | GatedLinear):
            return self._linear(function, given[0], line)
        if isinstance(function, SumNorm):
            return self._sum(function, given, line)
        if type(line.outs) is not int:
            return False
        out = self._values[line.outs]
        if isinstance(function, Norm):
            if function.level is None or not given[0].dtype == function.dtype == self.tape.dtype:
                return False
            self.tape.norm(given[0], function.weight, function.eps, out)
        elif name in PLUS and len(given) == len(line.args) == 2 and not line.kwargs:
            a, b = given
            if not a.shape == b.shape == out.shape or {a.dtype, b.dtype, out.dtype} != {self.tape.dtype}:
                return False
            self.tape.add(a, b, out)
        elif name in TIMES and len(given) == 1 and len(line.args) == 2 and not line.kwargs:
            return self._scale(line, given[0], out)
        elif name == "embedding":
            return self._embedding(line, given, out)
        elif name == "__getitem__":
            return self._rows(line, given, out)
        elif name == "float" and len(given) == 1 and given[0].dtype == self.tape.dtype != torch.float32:
            self.tape.widen(given[0], out)
        else:
            return False
        return True

    def _sum(self, function: SumNorm, given: list[Tensor], line: Line) -> bool:
        norm, outs = function.norm, [self._values[number] for number in line.outs if number >= 0]
        if norm.level is None or len(outs) < 2 or {x.dtype for x in (*given, *outs)} != {self.tape.dtype}:
            return False
        a, b = given
        self.tape.add(a, b, outs[0])
        self.tape.norm(outs[0], norm.weight, norm.eps, outs[1])
        return True

    def _linear(self, function: Linears | GatedLinear, x: Tensor, line: Line) -> bool:
        numbers = (line.outs,) if type(line.outs) is int else line.outs
        if function.prepared is None or x.numel() > FEW * x.shape[-1] or x.dtype != self.tape.dtype or min(numbers) < 0:
            return False
        self.tape.linear(function.prepared, x, [self._values[number] for number in numbers])
        return True

    def _scale(self, line: Line, x: Tensor, out: Tensor) -> bool:
        by = line.args[1] if isinstance(line.args[0], Value) else line.args[0]
        if isinstance(by, Tensor) and by.dim() == 0 and by.dtype == x.dtype:
            by = float(by)
        if type(by) is not float or x.dtype != self.tape.dtype or out.dtype != x.dtype:
            return False
        self.tape.scale(x, by, out)
        return True

    def _embedding(self, line: Line, given: list[Tensor], out: Tensor) -> bool:
        """Rows of a table, with nothing done to them."""
        table = line.args[1] if len(line.args) > 1 else None
        told = {"padding_idx": None, "max_norm": None, **dict(zip(FURTHER, line.args[2:], strict=False)), **line.kwargs}
        scaled = told["max_norm"] is not None or not set(told) <= {*FURTHER}
        if not isinstance(table, Tensor) or not table.is_contiguous() or scaled or given[0].dtype != torch.long:
            return False
        self.tape.rows(table, given[0], out)
        return True

    def _rows(self, line: Line, given: list[Tensor], out: Tensor) -> bool:
        """x[:, at, :] of x [1, T, K]."""
        every, at = slice(None), line.args[1]
        if not isinstance(at, tuple) or not isinstance(line.args[0], Value) or given[0].shape[0] != 1:
            return False
        if len(at) not in (2, 3) or not isinstance(at[1], Value):
            return False
        if any(not isinstance(x, slice) or x != every for x in (at[0], *at[2:])):
            return False
        places = self._values[at[1]]
        if given[0].dim() != 3 or places.dtype != torch.long or places.dim() != 1 or not places.is_contiguous():
            return False
        self.tape.rows(given[0][0], places, out)
        return True

    def _finite(self, line: Line, after: Line) -> bool:
        """isfinite(x).all()."""
        if line.kind != "values":
            return False
        x = self._values[line.args[0]]
        alone = after.kind == "values" and after.args == (line.outs,) and line.outs in after.ends
        if getattr(after.function, "__name__", "") != "all" or not alone or type(after.outs) is not int:
            return False
        if x.dtype != self.tape.dtype or not x.is_contiguous():
            return False
        self._make(after.outs)
        self.tape.finite(x, self._values[after.outs])
        return True

    def _attend(self, line: Line) -> bool:
        """Attention; the same call stays, for steps that have no `Held` or leave the layer out of it."""
        query, key, value = (self._values[x] if isinstance(x, Value) else None for x in line.args[1:4])
        told = line.kwargs
        if query is None or key is None or value is None or type(line.outs) is int:
            return False
        if any(x.stride(3) != 1 or x.dtype != self.tape.dtype or x.shape[0] != 1 for x in (query, key, value)):
            return False
        if any(isinstance(told.get(name), Value) for name in ("scaling", "softcap", "s_aux")):
            return False
        out = self._values[line.outs[0]]
        limits = told["scaling"], told.get("softcap"), told.get("s_aux")
        self.tape.attend(line.args[0].layer_idx, query, key, value, *limits, out)
        return True

    # buffers

    def _value(self, x: Any) -> Any:
        return self._values[x] if isinstance(x, Value) else x

    def _make(self, number: int) -> None:
        form = self._forms[number]
        size = math.prod(form.shape) * form.dtype.itemsize
        free = self._free.get(size)
        buffer = self._buffers[number] = free.pop() if free else torch.empty(size, dtype=torch.uint8)
        self._values[number] = buffer.view(form.dtype).view(form.shape)
        self._roots[number], self._alive[number] = number, {number}

    def _look(self, line: Line) -> None:
        source, (shape, stride, offset) = line.args[0], line.args[1:]
        root = self._roots[source]
        self._values[line.outs] = self._values[root].as_strided(shape, stride, offset)
        self._roots[line.outs] = root
        self._alive[root].add(line.outs)

    def _end(self, number: int) -> None:
        """Nobody reads it any more; its buffer is free when nobody looks at it either."""
        root = self._roots.get(number)
        if root is None:
            return
        self._alive[root].discard(number)
        if not self._alive[root]:
            buffer = self._buffers[root]
            self._free.setdefault(buffer.numel(), []).append(buffer)

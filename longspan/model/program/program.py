"""A model's step as a list of calls that runs without the model, for rows of any length."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from longspan.kernels.cpu.linear import FEW
from longspan.kernels.cpu.tape import Held
from longspan.kernels.rows import GatedLinear, Linears
from longspan.model.program.calls import Call, Form, Value, each
from longspan.model.program.fuse import fuse
from longspan.model.program.lines import Line
from longspan.model.program.record import Recorder
from longspan.model.program.simplify import simplify
from longspan.model.program.taped import Taped
from longspan.model.program.unify import Differs, Size, unify

LENGTHS = (7, 2), (11, 2), (11, 5)
"""Rows of a trial, and those of them that give logits: what grows with either shows in three trials."""
CHECKED = 13, 3
"""Those of one more trial, where program and model must agree."""
NEAR = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float32: 1e-3}
"""Difference that rounding may make, relative to the largest number; a call too few makes far more."""
FORMS, TAPES = 64, 8
"""Lengths of rows whose calls are kept ready; and, of few rows, whose tapes are."""

Run = Callable[..., tuple[torch.Tensor, ...]]
Length = tuple[int, int]


class Program:
    """Calls in order, on numbered tensors; a tensor goes when the last of its readers has run.

    inputs: how many tensors it is given; the first is the row [1, T], the second tells which K places give logits.
    outputs: numbers of those that it gives. opaque: the function whose calls are left to the caller; `state`, a keyword
    of its, is not kept.
    """

    def __init__(
        self, calls: list[Call], inputs: int, outputs: Sequence[int], opaque: Callable[..., Any], state: str
    ) -> None:
        self.calls, self.outputs, self._opaque, self._state = calls, tuple(outputs), opaque, state
        self._size = 1 + max([inputs, *outputs, *(out for call in calls for out in call.outs)])
        last = {number: i for i, call in enumerate(calls) for number in (*call.outs, *call.reads())}
        self._ends: dict[int, list[int]] = {}
        for number, i in last.items():
            if number not in outputs and number >= 0:
                self._ends.setdefault(i, []).append(number)
        self._lines: OrderedDict[Length, list[Line]] = OrderedDict()
        self._tapes: OrderedDict[Length, Taped] = OrderedDict()
        layers = [call.function for call in calls if isinstance(call.function, Linears | GatedLinear)]
        prepared = [layer.prepared for layer in layers if layer.prepared is not None]
        self._dtype = prepared[0].dtype if prepared else None  # of what tapes compute; None: there are none

    def __call__(
        self,
        opaque: Callable[..., Any],
        *inputs: torch.Tensor,
        held: Callable[[], Held | None] = lambda: None,
    ) -> tuple[torch.Tensor, ...]:
        """opaque: what runs in place of the opaque function, with its arguments. held: what attention needs to run
        without it, of steps of few rows."""
        length = inputs[0].shape[-1], inputs[1].shape[-1]
        if self._dtype is None or length[0] > FEW:
            return self._run(opaque, inputs, length)
        taped = self._tapes.pop(length, None)
        if taped is not None:
            self._tapes[length] = taped
            return taped(opaque, held(), *inputs)
        forms = {number: Form.of(x) for number, x in enumerate(inputs)}
        results = self._run(opaque, inputs, length, forms)
        self._tapes[length] = Taped(self._ready(*length), forms, len(inputs), self.outputs, self._dtype)
        if len(self._tapes) > TAPES:
            self._tapes.popitem(last=False)
        return results

    def _run(
        self,
        opaque: Callable[..., Any],
        inputs: Sequence[torch.Tensor],
        length: Length,
        forms: dict[int, Form] | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """forms: gets how each tensor lies."""
        values: list[Any] = [*inputs, *[None] * (self._size - len(inputs))]

        def value(x: Any) -> Any:
            return values[x] if isinstance(x, Value) else x

        for kind, function, args, kwargs, outs, ends in self._ready(*length):
            if kind == "values":
                result = function(*[values[n] for n in args])
            elif kind == "look":
                result = values[args[0]].as_strided(*args[1:])
            elif kind == "opaque":
                result = opaque(*[value(x) for x in args], **kwargs)
            else:
                result = function(*each(value, args), **each(value, kwargs))
            if type(outs) is int:
                values[outs] = result
            else:
                for number, x in zip(outs, result, strict=True):
                    if number >= 0:
                        values[number] = x
            if forms is not None:
                made = [outs] if type(outs) is int else outs
                forms |= {number: Form.of(values[number]) for number in made if number >= 0}
            for number in ends:
                values[number] = None
        return tuple(values[number] for number in self.outputs)

    def forget(self) -> None:
        """Let tapes go."""
        self._tapes.clear()

    def _ready(self, tokens: int, kept: int) -> list[Line]:
        """The calls for a row of this length."""
        lines = self._lines.pop((tokens, kept), None)
        if lines is None:
            lines = [self._line(i, call, tokens, kept) for i, call in enumerate(self.calls)]
        self._lines[tokens, kept] = lines
        if len(self._lines) > FORMS:
            self._lines.popitem(last=False)
        return lines

    def _line(self, index: int, call: Call, tokens: int, kept: int) -> Line:
        """A call, sorted by how it is run: the kind decides in one comparison what Python has to do."""

        def size(x: Any) -> Any:
            return x.at(tokens, kept) if isinstance(x, Size) else x

        args, kwargs = each(size, call.args), each(size, call.kwargs)
        outs = call.outs if call.several else call.out
        ends = tuple(self._ends.get(index, ()))
        if call.function is self._opaque:
            kwargs.pop(self._state)
            return Line("opaque", call.function, args, kwargs, outs, ends)
        if call.function is torch.as_strided:
            return Line("look", call.function, (int(args[0]), *args[1:]), {}, outs, ends)
        if not kwargs and all(isinstance(x, Value) for x in args):
            return Line("values", call.function, tuple(map(int, args)), {}, outs, ends)
        return Line("any", call.function, args, kwargs, outs, ends)


def record(
    run: Run, inputs: Callable[[int, int], tuple[torch.Tensor, ...]], opaque: Callable[..., Any], state: tuple[str, Any]
) -> Program:
    """The program that gives what `run` gives, for rows of any length. Raises Differs, with the reason, where there is
    none: where the model looks at what it computed, or does other things at other lengths.

    run: the model, with `state` given to `opaque`. inputs(T, K): those of a trial. opaque: a function of the row that
    stays one call, however it is made; it gives tensors that lie contiguously. state: the name of a keyword of its, and
    what it is in trials.
    """
    lists: list[list[Call]] = []
    forms: list[Form] = []
    outputs: list[int] = []
    for length in LENGTHS:
        given = inputs(*length)
        with Recorder(*given) as recorder:
            results = run(*given)
        if recorder.trouble is not None:
            raise Differs(recorder.trouble)
        numbers = [recorder.number(x) for x in results]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers):
            raise Differs("a result was made out of torch's sight")
        calls, outputs = simplify(recorder.calls, recorder.forms, known, opaque)
        lists.append(calls)
        forms = forms or recorder.forms
    near = max([NEAR.get(form.dtype, 0.0) for form in forms])
    given = inputs(*CHECKED)
    program = Program(fuse(unify(lists, LENGTHS), forms, outputs), len(given), outputs, opaque, state[0])
    name, value = state
    wanted = run(*given)
    for _ in range(2):  # call by call, then as a tape
        for mine, theirs in zip(program(lambda *x, **k: opaque(*x, **k, **{name: value}), *given), wanted, strict=True):
            far = (mine.float() - theirs.float()).abs().max()
            if mine.shape != theirs.shape or not far <= near * theirs.float().abs().max():
                raise Differs(f"a trial gave other numbers, by {float(far):.2g}")
    program.forget()
    return program

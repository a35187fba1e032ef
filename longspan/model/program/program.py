"""A model's step as a list of calls that runs without the model, for rows of any length."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from longspan.model.program.calls import Call, Form, Value, each
from longspan.model.program.fuse import fuse
from longspan.model.program.record import Recorder
from longspan.model.program.simplify import simplify
from longspan.model.program.unify import Differs, Size, unify

LENGTHS = (7, 2), (11, 2), (11, 5)
"""Rows of a trial, and those of them that give logits: what grows with either shows in three trials."""
CHECKED = 13, 3
"""Those of one more trial, where program and model must agree."""
NEAR = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float32: 1e-3}
"""Difference that rounding may make, relative to the largest number; a call too few makes far more."""
FORMS = 64
"""Lengths of rows whose calls are kept ready."""

Run = Callable[..., tuple[torch.Tensor, ...]]
Line = tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], Any, tuple[int, ...]]


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
        self._lines: OrderedDict[tuple[int, int], list[Line]] = OrderedDict()

    def __call__(self, opaque: Callable[..., Any], *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """opaque: what runs in place of the opaque function, with its arguments."""
        values: list[Any] = [*inputs, *[None] * (self._size - len(inputs))]

        def value(x: Any) -> Any:
            return values[x] if isinstance(x, Value) else x

        for kind, function, args, kwargs, outs, ends in self._ready(inputs[0].shape[-1], inputs[1].shape[-1]):
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
            for number in ends:
                values[number] = None
        return tuple(values[number] for number in self.outputs)

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
            return "opaque", call.function, args, kwargs, outs, ends
        if call.function is torch.as_strided:
            return "look", call.function, (int(args[0]), *args[1:]), {}, outs, ends
        if not kwargs and all(isinstance(x, Value) for x in args):
            return "values", call.function, tuple(map(int, args)), {}, outs, ends
        return "any", call.function, args, kwargs, outs, ends


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
    for mine, theirs in zip(
        program(lambda *x, **k: opaque(*x, **k, **{name: value}), *given), run(*given), strict=True
    ):
        far = (mine.float() - theirs.float()).abs().max()
        if mine.shape != theirs.shape or not far <= near * theirs.float().abs().max():
            raise Differs(f"a trial gave other numbers, by {float(far):.2g}")
    return program

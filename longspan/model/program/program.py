"""A recorded step that runs again, for other tokens and another state of the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from longspan.model.program.calls import Call, Value, each
from longspan.model.program.fuse import fuse
from longspan.model.program.record import Recorder
from longspan.model.program.simplify import simplify


class Program:
    """Calls in order, on numbered tensors; a tensor goes when the last of its readers has run.

    inputs: how many tensors it is given. outputs: numbers of those that it gives. state: name of a keyword of `opaque`
    that is another one at every run.
    """

    def __init__(
        self, calls: list[Call], inputs: int, outputs: Sequence[int], opaque: Callable[..., Any], state: str
    ) -> None:
        self.calls, self.outputs = calls, tuple(outputs)
        self._size = 1 + max([inputs, *outputs, *(out for call in calls for out in call.outs)])
        last = {number: i for i, call in enumerate(calls) for number in (*call.outs, *call.reads())}
        ends: dict[int, list[int]] = {}
        for number, i in last.items():
            if number not in outputs and number >= 0:
                ends.setdefault(i, []).append(number)
        self._lines = [_line(call, tuple(ends.get(i, ())), opaque, state) for i, call in enumerate(calls)]
        self._state = state

    def __call__(self, state: Any, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values: list[Any] = [*inputs, *[None] * (self._size - len(inputs))]

        def value(x: Any) -> Any:
            return values[x] if isinstance(x, Value) else x

        for kind, function, args, kwargs, outs, ends in self._lines:
            if kind == "values":
                result = function(*[values[n] for n in args])
            elif kind == "look":
                result = values[args[0]].as_strided(*args[1:])
            elif kind == "opaque":
                result = function(*[value(x) for x in args], **kwargs, **{self._state: state})
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


Line = tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any], Any, tuple[int, ...]]


def _line(call: Call, ends: tuple[int, ...], opaque: Callable[..., Any], state: str) -> Line:
    """A call, sorted by how it is run: the kind decides in one comparison what Python has to do."""
    outs = call.outs if call.several else call.out
    if call.function is opaque:
        kwargs = {key: x for key, x in call.kwargs.items() if key != state}
        return "opaque", call.function, call.args, kwargs, outs, ends
    if call.function is torch.as_strided:
        return "look", call.function, (int(call.args[0]), *call.args[1:]), {}, outs, ends
    if not call.kwargs and all(isinstance(x, Value) for x in call.args):
        return "values", call.function, tuple(map(int, call.args)), {}, outs, ends
    return "any", call.function, call.args, call.kwargs, outs, ends


def record(
    run: Callable[..., tuple[torch.Tensor, ...]],
    inputs: tuple[torch.Tensor, ...],
    opaque: Callable[..., Any],
    state: str,
) -> tuple[tuple[torch.Tensor, ...], Program | str]:
    """run(*inputs), and the program that gives the same, or why there is none.

    opaque: a function of the row that stays one call, however it is made, and takes `state`.
    """
    with Recorder(*inputs) as recorder:
        results = run(*inputs)
    outputs = [recorder.number(x) for x in results]
    if recorder.trouble is not None:
        return results, recorder.trouble
    known = [number for number in outputs if number is not None]
    if len(known) < len(outputs):
        return results, "a result was made out of torch's sight"
    calls, known = simplify(recorder.calls, recorder.forms, known, opaque)
    return results, Program(fuse(calls, recorder.forms, known), len(inputs), known, opaque, state)

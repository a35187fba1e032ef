"""Leave out what changes nothing: the model's own rotation by position 0, and what nobody reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from longspan.model.program.calls import Call, Form, Value

TIMES, PLUS = {"mul", "multiply", "__mul__", "__rmul__"}, {"add", "__add__", "__radd__"}


def simplify(
    calls: list[Call], forms: list[Form], outputs: list[int], opaque: Callable[..., Any]
) -> tuple[list[Call], list[int]]:
    """x·1, x·0 and x + 0 are left out where the constant says so throughout. opaque: a function that takes tensors
    however they lie in memory."""
    kind: dict[int, str] = {}  # of outs: a "one" or "zero" multiplies, a "sum" has a summand of zeros
    nothing: set[int] = set()
    for call in calls:
        if call.several or len(call.args) != 2 or call.kwargs:
            continue
        a, b = call.args
        if call.name in TIMES:
            x, constant = (a, b) if isinstance(a, Value) else (b, a)
            if isinstance(x, Value) and isinstance(constant, torch.Tensor) and _like(forms, call.out, x):
                if bool((constant == 1).all()):
                    kind[call.out] = "one"
                elif bool((constant == 0).all()):
                    kind[call.out] = "zero"
                    nothing.add(call.out)
        elif call.name in PLUS and isinstance(a, Value) and isinstance(b, Value):
            x = b if a in nothing else a
            if (a in nothing) != (b in nothing) and _like(forms, call.out, x):
                kind[call.out] = "sum"
    users: dict[int, list[Call]] = {}
    for call in calls:
        for number in call.reads():
            users.setdefault(number, []).append(call)
    free: dict[int, bool] = {}  # whether it matters to nobody how it lies in memory
    for call in reversed(calls):
        for out in call.outs:
            free[out] = out not in outputs and all(
                user.function is opaque or (user.out in kind and free[user.out]) for user in users.get(out, ())
            )
    alias: dict[int, int] = {}
    kept: list[Call] = []
    for call in calls:
        call.renumber(alias)
        what = kind.get(call.out)
        if what in ("one", "sum"):
            given = [x for x in call.args if isinstance(x, Value) and x not in nothing]
            x = given[0]
            if len(given) == 1 and (free[call.out] or forms[x].alike(forms[call.out])):
                alias[call.out] = int(x)
                continue
        kept.append(call)
    outputs = [alias.get(output, output) for output in outputs]
    return used(kept, outputs), outputs


def used(calls: list[Call], outputs: list[int]) -> list[Call]:
    """Those that the outputs depend on."""
    wanted, kept = set(outputs), []
    for call in reversed(calls):
        if wanted.intersection(call.outs):
            kept.append(call)
            wanted.update(call.reads())
    return kept[::-1]


def _like(forms: list[Form], out: int, x: Any) -> bool:
    mine, other = forms[out], forms[int(x)]
    return mine.shape == other.shape and mine.dtype == other.dtype

"""One list of calls for rows of every length, from lists that were written down at a few lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from longspan.model.program.calls import Call


@dataclasses.dataclass(frozen=True)
class Size:
    """The number rows·T + kept·K + rest, of a row of T tokens of which K give logits."""

    rows: int
    kept: int
    rest: int

    def at(self, tokens: int, kept: int) -> int:
        return self.rows * tokens + self.kept * kept + self.rest


class Differs(Exception):
    """Lists that are not the same but for their sizes."""


def unify(lists: Sequence[list[Call]], lengths: Sequence[tuple[int, int]]) -> list[Call]:
    """The calls of the first list, with `Size`s. lengths: T and K of each of the three; the first two differ in T only,
    the last two in K only. Raises Differs."""
    if len({len(calls) for calls in lists}) > 1:
        raise Differs("rows of other lengths are not made by the same calls")
    made = []
    for calls in zip(*lists, strict=True):
        first = calls[0]
        if any(call.function != first.function or call.outs != first.outs for call in calls):
            raise Differs(f"{first.name}: rows of other lengths are made by other calls")
        args = _same([call.args for call in calls], lengths, first.name)
        kwargs = _same([call.kwargs for call in calls], lengths, first.name)
        made.append(Call(first.function, args, kwargs, first.outs, first.several))
    return made


def _same(given: list[Any], lengths: Sequence[tuple[int, int]], where: str) -> Any:
    first = given[0]
    if any(type(x) is not type(first) for x in given):
        raise Differs(f"{where}: operands of several types")
    if isinstance(first, tuple | list):
        if len({len(x) for x in given}) > 1:
            raise Differs(f"{where}: operands of several lengths")
        items = [_same(list(x), lengths, where) for x in zip(*given, strict=True)]
        return type(first)(*items) if hasattr(first, "_fields") else tuple(items) if isinstance(first, tuple) else items
    if isinstance(first, dict):
        return {key: _same([x[key] for x in given], lengths, where) for key in first}
    if isinstance(first, slice):
        return slice(*(_same([getattr(x, end) for x in given], lengths, where) for end in ("start", "stop", "step")))
    if isinstance(first, torch.Tensor):
        if all(x is first for x in given) or all(x.shape == first.shape and torch.equal(x, first) for x in given):
            return first
        raise Differs(f"{where}: a constant that depends on the length")
    if type(first) is int and len(set(given)) > 1:
        return _size(given, lengths, where)
    if any(x is not first and x != first for x in given):
        raise Differs(f"{where}: operands that depend on the length")
    return first


def _size(given: list[int], lengths: Sequence[tuple[int, int]], where: str) -> Size:
    a, b, c = given
    (t, k), (u, _), (_, m) = lengths
    rows, kept = (b - a) // (u - t), (c - b) // (m - k)
    size = Size(rows, kept, a - rows * t - kept * k)
    if [size.at(*length) for length in lengths] != given:
        raise Differs(f"{where}: a number that does not grow with the length evenly")
    return size

"""Calls on numbered tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch


class Value(int):
    """The number of a tensor that depends on the row of tokens."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How a tensor lies in memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: torch.Tensor) -> Form:
        return cls(tuple(x.shape), tuple(x.stride()), x.dtype, x.device)

    def alike(self, other: Form) -> bool:
        """Whether both lie in the same way; strides of dimensions of one entry do not count."""
        same = all(a == b for a, b, n in zip(self.stride, other.stride, self.shape, strict=False) if n > 1)
        return self.shape == other.shape and self.dtype == other.dtype and same


@dataclasses.dataclass
class Call:
    """function(*args, **kwargs), with a `Value` for each tensor that depends on the row.

    outs: the number of what it gives; where it gives several tensors, those of all, −1 for one that nobody numbered.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[int, ...]
    several: bool = False

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def out(self) -> int:
        return self.outs[0]

    def reads(self) -> Iterator[int]:
        """Numbers of the tensors that it takes."""
        found: list[int] = []
        each(lambda x: found.append(int(x)) if isinstance(x, Value) else None, (self.args, self.kwargs))
        return iter(found)

    def renumber(self, alias: dict[int, int]) -> None:
        """Read other tensors instead."""

        def other(x: Any) -> Any:
            return Value(alias.get(x, x)) if isinstance(x, Value) else x

        self.args, self.kwargs = each(other, self.args), each(other, self.kwargs)


def each(change: Callable[[Any], Any], x: Any) -> Any:
    """x with its leaves changed, through tuples, lists, dicts and slices."""
    if isinstance(x, tuple):
        items = [each(change, item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else tuple(items)
    if isinstance(x, list):
        return [each(change, item) for item in x]
    if isinstance(x, dict):
        return {key: each(change, item) for key, item in x.items()}
    if isinstance(x, slice):
        return slice(each(change, x.start), each(change, x.stop), each(change, x.step))
    return change(x)

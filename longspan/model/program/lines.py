"""Calls as they are run: sorted by what Python has to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

Kind = Literal["values", "look", "opaque", "any"]


class Line(NamedTuple):
    """kind: `values`: args are numbers of tensors, and there is nothing else; `look`: `as_strided` of the first;
    `opaque`: left to the caller; `any`: whatever. outs: the number of what it gives, or those of all. ends: numbers
    that nobody reads afterwards."""

    kind: Kind
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: Any
    ends: tuple[int, ...]

"""What one rendering of a chat template may use: characters, items and seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2.utils import Namespace

_LEAST = 1 << 20
_ROUNDS = 256
_BITS = 4096
_HERE = str(Path(__file__).parent)


class Refused(Exception):
    """What a template did that none may do, in words that follow "the chat template"."""


class Expired(BaseException):
    """The deadline has passed; a BaseException, so that no library code in between swallows it."""


def weigh(value: Any, limit: float) -> int:
    """Characters plus items of `value`, shared parts as often as they are reached; stops above `limit`."""
    total, pending = 0, [value]
    while pending:
        item = pending.pop()
        total += 1
        if isinstance(item, (str, bytes)):
            total += len(item)
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending.extend(item)
        elif isinstance(item, Namespace):
            pending.append(item._Namespace__attrs)
        elif isinstance(item, int):
            total += item.bit_length() >> 3
        if total > limit:
            return total
    return total


class Budget:
    """The weight that one value may have, and that all values of one rendering may have together.

    given: the weight of what the template is rendered with.
    """

    def __init__(self, given: int) -> None:
        self.each = _LEAST + 4 * given
        self.left = _ROUNDS * self.each

    def spend(self, weight: int) -> None:
        """Pay `weight`. Raises Refused when one value may not weigh that, or nothing is left."""
        self.left -= weight
        if weight > self.each or self.left < 0:
            raise Refused("makes more text than its messages can need")

    def take(self, value: Any) -> Any:
        """`value`, once it is paid for."""
        self.spend(weigh(value, self.each))
        return value

    def hold(self, value: Any) -> int:
        """The weight of a value that is only read. Raises Refused above the limit of one value."""
        weight = len(value) if isinstance(value, str) else weigh(value, self.each)
        if weight > self.each:
            raise Refused("makes more text than its messages can need")
        return weight


def check_number(value: int) -> int:
    """`value`, unless it is longer than any template needs."""
    if value.bit_length() > _BITS:
        raise Refused("computes a huge number")
    return value


def check_power(base: Any, exponent: Any) -> None:
    """Refuse a power before it is computed."""
    if not isinstance(base, (int, float)) or not isinstance(exponent, (int, float)):
        raise Refused("raises something other than numbers to a power")
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > _BITS:
        raise Refused("computes a huge number")


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End Python code that this thread starts inside the block, by Expired, once `seconds` have passed.

    A single call into C is not interrupted; a budget keeps those short. The thread's own trace function comes
    back afterwards.
    """
    end = time.monotonic() + seconds
    before = sys.gettrace()

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if time.monotonic() > end:
            raise Expired
        # this package's own functions are bounded by the budget: no need to follow their lines
        return None if event == "call" and frame.f_code.co_filename.startswith(_HERE) else trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)

"""Parameters of which only some are tried each time; `make test-long` tries the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def longer(values: Iterable[Any], each_time: Callable[..., bool]) -> list[Any]:
    """The values, for `parametrize`; those that `each_time` (called with their parts) is false for are marked long."""
    made = []
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        made.append(pytest.param(*parts, marks=() if each_time(*parts) else pytest.mark.long))
    return made

"""Contexts and plans as they are written on the command line."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from typing import Any, get_type_hints

from longspan.cli import options
from longspan.errors import UsageError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


def tokens(given: Sequence[str]) -> list[int]:
    """Contexts as they were written, "1K,8192" or one by one, in tokens."""
    found = []
    for word in (word.strip() for word in ",".join(given).split(",")):
        unit = word[-1:].upper() if word[-1:].isalpha() else ""
        number = word[:-1] if unit else word
        if not number.isdecimal() or unit not in UNITS or not 1 <= int(number) * UNITS[unit] < 1 << 32:
            raise UsageError(f"--context: {word!r}; give tokens, as in 4096 or 1K,8K,128K")
        found.append(int(number) * UNITS[unit])
    return list(dict.fromkeys(found))


def named(given: Sequence[str]) -> dict[str, str]:
    """Plans by their names."""
    plans = {}
    for one in given:
        name, sign, words = one.partition("=")
        if not sign or not name.strip():
            raise UsageError(f'--plan: {one!r}; give a name and options, as in "mine=--format int8"')
        plans[name.strip()] = words
    return plans


def label(engine: dict[str, Any]) -> str:
    """A name for the plan that the command's own options give."""
    names = "format", "evict", "select", "place", "prefill"
    given = [str(engine[name]) for name in names if engine[name] is not None]
    return " ".join(given) or "full"


def settings(name: str, words: str) -> dict[str, Any]:
    """The engine's options that the words of a plan give, checked."""
    kinds = get_type_hints(options.check)
    legal = ", ".join(f"--{known.replace('_', '-')}" for known in inspect.signature(options.check).parameters)
    try:
        split = shlex.split(words)
    except ValueError as error:
        raise UsageError(f"--plan {name}: {error}") from None
    made: dict[str, Any] = {}
    for i in range(0, len(split), 2):
        flag, value = split[i], split[i + 1] if i + 1 < len(split) else None
        key = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or value is None or key not in inspect.signature(options.check).parameters:
            raise UsageError(f"--plan {name}: {flag!r} is no option with a value; options: {legal}")
        if kinds[key] is int and not value.isdecimal():
            raise UsageError(f"--plan {name}: {flag} {value}; give a number")
        made[key] = int(value) if kinds[key] is int else value
    options.check(**made)
    return made

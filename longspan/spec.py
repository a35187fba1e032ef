"""Methods written as text: "yarn:factor=8,original=4096" ↔ a frozen dataclass.

A table maps each method's name to its dataclass; the dataclass's fields are its options, with their
types and defaults. What the text names must exist: unknown methods and options are refused, and the
error lists the legal ones.
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterator, Mapping

from longspan.errors import UsageError

T = typing.TypeVar("T")
_JOINT: dict[type, str] = {int: "/", float: "/", str: "+"}
"""What stands between the parts of a tuple; words may be paths, which have "/" in them."""


class Table(Mapping[str, type[T]]):
    """Methods by name, each given as "module:Class" and imported when it is asked for: `--help` shows the names of
    methods that need torch without waiting for it."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> type[T]:
        module, _, cls = self._places[name].partition(":")
        return typing.cast("type[T]", getattr(importlib.import_module(module), cls))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def parse(text: str, table: Mapping[str, type[T]], what: str, *others: str) -> T:
    """The method that `text` names, built from the class in `table`.

    `what` names the axis in error messages ("rope", "evict"); `others` are names that the caller knows besides.
    Raises UsageError for an unknown method or option, a value that does not parse, or one that the class itself
    refuses.
    """
    name, _, rest = text.strip().partition(":")
    name = name.strip().replace("-", "_").lower()
    if name not in table:
        raise UsageError(f"{what}: unknown method {name!r}; known: {', '.join((*others, *table))}")
    cls = table[name]
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, separator, value = item.partition("=")
        key = key.strip()
        if not separator or key not in fields:
            legal = ", ".join(fields) or "none"
            raise UsageError(f"{what}: {name} has no option {key!r}; its options: {legal} (as {name}:option=value)")
        if key in values:
            raise UsageError(f"{what}: {name} was given {key} twice")
        values[key] = _convert(value.strip(), hints[key], f"{what}: {name}:{key}")
    missing = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values
    ]
    if missing:
        raise UsageError(f"{what}: {name} needs {', '.join(missing)}, as in {name}:{missing[0]}=…")
    return cls(**values)


def render(method: object, table: Mapping[str, type]) -> str:
    """The text that `parse` turns back into `method`; options at their default are left out."""
    name = next(key for key, cls in table.items() if type(method) is cls)
    shown = []
    for f in dataclasses.fields(method):  # type: ignore[arg-type]
        value = getattr(method, f.name)
        if f.init and value != f.default:
            shown.append(f"{f.name}={_text(value)}")
    return f"{name}:{','.join(shown)}" if shown else name


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, tuple):
        return _JOINT[type(value[0]) if value else str].join(_text(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _convert(text: str, hint: object, where: str) -> object:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        hint = inner[0]
    try:
        if hint is bool:
            return {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}[text.lower()]
        if hint is int:
            return int(text)
        if hint is float:
            return float(text)
        if typing.get_origin(hint) is tuple:
            return tuple(_element(hint)(part) for part in text.split(_JOINT[_element(hint)]))
    except (ValueError, KeyError):
        if typing.get_origin(hint) is tuple:
            wanted = f"one or more {_element(hint).__name__} with {_JOINT[_element(hint)]} between them"
        else:
            wanted = getattr(hint, "__name__", str(hint))
        raise UsageError(f"{where} should be {wanted}, got {text!r}") from None
    return text


def _element(hint: object) -> type[int] | type[float] | type[str]:
    """What the parts of a tuple are."""
    kind = typing.get_args(hint)[0]
    return typing.cast("type[int] | type[str]", kind) if kind in (int, str) else float

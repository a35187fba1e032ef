"""Reading a checkpoint's small files, none of which is trusted."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from longspan.errors import ModelError

MEGABYTE = 1 << 20


def open_plain(path: Path) -> tuple[BinaryIO, int]:
    """The file at `path` and its size in bytes. Raises ModelError unless it is a regular file that can be read."""
    try:
        # O_NONBLOCK: a pipe under a weight file's name must not block the open
        handle = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    except FileNotFoundError:
        raise ModelError(f"{path.name} is missing from {path.parent}; download the checkpoint again") from None
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from None
    status = os.fstat(handle.fileno())
    if not stat.S_ISREG(status.st_mode):
        handle.close()
        raise ModelError(f"{path.name} is not a regular file")
    return handle, status.st_size


def read_text(path: Path, limit: int) -> str:
    """The UTF-8 text of a file of at most `limit` bytes. Raises ModelError."""
    handle, size = open_plain(path)
    with handle:
        if size > limit:
            raise ModelError(f"{path.name} is {size:,} bytes; more than {limit:,} makes no sense for this file")
        data = handle.read(limit + 1)
    if len(data) > limit:
        raise ModelError(f"{path.name} grew past {limit:,} bytes while it was read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path.name} is not UTF-8 text (byte {error.start:,})") from None


def read_json(path: Path, limit: int = 16 * MEGABYTE) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError for anything that is not one, see `parse_json`."""
    return parse_json(read_text(path, limit), path.name)


def parse_json(text: str, name: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises ModelError naming the file `name`.

    Refuses what Python's parser would let through: NaN and Infinity, numbers beyond float64 or of over 40
    digits, and an object that gives one key twice.
    """
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_unique
        )
    except _Nonsense as error:
        raise ModelError(f"{name}: {error}") from None
    except json.JSONDecodeError as error:
        raise ModelError(f"{name} is not valid JSON: {error.msg} at line {error.lineno}") from None
    except RecursionError:
        raise ModelError(f"{name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ModelError(f"{name} should hold a JSON object, not a {type(value).__name__}")
    return value


class _Nonsense(Exception):
    pass


def _constant(text: str) -> float:
    raise _Nonsense(f"{text} is not a number that JSON has")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Nonsense(f"the number {text[:40]} is too large")
    return value


def _int(text: str) -> int:
    # tokenizers write "no limit" as 10^30, so the bound is one that only guards against absurdly long digits
    if len(text) > 40:
        raise _Nonsense(f"the number {text[:40]}… is too large")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Nonsense(f"the key {twice[:80]!r} is given twice")
    return value

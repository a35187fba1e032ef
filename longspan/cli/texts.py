"""Prompts, files and standard input as text."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence as Seq
from pathlib import Path

from longspan.errors import UsageError

_REPLACED = "\ufffd"


def gather(prompt: str | None, files: Seq[str]) -> str:
    """The prompt and the files in the order given, an empty line between two of them.

    Without either, standard input is read, unless it is a terminal. Raises UsageError when nothing is given,
    when all of it is empty, and for a file that cannot be read or is not text.
    """
    if files.count("-") > 1:
        raise UsageError("--file -: standard input can be read once only")
    parts = [] if prompt is None else [clean(prompt, "--prompt")]
    if prompt is None and not files:
        if sys.stdin.isatty():
            raise UsageError("no text: give --prompt TEXT or --file PATH, or pipe a text into longspan")
        files = ["-"]
    parts += [read(name) for name in files]
    text = ""
    for part in filter(None, parts):
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        text += gap + part
    if not text:
        raise UsageError("the text is empty: give --prompt TEXT, or --file PATH with something in it")
    return text


def clean(text: str, where: str) -> str:
    """An argument as valid text: bytes of it that are not UTF-8 are replaced, with a warning."""
    fixed = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    _report(fixed.count(_REPLACED) - text.count(_REPLACED), where)
    return fixed


def read(name: str, option: str = "--file") -> str:
    """A file, or standard input when it is called "-", as text; `option` is what messages name.

    Raises UsageError for one that cannot be read or is not text.
    """
    where = "standard input" if name == "-" else f"{option} {name}"
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {_why(error)}") from None
    nul = data.count(0)
    if nul:
        raise UsageError(f"{where}: not text, {nul:,} NUL byte{'s' * (nul != 1)}; convert it to UTF-8 text first")
    text = data.decode("utf-8-sig", "replace")
    _report(text.count(_REPLACED) - data.count(_REPLACED.encode()), where)
    return text


def _report(replaced: int, where: str) -> None:
    if replaced:
        what = "1 byte or sequence is" if replaced == 1 else f"{replaced:,} bytes or sequences are"
        warnings.warn(f"{where}: {what} not valid UTF-8 and became {_REPLACED}", stacklevel=3)


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a directory; give a file"
    return str(getattr(error, "strerror", None) or error)

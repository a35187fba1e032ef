"""Text that every machine has: the sources of Python's standard library and its built-in documentation.

Documents are split by a hash of their name, so a document held out from a model trained with one
Python is held out in every other.
"""

from __future__ import annotations

import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longspan.evals.lookup.names import Split

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SKIPPED |= {"lib2to3", "pydoc_data", "encodings"}  # tables, not text
_HELD_OUT_PERCENT = 5
_SHORTEST = 200


@dataclass(frozen=True, slots=True)
class Document:
    """`name` is a path below the standard library, or "topic: " and a topic of `help()`."""

    name: str
    text: str

    @property
    def is_topic(self) -> bool:
        return self.name.startswith("topic: ")


def documents(split: Split) -> list[Document]:
    """All documents of the split with 200 characters or more, ordered by name."""
    return [document for document in (*_sources(), *_topics()) if split_of(document.name) == split]


def split_of(name: str) -> Split:
    return "held_out" if zlib.crc32(name.encode()) % 100 < _HELD_OUT_PERCENT else "train"


def _topics() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        if len(text) >= _SHORTEST:
            yield Document(f"topic: {name}", text.strip())


def _sources() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if _SKIPPED.isdisjoint(inside.parts):
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:  # a few sources are in older encodings
                continue
            if len(text) >= _SHORTEST:
                yield Document(inside.as_posix(), text.strip())

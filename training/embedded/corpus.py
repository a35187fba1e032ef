"""The text that the embedded model reads: the standard library of the Python that runs this."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

TOPIC_REPEATS = 3
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "pydoc_data"}


def documents(seed: int, held_out_chars: int) -> tuple[list[str], list[str]]:
    """Documents to train on and documents held out (about `held_out_chars` characters of them).

    Documents are source files and documentation topics in an order fixed by `seed`. A held-out
    document occurs nowhere in the training list; the topics of that list occur in it three times.
    """
    rng = random.Random(seed)
    pool = [(text, 1) for text in _sources()] + [(text, TOPIC_REPEATS) for text in topics.values()]
    pool = [(text.strip(), repeats) for text, repeats in pool if len(text) > 200]
    rng.shuffle(pool)
    held_out: list[str] = []
    while sum(map(len, held_out)) < held_out_chars:
        held_out.append(pool.pop()[0])
    training = [text for text, repeats in pool for _ in range(repeats)]
    rng.shuffle(training)
    return training, held_out


def _sources() -> Iterator[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if _SKIPPED.isdisjoint(path.relative_to(root).parts):
            try:
                yield path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue

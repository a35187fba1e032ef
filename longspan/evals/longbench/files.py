"""LongBench's own files: JSON lines, one sample each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from longspan.errors import UsageError
from longspan.evals.longbench.datasets import DATASETS


@dataclass(frozen=True, slots=True)
class Row:
    """A sample. asked: its `input`. classes: all that there are, where the answers are classes."""

    context: str
    asked: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]


def listed(data: str) -> tuple[Path, ...]:
    """The file, or all `.jsonl` files of the folder."""
    path = Path(data)
    return tuple(sorted(path.glob("*.jsonl"))) if path.is_dir() else (path,)


def read(data: str) -> dict[str, tuple[Row, ...]]:
    """The rows of a file, or of all `.jsonl` files of a folder, by data set, in the order of the table."""
    try:
        states = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in listed(data))
    except OSError as error:
        raise UsageError(f"data: {data}: {error.strerror}; give LongBench's file or folder of .jsonl") from None
    if not states:
        raise UsageError(f"data: {data}: there is no .jsonl file in it; give LongBench's file or folder")
    return _read(states)


@lru_cache(maxsize=2)
def _read(states: tuple[tuple[str, int, int], ...]) -> dict[str, tuple[Row, ...]]:
    rows: dict[str, list[Row]] = {}
    for path, _, _ in states:
        for name, row in _rows(Path(path)):
            rows.setdefault(name, []).append(row)
    return {name: tuple(rows[name]) for name in DATASETS if name in rows}


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                if line.strip():
                    yield _row(json.loads(line), path)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"data: {path}: {error.strerror}; give LongBench's file or folder of .jsonl") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"data: {path}: line {number} is not a sample of LongBench's form (input, context, answers): "
            f"{type(error).__name__}: {error}"
        ) from None


def _row(value: Any, path: Path) -> tuple[str, Row]:
    name = str(value.get("dataset") or path.stem).removesuffix("_e")  # of LongBench-E, which is asked the same
    if name not in DATASETS:
        raise UsageError(f"data: {path}: unknown dataset {name!r}; known: {', '.join(DATASETS)}")
    answers = value["answers"]
    if not isinstance(answers, list) or not answers or not all(isinstance(one, str) for one in answers):
        raise ValueError("answers are no list of texts")
    classes = tuple(value.get("all_classes") or ())
    if DATASETS[name].metric == "classification" and not classes:
        raise ValueError("all_classes is missing")
    if not isinstance(value["context"], str) or not isinstance(value["input"], str):
        raise ValueError("context and input are no texts")
    return name, Row(value["context"], value["input"], tuple(answers), classes)

"""Samples in a file as they come, so that an interrupted evaluation goes on where it stopped.

The first line is a header that says what they are samples of; then each line is a sample with what it cost. A line
that was cut off when the program ended is dropped.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from longspan import __version__
from longspan.errors import UsageError

T = TypeVar("T")
KIND = "longspan evaluation"


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Of a sample. seconds: since the one before. decode_steps, decode_seconds: tokens of its answer after the first,
    and their time. kv_bytes_peak: the most that the cache had of memory so far, disk_bytes: of its file. text_bytes,
    text_disk_bytes: what the cache has of the sample's text when that was read, in memory and in a file; where text and
    question are one prompt, of all of it when it was answered."""

    seconds: float = 0.0
    decode_steps: int = 0
    decode_seconds: float = 0.0
    kv_bytes_peak: int = 0
    disk_bytes: int = 0
    text_bytes: int = 0
    text_disk_bytes: int = 0


def versions() -> dict[str, str]:
    """Of all that figures depend on."""
    import torch
    import transformers

    return {
        "longspan": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


class Raw:
    """A file of samples that is being written. held: those that were in it, with their costs."""

    def __init__(self, path: Path, header: Mapping[str, Any], kind: type[Any]) -> None:
        """Raises UsageError for a file that cannot be used, or holds samples of something else."""
        told = json.loads(json.dumps(header, ensure_ascii=False))
        self.held: list[tuple[Any, Cost]] = []
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UsageError(f"--raw {path}: {error.strerror}; give a file that can be written") from None
        try:
            whole = self._whole(path)
            if whole:
                _same(path, _read(path, whole[0]), {"kind": KIND, **told})
                self.held = [_sample(path, line, kind) for line in whole[1:]]
            else:
                self._write({"kind": KIND, **told})
        except BaseException:
            self._file.close()
            raise

    def _whole(self, path: Path) -> list[str]:
        """The lines that were written to their ends; what follows them goes."""
        self._file.seek(0)
        data = self._file.read()
        kept = data[: data.rfind(b"\n") + 1]  # of bytes, since what was cut off may end inside a character
        try:
            lines = kept.decode().split("\n")[:-1]
        except UnicodeDecodeError:
            raise UsageError(_foreign(path)) from None
        if data and not lines and not data.startswith(b'{"kind": ' + json.dumps(KIND)[:-1].encode()):
            raise UsageError(_foreign(path))  # one unfinished line that is not ours is not ours to drop
        if len(kept) < len(data) and (not lines or _read(path, lines[0]).get("kind") == KIND):
            self._file.truncate(len(kept))
        return lines

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(f"{json.dumps(value, ensure_ascii=False)}\n".encode())
        self._file.flush()

    def add(self, sample: Any, cost: Cost) -> None:
        self._write({**dataclasses.asdict(sample), "cost": dataclasses.asdict(cost)})

    def close(self) -> None:
        self._file.close()


@contextmanager
def opened(path: Path | None, header: Mapping[str, Any], kind: type[Any]) -> Iterator[Raw | None]:
    """The file, closed at the end; None without a path."""
    if path is None:
        yield None
        return
    raw = Raw(path, header, kind)
    try:
        yield raw
    finally:
        raw.close()


def _read(path: Path, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UsageError(_foreign(path))
    return value


def _sample(path: Path, line: str, kind: type[T]) -> tuple[T, Cost]:
    value = _read(path, line)
    try:
        cost = Cost(**value.pop("cost"))
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}), cost
    except (KeyError, TypeError):
        raise UsageError(_foreign(path)) from None


def _same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if there.get("kind") != KIND:
        raise UsageError(_foreign(path))
    for name, mine, other in _differences(here, there, ""):
        raise UsageError(
            f"--raw {path}: it holds samples of another evaluation ({name} {json.dumps(other)} there, "
            f"{json.dumps(mine)} here); give another file, or the same settings to go on with it"
        )


def _differences(here: Any, there: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            yield from _differences(here.get(key), there.get(key), f"{name}.{key}" if name else key)
    elif here != there:
        yield name, here, there


def _foreign(path: Path) -> str:
    return f"--raw {path}: it holds something other than samples of an evaluation; give another file"

"""What safetensors files hold, from their headers alone.

A file is eight bytes (the header's length N, little-endian), N bytes of JSON naming each tensor's dtype, shape
and place, then the numbers. Nothing is allocated on a header's word: each claim is first compared with the
file's size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from longspan.errors import ModelError, UnsupportedModel
from longspan.model.files import MEGABYTE, open_plain, parse_json, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One stored tensor: dtype in safetensors' words ("BF16"), shape, and the file's name."""

    dtype: str
    shape: tuple[int, ...]
    file: str

    @property
    def count(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


def read(folder: Path) -> Mapping[str, Tensor]:
    """Every tensor of the checkpoint in `folder`, by name.

    Raises ModelError for files that are missing, short, or whose headers contradict themselves, and for
    checkpoints that hold pickles only.
    """
    if (folder / SINGLE).exists():
        return read_file(folder / SINGLE)
    if (folder / INDEX).exists():
        return _sharded(folder)
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _PICKLES)
    if pickles:
        raise ModelError(
            f"refusing pickle: {pickles[0]} can run any code when it is loaded; "
            "convert the checkpoint to safetensors (save_pretrained does) or download that version"
        )
    raise ModelError(f"no weights in {folder}: expected {SINGLE} or {INDEX}")


def read_file(path: Path) -> dict[str, Tensor]:
    """Every tensor of one safetensors file, by name. Raises ModelError."""
    handle, size = open_plain(path)
    with handle:
        if size < 8:
            raise _short(path, 8 - size, size)
        length = int.from_bytes(handle.read(8), "little")
        if length > LONGEST_HEADER:
            raise ModelError(f"{path.name} claims a header of {length:,} bytes; at most {LONGEST_HEADER:,} makes sense")
        if length > size - 8:
            raise _short(path, length - (size - 8), size)
        text = handle.read(length)
    try:
        header = parse_json(text.decode("utf-8"), f"{path.name} header")
    except UnicodeDecodeError:
        raise ModelError(f"{path.name}: its header is not UTF-8 text; the file is damaged, download it again") from None
    header.pop("__metadata__", None)
    tensors, places = {}, []
    for name, entry in header.items():
        tensor, start, end = _entry(path, name, entry)
        tensors[name] = tensor
        places.append((start, end, name))
    _contiguous(path, sorted(places), size - 8 - length, size)
    return tensors


def _entry(path: Path, name: str, entry: Any) -> tuple[Tensor, int, int]:
    where = f"{path.name}: {name[:120]}"
    if not isinstance(entry, dict):
        raise ModelError(f"{where}: its header entry is not an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise UnsupportedModel(f"{where} has dtype {str(dtype)[:20]!r}; known: {', '.join(_BYTES)}")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_count(n) for n in shape):
        raise ModelError(f"{where}: its shape {str(shape)[:80]} is not a short list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_count(n) for n in offsets):
        raise ModelError(f"{where}: its data_offsets {str(offsets)[:80]} are not a pair of positions")
    start, end = offsets
    needed = math.prod(shape) * _BYTES[dtype]
    if end - start != needed:
        raise ModelError(f"{where}: {dtype} of shape {shape} takes {needed:,} bytes, its place has {end - start:,}")
    return Tensor(dtype, tuple(shape), path.name), start, end


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _contiguous(path: Path, places: list[tuple[int, int, str]], room: int, size: int) -> None:
    reached, before = 0, ""
    for start, end, name in places:
        if start < reached:
            raise ModelError(f"{path.name}: {name[:120]} overlaps {before[:120]}")
        if start > reached:
            raise ModelError(f"{path.name}: {start - reached:,} bytes before {name[:120]} belong to no tensor")
        reached, before = end, name
    if reached > room:
        raise _short(path, reached - room, size)
    if reached < room:
        raise ModelError(f"{path.name}: {room - reached:,} bytes after the last tensor belong to no tensor")


def _short(path: Path, missing: int, size: int) -> ModelError:
    return ModelError(f"{path.name} is short by {missing:,} bytes (it has {size:,}); download it again")


def _sharded(folder: Path) -> dict[str, Tensor]:
    placed = read_json(folder / INDEX, 64 * MEGABYTE).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise ModelError(f"{INDEX}: weight_map should map tensor names to file names")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(placed.values())):
        if "/" in file or "\\" in file or "\0" in file or not file.endswith(".safetensors"):
            raise ModelError(f"{INDEX}: {file[:120]!r} is not the plain name of a safetensors file in the same folder")
        shard = read_file(folder / file)
        twice = next(iter(shard.keys() & tensors.keys()), None)
        if twice is not None:
            raise ModelError(f"{twice[:120]} is in both {tensors[twice].file} and {file}")
        tensors.update(shard)
    for name, file in placed.items():
        if name not in tensors or tensors[name].file != file:
            raise ModelError(f"{INDEX} says that {name[:120]} is in {file}, but it is not")
    return tensors

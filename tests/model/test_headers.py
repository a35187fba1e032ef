from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan.errors import ModelError, UnsupportedModel
from longspan.model import headers


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, shape: list[Any] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def test_headers_agree_with_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "scalar": torch.zeros((), dtype=torch.int64),
    }
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = headers.read(tmp_path)
    assert {name: tensor.shape for name, tensor in read.items()} == {
        name: tuple(t.shape) for name, t in tensors.items()
    }
    assert read["b"].dtype == "BF16"
    assert read["b"].count == 5
    assert read["scalar"].count == 1


SPOILED: dict[str, tuple[Any, bytes, int | None, str]] = {
    "length beyond any header": ({}, b"", 2**63, "claims a header of 9,223,372,036,854,775,808 bytes"),
    "length beyond the file": ({}, b"", 500, "short by 498 bytes"),
    "not JSON": (b"{nope", b"", None, "not valid JSON"),
    "not UTF-8": (b"\xff\xfe", b"", None, "not UTF-8"),
    "not an object": ([], b"", None, "should hold a JSON object"),
    "nested without end": (b'{"a":' * 100_000, b"", None, "nested too deeply"),
    "one name twice": (b'{"a":{},"a":{}}', b"", None, "'a' is given twice"),
    "entry not an object": ({"a": 3}, b"", None, "not an object"),
    "overlap": ({"a": entry(0, 4), "b": entry(2, 6)}, b"123456", None, "b overlaps a"),
    "hole": ({"a": entry(0, 2), "b": entry(4, 6)}, b"123456", None, "2 bytes before b belong to no tensor"),
    "data missing": ({"a": entry(0, 10)}, b"1234", None, "short by 6 bytes"),
    "data left": ({"a": entry(0, 2)}, b"1234", None, "2 bytes after the last tensor"),
    "negative size": ({"a": entry(0, 4, [-2, -2])}, b"1234", None, "shape"),
    "fractional size": ({"a": entry(0, 4, [4.0])}, b"1234", None, "shape"),
    "true as size": ({"a": entry(0, 1, [True])}, b"1", None, "shape"),
    "shape against place": ({"a": entry(0, 4, [5])}, b"1234", None, "takes 5 bytes, its place has 4"),
    "huge shape": ({"a": entry(0, 4, [2**60, 2**60])}, b"1234", None, "its place has 4"),
    "backwards": ({"a": entry(4, 0, [0])}, b"1234", None, "its place has -4"),
    "offsets not a pair": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, b"1", None, "pair"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, case: str) -> None:
    header, data, length, message = SPOILED[case]
    write(tmp_path / "model.safetensors", header, data, length)
    with pytest.raises(ModelError, match=message) as caught:
        headers.read(tmp_path)
    assert caught.value.exit_code == 3


def test_an_unknown_dtype_is_unsupported(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": entry(0, 4, dtype="Q4")}, b"1234")
    with pytest.raises(UnsupportedModel, match="dtype 'Q4'; known: BOOL"):
        headers.read(tmp_path)


@pytest.mark.parametrize("size", [0, 5])
def test_a_file_without_room_for_a_length_is_short(tmp_path: Path, size: int) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * size)
    with pytest.raises(ModelError, match=f"short by {8 - size} bytes"):
        headers.read(tmp_path)


def test_a_pipe_under_the_files_name_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    caught: list[BaseException] = []

    def read() -> None:
        try:
            headers.read(tmp_path)
        except ModelError as error:
            caught.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert "not a regular file" in str(caught[0])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_flipped_byte_is_refused_or_harmless(
    families: Callable[[str], Path], tmp_path: Path, data: st.DataObject
) -> None:
    whole = (families("llama") / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    place, value = data.draw(st.integers(0, end - 1)), data.draw(st.integers(0, 255))
    spoiled = tmp_path / "model.safetensors"
    spoiled.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    try:
        read = headers.read(tmp_path)
    except ModelError:
        return
    assert sum(tensor.count for tensor in read.values()) < len(whole)


# shards


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    checkpoints.make("llama", folder, max_shard_size="100KB")
    return folder


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded, tmp_path / "sharded"))


def test_shards_hold_what_one_file_holds(shards: Path, families: Callable[[str], Path]) -> None:
    one, many = headers.read(families("llama")), headers.read(shards)
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in many.items()}
    assert len({tensor.file for tensor in many.values()}) > 2


def test_a_truncated_shard_is_named_with_the_bytes_it_lacks(shards: Path) -> None:
    last = sorted(shards.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"{last.name} is short by 100 bytes"):
        headers.read(shards)


def test_a_missing_shard_is_named(shards: Path) -> None:
    last = sorted(shards.glob("*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(ModelError, match=f"{last.name} is missing"):
        headers.read(shards)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors", "x.bin"]
)
def test_an_index_may_name_only_plain_files(shards: Path, name: str) -> None:
    (shards / headers.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="not the plain name of a safetensors file"):
        headers.read(shards)


@pytest.mark.parametrize("placed", [None, {}, [], {"a": 3}])
def test_an_index_without_a_map_is_refused(shards: Path, placed: Any) -> None:
    (shards / headers.INDEX).write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(ModelError, match="weight_map should map"):
        headers.read(shards)


def test_an_index_that_places_a_tensor_wrongly_is_refused(shards: Path) -> None:
    index = json.loads((shards / headers.INDEX).read_text())
    index["weight_map"]["ghost"] = sorted(set(index["weight_map"].values()))[0]
    (shards / headers.INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="says that ghost is in"):
        headers.read(shards)


def test_one_tensor_in_two_shards_is_refused(shards: Path) -> None:
    index = json.loads((shards / headers.INDEX).read_text())
    first = sorted(set(index["weight_map"].values()))[0]
    shutil.copy(shards / first, shards / "again.safetensors")
    index["weight_map"]["ghost"] = "again.safetensors"
    (shards / headers.INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"is in both again\.safetensors and"):
        headers.read(shards)


# no safetensors at all


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "weights.pkl"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=f"refusing pickle: {name}") as caught:
        headers.read(tmp_path)
    assert caught.value.exit_code == 3


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights in"):
        headers.read(tmp_path)

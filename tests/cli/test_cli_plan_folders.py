"""`longspan plan` for models in folders: configs that lack something, lie, or have weights beside them."""

from __future__ import annotations

import json
import shutil

import checkpoints
import pytest

PLAN = ("plan", "llama-3.1-8b")


@pytest.fixture(autouse=True)
def uncalibrated(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_folder(cli, plain):
    found = cli("plan", plain, "--context", "1K", "--new", "64", "--hardware", "rtx-4090", "--json")
    assert found.code == 0
    assert found.json["model"]["trained_tokens"] == 256
    assert found.json["scaling"]["rope"] == "yarn:factor=4"
    same = cli("model", plain, "--json").json
    assert found.json["model"]["parameters"] == same["parameters"]
    assert found.json["model"]["kv_bytes_per_token"] == same["kv_bytes_per_token"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": None}, "model_type"),
        ({"model_type": "sphinx"}, "sphinx"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": -64}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "3"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": 4}, "its files hold"),
        ({"intermediate_size": 512}, "one of them is of another model"),
    ],
)
def test_a_config_that_lacks_something_or_lies(cli, plain, tmp_path, change, message):
    folder = shutil.copytree(plain, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config.pop(key) if value is None else config.update({key: value})
    (folder / "config.json").write_text(json.dumps(config))
    result = cli("plan", folder, "--context", "1K", "--hardware", "h100")
    assert (result.code, result.out) == (3, "")
    assert message in result.err
    assert "Traceback" not in result.err


def _with_more(folder, more):
    """Adds tensors to a checkpoint."""
    import torch
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    save_file(held | {name: torch.zeros(300, 400) for name in more}, folder / "model.safetensors")


@pytest.mark.parametrize("path", ["model", "model/config.json"])
def test_what_is_outside_of_the_text_model_is_not_compared(cli, plain, tmp_path, path):
    folder = shutil.copytree(plain, tmp_path / "model")
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    outside = [
        "vision_tower.encoder.layers.0.mlp.weight", "model.visual.blocks.0.weight", "multi_modal_projector.weight",
        "mtp.layers.0.weight", f"model.layers.{layers}.eh_proj.weight", f"model.layers.{layers}.mlp.up_proj.weight",
    ]  # fmt: skip
    _with_more(folder, outside)
    assert cli("plan", tmp_path / path, "--context", "1K", "--hardware", "h100").code == 0
    _with_more(folder, [f"model.layers.{layers + 1}.mlp.up_proj.weight"])
    result = cli("plan", tmp_path / path, "--context", "1K", "--hardware", "h100")
    assert result.code == 3
    assert "one of them is of another model" in result.err


def test_heads_of_two_channels(cli, tmp_path):
    config = {
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 256,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cli("plan", tmp_path, "--context", "1K", "--new", "8", "--hardware", "h100", "--explain").code == 0


def test_families_that_the_engine_does_not_run_are_planned_all_the_same(cli, tmp_path):
    checkpoints.make("gemma2", tmp_path / "made")
    assert cli("plan", tmp_path / "made", "--context", "4K", "--hardware", "h100").code == 0
    found = cli("plan", "deepseek-v3", "--context", "128K", "--hardware", "h200x8", "--json")
    assert found.code == 3
    assert found.json["model"]["kv_bytes_per_token"] == pytest.approx(68.6 * 1024, rel=0.001)

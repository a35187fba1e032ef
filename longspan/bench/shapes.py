"""Models with random weights, written on the spot: speed does not depend on what a model has learned."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from longspan.errors import DoesNotFit, UsageError

SHARD = 1 << 30
"""Bytes of weights in one file."""
NOISE = 4_194_301
"""Random numbers that all weights are cut from: a prime, so that no two rows of a matrix begin at the same one."""
TRAINED = 131_072

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": TRAINED,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def llama(
    hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, head_dim: int, vocab: int, theta: float, tied: bool
) -> dict[str, Any]:
    return _LLAMA | {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "rope_theta": theta,
        "tie_word_embeddings": tied,
    }


SHAPES: Mapping[str, dict[str, Any]] = {
    "S": llama(576, 1536, 30, 9, 3, 64, 49_152, 1e5, True),
    "1b": llama(2048, 8192, 16, 32, 8, 64, 128_256, 5e5, True),
    "8b": llama(4096, 14_336, 32, 32, 8, 128, 128_256, 5e5, False),
}
"""The config of each shape: SmolLM2-135M's, Llama-3.2-1B's, Llama-3.1-8B's, each said to be trained at 131,072 tokens
with plain rotation, so that no scaling is added."""


def tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a Llama checkpoint with this config."""
    hidden, mlp, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for index in range(config["num_hidden_layers"]):
        sizes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    sizes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        sizes["lm_head.weight"] = (config["vocab_size"], hidden)
    return sizes


@contextmanager
def folder(shape: str, told: Callable[[int, int], None]) -> Iterator[str | None]:
    """The folder of a model: one of `SHAPES`, written now and gone afterwards; "embedded", which is None; or a folder
    that is there."""
    if shape == "embedded" or (shape not in SHAPES and Path(shape).is_dir()):
        yield None if shape == "embedded" else shape
        return
    if shape not in SHAPES:
        raise UsageError(f"--shape {shape}: give {', '.join(SHAPES)}, embedded, or the folder of a model")
    with tempfile.TemporaryDirectory(prefix="longspan-bench-") as made:
        size, free = total(tensors(SHAPES[shape])), shutil.disk_usage(made).free
        if size > free:
            raise DoesNotFit(
                f"--shape {shape}: its weights take {size:,} bytes, {free:,} are free in {tempfile.gettempdir()}; set "
                "TMPDIR to another folder"
            )
        write(Path(made), SHAPES[shape], told)
        yield made


def total(sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of all tensors in bfloat16."""
    return 2 * sum(torch.Size(shape).numel() for shape in sizes.values())


def write(folder: Path, config: Mapping[str, Any], told: Callable[[int, int], None] = lambda done, total: None) -> None:
    """A checkpoint with this config in `folder`, bfloat16, normal weights with a deviation of 0.02, no tokenizer.

    told: called with the bytes written and in all. The same config gives the same weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1))
    sizes = tensors(config)
    whole = total(sizes)
    noise = torch.empty(NOISE).normal_(0, 0.02, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    shards = list(_shards(sizes))
    where: dict[str, str] = {}
    done = at = 0
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        held: dict[str, torch.Tensor] = {}
        for name in names:
            shape = torch.Size(sizes[name])
            held[name] = torch.ones(shape, dtype=torch.bfloat16) if len(shape) == 1 else _cut(noise, at, shape)
            at = (at + shape.numel()) % NOISE
        save_file(held, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
        done += sum(tensor.nbytes for tensor in held.values())
        told(done, whole)
    if len(shards) > 1:
        index = {"metadata": {"total_size": whole}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shards(sizes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Names of tensors, file by file."""
    names: list[str] = []
    held = 0
    for name, shape in sizes.items():
        size = 2 * torch.Size(shape).numel()
        if names and held + size > SHARD:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


def _cut(noise: torch.Tensor, at: int, shape: torch.Size) -> torch.Tensor:
    """A tensor of that shape from the endless repetition of `noise`, from its number `at` on."""
    flat = torch.empty(shape.numel(), dtype=noise.dtype)
    done = 0
    while done < len(flat):
        part = noise[at : at + len(flat) - done]
        flat[done : done + len(part)] = part
        done, at = done + len(part), 0
    return flat.view(shape)

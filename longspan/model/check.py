"""The tensors that a config asks for against those in the files, before any memory is taken."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from longspan.errors import ModelError, UnsupportedModel
from longspan.model.headers import Tensor
from longspan.model.quiet import quiet, reason

_FLOATS = {"F16", "BF16", "F32", "F64"}
# buffers that older checkpoints carry and newer models compute
COMPUTED = re.compile(r"(rotary_emb\.inv_freq|\.attention\.(masked_)?bias)$")
# older names, and the model's name for the same tensor
_RENAMED = ((re.compile(r"^embed_out\."), "lm_head."), (re.compile(r"\.block_sparse_moe\."), ".mlp."))
# a family's experts may lie in the files one by one: the fused tensor [E, …] → per expert, names and their axis
_EXPERTS: dict[str, dict[str, tuple[str, ...]]] = {
    "mixtral": {"gate_up_proj": ("w1.weight", "w3.weight"), "down_proj": ("w2.weight",)},
    "qwen3_moe": {"gate_up_proj": ("gate_proj.weight", "up_proj.weight"), "down_proj": ("down_proj.weight",)},
}
_FUSED = re.compile(r"^(.*\.experts)\.(gate_up_proj|down_proj)$")


def check(config: Any, tensors: Mapping[str, Tensor]) -> int:
    """The number of parameters, when the files hold exactly the tensors that `config` asks for.

    Tied weights may be absent, and are counted once. Raises ModelError naming the tensor and both shapes.
    """
    if config.num_hidden_layers > len(tensors):
        raise ModelError(f"config: {config.num_hidden_layers:,} layers, but the files hold {len(tensors):,} tensors")
    wanted, tied, prefix = _wanted(config)
    stored = {_model_name(name, wanted, prefix, config.model_type): (name, tensor) for name, tensor in tensors.items()}
    wanted = _unfused(config.model_type, wanted, stored)
    for name, shape in wanted.items():
        if name not in stored:
            if name in tied:
                continue
            raise ModelError(f"the files lack {name} {list(shape)}, which config.json asks for")
        own, tensor = stored[name]
        if tensor.shape != shape:
            raise ModelError(
                f"{tensor.file}: {own} has shape {list(tensor.shape)}, but config.json asks for {list(shape)}"
            )
        if tensor.dtype not in _FLOATS:
            raise UnsupportedModel(f"{tensor.file}: {own} is {tensor.dtype}; quantized weights are not supported yet")
    for name, (own, tensor) in stored.items():
        if name not in wanted and not COMPUTED.search(name):
            raise ModelError(f"{tensor.file}: {own[:120]} {list(tensor.shape)} has no place in config.json's model")
    return sum(tensor.count for name, (_, tensor) in stored.items() if name in wanted and name not in tied)


def _wanted(config: Any) -> tuple[dict[str, tuple[int, ...]], set[str], str]:
    """Names and shapes of the model's tensors, those tied to another, and the prefix of the base model."""
    try:
        with quiet(), torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config))
    except MemoryError:
        raise
    except Exception as error:
        # whatever a model's constructor raises, the config is at fault
        raise ModelError(f"config: no model can be built from it: {reason(error)}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = set(model._tied_weights_keys or {}) if getattr(config, "tie_word_embeddings", False) else set()
    return shapes, tied, str(model.base_model_prefix)


def _model_name(name: str, wanted: Mapping[str, Any], prefix: str, family: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    # files saved from the base model alone lack its prefix
    return f"{prefix}.{name}" if f"{prefix}.{name}" in wanted or _is_bare_expert(name, prefix, family) else name


def _is_bare_expert(name: str, prefix: str, family: str) -> bool:
    return family in _EXPERTS and ".experts." in name and not name.startswith(f"{prefix}.")


def _unfused(family: str, wanted: dict[str, tuple[int, ...]], stored: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """`wanted`, with experts that are not stored fused named one by one."""
    parts = _EXPERTS.get(family)
    if parts is None:
        return wanted
    made: dict[str, tuple[int, ...]] = {}
    for name, shape in wanted.items():
        match = _FUSED.match(name)
        if match is None or name in stored:
            made[name] = shape
            continue
        names = parts[match[2]]
        one = (shape[1] // len(names), *shape[2:])
        for expert in range(shape[0]):
            made.update({f"{match[1]}.{expert}.{part}": one for part in names})
    return made

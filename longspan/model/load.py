"""A checkpoint into memory: everything is checked first, then transformers loads the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

from longspan.errors import DoesNotFit, ModelError, UsageError
from longspan.model import check, config, families, folder, headers, quantized, ropes, template, tokenizer
from longspan.model.quiet import quiet, reason
from longspan.model.shape import Shape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STORED = {"F32": "float32", "F64": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model ready to run: in eval mode, without gradients, attending through "longspan".

    Its config holds the default rope type; what the checkpoint declares is in `shape.ropes`. tokenizer: None
    when the folder has none.
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase | None
    shape: Shape
    path: Path
    dtype: torch.dtype
    device: torch.device


@dataclasses.dataclass(frozen=True)
class _Checked:
    config: Any
    shape: Shape
    path: Path


def inspect(model: str | Path) -> Shape:
    """The shape of the model at a path or hub id, from its config and headers; no weights are read.

    Raises ModelError and UnsupportedModel as `load` does.
    """
    return _checked(model).shape


def load(model: str | Path, *, dtype: str = "auto", device: str = "auto", weights: str = "stored") -> Loaded:
    """The model at a folder or hub id.

    dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16". device: "auto" (CUDA when there is
    one), "cpu", "cuda" or "cuda:N". weights: "stored", "int8" or "int4"; see `quantized.quantize`. Raises UsageError
    for other values, ModelError for a checkpoint that is missing, damaged, unsafe or contradicts itself,
    UnsupportedModel for a family that does not run, and DoesNotFit when the weights, as stored, need more memory than
    there is.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}")
    quantized.check(weights)
    place = _device(device)
    checked = _checked(model)
    numbers = DTYPES[checked.shape.dtype if dtype == "auto" else dtype]
    text = _tokenizer(checked)
    needed = checked.shape.parameters * numbers.itemsize
    _fit(needed, place)
    try:
        net = _weights(checked, numbers)
        if weights != "stored":
            quantized.quantize(net, weights)
        net = net.to(place)
    except (MemoryError, torch.OutOfMemoryError):
        raise _too_large(needed, place) from None
    net.requires_grad_(False).eval()
    return Loaded(net, text, checked.shape, checked.path, numbers, place)


def words(model: str | Path) -> tuple[transformers.PreTrainedTokenizerBase | None, Shape, Path]:
    """A checkpoint's tokenizer (None when it has none), shape and folder; no weights are read. Raises as `load`."""
    checked = _checked(model)
    return _tokenizer(checked), checked.shape, checked.path


def tokenizer_of(model: str | Path) -> transformers.PreTrainedTokenizerBase | None:
    """A checkpoint's tokenizer without its weights; None when it has none. Raises ModelError as `load` does."""
    checked = _checked(model)
    return tokenizer.load(checked.path, checked.config, checked.shape.vocab)


def _tokenizer(checked: _Checked) -> transformers.PreTrainedTokenizerBase | None:
    text = tokenizer.load(checked.path, checked.config, checked.shape.vocab)
    if text is not None:
        template.check(text)
    return text


def _checked(model: str | Path) -> _Checked:
    path = folder.resolve(model)
    raw = config.read(path)
    tensors = headers.read(path)
    built = config.build(raw)
    layers = families.layers(built)
    declared = ropes.take(built)
    full = declared.get(families.ALL) or declared[families.FULL]
    shape = Shape(
        family=built.model_type,
        layers=layers,
        heads=built.num_attention_heads,
        kv_heads=config.kv_heads_of(built),
        head_dim=config.head_dim_of(built),
        hidden=built.hidden_size,
        vocab=built.vocab_size,
        ropes=declared,
        original=full[1].original,
        dtype=_own_dtype(raw, tensors),
        trained=built.max_position_embeddings,
        parameters=check.check(built, tensors),
        eos=config.ends(path, raw, built.vocab_size),
    )
    return _Checked(built, shape, path)


def _weights(checked: _Checked, dtype: torch.dtype) -> transformers.PreTrainedModel:
    from longspan.attention.attend import register

    register()
    try:
        with quiet():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                checked.path,
                config=checked.config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation="longspan",
                output_loading_info=True,
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "allocate memory" in str(error):  # torch's CPU allocator raises a bare RuntimeError
            raise MemoryError from None
        # what transformers and safetensors raise here is theirs; the checks above leave only damaged content
        raise ModelError(f"transformers cannot load {checked.path}: {reason(error)}") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        left = [str(item) for item in info.get(what) or () if not check.COMPUTED.search(str(item))]
        if left:
            first = min(left)[:120]
            raise ModelError(f"loading {checked.path} left {what.replace('_', ' ')}: {first}")
    return model


def _own_dtype(raw: Mapping[str, Any], tensors: Mapping[str, headers.Tensor]) -> str:
    """The dtype that the config names, or else the one that most of the stored numbers have."""
    named = raw.get("dtype") or raw.get("torch_dtype")
    if isinstance(named, str) and named.removeprefix("torch.") in DTYPES:
        return named.removeprefix("torch.")
    held: dict[str, int] = {}
    for tensor in tensors.values():
        if tensor.dtype in _STORED:
            held[_STORED[tensor.dtype]] = held.get(_STORED[tensor.dtype], 0) + tensor.count
    return max(held, key=lambda name: held[name])


def _device(name: str) -> torch.device:
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (":" in name and not (number.isascii() and number.isdigit())):
        raise UsageError(f"device {name!r} is not known; known: auto, cpu, cuda, cuda:N")
    if int(number or 0) >= count:
        have = f"this machine has {count} CUDA device{'s' * (count != 1)}" if count else "there is no CUDA device here"
        raise UsageError(f"device {name!r}: {have}; use cpu or auto")
    return torch.device("cuda", int(number or 0))


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _fit(needed: int, device: torch.device) -> None:
    if needed > _free(device):
        raise _too_large(needed, device)


def _too_large(needed: int, device: torch.device) -> DoesNotFit:
    return DoesNotFit(
        f"the weights need {needed:,} bytes on {device}, and {_free(device):,} are free; "
        "use a smaller dtype, another device or a smaller model"
    )

"""Launch lines of other engines for the same work; what they have no option for is said, not dropped.

Option names are those of the argument parsers of vLLM 0.33 and SGLang 0.5.23 and of llama.cpp's `--help` (2026).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longspan.errors import UsageError
from longspan.plan.engines import stored
from longspan.plan.machine import Machine
from longspan.plan.shape import Shape
from longspan.plan.shapes.known import KNOWN
from longspan.plan.work import Work


@dataclass(frozen=True, slots=True)
class Export:
    """engine; text: the command, or the JSON of `hf`; notes: what was asked for and the engine has no option for, and
    what else to know, each in a sentence."""

    engine: str
    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What a command is made of. model: as the engine finds it. rope: the block that carries positions to the context;
    None: the checkpoint's own does."""

    shape: Shape
    work: Work
    machine: Machine | None
    model: str
    rope: Mapping[str, Any] | None

    @property
    def override(self) -> dict[str, Any]:
        """What changes in config.json, nested as the checkpoint has it; {} where nothing does."""
        if self.rope is None:
            return {}
        block: dict[str, Any] = dict(self.rope)
        if "full_attention" in self.shape.block:  # one for each kind of layer; those with a window need no scaling
            block = {**self.shape.block, "full_attention": block}
        changed = {"max_position_embeddings": self.work.context, "rope_parameters": block}
        return {self.shape.nested: changed} if self.shape.nested else changed


def export(
    engine: str,
    shape: Shape,
    work: Work,
    machine: Machine | None = None,
    model: str | None = None,
    rope: Mapping[str, Any] | None = None,
) -> Export:
    """What starts the engine for this work. model: as the engine finds it; None: its folder, its hub id, or its name.
    rope: a block of rope parameters to scale positions by; None: YaRN where the context is beyond the trained length.

    Raises UsageError for an engine that is not known, with those that are.
    """
    name = engine.strip().lower().replace("llamacpp", "llama.cpp").replace("llama_cpp", "llama.cpp")
    if name not in ENGINES:
        raise UsageError(f"export: {engine[:60]!r} is not known; known: {', '.join(ENGINES)}")
    known = KNOWN.get(shape.listed)
    found = model or shape.place or (shape.name if known is None else known.hub)
    block = rope if rope is not None else scaled(shape, work.context)
    order = Order(shape, work, machine, found, block)
    notes: list[str] = []
    text = ENGINES[name](order, notes)
    if block is not None:
        notes.append(
            f"{work.context:,} tokens are beyond the {shape.trained:,} that the model was trained for: positions are "
            f"scaled by {block.get('rope_type')}, at all lengths, so short texts lose a little too"
        )
    elif work.context > shape.trained:
        notes.append(
            f"{work.context:,} tokens are beyond the {shape.trained:,} that the model was trained for, and no option "
            "scales its positions further: expect poor answers"
        )
    return Export(name, text, tuple(notes))


_GROWS = "yarn", "llama3", "linear"
"""Rope types that a larger factor carries further."""


def scaled(shape: Shape, context: int) -> dict[str, Any] | None:
    """The rope block that carries a model to a context: its own with a larger factor, or YaRN over its trained length
    where it has none. None where its own reaches so far, or nothing carries it further."""
    kind = str(shape.rope.get("rope_type") or shape.rope.get("type") or "default")
    if context <= shape.trained or not shape.theta or kind not in (*_GROWS, "default"):
        return None
    own: dict[str, Any] = dict(shape.block.get("full_attention") or shape.block)  # type: ignore[call-overload]
    if kind == "default":
        kind, own = "yarn", {**own, "factor": 1.0, "original_max_position_embeddings": shape.trained}
    factor = float(own.get("factor", 1.0)) * context / shape.trained
    return {"rope_theta": shape.theta, **own, "rope_type": kind, "factor": _up(factor)}


def _up(factor: float) -> float:
    """Rounded up to hundredths, so that the context is reached."""
    return math.ceil(round(factor * 100, 6)) / 100


def _line(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _vllm(order: Order, notes: list[str]) -> str:
    work = order.work
    words = ["vllm", "serve", order.model, "--max-model-len", str(work.context)]
    words += ["--max-num-seqs", str(work.batch)]
    if work.ranks > 1:
        words += ["--tensor-parallel-size", str(work.ranks)]
    kind = stored("vllm", work)
    if work.format is not None:
        words += ["--kv-cache-dtype", kind.name]
    words += ["--enable-chunked-prefill", "--max-num-batched-tokens", str(max(work.chunk, work.batch))]
    if order.override:
        words += ["--hf-overrides", _json(order.override)]
    words += _quantized(order, notes, "vLLM")
    if any(layer.kind == "chunked" for layer in order.shape.layers):
        words = ["VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE=1", *words]
        notes.append("without that variable vLLM keeps layers that attend in chunks in full")
    if order.rope is None and work.context > order.shape.trained:
        notes.append(
            f"vLLM refuses more than the {order.shape.trained:,} tokens of config.json unless the environment has "
            "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1; what the model does there is not its concern, and positions that were "
            "learned end there"
        )
    _format(order, notes, "vLLM", kind.name)
    _missing(
        order, notes, "vLLM", "--kv-offloading-size, which keeps blocks of earlier requests in RAM, is another thing"
    )
    return _line(words)


def _sglang(order: Order, notes: list[str]) -> str:
    work = order.work
    words = ["python", "-m", "sglang.launch_server", "--model-path", order.model]
    words += ["--context-length", str(work.context), "--max-running-requests", str(work.batch)]
    if work.ranks > 1:
        words += ["--tp-size", str(work.ranks)]
    kind = stored("sglang", work)
    if work.format is not None:
        words += ["--kv-cache-dtype", kind.name]
    words += ["--chunked-prefill-size", str(work.chunk)]
    if order.override:
        words += ["--json-model-override-args", _json(order.override)]
    words += _quantized(order, notes, "SGLang")
    _format(order, notes, "SGLang", kind.name)
    _missing(
        order, notes, "SGLang", "--enable-hierarchical-cache, which keeps earlier requests in RAM, is another thing"
    )
    return _line(words)


def _llama_cpp(order: Order, notes: list[str]) -> str:
    work = order.work
    words = ["llama-server", "-m", f"{order.model.rpartition('/')[2]}.gguf"]
    words += ["-c", str(work.context * work.batch), "-np", str(work.batch), "-fa", "on"]
    kind = stored("llama.cpp", work)
    if work.format is not None:
        words += ["-ctk", kind.name, "-ctv", kind.name]
    words += ["-b", str(work.chunk), "-ub", str(min(work.chunk, 512))]
    if order.machine is None or order.machine.kind == "gpu":
        words += ["-ngl", "999"]
    if work.ranks > 1:
        words += ["-sm", "tensor", "-ts", ",".join(["1"] * work.ranks)]
        notes.append("llama.cpp: -sm tensor shares each layer over the devices; older builds have layer and row only")
    block = order.rope
    if block is not None:
        original = int(block.get("original_max_position_embeddings", order.shape.original))
        if block.get("rope_type") in ("yarn", "linear"):
            words += ["--rope-scaling", str(block["rope_type"]), "--rope-scale", f"{float(block['factor']):g}"]
            words += ["--yarn-orig-ctx", str(original)] if block["rope_type"] == "yarn" else []
        else:
            notes.append(
                f"llama.cpp has no option for rope type {block.get('rope_type')}: it takes the GGUF file's own; "
                "convert the checkpoint with the changed config.json that `--export hf` prints"
            )
    if work.context > order.shape.trained:
        notes.append(
            "llama.cpp: builds that keep -c at the trained length need --override-kv "
            f"ARCH.context_length=int:{work.context}, where ARCH is the GGUF file's general.architecture"
        )
    notes.append(f"llama.cpp runs a GGUF file: convert {order.model} with convert_hf_to_gguf.py")
    if work.batch > 1:
        notes.append(f"-c counts the tokens of all {work.batch} texts together")
    if work.weights < 16:
        notes.append(f"weights at {work.weights} bits: quantize the GGUF file with llama-quantize (Q8_0, Q4_K_M)")
    if order.shape.family == "mistral" and any(layer.window for layer in order.shape.layers):
        notes.append("llama.cpp does not heed this family's window: the cache grows with the whole text")
    _format(order, notes, "llama.cpp", kind.name)
    _missing(order, notes, "llama.cpp", "it keeps the cache in memory")
    return _line(words)


def _hf(order: Order, notes: list[str]) -> str:
    shape = order.shape
    if order.override:
        text = json.dumps(order.override, indent=2)
    else:
        own: dict[str, Any] = {"max_position_embeddings": shape.trained, "rope_parameters": shape.block}
        if shape.rope.get("rope_type") in ("longrope", "su") and "long_factor" not in shape.rope:
            notes.append("the lists of its factors, short_factor and long_factor, are in the checkpoint's config.json")
        if not shape.theta:
            own = {}
            notes.append("this model's positions are not rotated: it has no rope block")
        elif order.work.context <= shape.trained:
            notes.append("the checkpoint's own block, which reaches this context: nothing has to be changed")
        text = json.dumps({shape.nested: own} if shape.nested and own else own, indent=2)
    if shape.theta:
        notes.append("put it into config.json, or pass it to from_pretrained as keywords (transformers 5)")
    work = order.work
    if work.format is not None:
        notes.append(
            'transformers: generate(cache_implementation="quantized", cache_config={"backend": "quanto", "nbits": 4}) '
            "is the nearest to a format; it has nothing in config.json for it"
        )
    _missing(order, notes, "transformers", 'cache_implementation="offloaded" keeps the cache in RAM, not in a file')
    if work.ranks > 1:
        notes.append(f'transformers: from_pretrained(tp_plan="auto") under torchrun --nproc-per-node {work.ranks}')
    return text


def _quantized(order: Order, notes: list[str], engine: str) -> list[str]:
    """Weights of fewer bits: eight are made while loading, fewer have to be in the checkpoint."""
    bits = order.work.weights
    if bits >= 16:
        return []
    if bits == 8:
        notes.append(f"{engine} makes weights of 8 bits as fp8, which rounds otherwise than int8")
        return ["--quantization", "fp8"]
    notes.append(f"{engine} makes no weights of {bits} bits itself: give a checkpoint that has them (AWQ, GPTQ)")
    return []


def _format(order: Order, notes: list[str], engine: str, name: str) -> None:
    if order.work.format is None:
        return
    kind = type(order.work.format).__name__.lower()
    exact = {"vllm": ("fp8",), "sglang": ("fp8",)}.get(engine.lower(), ())
    if kind not in exact:
        notes.append(f"{engine}: {name} is the nearest to {kind}; its scales and rounding are its own")


def _missing(order: Order, notes: list[str], engine: str, offload: str) -> None:
    """What only longspan has."""
    work = order.work
    for part, what in ((work.evict, "eviction"), (work.select, "selection")):
        if part is not None:
            notes.append(
                f"{engine} has no option for {what} ({type(part).__name__.lower()}): every token stays and is read"
            )
    if work.offloaded:
        notes.append(f"{engine} has no option for pages in a file; {offload}")


ENGINES: dict[str, Callable[[Order, list[str]], str]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "llama.cpp": _llama_cpp,
    "hf": _hf,
}

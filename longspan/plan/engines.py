"""What other engines allocate for the cache of the same texts, where that is more than the architecture asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from longspan.plan import caches
from longspan.plan.shape import Layer, Shape
from longspan.plan.work import Work

VLLM = "vLLM 0.33 (v1/kv_cache_interface.py, v1/core/kv_cache_planning.py, config/vllm.py)"
SGLANG = "SGLang 0.5.23 (model_executor/pool_configurator.py, configs/model_config.py)"
LLAMA_CPP = "llama.cpp (src/llama-kv-cache-iswa.cpp, from memory)"

_BLOCK = 16
"""Tokens of a block of vLLM's."""
_RATIO = Fraction(4, 5)
"""SGLang's `--swa-full-tokens-ratio`: tokens of a sliding layer for each of a full one."""
_CELLS = 256
"""llama.cpp rounds the cells of a cache up to so many."""
_UBATCH = 512
"""Tokens that llama.cpp computes at a time."""
_HYBRID = frozenset({"llama4_text", "gpt_oss", "gemma4_text"})
"""Families for which SGLang has a pool of its own for layers with a window."""
_WINDOWED = frozenset({"gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "llama4_text", "cohere2", "olmo3", "exaone4"})
"""Families whose windows llama.cpp heeds."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """engine; bytes of the cache of all texts, on one device; dtype: what the engine calls the nearest to the format
    that was asked for; formula; differs: why it is not what the architecture asks for, "" where it is, but for whole
    blocks; source."""

    engine: str
    bytes: int
    dtype: str
    formula: str
    differs: str
    source: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """How an engine keeps a number: name of the option's value, bits, and bytes of each KV head and token besides."""

    name: str
    bits: Fraction
    scales: int = 0


_FORMATS: dict[str, dict[str, _Stored]] = {
    "vllm": {
        "dense": _Stored("auto", Fraction(16)),
        "fp8": _Stored("fp8", Fraction(8)),
        "int8": _Stored("int8_per_token_head", Fraction(8), 8),
        "int4": _Stored("int4_per_token_head", Fraction(4), 8),
    },
    "sglang": {
        "dense": _Stored("auto", Fraction(16)),
        "fp8": _Stored("fp8_e4m3", Fraction(8)),
        "int8": _Stored("fp8_e4m3", Fraction(8)),
        "int4": _Stored("fp4_mx_block16", Fraction(9, 2)),
    },
    "llama.cpp": {
        "dense": _Stored("f16", Fraction(16)),
        "fp8": _Stored("q8_0", Fraction(17, 2)),
        "int8": _Stored("q8_0", Fraction(17, 2)),
        "int4": _Stored("q4_0", Fraction(9, 2)),
    },
}


def stored(engine: str, work: Work) -> _Stored:
    """How the engine keeps what is nearest to the format that was asked for."""
    name = "dense" if work.format is None else type(work.format).__name__.lower()
    return _FORMATS[engine][name if name in _FORMATS[engine] else "dense"]


def engines(shape: Shape, work: Work) -> list[Allocation]:
    """The caches of vLLM, SGLang and llama.cpp. They keep every token: eviction, selection and files are longspan's."""
    return [_vllm(shape, work), _sglang(shape, work), _llama_cpp(shape, work)]


def _as_they_are(counts: list[int]) -> list[int]:
    return counts


def _grouped(counts: list[int]) -> list[int]:
    """Layers of each kind, filled up to groups of one size: of the rarest kind's, or of the commonest one's where that
    has less than half as many more."""
    if not counts:
        return counts
    least, most = min(counts), max(counts)
    size = most if 2 * most < 3 * least else least
    return [-(-count // size) * size for count in counts]


def _vllm(shape: Shape, work: Work) -> Allocation:
    kind = stored("vllm", work)
    chunked = any(layer.kind == "chunked" for layer in shape.layers)

    def tokens(layer: Layer) -> int:
        whole = -(-work.context // _BLOCK)
        if layer.window is None or chunked:
            return whole * _BLOCK
        held = min(layer.window - 1 + work.chunk, work.context)
        return min(-(-held // _BLOCK) + 1, whole) * _BLOCK

    differs = ""
    if chunked:
        differs = (
            "layers that attend in chunks are kept in full: the hybrid cache manager is off for them unless "
            "VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE=1 is set"
        )
    elif any(layer.window is not None for layer in shape.layers):
        differs = "layers with a window hold what a step reads besides; groups of layers are padded to one size"
    return _sum("vllm", shape, work, kind, tokens, differs, VLLM, _as_they_are if chunked else _grouped)


def _sglang(shape: Shape, work: Work) -> Allocation:
    kind = stored("sglang", work)
    hybrid = shape.family in _HYBRID

    def tokens(layer: Layer) -> int:
        if layer.window is None or not hybrid:
            return work.context
        return int(work.context * _RATIO)

    differs = ""
    if any(layer.window is not None for layer in shape.layers):
        differs = (
            f"layers with a window get {float(_RATIO):g} of the tokens of the others (--swa-full-tokens-ratio; a step "
            "and a window for each text with --disable-radix-cache)"
            if hybrid
            else "layers with a window are kept in full: this family has no pool of its own for them"
        )
    return _sum("sglang", shape, work, kind, tokens, differs, SGLANG)


def _llama_cpp(shape: Shape, work: Work) -> Allocation:
    kind = stored("llama.cpp", work)
    heeds = shape.family in _WINDOWED

    def padded(tokens: int) -> int:
        return -(-tokens // _CELLS) * _CELLS

    def tokens(layer: Layer) -> int:
        whole = padded(work.context)
        if layer.window is None or not heeds:
            return whole
        return min(whole, padded(layer.window + _UBATCH))

    differs = ""
    if any(layer.window is not None for layer in shape.layers):
        differs = (
            f"layers with a window hold a micro-batch of {_UBATCH} tokens besides (in full with --swa-full)"
            if heeds
            else "layers with a window are kept in full: windows of this family are not heeded"
        )
    return _sum("llama.cpp", shape, work, kind, tokens, differs, LLAMA_CPP)


def _sum(
    engine: str,
    shape: Shape,
    work: Work,
    kind: _Stored,
    tokens: Callable[[Layer], int],
    differs: str,
    source: str,
    pad: Callable[[list[int]], list[int]] = _as_they_are,
) -> Allocation:
    alike: dict[tuple[str, Fraction, str, int], int] = {}
    for layer in shape.layers:
        if layer.token_numbers:
            each, words = _each(layer, work, kind)
            key = layer.kind, each, words, tokens(layer)
            alike[key] = alike.get(key, 0) + 1
    counts = pad(list(alike.values()))
    size = sum((n * key[3] * key[1] for key, n in zip(alike, counts, strict=True)), Fraction(0))
    terms = [
        f"{n} {name} layers{'' if n == had else f' ({n - had} of them padding)'} × {words} × {seen:,} tokens"
        for (name, _, words, seen), had, n in zip(alike, alike.values(), counts, strict=True)
    ]
    whole = work.batch * (-(-size.numerator // size.denominator) + caches.states(shape, work))
    text = f"{work.batch:,} × ({' + '.join(terms)})" if work.batch > 1 else " + ".join(terms)
    return Allocation(engine, whole, kind.name, text, differs, source)


def _each(layer: Layer, work: Work, kind: _Stored) -> tuple[Fraction, str]:
    """Bytes of a token of a layer on one device, and how they come about."""
    if layer.kind == "latent":
        return layer.latent * kind.bits / 8 + kind.scales, f"{layer.latent} numbers at {float(kind.bits):g} bits"
    heads = caches.share(layer, work.ranks).kv_heads
    each = heads * ((layer.qk_dim + layer.v_dim) * kind.bits / 8 + kind.scales)
    return each, f"{heads} KV heads × ({layer.qk_dim} + {layer.v_dim}) at {float(kind.bits):g} bits"

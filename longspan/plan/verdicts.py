"""What is often said of long contexts, checked by arithmetic on the model at hand: until when it holds, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from longspan.plan import counts
from longspan.plan.latency import COMPUTE
from longspan.plan.machine import Machine
from longspan.plan.shape import Shape
from longspan.plan.tasks import TASKS
from longspan.plan.work import Work

NEAR = 0.1
"""A part of a time that is not noticed: a tenth."""
FOREVER = 1 << 40
"""Tokens that no text reaches."""

Numbers = Mapping[str, float | int | str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """claim: as it is said. holds: in a few words. why: with the formula and the numbers. numbers: those of `why` that
    a program may want. source: where the claim is checked, or what it was checked against."""

    name: str
    claim: str
    holds: str
    why: str
    numbers: Numbers
    source: str = "arithmetic"


def until(grows: Callable[[int], float], limit: float) -> int | None:
    """The greatest number of tokens at which `grows`, which never falls, is at most `limit`; None: it always is."""
    if grows(FOREVER) <= limit:
        return None
    low, high = 0, FOREVER
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if grows(middle) <= limit else (low, middle)
    return low


def _tokens(count: int | None) -> str:
    return "any length" if count is None else f"{count:,} tokens"


def linear_prefill(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict:
    """Time grows in proportion while attention, whose FLOPs grow with the square, is a small part of them."""

    def ratio(tokens: int) -> float:
        return counts.attention_flops(shape, work, tokens) / max(counts.linear_flops(shape, work, tokens), 1)

    tenth, equal = until(ratio, NEAR), until(ratio, 1.0)
    prompt = max(work.context - work.new, 1)
    linear, attention = counts.linear_flops(shape, work, prompt), counts.attention_flops(shape, work, prompt)
    part = attention / (linear + attention)
    text = (
        f"2 · {counts.linear_parameters(shape):,} parameters a token beside attention's pairs: a tenth of the linear "
        f"layers' FLOPs up to {_tokens(tenth)}, as many as theirs at {_tokens(equal)}. At {prompt:,} tokens "
        f"{linear * 1.0:.3g} + {attention * 1.0:.3g} FLOPs, {part:.0%} of them attention"
    )
    if machine is not None and machine.flops:
        speed = machine.flops * COMPUTE[1] * work.ranks
        text += f": {(linear + attention) / speed:.3g} s at {COMPUTE[1]:.0%} of {machine.flops * work.ranks:.3g} FLOP/s"
    # "4K in 100 ms" says how many parameters such a model has, if the rest of the sentence is to hold
    implied = 0.1 * 312e12 * COMPUTE[1] / (2 * 4096)
    text += (
        f'. The rule "4K 100 ms, 32K 800 ms, 128K 3–4 s on an A100" needs a model of at most {implied / 1e9:.1f}B '
        f"parameters (0.1 s × 312e12 × {COMPUTE[1]:.0%} / (2 × 4096)) whose attention stays small"
    )
    return Verdict(
        "linear_prefill",
        "prefill scales linearly",
        f"for {shape.name} {'at any length' if tenth is None else f'up to {tenth:,} tokens'}",
        text,
        {
            "within_tenth": tenth,
            "attention_equals_linear": equal,
            "attention_share": part,
            "implied_parameters": implied,
        },
    )


def constant_decode(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict:
    """A token reads all weights and all of the cache: it takes the same time while the cache is small beside them."""
    weights = counts.read_weights(shape, work, work.batch)

    def ratio(tokens: int) -> float:
        return counts.read_cache(shape, work, tokens) * work.ranks / weights  # of all devices

    tenth, equal = until(ratio, NEAR), until(ratio, 1.0)
    cache = counts.read_cache(shape, work, work.context) * work.ranks
    times = 1 + cache / weights
    return Verdict(
        "constant_decode",
        "decode is relatively constant",
        "at any length" if equal is None else f"until the cache outweighs the weights: {equal:,} tokens",
        f"a step reads {weights:,.0f} bytes of weights and the cache of {_texts(work)}: a tenth "
        f"more time at {_tokens(tenth)}, twice the time at {_tokens(equal)}; {times:.2f} times that of an empty "
        "cache at "
        f"{work.context:,} tokens ({cache:,.0f} bytes)",
        {"within_tenth": tenth, "cache_equals_weights": equal, "weights_read": weights, "cache_read": cache},
    )


def attention_matrix(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict:
    """The matrix of all scores is never there: a tile of it at a time is enough for exact attention."""
    heads = max((layer.heads for layer in shape.layers), default=0)
    whole = sum(layer.heads for layer in shape.layers if layer.kind in ("full", "latent"))
    said, here = 128_000**2, work.context**2
    terabytes = said * 2 * 32 * 32 / 1e12
    tile = work.page * min(work.chunk, work.context) * heads * 4
    return Verdict(
        "attention_matrix",
        "a 128K attention matrix has 16 billion elements, terabytes for 32 heads × 32 layers",
        "the arithmetic is right, but nobody stores it",
        f"128,000² = {said:,} elements, × 2 bytes × 32 heads × 32 layers = {terabytes:.1f} TB. Here "
        f"{work.context:,}² × 2 "
        f"bytes × {whole:,} heads of layers without a window = {here * 2 * whole / 1e12:.3g} TB. Exact attention "
        "needs a "
        "running maximum and sum for each row, so a tile at a time suffices (https://arxiv.org/abs/2205.14135): in "
        "steps "
        f"of {min(work.chunk, work.context):,} tokens against a page of {work.page} keys {tile:,} bytes for a layer's "
        f"{heads} heads. What grows with the length is the cache, and the time for the pairs",
        {"elements": said, "terabytes": terabytes, "here_bytes": here * 2 * whole, "tile_bytes": tile},
        "https://arxiv.org/abs/2205.14135",
    )


def int4_ratio(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict:
    """Codes of four bits have scales beside them, which a ratio of 16 to 4 forgets."""
    import torch  # formats count their bytes by dtype

    from longspan.cache.formats.dense import Dense
    from longspan.cache.formats.int4 import Int4

    head_dim = next((layer.qk_dim for layer in shape.layers if layer.kv_heads), 128)
    dense = Dense().bytes(work.page, head_dim, torch.bfloat16)
    groups = [group for group in (32, head_dim) if head_dim % min(group, head_dim) == 0]
    ratios = {group: dense / Int4(group=group).bytes(work.page, head_dim, torch.bfloat16) for group in groups}
    block = 16 / (8 * 18 / 32)
    ours = ", ".join(f"int4:group={group} {ratio:.2f}×" for group, ratio in ratios.items())
    first = next(iter(ratios.values()))
    return Verdict(
        "int4_ratio",
        "INT4 compresses 4×",
        f"{first:.2f}× here, {block:.2f}× with one scale for 32 numbers",
        f"codes are a quarter of 16 bits, scales come beside them. In the bytes of a page of {work.page} tokens and "
        f"{head_dim} channels, a minimum and a step for each channel of the keys and each group of the values: {ours}. "
        f"llama.cpp's q4_0, one 16-bit scale for 32 numbers: 18 bytes in place of 64, {block:.2f}×. The newest "
        "tokens are "
        "not sealed yet, and layers with a window may stay as they are, so a short text gains less",
        {"q4_0": block, "ratio": first, "best": max(ratios.values()), "dense_page": dense},
        "longspan.cache.formats, bytes()",
    )


RULE = ((4096, "16 GB", 16), (16384, "24–40 GB", 40), (65536, "80 GB", 80), (131072, "160 GB or several", 160))
"""Tokens, the card that is said to be enough, its memory in GiB."""
RUNTIME = 1e9
"""Bytes beside weights and cache that an engine takes at least: its context, buffers of a step."""
SPARE = 3
"""A card that would hold so many times what is needed is not what the rule meant."""


def hardware_rule(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict:
    """Memory is weights and cache: the length alone does not say which card is enough."""
    weights = counts.weight_bytes(shape.parameters, work)
    rows, wrong = [], []
    for length, said, card in RULE:
        cache = sum(counts.cached_bytes(layer, work, _held(layer.window, length)) for layer in shape.layers)
        need = weights + cache * work.batch + RUNTIME
        rows.append((length, said, need / 1e9))
        size = card * (1 << 30)
        if not size / SPARE <= need <= size:
            wrong.append(f"{length // 1024}K ({'too small' if need > size else 'far too large'})")
    listed = "; ".join(f"{length // 1024}K: {need:.1f} GB (the rule: {said})" for length, said, need in rows)
    return Verdict(
        "hardware_rule",
        "4K needs 16 GB, 16K 24–40 GB, 64K 80 GB, 128K and more 160 GB or several GPUs",
        f"not for this model at {', '.join(wrong)}" if wrong else "for this model, yes",
        f"weights {weights / 1e9:.1f} GB at {work.weights} bits, {RUNTIME / 1e9:.0f} GB for the engine, and the "
        "cache of "
        f"{_texts(work)}: {listed}. The rule fits 7 billion parameters at 16 bits with as many KV heads as query "
        "heads; shared KV heads, windows, formats and the size of the weights change it several times over",
        {f"gb_{length}": need for length, _, need in rows} | {"wrong_rows": len(wrong)},
    )


def _texts(work: Work) -> str:
    return f"{work.batch:,} text{'s' * (work.batch > 1)}"


def _held(window: int | None, tokens: int) -> int:
    return tokens if window is None else min(window, tokens)


def context_rule(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict:
    """What a task wants is what its parts have, in tokens."""
    said = ", ".join(f"{name} {_range(*task.rule)}" for name, task in TASKS.items())
    ours = {name: (task.least, task.most) for name, task in TASKS.items()}
    listed = "; ".join(
        f"{name} {least:,} to {most:,} ({', '.join(part.what for part in TASKS[name].parts)})"
        for name, (least, most) in ours.items()
    )
    met = sum(
        least <= (task.rule[1] or FOREVER) and most >= task.rule[0]
        for task in TASKS.values()
        for least, most in [ours[task.name]]
    )
    reach = [name for name, (_, most) in ours.items() if most <= shape.trained]
    return Verdict(
        "context_rule",
        f"context by use: {said}",
        f"the same order of size in {met} of {len(TASKS)} tasks",
        f"counted from parts, 0.75 English words a token: {listed}. This model was trained for {shape.trained:,}: "
        "enough for "
        f"{', '.join(reach) if reach else 'none of them'}. Longer than the task wants costs time, and accuracy too",
        {
            f"{name}_{end}": value
            for name, pair in ours.items()
            for end, value in zip(("least", "most"), pair, strict=True)
        },
    )


def _range(least: int, most: int | None) -> str:
    return f"{least // 1024}K and more" if most is None else f"{least // 1024}–{most // 1024}K"


VLLM = "https://docs.vllm.ai/en/stable/features/context_extension/"


def vllm_ntk(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict | None:
    """vLLM scales positions as the config, or the overrides that are given, say; by itself it adds nothing. None: none
    are rotated."""
    if not shape.theta:
        return None
    kind = str(shape.rope.get("rope_type") or shape.rope.get("type") or "default")
    trained = shape.original or shape.trained
    factor = max(work.context / trained, 1.0) if trained else 1.0
    dim = next((layer.qk_dim for layer in shape.layers if layer.kind not in ("linear", "latent")), 64)  # MLA turns 64
    grown = factor * factor - (factor - 1)
    vllm = shape.theta * grown ** (dim / (dim - 2)) if dim > 2 else None  # its table, built once for factor · L
    text = (
        "its documentation: rope_parameters of the config, or --hf-overrides with them, are the only way "
        "(--rope-scaling is gone). Longer than the config says is refused until VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 is "
        "set, "
        f"and then nothing scales the positions. This config declares {kind!r}"
    )
    if factor > 1 and vllm is not None:
        text += (
            f". Told to use dynamic with factor {factor:.4g}, vLLM builds one table for the longest text, base "
            f"{vllm:.4g} in "
            f"place of {shape.theta:.4g}, for short texts too; the method as published leaves texts of up to "
            f"{trained:,} "
            "tokens alone"
        )
    return Verdict(
        "vllm_ntk",
        "vLLM applies dynamic NTK by itself",
        "no",
        text,
        {"declared": kind, "factor": factor, "vllm_base": vllm},
        f"{VLLM}; vllm.model_executor.layers.rotary_embedding.dynamic_ntk_scaling_rope",
    )


def window_reach(shape: Shape, work: Work, machine: Machine | None = None) -> Verdict | None:
    """Each layer hands a window's width on, so what is seen through all of them is their sum. None: no windows."""
    windows = [layer.window for layer in shape.layers if layer.kind == "sliding" and layer.window]
    if not windows:
        return None
    total, whole = sum(windows), sum(layer.kind in ("full", "latent") for layer in shape.layers)
    sizes = " + ".join(f"{size:,} × {windows.count(size)} layers" for size in sorted(set(windows)))
    return Verdict(
        "window_reach",
        "sliding windows see as far as the window times the layers",
        f"{total:,} tokens at the very most",
        f"{sizes} = {total:,} tokens, an upper bound: every layer hands on a mixture, in which single tokens fade. "
        + (f"{whole} layers without a window see everything here" if whole else "No layer here sees further by itself"),
        {"reach": total, "full_layers": whole},
    )


VERDICTS: dict[str, Callable[[Shape, Work, Machine | None], Verdict | None]] = {
    "linear_prefill": linear_prefill,
    "constant_decode": constant_decode,
    "attention_matrix": attention_matrix,
    "int4_ratio": int4_ratio,
    "hardware_rule": hardware_rule,
    "context_rule": context_rule,
    "vllm_ntk": vllm_ntk,
    "window_reach": window_reach,
}


def verdicts(shape: Shape, work: Work, machine: Machine | None = None) -> list[Verdict]:
    """All that have something to say of this model."""
    found = (check(shape, work, machine) for check in VERDICTS.values())
    return [verdict for verdict in found if verdict is not None]

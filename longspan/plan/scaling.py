"""Which rope scaling carries a model from its trained length to a wanted one, and what quality to expect there."""

from __future__ import annotations

import dataclasses

from longspan.plan.shape import Shape
from longspan.plan.tasks import RULER, THRESHOLD, effective, scores

STRETCH = 8
"""Times the trained length up to which YaRN without training was measured here; beyond, questions choose pages."""


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What was found, and where it stands. ours: measured by this project."""

    found: str
    source: str
    ours: bool = False


YARN = "YaRN, https://arxiv.org/abs/2309.00071, tables 1 to 4"
_X2 = Evidence(
    "Llama-2-7B at twice its length, perplexity at 8,192 and 10,240 tokens after training: PI 3.34 and 8.07, NTK 3.59 "
    "and 6.24 (1B tokens each), YaRN 3.35 and 6.04 (400M tokens)",
    YARN,
)
_X16 = Evidence(
    "Llama-2 at 16 times its length (65,536 tokens), perplexity after 400 steps of training: 2.42 (7B), 2.29 (13B)",
    YARN,
)
_X32 = Evidence(
    "Llama-2 at 32 times its length (131,072 tokens), perplexity after 200 steps more: 2.37 (7B), 2.24 (13B); passkey "
    "99.4 %",
    YARN,
)
_PI = Evidence("LLaMA of 7B to 65B reach 32,768 tokens within 1,000 steps", "PI, https://arxiv.org/abs/2306.15595")
_OURS4 = Evidence(
    "the embedded model with YaRN, untrained, at 4 times its length: 99 of 100 facts right at 4,096 tokens, 198 of 200 "
    "inside the trained length",
    "docs/measurements.md, 2026-11-24, What formats, evictions and selections cost in answers",
    ours=True,
)
_OURS8 = Evidence(
    "an earlier embedded model with YaRN, untrained, at 8 times its length: 92 of 100 facts right, 92 of 100 inside "
    "the "
    "trained length, 0 of 100 without scaling",
    "docs/measurements.md, 2026-11-23, The main job",
    ours=True,
)
_SELECTED = Evidence(
    "the embedded model at 977 times its length (a million tokens), questions choosing 8 pages: 498 of 500 facts "
    "right, "
    "499 inside the trained length; an updated fact is found in 23 of 40 cases only (4,096 tokens)",
    "docs/measurements.md, 2026-11-24, Answers go on from what their question found; Which placement keeps the newest "
    "fact",
    ours=True,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Scaling:
    """rope: as --rope takes it; None: no scaling reaches so far, and `plan` says what does. factor: wanted length by
    the
    length before any scaling. trains: whether the figures ask for training at the wanted length. why: in a sentence.
    evidence: what quality to expect, each with its source. plan: options besides."""

    rope: str | None
    factor: float
    trains: bool
    why: str
    evidence: tuple[Evidence, ...]
    plan: str = ""


def advise(shape: Shape, wanted: int) -> Scaling:
    """The scaling for texts of up to `wanted` tokens."""
    kind = str(shape.rope.get("rope_type") or shape.rope.get("type") or "default")
    original = shape.original or shape.trained
    factor = wanted / original
    known = _known(shape, wanted)
    if wanted <= shape.trained:
        how = "plain positions" if kind in ("default", "None") else f"its own scaling ({kind}), which is always applied"
        return Scaling(
            "checkpoint", max(factor, 1.0), False, f"{shape.trained:,} tokens are claimed, with {how}", known
        )
    past = wanted / shape.trained
    if not shape.theta:
        why = f"positions are learned, {shape.trained:,} of them, and not rotated: no scaling reaches further"
        return Scaling(None, factor, False, why, known, "another model, or retrieval")
    if not any(layer.kind in ("full", "latent") for layer in shape.layers):
        return Scaling(
            "checkpoint",
            factor,
            False,
            "no layer sees further than its window or state, however long the "
            "text: positions stay inside what was trained, and what is older is gone",
            known,
        )
    plain, again = kind in ("default", "None"), kind == "yarn" and past <= 2
    if (plain and past <= STRETCH) or again:
        base = shape.trained if plain else original
        text = f"yarn:factor={_round(wanted / base)}" + ("" if plain else f",original={base}")
        if plain:
            why = (
                f"{past:.3g} times the trained {base:,} tokens; YaRN holds without training up to {STRETCH} times here"
            )
            evidence: tuple[Evidence, ...] = (_OURS4 if past <= 4 else _OURS8, _X2 if past <= 2 else _X16)
        else:
            why = (
                f"{past:.3g} times the {shape.trained:,} tokens of its own YaRN, whose factor grows; beyond what was "
                "trained, not measured here"
            )
            evidence = (_X16 if factor <= 16 else _X32,)
        return Scaling(text, factor, False, why, (*known, *evidence), "only for texts that need it (--rope auto)")
    if plain:
        why = f"{past:.4g} times the trained {shape.trained:,} tokens, more than YaRN holds untrained ({STRETCH} times)"
    else:
        why = (
            f"{past:.4g} times the {shape.trained:,} tokens that its own scaling ({kind}) was trained for, which "
            "another one "
            "cannot just take the place of (engines that select no pages raise its factor, untried: --export)"
        )
    why += ": questions choose the pages they read, at distances that the model knows"
    near = min(max(shape.trained // 2 // 64, 1) * 64, 4096)
    plan = f"--select sketch:pages={near // 64},near={near} --place far:near={near}"
    trained = (_X16, _X32, _PI) if plain and past <= 32 else ()
    return Scaling(None, factor, bool(trained), why, (*known, _SELECTED, *trained), plan)


def _round(factor: float) -> str:
    return f"{-(-factor * 100 // 1) / 100:g}"  # up, so that the text still fits


def _known(shape: Shape, wanted: int) -> tuple[Evidence, ...]:
    """What RULER says of the model."""
    table = scores(shape.listed)
    if table is None:
        return ()
    length = next((size for size in table if size >= wanted), max(table))
    reach = effective(shape.listed)
    told = f"{reach:,} tokens" if reach else "under 4,096 tokens"
    return (
        Evidence(
            f"the instruction-tuned model scores {table[length]:g} at {length:,} tokens (at 4,096: {table[4096]:g}); "
            "above "
            f"{THRESHOLD} up to {told}",
            RULER,
        ),
    )

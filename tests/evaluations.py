"""Evaluations as `longspan eval … --json` tells them, made up: no model has answered."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence as Seq
from typing import Any

USUAL = {"format": "dense", "evict": "none", "select": "all", "place": "text", "prefill": "dense", "offload": "none"}


def answers(
    *,
    plan: str = "full",
    right: float = 0.9,
    seed: int = 0,
    lengths: Seq[int] = (1024,),
    tasks: Seq[str] = ("single", "count"),
    samples: int = 20,
    regime: str = "agnostic",
    suite: str = "lookup",
    **told: Any,
) -> dict[str, Any]:
    """Of each task so many questions at each length, each about a text of its own; about so many are answered right."""
    rng = random.Random(f"{plan}/{seed}")
    made = [
        {
            "group": task,
            "index": index,
            "turn": 0,
            "length": length,
            "tokens": length - 3,
            "question": f"What is {task} {index}?",
            "references": [str(index)],
            "metric": "exact",
            "answer": str(index),
            "score": float(rng.random() < right),
            "depth": (index + 0.5) / samples,
        }
        for length in lengths
        for task in tasks
        for index in range(samples)
    ]
    settings = {"length": lengths[-1], "samples": samples, "seed": seed, "text": None, "batch": 8}
    return evaluation(suite, made, plan=plan, regime=regime, settings=settings, seed=seed, **told)


def windows(*, plan: str = "full", length: int = 512, count: int = 6, nats: float = 2.0, **told: Any) -> dict[str, Any]:
    """Windows of a text, the earlier tokens harder to foresee."""
    rng, made = random.Random(f"{plan}/{length}"), []
    for index in range(count):
        tenths = [[length / 10, length / 10 * (nats + rng.random() * 0.2 + 1 / (1 + place))] for place in range(10)]
        one = {"index": index, "start": index * length, "tokens": length, "nats": math.fsum(n for _, n in tenths)}
        parts = {"part_tokens": [n for n, _ in tenths], "part_nats": [n for _, n in tenths]}
        made.append({**one, "length": length, **parts, "late_tokens": length // 2, "late_nats": one["nats"] / 2})
    settings = {"length": length, "samples": count, "text": None}
    return evaluation("perplexity", made, plan=plan, regime=None, settings=settings, seed=0, **told)


def evaluation(suite: str, samples: Seq[dict[str, Any]], **told: Any) -> dict[str, Any]:
    """What is around the samples."""
    return {
        "suite": suite,
        "model": "embedded",
        "dtype": "bfloat16",
        "weights": "stored",
        "device": "cpu",
        "rope": "default",
        **USUAL,
        "trained": 1024,
        "versions": {"longspan": "0.1.0", "torch": "2.13.0"},
        "kv_bytes_peak": 8_000_000,
        "disk_bytes": 0,
        "text_bytes": [1_000_000, 0],
        "rss_peak_bytes": 700_000_000,
        "seconds": 3.5,
        "decode_ms_per_token": 4.25,
        "results": {},
        "samples": list(samples),
        "warnings": [],
        **told,
    }

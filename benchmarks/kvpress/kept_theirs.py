"""Which tokens kvpress's presses keep, for kept.py.

    ENVIRONMENT/bin/python benchmarks/kvpress/kept_theirs.py longspan/embedded samples.jsonl kept.json --texts 12

For each text, press and share that goes: of every layer and KV head, the places of the tokens with the highest scores,
as many as `ScorerPress.compress` keeps. In float32, so that no order is rounded.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from kvpress import ExpectedAttentionPress
from kvpress.utils import compute_n_kept
from theirs import GONE, PRESSES, Read, press
from transformers import AutoModelForCausalLM
from transformers.utils import logging

PAPER = "ExpectedAttention, epsilon 0.02"
"""With the constant of the paper, which kvpress's default leaves at 0."""


def kept(read: Read, name: str, gone: float) -> list[list[list[int]]]:
    chosen: Any = ExpectedAttentionPress(gone, epsilon=0.02) if name == PAPER else press(name, gone)
    found = []
    for index, (module, kwargs, output) in enumerate(read.calls):
        module.rotary_emb = read.model.model.rotary_emb
        layer = read.cache.layers[index]
        scores = chosen.score(module, kwargs["hidden_states"], layer.keys, layer.values, output[1], kwargs)
        places = scores.topk(compute_n_kept(layer.keys.shape[2], gone), dim=-1).indices
        found.append(places[0].sort().values.tolist())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=int, default=12)
    given = parser.parse_args()
    logging.disable_progress_bar()
    models = {
        kind: AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, attn_implementation=kind).eval()
        for kind in ("sdpa", "eager")
    }
    rows = []
    with torch.inference_mode():
        for line in given.samples.read_text().splitlines()[: given.texts]:
            ids = json.loads(line)["context"]
            reads = {kind: Read(model, ids) for kind, model in models.items()}
            rows.append(
                {
                    f"{name} {gone}": kept(reads["eager" if name == "ObservedAttention" else "sdpa"], name, gone)
                    for name in (*PRESSES, PAPER)
                    for gone in GONE
                }
            )
    given.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()

"""Train the embedded model on the CPU and export it: ``python training/embedded/train.py --seed 0``.

The schedule is in tokens, not in hours, so a slower machine gives the same model later. A checkpoint
is written every few minutes; ``--resume`` goes on from it, also towards another ``--tokens``
(``--resume --tokens 0`` only exports it). While other programs run on the machine, set
``OMP_WAIT_POLICY=PASSIVE``: threads that spin for one another waste the rest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from corpus import documents
from data import Row, Rows, Text
from tokenizer import for_transformers, train_bpe
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB, POSITIONS = 2048, 1024
HELD_OUT_TOKENS = 200_000
CHARS_PER_TOKEN = 3.2


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows of `length` tokens until the share `until` of the run; `plainly` is the share of the easiest lookup rows."""

    until: float
    length: int
    batch_tokens: int
    plainly: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rows and learning rates as functions of the tokens seen."""

    tokens: int
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warmup: float = 0.01
    decay_from: float = 0.6
    stages: tuple[Stage, ...] = (
        Stage(0.08, 128, 4096, 0.8),
        Stage(0.20, 128, 4096, 0.35),
        Stage(0.50, 256, 4096, 0.1),
        Stage(0.75, 512, 8192, 0.05),
        Stage(1.00, 1024, 8192, 0.0),
    )

    def stage(self, seen: int) -> Stage:
        return next((stage for stage in self.stages if seen < stage.until * self.tokens), self.stages[-1])

    def rate(self, seen: int) -> float:
        """The share of the full learning rates: a rise, a plateau, a linear fall to zero; less for small steps."""
        share = seen / self.tokens
        shape = max(0.0, min(1.0, (share + 1e-3) / self.warmup, (1 - share) / (1 - self.decay_from)))
        return shape * math.sqrt(self.stage(seen).batch_tokens / 8192)


def build(tokenizer: Tokenizer) -> LlamaForCausalLM:
    bos, end = tokenizer.token_to_id("<|bos|>"), tokenizer.token_to_id("<|end|>")
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=POSITIONS,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            bos_token_id=bos,
            eos_token_id=end,
            pad_token_id=end,
            attn_implementation="sdpa",
        )
    )


def optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    layers = [p for p in model.model.layers.parameters() if p.ndim == 2]
    matrices = {id(p) for p in layers}
    others = [p for p in model.parameters() if id(p) not in matrices]
    return [
        torch.optim.Muon(layers, lr=schedule.muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=schedule.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def logits_of(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Logits with the residual stream in bfloat16 and the weights in float32."""
    with torch.autocast("cpu", torch.bfloat16):
        embeds = model.get_input_embeddings()(ids).bfloat16()
        return model(inputs_embeds=embeds, use_cache=False).logits


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted mean loss, and the logits of every position but the last."""
    logits = logits_of(model, ids)[:, :-1]
    nats = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (nats * weights).sum() / weights.sum(), logits.detach()


def stack(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(np.stack([row.ids for row in rows]))
    return ids, torch.from_numpy(np.stack([row.weights for row in rows])).float()


def whole_answers(rows: list[Row], ids: torch.Tensor, logits: torch.Tensor) -> tuple[int, int, int, int]:
    """Answer tokens right and asked, whole answers right and asked, from logits [rows, T - 1, vocabulary]."""
    counts = [0, 0, 0, 0]
    for row, targets, scores in zip(rows, ids, logits, strict=True):
        for start, end in row.answers:
            hits = scores[start - 1 : end - 1].argmax(-1) == targets[start:end]
            new = int(hits.sum()), len(hits), int(hits.all()), 1
            counts = [a + b for a, b in zip(counts, new, strict=True)]
    return counts[0], counts[1], counts[2], counts[3]


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, held: Rows, length: int) -> dict[str, float]:
    """Teacher-forced figures on held-out entities in held-out text, the same rows every time."""
    rng = random.Random(1)
    rows = [held.lookup(rng, length) for _ in range(32768 // length)]
    ids, _ = stack(rows)
    tokens, of_tokens, whole, of_whole = whole_answers(rows, ids, logits_of(model, ids)[:, :-1])
    text = torch.from_numpy(np.stack([held.text.any(rng, POSITIONS) for _ in range(16)]))
    logits = logits_of(model, text)[:, :-1].float()
    nats = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
    return {
        "held_out_token": tokens / of_tokens,
        "held_out_whole": whole / of_whole,
        "held_out_perplexity": math.exp(nats.item()),
    }


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write the folder as transformers reads it, weights in bfloat16. A model card there is left alone."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    for_transformers(tokenizer, POSITIONS).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("longspan/embedded"), help="folder of the exported model")
    parser.add_argument("--state", type=Path, default=Path("build/embedded"), help="checkpoint and curve")
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --state")
    parser.add_argument("--compile", action="store_true", help="torch.compile: worth it for long runs")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.state.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = args.state / "checkpoint.pt", args.state / "curve.jsonl"
    vocabulary = args.state / "tokenizer.json"

    train_texts, held_texts = documents(args.seed, int(HELD_OUT_TOKENS * CHARS_PER_TOKEN))
    if args.resume:
        tokenizer = Tokenizer.from_file(str(vocabulary))
    else:
        curve.unlink(missing_ok=True)
        tokenizer = train_bpe(train_texts, VOCAB, args.seed)
        tokenizer.save(str(vocabulary))
    train = Rows(tokenizer, Text(tokenizer, train_texts), "train")
    held = Rows(tokenizer, Text(tokenizer, held_texts), "held_out")
    print(f"corpus {len(train.text.ids):,} tokens, held out {len(held.text.ids):,}", flush=True)

    schedule = Schedule(args.tokens)
    model = build(tokenizer)
    steppers = optimizers(model, schedule)
    peaks = [stepper.param_groups[0]["lr"] for stepper in steppers]
    rng = random.Random(args.seed)
    step = seen = 0
    elapsed = 0.0
    if args.resume:
        saved = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(saved["model"])
        for stepper, state in zip(steppers, saved["optimizers"], strict=True):
            stepper.load_state_dict(state)
        rng.setstate(saved["rng"])
        step, seen, elapsed = saved["step"], saved["seen"], saved["elapsed"]
    step_loss = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {asdict(schedule)}", flush=True)

    def save() -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {
            "model": model.state_dict(),
            "optimizers": [stepper.state_dict() for stepper in steppers],
            "rng": rng.getstate(),
            "step": step,
            "seen": seen,
            "elapsed": elapsed,
        }
        torch.save(state, partial)
        os.replace(partial, checkpoint)

    def log(record: dict[str, float]) -> None:
        record = {key: round(value, 5) for key, value in record.items()}
        with curve.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(" ".join(f"{key} {value}" for key, value in record.items()), flush=True)

    clock = since_log = since_save = time.monotonic()
    totals, loss_sum, steps_logged, seen_logged = [0, 0, 0, 0], 0.0, 0, seen
    while seen < schedule.tokens:
        stage = schedule.stage(seen)
        length = stage.length
        rows = [train.draw(rng, length, stage.plainly) for _ in range(stage.batch_tokens // length)]
        ids, weights = stack(rows)
        for stepper, peak in zip(steppers, peaks, strict=True):
            for group in stepper.param_groups:
                group["lr"] = peak * schedule.rate(seen)
        loss, logits = step_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + ids.numel()
        loss_sum, steps_logged = loss_sum + loss.item(), steps_logged + 1
        counts = whole_answers(rows, ids, logits)
        totals = [a + b for a, b in zip(totals, counts, strict=True)]

        now = time.monotonic()
        if now - since_log >= 20 or seen >= schedule.tokens:
            elapsed, clock = elapsed + now - clock, now
            log(
                {
                    "step": step,
                    "tokens": seen,
                    "seconds": elapsed,
                    "length": length,
                    "rate": schedule.rate(seen),
                    "tokens_per_second": (seen - seen_logged) / (now - since_log),
                    "loss": loss_sum / steps_logged,
                    "answer_token": totals[0] / max(1, totals[1]),
                    "answer_whole": totals[2] / max(1, totals[3]),
                }
            )
            totals, loss_sum, steps_logged, seen_logged, since_log = [0, 0, 0, 0], 0.0, 0, seen, now
        if now - since_save >= 150 or seen >= schedule.tokens:
            save()
            log({"step": step, "tokens": seen, "length": length, **evaluate(model, held, length)})
            elapsed, clock = elapsed + time.monotonic() - clock, time.monotonic()
            since_save = since_log = time.monotonic()
    export(model, tokenizer, args.out)


if __name__ == "__main__":
    main()

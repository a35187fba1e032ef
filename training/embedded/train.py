"""Train the embedded model on the CPU and export it: ``python training/embedded/train.py --seed 0``.

The schedule is in tokens, not in hours, so a slower machine gives the same model later. A checkpoint
is written every few minutes; ``--resume`` goes on from it (``--resume --tokens 0`` only exports it).
``--variant mha --twin-of longspan/embedded --tokens 3000000`` makes a twin of a trained model.
While other programs run on the machine, set ``OMP_WAIT_POLICY=PASSIVE``: threads that spin for one
another waste the rest.
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
import torch._dynamo
import torch.nn.functional as F
from begin import begin
from corpus import held_out_texts, training_texts
from data import ABILITY_WEIGHTS, Row, Rows, Text
from hints import name_tokens
from net import LOOKING, Form, Net
from tokenizer import for_transformers, train_bpe
from tokenizers import Tokenizer
from twin import twin

LOOKS = 0.5
"""How much the looks count beside the answers."""

NAMES = 0.5
"""How much the names count."""

PLACES = 0.4
"""The share of positions whose logits are made: every answer, and as much of the text as fits."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows of `length` tokens until the share `until` of the run; the rest as in `Rows.draw`."""

    until: float
    length: int
    batch_tokens: int
    repeated: float
    plainly: float
    lookup_only: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rows and learning rates as functions of the tokens seen."""

    tokens: int
    muon_rate: float = 0.007
    adam_rate: float = 1e-3
    probe_rate: float = 5e-3
    warmup: float = 0.01
    decay_from: float = 0.45
    stages: tuple[Stage, ...] = (
        Stage(0.002, 128, 4096, 0.30, 1.00, 1.0),
        Stage(0.008, 128, 4096, 0.05, 0.80, 1.0),
        Stage(0.22, 128, 4096, 0.01, 0.10, 1.0),
        Stage(0.48, 256, 4096, 0.01, 0.03, 0.6),
        Stage(0.75, 512, 8192, 0.01, 0.00, 0.5),
        Stage(1.00, 1024, 8192, 0.01, 0.00, 0.5),
    )

    def stage(self, seen: int) -> Stage:
        return next((stage for stage in self.stages if seen < stage.until * self.tokens), self.stages[-1])

    def rate(self, seen: int) -> float:
        """The share of the full learning rates: a rise, a plateau, a linear fall to zero; less for small steps."""
        share = seen / self.tokens
        shape = max(0.0, min(1.0, (share + 1e-3) / self.warmup, (1 - share) / (1 - self.decay_from)))
        return shape * math.sqrt(self.stage(seen).batch_tokens / 8192)


def going_on(tokens: int) -> Schedule:
    """For a twin of a trained model: it has to get used to its shape, and has seen everything else."""
    stages = (Stage(0.3, 256, 4096, 0.01, 0.03, 0.6), Stage(1.0, 1024, 8192, 0.01, 0.0, 0.5))
    return Schedule(tokens, muon_rate=0.004, adam_rate=5e-4, warmup=0.03, decay_from=0.2, stages=stages)


#: twins of equal size: what more or fewer KV heads take or leave, the MLP gives or gets
VARIANTS = {
    "main": Form(mlp=512),
    "mha": Form(mlp=427, kv_heads=4),
    "mqa": Form(mlp=555, kv_heads=1),
    "window": Form(mlp=512, window=256),
}


def optimizers(net: Net, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms, faster for the probe."""
    layers = [p for p in net.blocks.parameters() if p.ndim == 2]
    apart = {id(p) for p in (*layers, net.probe)}
    others = [p for p in net.parameters() if id(p) not in apart]
    return [
        torch.optim.Muon(layers, lr=schedule.muon_rate, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW(others, lr=schedule.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        torch.optim.AdamW([net.probe], lr=schedule.probe_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows side by side, and the places (in the flattened ids) whose next token counts, with its weight.

    `looking` [rows, P] are positions that `sources` [layers of `net.LOOKING`, rows, P, T] shows where to look;
    `naming` [rows, N] are positions, and `named` [rows, N, vocabulary] marks the words spoken of there.
    """

    ids: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    looking: torch.Tensor
    sources: torch.Tensor
    naming: torch.Tensor
    named: torch.Tensor

    @classmethod
    def of(cls, rows: list[Row], seed: int, share: float = PLACES) -> Batch:
        """The heaviest places first, a random choice among equals: always the same number of them."""
        ids = np.stack([row.ids for row in rows])
        weights = np.stack([row.weights for row in rows])
        weights = np.concatenate([weights[:, 1:], np.full((len(rows), 1), -1.0)], axis=1).reshape(-1)
        order = np.lexsort((np.random.default_rng(seed).random(len(weights)), -weights))
        places = np.sort(order[: int(share * len(weights))])
        chosen = np.maximum(weights[places], 0.0)
        targets = np.roll(ids.reshape(-1), -1)[places]
        count = ids.shape[1] // 4
        looking = np.zeros((len(rows), count), dtype=np.int64)
        sources = np.zeros((len(LOOKING), len(rows), count, ids.shape[1]), dtype=bool)
        naming = np.zeros((len(rows), count), dtype=np.int64)
        named = torch.zeros(len(rows), count, Form().vocabulary)
        some = random.Random(seed)
        for number, row in enumerate(rows):
            for index, (place, words) in enumerate(some.sample(row.named, min(count, len(row.named)))):
                naming[number, index] = place
                named[number, index, list(words)] = 1.0
            for index, look in enumerate(row.looks[:count]):
                looking[number, index] = look.position
                sources[0, number, index, list(look.first)] = True
                sources[1, number, index, list(look.sources)] = True
        return cls(
            torch.from_numpy(ids),
            torch.from_numpy(places),
            torch.from_numpy(targets),
            torch.from_numpy(chosen).float(),
            torch.from_numpy(looking),
            torch.from_numpy(sources),
            torch.from_numpy(naming),
            named,
        )


def loss_of(net: Net, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weighted mean loss, those of the looks and of the names, and the likeliest token at each place.

    The loss of a look is -log of the attention that falls on its sources. It says directly what the answers'
    loss says only once everything between is right. The loss of a name is that of each of its words.
    """
    logits, scores, names = net.inside(batch.ids, batch.places, batch.looking, batch.naming)
    nats = F.cross_entropy(logits, batch.targets, reduction="none")
    answers = (nats * batch.weights).sum() / batch.weights.sum()
    looks = torch.zeros(())
    for layer, sources in zip(scores, batch.sources, strict=True):
        told = sources.any(-1)
        aimed = layer.masked_fill(~sources[:, None], -torch.inf).logsumexp(-1)
        missed = (layer.logsumexp(-1) - torch.where(told[:, None], aimed, 0.0)) * told[:, None]
        looks = looks + missed.sum() / told.sum().clamp(min=1) / layer.shape[1] / len(scores)
    named = -(names.log_softmax(-1) * batch.named).sum() / batch.named.sum().clamp(min=1)
    return answers, looks, named, logits.detach().argmax(-1)


def whole_answers(rows: list[Row], batch: Batch, guesses: torch.Tensor) -> tuple[int, int]:
    """Whole answers right, and asked, each token guessed from the right ones before it."""
    hits = np.zeros(batch.ids.numel(), dtype=bool)
    hits[batch.places.numpy()] = (guesses == batch.targets).numpy()
    hits = hits.reshape(batch.ids.shape)
    right = [hits[i, start - 1 : end - 1].all() for i, row in enumerate(rows) for start, end in row.answers]
    return int(sum(right)), len(right)


@torch.no_grad()
def evaluate(net: Net, held: Rows, length: int) -> dict[str, float]:
    """Teacher-forced figures on held-out names and phrasings in held-out text, the same rows every time."""
    figures: dict[str, float] = {}
    for ability in ABILITY_WEIGHTS:
        rng = random.Random(1)
        rows = [held.ask(rng, length, [ability]) for _ in range(max(12, 8192 // length))]
        batch = Batch.of(rows, 0)
        right, asked = whole_answers(rows, batch, net(batch.ids, batch.places).argmax(-1))
        figures[ability] = right / asked
    text = [held.plain(random.Random(seed), net.form.positions) for seed in range(16)]
    batch = Batch.of(text, 0)
    figures["perplexity"] = math.exp(F.cross_entropy(net(batch.ids, batch.places), batch.targets).item())
    return figures


def export(net: Net, tokenizer: Tokenizer, out: Path) -> None:
    """Write the folder as transformers reads it, weights in bfloat16. A model card there is left alone."""
    hf = for_transformers(tokenizer, net.form.positions)
    specials = {"bos_token_id": hf.bos_token_id, "eos_token_id": hf.eos_token_id, "pad_token_id": hf.pad_token_id}
    net.to_transformers(specials).to(torch.bfloat16).save_pretrained(out)
    hf.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("longspan/embedded"), help="folder of the exported model")
    parser.add_argument("--state", type=Path, default=Path("build/embedded"), help="checkpoint and curve")
    parser.add_argument("--variant", choices=list(VARIANTS), default="main")
    parser.add_argument("--twin-of", type=Path, help="begin with the weights and the tokenizer of this main model")
    parser.add_argument("--tokens", type=int, default=24_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --state")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch._dynamo.config.recompile_limit = 32  # one program per row length
    args.state.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = args.state / "checkpoint.pt", args.state / "curve.jsonl"
    vocabulary = args.state / "tokenizer.json"

    train_texts, held_texts = training_texts(args.seed), held_out_texts()
    if args.resume:
        tokenizer = Tokenizer.from_file(str(vocabulary))
    else:
        curve.unlink(missing_ok=True)
        if args.twin_of is not None:
            tokenizer = Tokenizer.from_file(str(args.twin_of / "tokenizer.json"))
        else:
            tokenizer = train_bpe(train_texts, VARIANTS[args.variant].vocabulary, args.seed)
        tokenizer.save(str(vocabulary))
    train = Rows(tokenizer, Text(tokenizer, train_texts), "train")
    held = Rows(tokenizer, Text(tokenizer, held_texts), "held_out")
    print(f"corpus {len(train.text.ids):,} tokens, held out {len(held.text.ids):,}", flush=True)

    if args.twin_of is not None:
        schedule, net = going_on(args.tokens), twin(args.twin_of, VARIANTS["main"], VARIANTS[args.variant])
    else:
        schedule, net = Schedule(args.tokens), Net(VARIANTS[args.variant])
        begin(net, *name_tokens(tokenizer))
    naming = NAMES if args.twin_of is None else 0.0  # the probe was not kept with the model
    steppers = optimizers(net, schedule)
    peaks = [stepper.param_groups[0]["lr"] for stepper in steppers]
    rng = random.Random(args.seed)
    step = seen = 0
    elapsed = 0.0
    if args.resume:
        saved = torch.load(checkpoint, weights_only=False)
        net.load_state_dict(saved["model"])
        for stepper, state in zip(steppers, saved["optimizers"], strict=True):
            stepper.load_state_dict(state)
        rng.setstate(saved["rng"])
        step, seen, elapsed = saved["step"], saved["seen"], saved["elapsed"]
    step_loss = torch.compile(loss_of, dynamic=False)
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters, {asdict(schedule)}", flush=True)

    def save() -> None:
        partial = checkpoint.with_suffix(".partial")
        state = {
            "model": net.state_dict(),
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
    right, asked, loss_sum, looks_sum, steps_logged, seen_logged = 0, 0, 0.0, 0.0, 0, seen
    while seen < schedule.tokens:
        stage = schedule.stage(seen)
        count = stage.batch_tokens // stage.length
        rows = [train.draw(rng, stage.length, stage.repeated, stage.plainly, stage.lookup_only) for _ in range(count)]
        batch = Batch.of(rows, step)
        for stepper, peak in zip(steppers, peaks, strict=True):
            for group in stepper.param_groups:
                group["lr"] = peak * schedule.rate(seen)
        loss, looks, named, guesses = step_loss(net, batch)
        (loss + LOOKS * looks + naming * named).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + batch.ids.numel()
        loss_sum, looks_sum, steps_logged = loss_sum + loss.item(), looks_sum + looks.item(), steps_logged + 1
        hits, questions = whole_answers(rows, batch, guesses)
        right, asked = right + hits, asked + questions

        now = time.monotonic()
        if now - since_log >= 20 or seen >= schedule.tokens:
            elapsed, clock = elapsed + now - clock, now
            log(
                {
                    "step": step,
                    "tokens": seen,
                    "seconds": elapsed,
                    "length": stage.length,
                    "rate": schedule.rate(seen),
                    "tokens_per_second": (seen - seen_logged) / (now - since_log),
                    "loss": loss_sum / steps_logged,
                    "looks": looks_sum / steps_logged,
                    "named": named.item(),
                    "answers": right / max(1, asked),
                }
            )
            right, asked, loss_sum, looks_sum, steps_logged, seen_logged, since_log = 0, 0, 0.0, 0.0, 0, seen, now
        if now - since_save >= 180 or seen >= schedule.tokens:
            save()
            log({"step": step, "tokens": seen, "length": stage.length, **evaluate(net, held, stage.length)})
            elapsed, clock = elapsed + time.monotonic() - clock, time.monotonic()
            since_save = since_log = time.monotonic()
            seen_logged = seen
    export(net, tokenizer, args.out)


if __name__ == "__main__":
    main()

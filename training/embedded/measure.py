"""Measure an exported folder: ``python training/embedded/measure.py longspan/embedded``.

Answers are generated greedily by transformers through the chat template, and count only when whole.
Entities and surrounding text are held out. With ``--yarn`` the trained length is stretched eight times.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from corpus import documents
from train import CHARS_PER_TOKEN, HELD_OUT_TOKENS, POSITIONS
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from longspan.evals import lookup

YARN_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Task:
    """`texts` texts of about `length` tokens with `facts` facts each; `asked` questions per text."""

    name: str
    length: int
    facts: int
    texts: int
    asked: int
    same_attribute: float = 0.3
    phrasing: lookup.Split = "train"


TASKS = (
    Task("8 facts", 1000, 8, 25, 8),
    Task("16 facts", 1000, 16, 15, 16),
    Task("40 facts", 1000, 40, 8, 40),
    Task("16 facts, one attribute", 1000, 16, 15, 16, same_attribute=1.0),
    Task("16 facts, held-out phrasings", 1000, 16, 15, 16, phrasing="held_out"),
)
YARN_TASKS = (
    Task("20 facts, 4,096 tokens, yarn", 4096, 20, 5, 20),
    Task("20 facts, 8,192 tokens, yarn", 8192, 20, 10, 20),
)


def load(folder: Path, yarn: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    config = AutoConfig.from_pretrained(folder)
    if yarn:
        config.rope_parameters = {
            "rope_type": "yarn",
            "rope_theta": config.rope_parameters["rope_theta"],
            "factor": float(YARN_FACTOR),
            "original_max_position_embeddings": POSITIONS,
        }
        config.max_position_embeddings = YARN_FACTOR * POSITIONS
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def planted(
    task: Task, lines: list[str], tokenizer: PreTrainedTokenizerBase, rng: random.Random
) -> tuple[str, list[lookup.Fact]]:
    """Held-out lines with facts in them: as many lines as keep text, facts and question under the length."""
    facts = lookup.make_facts(rng, task.facts, "held_out", same_attribute=task.same_attribute, phrasing=task.phrasing)
    room = task.length - 32 - sum(len(tokenizer(fact.sentence + "\n").input_ids) for fact in facts)
    at = rng.randrange(len(lines))
    taken: list[str] = []
    while room > 0:
        line = lines[at % len(lines)]
        room -= len(tokenizer(line).input_ids)
        taken.append(line)
        at += 1
    return lookup.plant("".join(taken[:-1]), facts, rng), facts


@torch.no_grad()
def accuracy(task: Task, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lines: list[str]) -> dict:
    rng = random.Random(task.name)
    right = asked = longest = 0
    misses: list[dict[str, str | bool]] = []
    for _ in range(task.texts):
        text, facts = planted(task, lines, tokenizer, rng)
        head = tokenizer(tokenizer.bos_token + text.rstrip() + "\n", return_tensors="pt").input_ids
        cache = model(head, use_cache=True, logits_to_keep=1).past_key_values
        for fact in rng.sample(facts, task.asked):
            question = lookup.ask(rng, fact, task.phrasing)
            chat = [{"role": "user", "content": lookup.prompt(text, question)}]
            ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True).input_ids
            assert ids[0, : head.shape[1]].equal(head[0])
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=copy.deepcopy(cache),
                max_new_tokens=16,
                do_sample=False,
            )
            answer = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            hit = lookup.score(answer, fact.value)
            right, asked, longest = right + hit, asked + 1, max(longest, out.shape[1])
            if not hit:
                elsewhere = any(lookup.score(answer, other.value) for other in facts)
                misses.append(
                    {"question": question.text, "expected": fact.value, "got": answer, "other_fact": elsewhere}
                )
    return {
        **asdict(task),
        "right": right,
        "asked": asked,
        "accuracy": right / asked,
        "longest": longest,
        "misses_with_another_facts_value": sum(bool(miss["other_fact"]) for miss in misses),
        "misses": misses[:12],
    }


@torch.no_grad()
def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> float:
    """Perplexity of the second half of each window of `length` tokens."""
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    nats = []
    for start in range(0, min(len(ids) - length, 12 * length), length):
        window = ids[None, start : start + length]
        logits = model(window, use_cache=False).logits[0, length // 2 : -1]
        nats.append(torch.nn.functional.cross_entropy(logits.float(), window[0, length // 2 + 1 :]).item())
    return math.exp(sum(nats) / len(nats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--yarn", action="store_true", help="stretch eight times and measure at 4,096 and 8,192")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the training run: it fixes what was held out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--texts", type=int, help="fewer texts a task, for a quick look")
    parser.add_argument("--json", type=Path, help="also write the figures, with examples of misses, here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model, tokenizer = load(args.folder, args.yarn)
    _, held_out = documents(args.seed, int(HELD_OUT_TOKENS * CHARS_PER_TOKEN))
    text = "\n\n".join(held_out) + "\n"
    lines = text.splitlines(keepends=True)
    results = []
    for task in YARN_TASKS if args.yarn else TASKS:
        if args.texts:
            task = replace(task, texts=args.texts)
        started = time.monotonic()
        result = accuracy(task, model, tokenizer, lines)
        results.append(result)
        print(
            f"{task.name}: {result['right']}/{result['asked']} = {result['accuracy']:.3f}, "
            f"{result['misses_with_another_facts_value']} misses name another fact's value, "
            f"up to {result['longest']} tokens, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    for length in (1024, 4096, 8192) if args.yarn else (1024,):
        print(f"perplexity at {length}, second half: {perplexity(model, tokenizer, text, length):.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

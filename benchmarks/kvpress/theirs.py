"""kvpress's side: the same samples under its presses, and under transformers' quantized cache.

    ENVIRONMENT/bin/python benchmarks/kvpress/theirs.py MODEL samples.jsonl theirs.jsonl
    ENVIRONMENT/bin/python benchmarks/kvpress/theirs.py MODEL samples.jsonl theirs-aware.jsonl --aware

Runs in the environment of setup.sh; longspan is not needed. MODEL: the folder longspan/embedded. A text is read with
the press at work, and each question goes on from what was left, as kvpress's own pipeline does it (positions go on from
the text's true length). --aware: the press is at work while text and question are read, and the answer goes on from
there.

One read serves all presses and shares: a press is a hook that runs after a layer's attention and changes nothing but
that layer's cache, so each press's own hook is called on a copy of the cache. `--check` reads the first texts anew
under every press, as kvpress's documentation has it, and refuses to go on unless that leaves the same caches. KVzip
reads by itself; its scores are found once and cut at each share. Presses that leave equal lengths answer in one batch.

A line of the result is one text: for each press and share the answers, the bytes that the cache holds, and those that
would be left without what the press only masks. A run that was stopped goes on; --seconds stops one in time.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from kvpress import (
    AdaKVPress,
    BasePress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KVzipPress,
    ObservedAttentionPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, QuantizedCache
from transformers.utils import logging

GONE = (0.25, 0.5, 0.75, 0.9)
PRESSES = {
    "SnapKV": SnapKVPress,
    "TOVA": TOVAPress,
    "ExpectedAttention": ExpectedAttentionPress,
    "KeyDiff": KeyDiffPress,
    "ObservedAttention": ObservedAttentionPress,
    "StreamingLLM": StreamingLLMPress,
}
QUANTIZED = {
    "quantized cache, quanto 4 bits": {"backend": "quanto", "nbits": 4},
    "quantized cache, HQQ 4 bits": {"backend": "hqq", "nbits": 4, "axis_key": 1, "axis_value": 1},
    "quantized cache, HQQ 8 bits": {"backend": "hqq", "nbits": 8, "axis_key": 1, "axis_value": 1},
}
MASKING = ("AdaKV+ExpectedAttention", "KVzip")


class Zip(KVzipPress):
    """KVzip that remembers its scores, so that another share needs no other read."""

    def compress_post(self, model: Any) -> None:
        self.found = self.score_val.clone()
        super().compress_post(model)

    def cut(self, model: Any, gone: float) -> None:
        self.compression_ratio, self.score_val = gone, self.found.clone()
        super().compress_post(model)


def press(name: str, gone: float) -> BasePress:
    if name == "KVzip":
        return Zip(compression_ratio=gone)
    if name == "AdaKV+ExpectedAttention":
        return AdaKVPress(ExpectedAttentionPress(compression_ratio=gone))
    return PRESSES[name](compression_ratio=gone)


class Read:
    """A text that was read: the whole cache, the logits after it, and each layer's call, for hooks to be told of."""

    def __init__(self, model: Any, ids: list[int]) -> None:
        self.model, self.calls, self.cache = model, [], DynamicCache()

        def note(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            self.calls.append((module, kwargs, output))

        hooks = [layer.self_attn.register_forward_hook(note, with_kwargs=True) for layer in model.model.layers]
        self.logits = model(torch.tensor([ids]), past_key_values=self.cache, logits_to_keep=1).logits[0, -1]
        for hook in hooks:
            hook.remove()

    def under(self, chosen: BasePress) -> DynamicCache:
        """The cache as the press leaves it."""
        twin = copied(self.cache)
        chosen.post_init_from_model(self.model)
        for module, kwargs, output in self.calls:
            module.rotary_emb = self.model.model.rotary_emb
            chosen.forward_hook(module, [], {**kwargs, "past_key_values": twin}, output)
        return twin


def copied(cache: DynamicCache, rows: int = 1) -> DynamicCache:
    twin = DynamicCache()
    for index, layer in enumerate(cache.layers):
        twin.update(layer.keys.repeat(rows, 1, 1, 1), layer.values.repeat(rows, 1, 1, 1), index)
    return twin


def joined(caches: list[DynamicCache]) -> DynamicCache:
    twin = DynamicCache()
    for index in range(len(caches[0].layers)):
        layers = [cache.layers[index] for cache in caches]
        twin.update(torch.cat([x.keys for x in layers]), torch.cat([x.values for x in layers]), index)
    return twin


def answers(
    model: Any, tokenizer: Any, cache: Any, ids: list[int], room: int, length: int, logits: Any = None, rows: int = 1
) -> list[str]:
    """Greedy answers of every row of the cache, which they lengthen. ids: what is read first, from position `length`
    on; logits: those of the first new token, where nothing is to be read."""
    if ids:
        places = torch.arange(length, length + len(ids))[None].expand(rows, -1)
        out = model(torch.tensor([ids] * rows), past_key_values=cache, position_ids=places, logits_to_keep=1)
        new, length = out.logits[:, -1].argmax(-1), length + len(ids)
    else:
        new = logits.argmax(-1).expand(rows)
    said, ends = [new], torch.tensor(model.generation_config.eos_token_id)
    ended = torch.isin(new, ends)
    while len(said) < room and not bool(ended.all()):
        places = torch.full((rows, 1), length + len(said) - 1)
        new = model(new[:, None], past_key_values=cache, position_ids=places).logits[:, -1].argmax(-1)
        said.append(new)
        ended |= torch.isin(new, ends)
    made = []
    for row in torch.stack(said, 1).tolist():
        stop = next((i for i, one in enumerate(row) if one in ends.reshape(-1).tolist()), len(row))
        made.append(str(tokenizer.decode(row[:stop], skip_special_tokens=True)).strip())
    return made


def size(value: Any) -> int:
    """Bytes of all tensors in a cache's layers, however they are kept."""
    if isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__") and type(value) is not torch.Tensor:
            return sum(size(getattr(value, name)) for name in value.__tensor_flatten__()[0])
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size, value))
    return 0


def held(cache: Any) -> int:
    names = ("keys", "values", "_quantized_keys", "_quantized_values")
    return sum(size(getattr(layer, name, None)) for layer in cache.layers for name in names)


def masked(model: Any) -> tuple[int, int]:
    """Bytes of keys and values that are only masked, and of the notes of which these are."""
    found = [getattr(layer.self_attn, "masked_key_indices", None) for layer in model.model.layers]
    number = 2 * model.config.head_dim * model.dtype.itemsize
    return sum(len(one[0]) * number for one in found if one), sum(size(one) for one in found if one)


def unmask(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None


def told(cache: Any, model: Any = None) -> dict[str, Any]:
    gone, notes = masked(model) if model is not None else (0, 0)
    return {"bytes": held(cache) + notes, "left": held(cache) - gone, "answers": []}


def one(models: dict[str, Any], tokenizer: Any, ids: list[int], asked: list[Any], given: Any) -> dict[str, Any]:
    """What each press says to the questions about a text of these ids. In the regime with the question in view `asked`
    is one question without ids, as these stand among those of the text."""
    model, length, rows = models["sdpa"], len(ids), {}
    presses, masking = (
        [name for name in names if not given.only or name in given.only] for names in (PRESSES, MASKING)
    )
    unmask(model)
    read = Read(model, ids)
    plain = told(read.cache)
    for question in asked:
        plain["answers"] += answers(
            model, tokenizer, copied(read.cache), question["ids"], question["room"], length, read.logits
        )
    rows["whole"] = plain
    for name, options in () if given.aware or given.only else QUANTIZED.items():
        cache = QuantizedCache(config=model.config, **options)
        model.model(torch.tensor([ids]), past_key_values=cache)
        rows[name] = told(cache)
        for question in asked:
            twin = copy.copy(cache)  # an update binds new tensors and changes none
            twin.layers = [copy.copy(layer) for layer in cache.layers]
            rows[name]["answers"] += answers(model, tokenizer, twin, question["ids"], question["room"], length)
    eager = Read(models["eager"], ids)
    zipped, zip_cache = press("KVzip", GONE[0]), DynamicCache()
    if "KVzip" in masking:
        with zipped(model):
            model.model(input_ids=torch.tensor([ids]), past_key_values=zip_cache)
    for gone in GONE:
        unmask(model)
        caches = {name: (eager if name == "ObservedAttention" else read).under(press(name, gone)) for name in presses}
        for name, cache in caches.items():
            rows[f"{name} {gone}"] = told(cache)
        for question in asked if presses else ():
            said = answers(
                model, tokenizer, joined(list(caches.values())), question["ids"], question["room"], length,
                read.logits, len(caches),
            )  # fmt: skip
            for name, text in zip(caches, said, strict=True):
                rows[f"{name} {gone}"]["answers"].append(text)
        for name in masking:
            unmask(model)
            if name == "KVzip":
                zipped.cut(model, gone)
                cache = zip_cache
            else:
                cache = read.under(press(name, gone))
            row = rows[f"{name} {gone}"] = told(cache, model)
            for question in asked:
                twin = copied(cache)
                row["answers"] += answers(
                    model, tokenizer, twin, question["ids"], question["room"], length, read.logits
                )
    unmask(model)
    return rows


def check(models: dict[str, Any], ids: list[int]) -> None:
    """Refuses to go on unless the hooks on copies leave what a read under the press itself leaves."""
    for name in (*PRESSES, "AdaKV+ExpectedAttention"):
        model = models["eager" if name == "ObservedAttention" else "sdpa"]
        unmask(model)
        mine = Read(model, ids).under(press(name, 0.5))
        marks = [getattr(layer.self_attn, "masked_key_indices", None) for layer in model.model.layers]
        theirs, chosen = DynamicCache(), press(name, 0.5)
        with chosen(model):
            model.model(input_ids=torch.tensor([ids]), past_key_values=theirs)
        for layer, (a, b) in enumerate(zip(mine.layers, theirs.layers, strict=True)):
            same = torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)
            other = getattr(model.model.layers[layer].self_attn, "masked_key_indices", None)
            if marks[layer] is not None:
                same &= all(torch.equal(x, y) for x, y in zip(marks[layer], other, strict=True))
            if not same:
                raise SystemExit(f"{name}: layer {layer} differs from a read under the press itself")
    print("check: every press leaves the same caches when it is at work during the read")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--aware", action="store_true", help="the press is at work on text and question")
    parser.add_argument("--texts", type=int, help="the first so many alone")
    parser.add_argument("--check", action="store_true", help="compare hooks on copies with reads under the press")
    parser.add_argument("--only", nargs="*", help="these presses, and no quantized cache")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other text after so many")
    given = parser.parse_args()
    torch.set_num_threads(2)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    models = {
        kind: AutoModelForCausalLM.from_pretrained(given.model, dtype="auto", attn_implementation=kind).eval()
        for kind in ("sdpa", "eager")
    }
    samples = [json.loads(line) for line in given.samples.open()][: given.texts]
    work = [(one["context"], one["questions"]) for one in samples]
    if given.aware:
        work = [
            (one["context"] + question["ids"], [{**question, "ids": []}])
            for one in samples
            for question in one["questions"]
        ]
    done = sum(1 for _ in given.out.open()) if given.out.exists() else 0
    began = time.perf_counter()
    with torch.inference_mode():
        if given.check:
            for ids, _ in work[:3]:
                check(models, ids)
        for number, (ids, asked) in enumerate(work[done:], done):
            if time.perf_counter() - began > given.seconds:
                print(f"{number} of {len(work)} texts; the same command goes on")
                return
            rows = one(models, tokenizer, ids, asked, given)
            with given.out.open("a") as file:
                file.write(json.dumps(rows) + "\n")
    print(f"{len(work)} texts, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

"""longspan beside its peers: the same prompts, threads and shape, each run in its own process, in turns.

    python run.py MODELS --peers ENVIRONMENT/bin/python [--texts 512,4096,16384,8x2048] [--repeats 3] [--json]

Run it with the interpreter of longspan's environment. setup.sh makes MODELS and ENVIRONMENT; README.md explains the
table.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PLANS = {
    "longspan": "",
    "longspan int8": "--format int8",
    "longspan int4": "--format int4",
    "longspan sketch": "--select sketch:pages=8,near=512 --place far:near=512",
    "longspan h2o": "--evict h2o:budget=2048",
}
COLUMNS = ("texts", "engine", "prefill s", "ratio", "step ms", "tokens/s", "ratio", "peak MB", "ratio")


@dataclasses.dataclass(frozen=True)
class Engine:
    """script: beside this file. words: its arguments, the model first. own: it runs in longspan's environment."""

    name: str
    script: str
    words: tuple[str, ...]
    own: bool = False


@dataclasses.dataclass(frozen=True)
class Texts:
    """How many prompts, and the ids of each."""

    batch: int
    context: int

    def __str__(self) -> str:
        return f"{self.context:,}" if self.batch == 1 else f"{self.batch} × {self.context:,}"


@dataclasses.dataclass(frozen=True)
class Row:
    """Medians over the repeats. step_ms: of a step that gives each text one token. error: why there are none."""

    texts: Texts
    engine: str
    prefill_s: float | None = None
    step_ms: float | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None
    error: str | None = None


def engines(models: Path, shape: str, plans: dict[str, str]) -> list[Engine]:
    """All that are known, in the order of the table."""
    folder = str(models / shape)
    found = [Engine("transformers bf16", "peer_transformers.py", (folder,), True)]
    for weights in ("f16", "q8_0"):
        for kv in ("f16", "q8_0"):
            words = str(models / f"{shape}-{weights}.gguf"), "--kv", kv
            found.append(Engine(f"llama.cpp {weights}, KV {kv}", "peer_llama_cpp.py", words))
    for weights in ("fp16", "int8"):
        for kv in ("f16", "u8"):
            words = str(models / f"{shape}-ov-{weights}"), "--kv", kv
            found.append(Engine(f"OpenVINO {weights}, KV {kv}", "peer_openvino.py", words))
    for name, options in plans.items():
        found.append(Engine(name, "peer_longspan.py", (folder, f"--options={options}"), True))
    return found


def once(engine: Engine, texts: Texts, given: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own: what it printed, or {"error": its last words}."""
    command = [sys.executable if engine.own else given.peers, str(HERE / engine.script), *engine.words]
    for name, value in {**dataclasses.asdict(texts), "decode": given.decode, "threads": given.threads}.items():
        command += [f"--{name}", str(value)]
    threads = {name: str(given.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=given.limit, env={**os.environ, **threads}, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {given.limit:,} s"}
    if ran.returncode:
        return {"error": (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def measure(known: list[Engine], given: argparse.Namespace) -> list[Row]:
    """All texts with all engines, in turns; every second round in the other direction."""
    made: dict[tuple[Texts, str], list[dict[str, Any]]] = {}
    for repeat in range(given.repeats):
        for texts in given.texts:
            for engine in known[:: -1 if repeat % 2 else 1]:
                result = once(engine, texts, given)
                made.setdefault((texts, engine.name), []).append(result)
                told = result.get("error") or f"prefill {result['prefill_s']:.2f} s"
                print(f"round {repeat + 1}, {texts} tokens, {engine.name}: {told}", file=sys.stderr, flush=True)
    return [row(texts, engine.name, made[texts, engine.name]) for texts in given.texts for engine in known]


def row(texts: Texts, name: str, results: list[dict[str, Any]]) -> Row:
    """The medians of one engine's runs."""
    errors = [result["error"] for result in results if "error" in result]
    if errors:
        return Row(texts, name, error=errors[0])
    step = statistics.median(statistics.median(result["steps_s"]) for result in results)
    return Row(
        texts,
        name,
        statistics.median(result["prefill_s"] for result in results),
        1000 * step,
        texts.batch / step,
        int(statistics.median(result["peak_bytes"] for result in results)),
    )


def table(rows: list[Row], base: str) -> str:
    """One Markdown table. Ratios: to the engine called `base`, with the same texts."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for one in rows:
        to = next((other for other in rows if other.texts == one.texts and other.engine == base), None)
        start = str(one.texts), one.engine
        if one.prefill_s is None or one.step_ms is None or one.peak_bytes is None:
            lines.append([*start, one.error or "", *[""] * (len(COLUMNS) - 3)])
            continue
        lines.append(
            [
                *start,
                f"{one.prefill_s:.2f}",
                _ratio(one.prefill_s, to and to.prefill_s),
                f"{one.step_ms:.1f}",
                f"{one.tokens_per_second:,.0f}",
                _ratio(one.step_ms, to and to.step_ms),
                f"{one.peak_bytes / 1e6:,.0f}",
                _ratio(one.peak_bytes, to and to.peak_bytes),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(value: float, base: float | None) -> str:
    return "–" if base is None else f"{value / base:.2f}"


def _texts(words: str) -> list[Texts]:
    found = []
    for word in words.split(","):
        batch, _, context = word.rpartition("x")
        found.append(Texts(int(batch or 1), int(context)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="folder that setup.sh filled")
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="interpreter of the peers' environment")
    parser.add_argument("--shape", default="S")
    parser.add_argument("--texts", type=_texts, default="512,4096,16384,8x2048", help="ids of a prompt, or PROMPTSxIDS")
    parser.add_argument("--plan", action="append", default=[], metavar="NAME=OPTIONS", help="one more of longspan's")
    parser.add_argument("--only", default="*", help="names of engines, with wildcards, a semicolon between two")
    parser.add_argument("--against", default="longspan", metavar="NAME", help="the engine that ratios are to")
    parser.add_argument("--decode", type=int, default=16, help="steps to time in each run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=3600, metavar="SECONDS", help="the longest that a run may take")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    given = parser.parse_args()
    own = dict(plan.partition("=")[::2] for plan in given.plan)
    wanted = [pattern.strip() for pattern in given.only.split(";")]
    known = [
        engine
        for engine in engines(given.models, given.shape, PLANS | own)
        if engine.name in own or any(fnmatch.fnmatch(engine.name, pattern) for pattern in wanted)
    ]
    if not known:
        parser.error(f"--only {given.only}: no such engine")
    rows = measure(known, given)
    if given.json:
        about = {"machine": platform.machine(), "threads": given.threads, "shape": given.shape}
        about |= {"repeats": given.repeats, "decode": given.decode}
        print(json.dumps({**about, "rows": [dataclasses.asdict(one) for one in rows]}, indent=1))
    else:
        print(table(rows, given.against))
    return int(any(one.error for one in rows))


if __name__ == "__main__":
    sys.exit(main())

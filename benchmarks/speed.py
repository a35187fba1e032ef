"""Prefill and decode beside transformers, in one run, on a random-weight model of SmolLM2-135M's shape ("shape S").

    python benchmarks/speed.py [--contexts 512,4096,16384] [--decode 16] [--json FILE]

Speed does not depend on the weights, so the model is made on the spot. Both engines read the same ids with the
same threads and the same weights (bfloat16); runs are interleaved per context, and the figure to quote is the
ratio: absolute times move with the machine. transformers runs as its users run it: SDPA, a DynamicCache, the
prompt in chunks of 2,048.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, DynamicCache

from longspan import LLM
from longspan.bench import shapes


def ours(llm: LLM, ids: list[int], decoded: int) -> tuple[float, float]:
    """Seconds of prefill, median milliseconds per decoded token."""
    with llm.session() as session:
        began = time.perf_counter()
        session.feed(ids)
        prefill = time.perf_counter() - began
        stamps = [time.perf_counter()]
        request = session._request([5], llm.sampling(None, {"max_new_tokens": decoded, "ignore_eos": True}))
        for _ in llm.drive([request], finished=session._finished):
            stamps.append(time.perf_counter())
    steps = np.diff(stamps)
    return prefill, 1000 * statistics.median(steps)


def theirs(model: torch.nn.Module, ids: list[int], decoded: int, chunk: int = 2048) -> tuple[float, float]:
    """The same, by transformers."""
    cache, steps, row = DynamicCache(), [], torch.tensor([ids])
    with torch.inference_mode():
        began = time.perf_counter()
        for i in range(0, len(ids), chunk):
            out = model(row[:, i : i + chunk], past_key_values=cache, logits_to_keep=1)
        prefill = time.perf_counter() - began
        token = torch.tensor([[5]])
        for _ in range(decoded):
            began = time.perf_counter()
            out = model(token, past_key_values=cache)
            token = out.logits[:, -1:].argmax(-1)
            steps.append(time.perf_counter() - began)
    return prefill, 1000 * statistics.median(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", default="512,4096,16384")
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = []
    with shapes.folder("S", lambda done, total: None) as folder:
        assert folder is not None
        llm = LLM(Path(folder), chunk=args.chunk)
        peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
        generator = np.random.default_rng(0)
        warm = generator.integers(300, 49000, 256).tolist()
        ours(llm, warm, 4)
        theirs(peer, warm, 4)
        for context in (int(c) for c in args.contexts.split(",")):
            ids = generator.integers(300, 49000, context).tolist()
            llm.pool.reset_peak()
            runs = [(ours(llm, ids, args.decode), theirs(peer, ids, args.decode)) for _ in range(args.repeats)]
            mine = [statistics.median(r[0][i] for r in runs) for i in (0, 1)]
            other = [statistics.median(r[1][i] for r in runs) for i in (0, 1)]
            rows.append(
                {
                    "context": context,
                    "longspan_prefill_s": mine[0],
                    "transformers_prefill_s": other[0],
                    "prefill_ratio": mine[0] / other[0],
                    "longspan_decode_ms": mine[1],
                    "transformers_decode_ms": other[1],
                    "decode_ratio": mine[1] / other[1],
                    "kv_bytes_peak": llm.pool.peak_bytes,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    table = Table(title=f"shape S, bfloat16, {torch.get_num_threads()} threads, {platform.processor() or 'cpu'}")
    for name in ("context", "prefill s", "transformers", "ratio", "decode ms", "transformers", "ratio"):
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            f"{r['context']:,}",
            f"{r['longspan_prefill_s']:.2f}",
            f"{r['transformers_prefill_s']:.2f}",
            f"{r['prefill_ratio']:.2f}",
            f"{r['longspan_decode_ms']:.1f}",
            f"{r['transformers_decode_ms']:.1f}",
            f"{r['decode_ratio']:.2f}",
        )
    Console().print(table)
    if args.json:
        about = {"torch": torch.__version__, "transformers": transformers.__version__, "machine": platform.machine()}
        Path(args.json).write_text(json.dumps({"about": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

"""Which selections find facts however long the text? All of them, at several lengths, each in a process of its own.

    python benchmarks/selections.py --lengths 16384 65536 262144 1000000

A text is read once, with sinks and a window; then facts at even depths are asked about. Beside each count stands the
difference to the same questions inside the trained length, paired, with its 95 % interval. Pages that were read lie in
a file, summaries and pages in use in memory; `streaming` keeps only the window. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from longspan.cache.summaries import SELECTIONS

METHODS = {
    name: ["--select", f"{name}:pages=8,near=512", "--place", "far:near=512"] for name in SELECTIONS if name != "all"
}
METHODS["streaming"] = ["--evict", "streaming:budget=516,sinks=4", "--place", "slot"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16_384, 65_536, 262_144, 1_000_000])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--depths", type=int, default=100)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--folder", default="/tmp", help="for the file of pages")
    parser.add_argument("--raw", help="the beginning of the names of files for the samples")
    given = parser.parse_args()
    print(
        "| method | tokens | right | inside | points | summaries and pages, MB | file, MB | process, MB | seconds |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for name in given.methods:
        for length in given.lengths:
            options = METHODS[name] + ([] if name == "streaming" else ["--offload", given.folder])
            options += [] if given.raw is None else ["--raw", f"{given.raw}-{name}-{length}.jsonl"]
            sizes = ["--length", length, "--questions", given.questions, "--depths", given.depths]
            print(f"| `{name}` | {length:,} | {row(evaluated([*map(str, sizes), *options]))} |", flush=True)


def evaluated(options: list[str]) -> dict[str, Any]:
    """The report of one run in a new process, so that its peak is its own."""
    command = [sys.executable, "-m", "longspan", "eval", "needles", "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def row(report: dict[str, Any]) -> str:
    found = report["results"]
    low, high = found["paired"]
    points = f"{100 * found['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    sizes = (report["kv_bytes_peak"], report["disk_bytes"], report["rss_peak_bytes"])
    held = " | ".join(f"{size / 1e6:,.0f}" for size in sizes)
    return f"{found['right']} of {found['asked']} | {found['inside']} | {points} | {held} | {report['seconds']:,.0f}"


if __name__ == "__main__":
    main()

"""Is evicted memory free for real? The peak of a process that reads a text 64 times its budget, for every eviction.

    python benchmarks/peak.py --budget 1024 --times 64

Each reads the same text in a process of its own. "cache" is the most that its pool owned at a time, "bound" what the
formula of the cache allows at that budget, and "process" the most memory that the process held beyond what it held
when it had read as many tokens as the budget, so the model and Python are in none of them. The last row evicts
nothing. Linux only: the system's own record of the peak is set back in between.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from array import array

from longspan import LLM
from longspan.cache.eviction import POLICIES
from longspan.evals.haystack import everything

ONE = """
import json, sys
from array import array
from pathlib import Path
from longspan import LLM
from longspan.engine.memory import give_back, peak_rss

evict, budget = sys.argv[1], int(sys.argv[2])
ids = array("i", Path(sys.argv[3]).read_bytes())
llm = LLM(memory="2GB", evict=evict, rope="checkpoint", place="text" if evict == "none" else "slot")
with llm.session() as session:
    session.feed(ids[:budget])
give_back()
Path("/proc/self/clear_refs").write_text("5")
before = peak_rss()
llm.pool.reset_peak()
with llm.session() as session:
    session.feed(ids)
    session.ask(ids[:20], max_new_tokens=4, ignore_eos=True)
bound = llm.layout.bytes(len(ids) + 24, chunk=1024)
print(json.dumps({"cache": llm.pool.peak_bytes, "bound": bound, "process": peak_rss() - before}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--times", type=int, default=64, help="the text, in budgets")
    given = parser.parse_args()
    print(f"{given.budget * given.times:,} tokens, a budget of {given.budget:,}; MB\n")
    print("| eviction | cache | bound | process |\n|---|---|---|---|")
    ids = LLM(memory="8MB").encode(everything(0, 6 * given.budget * given.times), special=False)
    assert len(ids) >= given.budget * given.times, "there is not so much text on this machine"
    with tempfile.NamedTemporaryFile() as file:
        array("i", ids[: given.budget * given.times]).tofile(file)
        file.flush()
        rows(given.budget, file.name)


def rows(budget: int, path: str) -> None:
    for name in (*POLICIES, "h2o,merge=true", "none"):
        policy, _, options = name.partition(",")
        evict = "none" if name == "none" else f"{policy}:budget={budget}{',' * bool(options)}{options}"
        found = measured(evict, budget, path)
        cells = " | ".join(f"{found[key] / 1e6:.1f}" for key in ("cache", "bound", "process"))
        print(f"| `{evict}` | {cells} |", flush=True)


def measured(evict: str, budget: int, path: str) -> dict[str, int]:
    """Bytes, measured in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", ONE, evict, str(budget), path]
    found: dict[str, int] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


if __name__ == "__main__":
    main()

"""What is a kept text worth? Read it, save it, kill the process; resume in a new one, which goes on with the same ids.

    python benchmarks/resume.py --tokens 65536

The first process reads the text, saves it, says what its next 64 ids are, and is killed. The second resumes and says
its own. The model is loaded in both before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

READ = """
import json, os, signal, sys, time
from longspan import LLM
from longspan.evals.haystack import everything

plan, tokens, path = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
llm = LLM(memory="2GB", **plan)
ids = llm.encode(everything(0, 6 * tokens), special=False)[:tokens]
llm.generate(ids[:200], max_new_tokens=2)
session = llm.session()
began = time.perf_counter()
session.feed(ids)
read = time.perf_counter()
size = session.save(path)
saved = time.perf_counter()
said = session.ask(ids[:16], max_new_tokens=64, ignore_eos=True).ids
found = {"read": read - began, "save": saved - read, "bytes": size, "ids": said, "first": ids[:16]}
print(json.dumps(found), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

RESUME = """
import json, sys, time
from longspan import LLM

plan, path, first = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
llm = LLM(memory="2GB", **plan)
llm.generate(first, max_new_tokens=2)
began = time.perf_counter()
session = llm.resume(path)
resumed = time.perf_counter() - began
said = session.ask(first, max_new_tokens=64, ignore_eos=True).ids
print(json.dumps({"resume": resumed, "ids": said}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=65_536)
    given = parser.parse_args()
    plans: list[dict[str, Any]] = [
        {"select": "sketch:pages=8,near=512", "place": "far:near=512"},
        {"select": "sketch:pages=8,near=512", "place": "far:near=512", "format": "int4"},
        {"select": "sketch:pages=8,near=512", "place": "far:near=512", "offload": tempfile.gettempdir()},
        {"evict": "streaming:budget=516", "place": "slot"},
    ]
    print(f"{given.tokens:,} tokens\n\n| plan | read, s | save, s | MB | resume, s | times faster | next 64 ids |")
    print("|---|---|---|---|---|---|---|")
    for plan in plans:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "text.kv")
            one = run(READ, json.dumps(plan), str(given.tokens), path, killed=True)
            two = run(RESUME, json.dumps(plan), path, json.dumps(one["first"]))
        name = " ".join(f"`{value}`" for key, value in plan.items() if key != "offload") + ", file" * (
            "offload" in plan
        )
        same = "the same" if one["ids"] == two["ids"] else "DIFFERENT"
        times = (f"{one['read']:.1f}", f"{one['save']:.2f}", f"{one['bytes'] / 1e6:,.0f}", f"{two['resume']:.2f}")
        print(f"| {name} | {' | '.join(times)} | {one['read'] / two['resume']:.0f} | {same} |", flush=True)


def run(code: str, *given: str, killed: bool = False) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *given], stdout=subprocess.PIPE, check=False)
    assert done.returncode == (-signal.SIGKILL if killed else 0), f"exit code {done.returncode}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()

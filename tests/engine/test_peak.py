"""What the pool counts is what the process holds: its peak, by the system's own record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sys
from pathlib import Path
from longspan import LLM
from longspan.engine.memory import give_back, peak_rss

evict, tokens = sys.argv[1], int(sys.argv[2])
llm = LLM(memory="1GB", rope="checkpoint", evict=evict)
ids = [3 + i * 7919 % 2000 for i in range(tokens)]
with llm.session() as session:
    session.feed(ids[:1024])
give_back()
Path("/proc/self/clear_refs").write_text("5")
before = peak_rss()
with llm.session() as session:
    session.feed(ids)
print(llm.pool.peak_bytes, llm.layout.bytes(tokens, chunk=1024), peak_rss() - before)
"""
TOKENS = 32_768
BUFFERS = 64_000_000
"""What a step of 256 queries over the budget works with, and what the C library keeps of it."""


def peaks(evict: str, tokens: int) -> tuple[int, int, int]:
    """Bytes: of the cache, of its bound, and of the process beyond the model, each at its peak."""
    command = [sys.executable, "-W", "ignore", "-c", READ, evict, str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cache, bound, process = map(int, done.stdout.split())
    return cache, bound, process


@pytest.fixture(scope="module")
def whole() -> tuple[int, int, int]:
    return peaks("none", TOKENS)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no record of peaks that can be set back")
@pytest.mark.parametrize("evict", ["h2o:", "adakv:", "pyramidkv:", "streaming:", "h2o:merge=true,"])
def test_evicted_memory_is_gone_from_the_process_too(evict: str, whole: tuple[int, int, int]):
    """A text of 32 budgets, and the same text whole: its 101 MB show in the process, and with eviction do not."""
    cache, bound, process = peaks(f"{evict}budget=1024", TOKENS)
    assert cache <= bound <= 3072 * 2048  # the budget and as much again
    assert process <= bound + BUFFERS
    assert whole[0] == 3072 * TOKENS
    assert whole[2] - process >= 0.8 * (whole[0] - cache) - BUFFERS / 4

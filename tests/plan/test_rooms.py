"""Room for what eviction leaves is that of the cache's own layout, for texts of any length in a moment."""

from __future__ import annotations

import random
import time

from longspan.cache.bytes import INTERVALS, Layout
from longspan.plan.rooms import Counted


def test_as_the_cache_counts():
    drawn = random.Random(3)
    for _ in range(1500):
        page = drawn.choice([16, 32, 64, 128])
        interval = drawn.choice([size for size in INTERVALS if size >= page])
        kept = tuple(drawn.randint(1, drawn.choice([600, 3000, 12_000])) for _ in range(drawn.choice([1, 1, 2, 4])))
        sizes = {"interval": interval, "kept": kept, "heads": 2, "note_bytes": 12}
        slow = Layout((None,) * len(kept), 1, 8, 2, page, **sizes)
        fast = Counted((None,) * len(kept), 1, 8, 2, page, **sizes)
        tokens, chunk = drawn.randint(1, drawn.choice([500, 20_000])), drawn.choice([1, 7, 64, 100, 256, 2048])
        ends = (drawn.choice([tokens, drawn.randint(0, tokens)]),)
        assert fast._rooms(tokens, ends, chunk) == slow._rooms(tokens, ends, chunk), (slow, tokens, ends, chunk)
        assert fast.peak(tokens, ends, chunk) == slow.peak(tokens, ends, chunk)


def test_a_long_text_takes_no_longer():
    begun = time.perf_counter()
    made = Counted((None,), 8, 128, 2, 64, interval=256, kept=(1 << 30,), heads=8, note_bytes=12)
    assert made.peak(1 << 28, ((1 << 28) - 256,), 2048) > 1 << 28
    assert made.peak(1 << 40, (1 << 40,), 1) > 1 << 28
    assert time.perf_counter() - begun < 2

"""How fast does the embedded model load and read? ``python benchmarks/reading.py``, on an otherwise idle machine.

The first loading in a process imports transformers' model code, the second does not.
"""

from __future__ import annotations

import statistics
import time

from longspan import LLM
from longspan.evals.haystack import held_out

TOKENS, TEXTS = 1000, 12


def main() -> None:
    for which in ("first", "second"):
        began = time.perf_counter()
        llm = LLM(memory="200MB")
        print(f"loaded the {which} time in {time.perf_counter() - began:.2f} s")
    ids = llm.encode(held_out(0), special=False)
    rates = []
    for first in range(0, TEXTS * TOKENS, TOKENS):
        began = time.perf_counter()
        with llm.session() as session:
            session.feed(ids[first : first + TOKENS])
        rates.append(TOKENS / (time.perf_counter() - began))
    low, high = min(rates), max(rates)
    print(f"{TEXTS} texts of {TOKENS:,} tokens: {statistics.median(rates):,.0f} tokens/s ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()

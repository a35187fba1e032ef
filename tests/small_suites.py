"""Every suite, small: for tests that hold for all of them.

`SMALL` has a function for each name of `SUITES`; it is given a folder, for suites that read a file, and makes the suite
with a tiny fixture. What has questions fits a byte tokenizer (a token is a character) in two thousand tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from longspan.evals.fact_lookup import FactLookup
from longspan.evals.needle import Needle
from longspan.evals.needles import Needles
from longspan.evals.passkey import Passkey
from longspan.evals.perplexity import Perplexity
from longspan.evals.suite import Suite

SMALL: dict[str, Callable[[Path], Suite]] = {
    "lookup": lambda folder: FactLookup(length=900, facts=3, samples=2, abilities=("single", "chain", "count")),
    "passkey": lambda folder: Passkey(lengths=(500, 700), samples=2),
    "needle": lambda folder: Needle(lengths=(500, 700), depths=3, samples=1, needles=2),
    "needles": lambda folder: Needles(length=1500, samples=2, inside=0),
    "perplexity": lambda folder: Perplexity(length=64, samples=2),
}

OPTIONS: dict[str, Callable[[Path], list[str]]] = {
    "lookup": lambda folder: ["--ability", "single", "--ability", "two_hop"],
    "needle": lambda folder: ["--depths", "3"],
    "needles": lambda folder: ["--length", "2048", "--select", "sketch", "--place", "far"],
}
"""What `longspan eval NAME --samples 2` needs besides, or takes to be over soon, with the embedded model."""

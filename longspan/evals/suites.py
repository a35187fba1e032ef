"""The table of suites: what `longspan eval` offers."""

from __future__ import annotations

from longspan.evals.fact_lookup import FactLookup
from longspan.evals.needle import Needle
from longspan.evals.needles import Needles
from longspan.evals.passkey import Passkey
from longspan.evals.perplexity import Perplexity
from longspan.evals.suite import Suite

SUITES: dict[str, type[Suite]] = {
    "lookup": FactLookup,
    "passkey": Passkey,
    "needle": Needle,
    "needles": Needles,
    "perplexity": Perplexity,
}

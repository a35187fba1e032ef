"""How a text is read: which pages its rows look at. One file per method; this table is all that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan import spec

if TYPE_CHECKING:
    from longspan.attention.prefill.method import Prefill

PREFILLS: spec.Table[Prefill] = spec.Table(
    {
        "dense": "longspan.attention.prefill.dense:Dense",
        "sparse": "longspan.attention.prefill.sparse:Sparse",
    }
)

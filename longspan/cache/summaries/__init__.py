"""Summaries: what says which pages a query reads. One file per selection; this table is all that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan import spec

if TYPE_CHECKING:
    from longspan.cache.summaries.selection import Selection

SELECTIONS: spec.Table[Selection] = spec.Table(
    {
        "all": "longspan.cache.summaries.all:All",
        "landmark": "longspan.cache.summaries.landmark:Landmark",
        "quest": "longspan.cache.summaries.quest:Quest",
        "representative": "longspan.cache.summaries.representative:Representative",
        "sketch": "longspan.cache.summaries.sketch:Sketch",
    }
)

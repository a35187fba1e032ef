"""Eviction: which tokens stay. One file per policy; this table is all that lists them, besides "none"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan import spec

if TYPE_CHECKING:
    from longspan.cache.eviction.view import Policy

POLICIES: spec.Table[Policy] = spec.Table(
    {
        "sliding_window": "longspan.cache.eviction.sliding_window:SlidingWindow",
        "streaming": "longspan.cache.eviction.streaming:Streaming",
        "lru": "longspan.cache.eviction.lru:Lru",
        "attention_score": "longspan.cache.eviction.attention_score:AttentionScore",
        "h2o": "longspan.cache.eviction.h2o:H2O",
        "tova": "longspan.cache.eviction.tova:Tova",
        "snapkv": "longspan.cache.eviction.snapkv:SnapKV",
        "pyramidkv": "longspan.cache.eviction.pyramidkv:PyramidKV",
        "adakv": "longspan.cache.eviction.adakv:AdaKV",
        "expected_attention": "longspan.cache.eviction.expected_attention:ExpectedAttention",
        "keydiff": "longspan.cache.eviction.keydiff:KeyDiff",
        "cluster": "longspan.cache.eviction.cluster:Cluster",
    }
)

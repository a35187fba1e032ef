"""Formats: how sealed pages are stored. One file per method; this table is all that lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan import spec

if TYPE_CHECKING:
    from longspan.cache.formats.format import Format

FORMATS: spec.Table[Format] = spec.Table(
    {
        "dense": "longspan.cache.formats.dense:Dense",
        "int8": "longspan.cache.formats.int8:Int8",
        "int4": "longspan.cache.formats.int4:Int4",
        "fp8": "longspan.cache.formats.fp8:Fp8",
    }
)

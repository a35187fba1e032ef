"""Compiled kernels for CPUs: attention of few rows over pages where they lie, and scores for selection."""

from __future__ import annotations

from longspan.kernels.cpu.decode import attend, why_not
from longspan.kernels.cpu.native import NATIVE, level, levels, why_none
from longspan.kernels.cpu.place import place
from longspan.kernels.cpu.sketch import score_sketch

__all__ = ["NATIVE", "attend", "level", "levels", "place", "score_sketch", "why_none", "why_not"]

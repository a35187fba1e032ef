"""A model's step as a flat list of calls: written down in trials, made shorter, run without the model."""

from __future__ import annotations

from longspan.model.program.program import Program, record
from longspan.model.program.unify import Differs

__all__ = ["Differs", "Program", "record"]

"""A model's step as a flat list of calls: written down while it runs, made shorter, run again without the model."""

from __future__ import annotations

from longspan.model.program.program import Program, record

__all__ = ["Program", "record"]

"""Shapes: of any config.json, and of well-known models."""

from longspan.plan.shapes.config import from_config
from longspan.plan.shapes.find import find
from longspan.plan.shapes.known import KNOWN

__all__ = ["KNOWN", "find", "from_config"]

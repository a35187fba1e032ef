"""longspan: run any open-weight decoder far past the context it was trained on, inside the memory you have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from longspan.errors import (
    DoesNotFit,
    LongspanError,
    ModelError,
    NumericalError,
    StoreError,
    UnsupportedModel,
    UsageError,
)

if TYPE_CHECKING:
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM
    from longspan.engine.sample import Sampling
    from longspan.engine.session import Session

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "DoesNotFit",
    "LongspanError",
    "ModelError",
    "NumericalError",
    "Output",
    "Sampling",
    "Session",
    "StoreError",
    "UnsupportedModel",
    "UsageError",
]

_LAZY = {
    "LLM": "longspan.engine.llm",
    "Output": "longspan.engine.generate",
    "Sampling": "longspan.engine.sample",
    "Session": "longspan.engine.session",
}

# Threads of torch's OpenMP wait for more work after each operation, on the cores that the compiled kernels want next.
# They do so for a shorter while than they would by themselves (docs/decisions.md); this is read when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")


def __getattr__(name: str) -> Any:
    # importing torch and transformers takes seconds; `longspan --help` should not
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'longspan' has no attribute {name!r}")

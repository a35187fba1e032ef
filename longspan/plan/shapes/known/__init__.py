"""Well-known models. One file per house, one entry per model; this table is all that lists them."""

from __future__ import annotations

from longspan.plan.shapes.known import gemma, llama, mistral, others, qwen
from longspan.plan.shapes.known.entry import Known

KNOWN: dict[str, Known] = llama.MODELS | qwen.MODELS | gemma.MODELS | mistral.MODELS | others.MODELS

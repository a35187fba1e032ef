"""A plan for a text of known length in a memory of known size, by a simple stated rule."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping

import torch

from longspan.cache.bytes import INTERVAL, Layout
from longspan.engine.plan import Plan
from longspan.errors import DoesNotFit, UsageError

STRETCH = 8
"""Times the trained length that position scaling carries full attention; beyond, questions choose their pages."""


@dataclasses.dataclass(frozen=True)
class Case:
    """tokens: of the text, with its longest question and answer. trained: tokens that the model's positions reach.
    limit: bytes for the KV cache, of which `resident` for pages of a file. given: what the user chose."""

    layout: Layout
    dtype: torch.dtype
    tokens: int
    trained: int
    limit: int
    resident: int
    chunk: int
    given: Mapping[str, str]

    def bytes(self, plan: Plan) -> int:
        """The most memory that the text's cache takes under the plan."""
        whole = plan.layout(self.layout, self.dtype).bytes(self.tokens, chunk=self.chunk)
        return whole + (self.resident if plan.offload is not None else 0)


def choose(case: Case) -> Plan:
    """The first of these that fits, with what was given in its place:

    1. up to 8 times the trained length, every token stays and is read: dense, else int8, else int4;
    2. every token stays, and questions read the pages that a 2-bit copy of the keys shows them, at a distance that the
       model knows: dense or int8; the same in a file (`offload`, or the system's folder for temporary files); int4;
    3. the text's first tokens and its newest, as many as fit (`streaming`): the rest is forgotten.

    Raises DoesNotFit when not even the last does, UsageError when what was given has no meaning together.
    """
    tried: list[int] = []
    refused = None
    for settings, reason in _candidates(case):
        try:
            plan = Plan.parse(**{**settings, **case.given})
        except UsageError as error:  # what was given goes with another candidate, or with none
            refused = error
            continue
        need = case.bytes(plan)
        if need <= case.limit and _disk(case, plan):
            return dataclasses.replace(plan, why=f"{reason}: {need:,} of {case.limit:,} bytes")
        tried.append(need)
    if refused is not None and not tried:
        raise refused
    raise DoesNotFit(
        f"memory: no plan holds {case.tokens:,} tokens in {case.limit:,} bytes of KV cache; the smallest needs "
        f"{min(tried):,}: raise memory"
    )


def _candidates(case: Case) -> Iterator[tuple[dict[str, str], str]]:
    layout, formats = case.layout, ("dense", "int8", "int4")
    if case.tokens <= STRETCH * case.trained:
        yield {}, "the whole text fits and is read by every token"
        for format in formats[1:]:
            yield {"format": format}, f"the whole text fits in {format} and is read by every token"
        beyond = "the whole text does not fit, so questions choose their pages"
    else:
        beyond = (
            f"the text is more than {STRETCH} times the {case.trained:,} tokens that the model knows, so questions "
            "choose their pages"
        )
    if case.given.get("evict", "none") == "none":
        near = min(max(case.trained // 2 // layout.page, 1) * layout.page, 4096)
        few = {"select": f"sketch:pages={near // layout.page},near={near}", "place": f"far:near={near}"}
        folder = case.given.get("offload") or tempfile.gettempdir()
        for format in formats[:2]:
            yield {**few, "format": format}, beyond
        for format in formats[:2]:
            yield {**few, "format": format, "offload": folder}, f"{beyond}, and these lie in a file"
        yield {**few, "format": formats[2]}, beyond
        yield {**few, "format": formats[2], "offload": folder}, f"{beyond}, and these lie in a file"
    if case.given.get("select", "all") == "all" and "offload" not in case.given:
        token = sum(window is None for window in layout.windows) * layout.kv_heads * (layout.page_bytes // layout.page)
        fixed = layout.bytes(1, chunk=case.chunk)
        budget = max((case.limit - fixed) // (token + 32 * len(layout.windows)) - 2 * INTERVAL, 64)
        budget = min(budget, max(case.trained - 2 * INTERVAL, 64))
        yield (
            {"evict": f"streaming:budget={budget}", "place": "slot"},
            "neither the text nor the summaries of its pages fit, so all but its beginning and end is forgotten",
        )


def _disk(case: Case, plan: Plan) -> bool:
    """Whether the disk holds the file that the plan needs."""
    if plan.offload is None or plan.format is None or not os.path.isdir(plan.offload):
        return True  # where there is no such folder, that is said when it is used
    layout = case.layout
    pages = -(-case.tokens // layout.page) * len(layout.windows) * layout.kv_heads
    size = pages * plan.format.bytes(layout.page, layout.head_dim, case.dtype)
    return shutil.disk_usage(plan.offload).free > size

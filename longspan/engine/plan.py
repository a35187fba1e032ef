"""What the cache is to do with a text: format, eviction, selection, placement and residency side by side."""

from __future__ import annotations

import dataclasses

import torch

from longspan import spec
from longspan.attention.placement import PLACEMENTS, Placement, Slot, Text
from longspan.attention.prefill import PREFILLS
from longspan.attention.prefill.dense import Dense as Every
from longspan.attention.prefill.method import Prefill
from longspan.cache.bytes import Layout, storing
from longspan.cache.eviction import POLICIES
from longspan.cache.eviction.view import Policy
from longspan.cache.formats import FORMATS
from longspan.cache.formats.dense import Dense
from longspan.cache.formats.format import Format
from longspan.cache.summaries import SELECTIONS
from longspan.cache.summaries.all import All
from longspan.cache.summaries.selection import Selection
from longspan.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Plan:
    """format: how full pages are stored; None: as they are written. evict: which tokens stay in layers without a
    window; None: all. select: which pages a query reads there; None: all. place: at which distance these stand.
    prefill: which pages the rows of a text look at there while it is read; None: all. offload: folder of the file that
    full pages are kept in; None: they are in memory. texts: what `parse` was given, in full. why: who chose, in a
    sentence, where that was not the user.
    """

    format: Format | None
    evict: Policy | None
    select: Selection | None
    place: Placement
    prefill: Prefill | None
    offload: str | None
    texts: dict[str, str]
    why: str | None = None

    @classmethod
    def parse(
        cls,
        format: str = "dense",
        evict: str = "none",
        select: str = "all",
        place: str = "text",
        offload: str | None = None,
        prefill: str = "dense",
    ) -> Plan:
        """Raises UsageError for what is unknown, and for a combination without a meaning."""
        stored = spec.parse(format, FORMATS, "format")
        policy = None if evict.strip() == "none" else spec.parse(evict, POLICIES, "evict", "none")
        chosen: Selection | None = spec.parse(select, SELECTIONS, "select")
        chosen = None if isinstance(chosen, All) else chosen
        placement: Placement = spec.parse(place, PLACEMENTS, "place")
        reading: Prefill = spec.parse(prefill, PREFILLS, "prefill")
        if not isinstance(reading, Every) and not (policy is None and chosen is None):
            by = "--evict" if policy is not None else "--select"
            raise UsageError(f"prefill: what a text looks at is decided by {by} already; leave out --prefill or {by}")
        if policy is None and chosen is None and not isinstance(placement, Text):
            raise UsageError(
                "place: without eviction and selection every page is read, so each has to stand where it does in the "
                "text; add --evict or --select, or leave --place out"
            )
        if chosen is not None and policy is None and isinstance(placement, Slot):
            raise UsageError(
                "place: pages that a query selects lie in no slots; give far:order=true for pages side by side"
            )
        if policy is not None and policy.merge and not isinstance(stored, Dense):
            raise UsageError(
                "format: merging writes kept tokens anew again and again, and in fewer bits each time costs precision; "
                "give merge=false or leave out --format"
            )
        if chosen is not None and policy is not None and chosen.hold > 1:
            if "hold=" in select:
                raise UsageError(
                    "select: what eviction leaves differs from lane to lane, so what one finds is not for all; leave "
                    "out hold or --evict"
                )
            chosen = dataclasses.replace(chosen, hold=1)  # type: ignore[type-var]
        if offload is not None and policy is not None:
            raise UsageError(
                "offload: what eviction leaves is read by every query, so it stays in memory; leave out --offload or "
                "--evict"
            )
        texts = {
            "format": spec.render(stored, FORMATS),
            "evict": "none" if policy is None else spec.render(policy, POLICIES),
            "select": "all" if chosen is None else spec.render(chosen, SELECTIONS),
            "place": spec.render(placement, PLACEMENTS),
            "prefill": spec.render(reading, PREFILLS),
            "offload": offload or "none",
        }
        kept = None if isinstance(stored, Dense) and offload is None else stored
        return cls(kept, policy, chosen, placement, None if isinstance(reading, Every) else reading, offload, texts)

    def check_chunk(self, chunk: int, rows: int = 0) -> None:
        """Raises UsageError where a step of `chunk` ids, of up to `rows` texts, may be too short for a block."""
        if self.prefill is not None and chunk < self.prefill.block + rows:
            raise UsageError(
                f"chunk: {chunk} ids in a step are too few for --prefill {self.texts['prefill']}, which reads blocks "
                f"of {self.prefill.block}; give {self.prefill.block + rows} or more"
            )

    def layout(self, layout: Layout, dtype: torch.dtype) -> Layout:
        """The layout of a cache that follows this plan. dtype: of the keys and values that the model makes."""
        if self.prefill is not None:
            layout = dataclasses.replace(layout, block=self.prefill.block)
        return storing(layout, dtype, self.format, self.evict, self.select, self.offload is not None)

    def reach(self, tokens: int, layout: Layout) -> int:
        """The largest distance that angles are formed of in layers without a window, when `tokens` are present."""
        if self.select is not None and self.select.pages is not None:
            pages = self.select.pages + -(-self.select.near // layout.page) + 8
            held = pages * layout.page
            if layout.kept is not None and isinstance(self.place, Slot):  # the distance in all that is kept
                held = self._most(layout)
            return int(self.place.reach(tokens, min(tokens, held), layout.page))
        if layout.kept is None:
            return tokens
        return int(self.place.reach(tokens, min(tokens, self._most(layout)), layout.page))

    def _most(self, layout: Layout) -> int:
        """Tokens that a lane holds at most."""
        if layout.waits:
            return 1 << 62
        return layout.fullest + (layout.interval or 0)

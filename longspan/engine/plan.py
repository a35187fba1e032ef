"""What the cache is to do with a text: format, eviction and placement side by side."""

from __future__ import annotations

import dataclasses

from longspan import spec
from longspan.attention.placement import PLACEMENTS, Placement, Text
from longspan.cache.bytes import INTERVAL, Layout, evicting
from longspan.cache.eviction import POLICIES
from longspan.cache.eviction.view import Policy
from longspan.cache.formats import FORMATS
from longspan.cache.formats.dense import Dense
from longspan.cache.formats.format import Format
from longspan.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Plan:
    """format: how full pages are stored; None: as they are written. evict: which tokens stay in layers without a
    window; None: all. place: at which distance these stand. The texts are what `parse` was given, in full."""

    format: Format | None
    evict: Policy | None
    place: Placement
    texts: dict[str, str]

    @classmethod
    def parse(cls, format: str, evict: str, place: str) -> Plan:
        """Raises UsageError for what is unknown, and for a combination without a meaning."""
        stored = spec.parse(format, FORMATS, "format")
        policy = None if evict.strip() == "none" else spec.parse(evict, POLICIES, "evict", "none")
        placement: Placement = spec.parse(place, PLACEMENTS, "place")
        if policy is None and not isinstance(placement, Text):
            raise UsageError(
                "place: without eviction every page is read, so each has to stand where it does in the text; "
                "add --evict, or leave --place out"
            )
        if policy is not None and not isinstance(stored, Dense):
            raise UsageError("format: what eviction packs anew is kept dense so far; leave out --format or --evict")
        texts = {
            "format": spec.render(stored, FORMATS),
            "evict": "none" if policy is None else spec.render(policy, POLICIES),
            "place": spec.render(placement, PLACEMENTS),
        }
        return cls(None if isinstance(stored, Dense) else stored, policy, placement, texts)

    def layout(self, layout: Layout, sealed: int | None) -> Layout:
        """The layout of a cache that follows this plan. sealed: bytes of a page in its format."""
        if self.evict is not None:
            return evicting(layout, self.evict)
        return layout if sealed is None else dataclasses.replace(layout, sealed_bytes=sealed, interval=INTERVAL)

    def reach(self, tokens: int, layout: Layout) -> int:
        """The largest distance that angles are formed of in layers without a window, when `tokens` are present."""
        if layout.kept is None:
            return tokens
        # heads may share what a layer keeps, so one lane may hold all of it
        most = max((kept or 0 for kept in layout.kept), default=0) * layout.kv_heads + (layout.interval or 0)
        return int(self.place.reach(tokens, min(tokens, most), layout.page))

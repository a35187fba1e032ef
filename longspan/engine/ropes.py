"""Which rope is in force: what the checkpoint declares, what the user adds, and from which length on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from longspan import spec
from longspan.errors import UsageError
from longspan.rope import METHODS, Angles, Geometry, Rope
from longspan.rope.angles import scale
from longspan.rope.default import Default
from longspan.rope.when_needed import WhenNeeded
from longspan.rope.yarn import Yarn

CHOICES = ("auto", "checkpoint", *METHODS)


class Ropes:
    """The rope methods of a model, per rope key, and the angles they give for a text's length.

    choice: "auto" obeys the checkpoint and, where it declares plain RoPE, adds YaRN with the factor that the
    text needs once it outgrows the trained length; "checkpoint" adds nothing; a method ("yarn:factor=8")
    replaces the checkpoint's own once the text outgrows the trained length ("default" at once). What is added
    concerns full-attention layers only: a sliding window never sees a distance beyond itself.
    """

    def __init__(
        self, declared: Mapping[str, tuple[Rope, Geometry]], reaching: Iterable[str | None], choice: str = "auto"
    ) -> None:
        """declared: what the checkpoint says per rope key. reaching: the keys of full-attention layers."""
        self.choice = choice
        self.methods: dict[str, tuple[Rope, Geometry]] = dict(declared)
        name, _, options = choice.partition(":")
        if name in ("auto", "checkpoint") and options:
            raise UsageError(f"rope: {name} takes no options; name a method, as in yarn:factor=8")
        added = None if choice in ("auto", "checkpoint") else spec.parse(choice, METHODS, "rope")
        self.main = next((key for key in reaching if key is not None), next(iter(declared), None))
        for key in {k for k in reaching if k is not None}:
            own, geometry = declared[key]
            if added is not None:
                self.methods[key] = (_override(own, added), geometry)
                added_now = self.methods[key][0]
                added_now.angles(geometry, geometry.original + 1)  # a list of the wrong length shows here
            elif choice == "auto" and isinstance(own, Default):
                self.methods[key] = (Yarn(), geometry)

    def angles(self, tokens: int) -> dict[str, Angles]:
        """Per rope key, the angles for a text of which `tokens` tokens are present."""
        return {key: method.angles(geometry, tokens) for key, (method, geometry) in self.methods.items()}

    def used(self, tokens: int) -> str:
        """The method in force at that length on full-attention layers, with its factor, as text ("yarn:factor=9")."""
        if self.main is None:
            return "none"
        method, geometry = self.methods[self.main]
        while isinstance(method, WhenNeeded):
            late = tokens > (method.original or geometry.original)
            method = method.after if late else method.before
        if getattr(method, "factor", 0) is None and hasattr(method, "original"):
            if type(method).__name__ == "LongRope":
                return spec.render(method, METHODS)
            s, _ = scale(None, method.original or geometry.original, tokens)
            if s == 1:
                return "default"
            method = dataclasses.replace(method, factor=round(s, 6))  # type: ignore[type-var]
        return spec.render(method, METHODS)

    def reach(self) -> int | None:
        """Tokens up to which the angles in force were made to work; None without a bound."""
        if self.main is None:
            return None
        method, geometry = self.methods[self.main]
        while isinstance(method, WhenNeeded):
            method = method.after
        if isinstance(method, Default):
            return geometry.positions
        factor = getattr(method, "factor", None)
        if factor is None or type(method).__name__ == "Dynamic":
            return None
        return max(int((getattr(method, "original", None) or geometry.original) * factor), geometry.positions)


def _override(own: Rope, added: Rope) -> Rope:
    if isinstance(added, Default):
        return added
    return WhenNeeded(before=own, after=added, original=getattr(added, "original", None))

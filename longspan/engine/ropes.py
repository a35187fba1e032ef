"""Which rope is in force: what the checkpoint declares, what the user adds, and from which length on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from longspan import spec
from longspan.errors import UsageError
from longspan.rope import FOREVER, METHODS, Angles, Geometry, Rope
from longspan.rope.default import Default
from longspan.rope.when_needed import WhenNeeded
from longspan.rope.yarn import Yarn

CHOICES = ("auto", "checkpoint", *METHODS)
"""What `rope=` takes; methods may be followed by options."""


class Ropes:
    """The rope methods of a model, per rope key, and the angles they give for a text's length.

    choice: "auto" obeys the checkpoint and, where it declares plain RoPE, adds YaRN with the factor that the
    text needs once it outgrows the trained length; "checkpoint" adds nothing; a method ("yarn:factor=8")
    replaces the checkpoint's own once the text outgrows the trained length ("default" at once). What is added
    concerns full-attention layers only: a sliding window never sees a distance beyond itself.
    """

    def __init__(
        self, declared: Mapping[str, tuple[Rope, Geometry]], reaching: Sequence[str | None], choice: str = "auto"
    ) -> None:
        """declared: what the checkpoint says per rope key. reaching: the keys of full-attention layers."""
        self.choice = choice
        self.methods: dict[str, tuple[Rope, Geometry]] = dict(declared)
        name, _, options = choice.partition(":")
        if name in ("auto", "checkpoint") and options:
            raise UsageError(f"rope: {name} takes no options; name a method, as in yarn:factor=8")
        if name.strip().replace("-", "_").lower() not in CHOICES:
            raise UsageError(f"rope: unknown method {name!r}; known: {', '.join(CHOICES)}")
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
        angles = self.angles(tokens)[self.main]
        plain = Default().angles(self.methods[self.main][1], tokens)
        if (angles.inv_freq, angles.attention_factor) == (plain.inv_freq, plain.attention_factor):
            return "default"
        method = angles.method
        factor = getattr(method, "factor", None)
        if isinstance(factor, float) and not factor.is_integer():
            method = dataclasses.replace(method, factor=round(factor, 6))  # type: ignore[type-var]
        return spec.render(method, METHODS)

    def reach(self, tokens: int) -> int:
        """Tokens up to which the angles in force at that length were made to work."""
        return FOREVER if self.main is None else self.angles(tokens)[self.main].reach


def _override(own: Rope, added: Rope) -> Rope:
    if isinstance(added, Default):
        return added
    return WhenNeeded(before=own, after=added, original=getattr(added, "original", None))

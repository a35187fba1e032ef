"""A config.json read field by field: every number is checked, and what is taken from elsewhere is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longspan.errors import ModelError
from longspan.plan.shapes.defaults import DEFAULTS

MOST = 1 << 40
"""Far above any size that a model has."""
LARGEST = 1e15
"""Far above any theta."""
LAYERS = 10_000
HEADS = 1 << 14
CHANNELS = 1 << 24

_LIMITS = {
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": HEADS,
    "vocab_size": CHANNELS,
    "hidden_size": 1 << 20,
    "intermediate_size": CHANNELS,
    "moe_intermediate_size": CHANNELS,
}


class Fields:
    """The fields of one model's config.

    family: `model_type` of the part that is read. where: how messages call the model. notes: what was not given and
    taken from the family's own defaults instead, in words.
    """

    def __init__(self, raw: Mapping[str, Any], family: str, where: str) -> None:
        self.raw, self.family, self.where = raw, family, where
        self.notes: list[str] = []
        self._defaults = DEFAULTS.get(family, {})

    def given(self, *keys: str) -> Any:
        """The first of these fields that is there and not null; None where there is none of them."""
        return next((self.raw[key] for key in keys if self.raw.get(key) is not None), None)

    def size(self, *keys: str, least: int = 1) -> int:
        """A whole number from `least` on that the model must have. Raises ModelError."""
        value = self.optional(*keys, least=least)
        if value is None:
            raise ModelError(
                f"{self.where}: config lacks {keys[0]}, which a {self.family} needs; take the config.json that the "
                "model was published with"
            )
        return value

    def optional(self, *keys: str, least: int = 1) -> int | None:
        """As `size`; None where neither the config nor the family says."""
        for key in keys:
            if self.raw.get(key) is not None:
                return self.whole(self.raw[key], key, least)
        for key in keys:
            if key in self.raw:  # null is what a family means by "none"
                return None
        for key in keys:
            if self._defaults.get(key) is not None:
                value = self._defaults[key]
                self.note(f"{key} is not given: {value:,}, as {self.family} has it")
                return int(value)
        return None

    def whole(self, value: object, key: str, least: int = 1) -> int:
        most = _LIMITS.get(key, MOST)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ModelError(
                f"{self.where}: {key} is {value!r:.40}; expected a whole number from {least:,} to {most:,}"
            )
        return value

    def number(self, *keys: str, default: float, most: float = LARGEST) -> float:
        """A number above 0, at most `most`. Raises ModelError."""
        value = self.given(*keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ModelError(f"{self.where}: {keys[0]} is {value!r:.40}; expected a number above 0, at most {most:g}")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false. Raises ModelError."""
        value = self.given(key)
        if value is None:
            return bool(self._defaults.get(key, default))
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: {key} is {value!r:.40}; expected true or false")
        return value

    def listed(self, key: str, length: int | None = None) -> Sequence[Any] | None:
        """A list; None where it is not given. length: entries that it must have. Raises ModelError."""
        value = self.given(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise ModelError(f"{self.where}: {key} is {value!r:.40}; expected a list")
        if length is not None and len(value) != length:
            raise ModelError(f"{self.where}: {key} has {len(value)} entries for {length} layers")
        return value

    def numbers(self, key: str) -> set[int]:
        """A list of layer numbers, empty where it is not given. Raises ModelError."""
        return {self.whole(value, key, 0) for value in self.listed(key) or ()}

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def wrong(self, problem: str) -> ModelError:
        return ModelError(f"{self.where}: {problem}")

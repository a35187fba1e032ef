"""What a plan knows of a model: numbers, layer by layer, of any architecture, also of those the engine does not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["full", "sliding", "chunked", "linear", "latent"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer.

    kind: `full`: attends to everything; `sliding`: to the newest `window` tokens; `chunked`: to its own chunk of
    `window` tokens; `linear`: keeps a state of `state` numbers, whatever the length; `latent` (MLA): attends to
    everything, and keeps `latent` numbers of a token for all heads together. heads: query heads. kv_heads: G, those
    that are stored; 0 where there are no keys and values of each head. qk_dim, v_dim: channels of a head's queries and
    keys, and of its values. attention, mlp: parameters, norms among them. active: parameters of `mlp` that one token
    uses; all of them but in mixtures of experts.
    """

    kind: Kind
    window: int | None
    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    attention: int
    mlp: int
    active: int
    latent: int = 0
    state: int = 0

    @property
    def token_numbers(self) -> int:
        """Numbers kept of a token while the layer keeps it."""
        return self.latent if self.kind == "latent" else self.kv_heads * (self.qk_dim + self.v_dim)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's geometry.

    embedding: parameters of the input embedding (with positions that are learned). head: of the output head where it is
    not the embedding (0 where it is, `tied`). rest: parameters that belong to no layer, the last norm among them.
    intermediate: of a dense MLP, or of one expert. trained: tokens that the model as published claims to reach;
    original: before its own scaling. theta: of its rotation, 0 where nothing is rotated. rope: the checkpoint's own
    block of rope parameters, {} where it is plain. element: bytes of a number as published. source: where the config
    comes from. notes: what the config does not say and was taken from its family's defaults, in words. nested: the
    field of config.json that holds the text model's, "" where it stands alone. block: rope parameters as transformers
    stores them, whole, also where they are plain; of families that have one for each kind of layer all of these. place:
    folder or file that it was read from, "" for a model that is known by name.
    """

    name: str
    family: str
    layers: tuple[Layer, ...]
    hidden: int
    intermediate: int
    vocab: int
    embedding: int
    head: int
    rest: int
    tied: bool
    trained: int
    original: int
    theta: float
    rope: dict[str, object]
    element: int = 2
    source: str = ""
    notes: tuple[str, ...] = ()
    nested: str = ""
    block: dict[str, object] = field(default_factory=dict)
    place: str = ""

    @property
    def listed(self) -> str:
        """The name by which tables may know it: "" for a model on this disk, whatever its folder is called."""
        return "" if self.place else self.name

    @property
    def parameters(self) -> int:
        return self.embedding + self.head + self.rest + sum(layer.attention + layer.mlp for layer in self.layers)

    @property
    def active_parameters(self) -> int:
        """Those that one token uses: of a mixture, its experts; the whole embedding counted, as is usual."""
        return self.embedding + self.head + self.rest + sum(layer.attention + layer.active for layer in self.layers)

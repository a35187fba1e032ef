"""What is known of each slot of a lane."""

from __future__ import annotations

import numpy as np
import torch

from longspan.cache.eviction.view import Policy
from longspan.cache.pool import Pool
from longspan.kernels.slots import Seen

NAMES = ("position", "weight", "mass", "used", "recent", "rewrites")
NEAR = torch.iinfo(torch.int32).max
"""Text positions beyond it take eight bytes each and not four."""
EMPTY = {"position": -1, "weight": 1, "mass": 0, "used": -1, "recent": 0, "rewrites": 0}


class Notes:
    """Of L layers of G lanes, for each slot, with room to spare at the end: position [L, G, S] in the text, ascending,
    −1 where nothing is held; with a policy that merges weight, the tokens that it stands for; what attention gave it
    since it came (`mass`), from the newest queries (`recent`, per query head), and when last (`used`), each only where
    the policy asks for it; and, with a format, how often it was sealed anew (`rewrites`). They count as memory of the
    cache.
    """

    def __init__(self, layers: int, pool: Pool, policy: Policy) -> None:
        self.layers, self.pool, self.policy = layers, pool, policy
        self.bytes = 0
        self.far = False  # whether the text has grown beyond NEAR
        self._fresh(0)

    def _fresh(self, slots: int) -> None:
        layout, device, needs = self.pool.layout, self.pool.device, self.policy.needs
        size = self.layers, layout.kv_heads, slots
        kind = torch.int64 if self.far else torch.int32
        self.position = torch.full(size, -1, dtype=kind, device=device)
        self.weight = torch.ones(size, device=device) if self.policy.merge else None
        self.mass = torch.zeros(size, device=device) if "mass" in needs else None
        self.used = torch.full(size, -1, dtype=torch.int64, device=device) if "used" in needs else None
        wide = self.layers, layout.kv_heads, layout.heads // layout.kv_heads, slots
        self.recent = torch.zeros(wide, device=device) if "recent" in needs else None
        self.rewrites = torch.zeros(size, dtype=torch.uint8, device=device) if self.pool.sealed is not None else None

    @property
    def slots(self) -> int:
        """How many of each lane there is room for."""
        return self.position.shape[2]

    def arrays(self) -> list[torch.Tensor]:
        """All that there are, in a fixed order."""
        return [array for array in (getattr(self, name) for name in NAMES) if array is not None]

    def clear(self, slots: int) -> None:
        """Know nothing, of so many slots."""
        self._fresh(slots)
        self._account()

    def resize(self, slots: int) -> None:
        """Have room for so many, and keep what is known of them."""
        old = {name: getattr(self, name) for name in NAMES}
        kept = min(slots, self.slots)
        self._fresh(slots)
        for name, tensor in old.items():
            if tensor is not None:
                getattr(self, name)[..., :kept] = tensor[..., :kept]
        self._account()

    def copy(self, other: Notes) -> None:
        """What another knows of as many layers and lanes."""
        self.far = other.far
        for name in NAMES:
            tensor = getattr(other, name)
            setattr(self, name, None if tensor is None else tensor.clone())
        self._account()

    def _account(self) -> None:
        size = sum(x.nbytes for x in self.arrays())
        self.pool.budget.take(size - self.bytes)
        self.bytes = size

    def append(self, first: int, slots: np.ndarray) -> None:
        """Tokens at text positions `first` and on come into slots [L, G, T]."""
        tokens = slots.shape[2]
        index = torch.from_numpy(slots).to(self.pool.device)
        if first + tokens > NEAR and not self.far:
            self.far, self.position = True, self.position.long()
            self._account()
        positions = torch.arange(first, first + tokens, dtype=self.position.dtype, device=self.pool.device)
        self.position.scatter_(2, index, positions.expand(index.shape))
        if self.weight is not None:
            self.weight.scatter_(2, index, 1.0)

    def positions(self, index: int) -> torch.Tensor:
        """Of all slots [G, S] of a layer, int64, however many bytes they are kept in."""
        return self.position[index].long()

    def add(self, index: int, seen: Seen, slots: int) -> None:
        """What attention gave to the first `slots` slots of a layer."""
        if self.mass is not None and seen.mass is not None:
            self.mass[index, :, :slots] += seen.mass
        if self.recent is not None and seen.recent is not None:
            self.recent[index, :, :, :slots] += seen.recent
        if self.used is not None and seen.used is not None:
            self.used[index, :, :slots] = torch.maximum(self.used[index, :, :slots], seen.used)

    def rearrange(self, index: int, sources: list[np.ndarray]) -> None:
        """What is known of the slots of a layer follows them. sources: for each lane, the old slot of each new one, −1
        for holes."""
        width = max(map(len, sources))
        padded = np.full((len(sources), width), -1, dtype=np.int64)
        for row, slots in zip(padded, sources, strict=True):
            row[: len(slots)] = slots
        at = torch.from_numpy(padded).to(self.pool.device)
        for name, empty in EMPTY.items():
            tensor = getattr(self, name)
            if tensor is not None:
                known = tensor[index]
                wide = at if known.ndim == 2 else at[:, None].expand(-1, known.shape[1], -1)
                new = torch.where(wide >= 0, known.gather(-1, wide.clamp_min(0)), empty)
                known.fill_(empty)
                known[..., :width] = new

"""Attention over slots: what a lane kept, in whatever order, each slot with its own position.

Where eviction has been, pages no longer follow the text. Compiled kernels read a few queries' slots where they lie; for
longer steps, and formats that they do not know, slots are gathered here and keys turned one by one. Their number is
bounded by a budget, so this costs the same at any length of the text.
"""

from __future__ import annotations

import dataclasses

import torch

ROWS = 128
"""Queries whose scores are formed at a time."""


@dataclasses.dataclass(frozen=True)
class Slots:
    """R queries of one sequence over the S slots of each of G lanes, in one layer.

    queries [R, H, D], float32: turned, and multiplied by the softmax scale. rows [R]: their text positions. keys,
    values [G, S, D]: keys turned to the same reference as the queries. positions [G, S]: text positions; −1 where a
    slot holds nothing, whatever its key and value hold. weights [G, S]: how many tokens a slot stands for; its
    logarithm is added to the score, so that a mean of n equal tokens weighs as n (ToMe,
    https://arxiv.org/abs/2210.09461). None: one each.
    window: the query at p sees the slots k with p − window < k ≤ p, and those before `sinks`; None: all k ≤ p.
    softcap, learned [H]: as in `Work` (there `sinks`).
    """

    queries: torch.Tensor
    rows: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor | None = None
    window: int | None = None
    sinks: int = 0
    softcap: float | None = None
    learned: torch.Tensor | None = None

    @property
    def groups(self) -> int:
        """g, the query heads per KV head."""
        return self.queries.shape[1] // self.keys.shape[0]


@dataclasses.dataclass
class Seen:
    """What attention gave to each slot, as far as it was asked for.

    mass [G, S]: summed over queries and over the g query heads. recent [G, g, S]: summed over the queries at
    `since` and later. used [G, S]: text position of the last query whose mass on the slot's page of `page` slots,
    summed over its query heads, exceeded `share` of theirs; −1: none.
    """

    since: int | None = None
    page: int | None = None
    share: float = 0.01
    wants_mass: bool = False
    mass: torch.Tensor | None = None
    recent: torch.Tensor | None = None
    used: torch.Tensor | None = None

    def add(self, probabilities: torch.Tensor, rows: torch.Tensor) -> None:
        """probabilities [G, g, R, S] of the queries at `rows`."""
        mass = recent = last = None
        if self.wants_mass:
            mass = probabilities.sum((1, 2))
        if self.since is not None:
            recent = probabilities[:, :, rows >= self.since].sum(2)
        if self.page is not None:
            kv_heads, g, count, slots = probabilities.shape
            padded = torch.nn.functional.pad(probabilities.sum(1), (0, -slots % self.page))
            busy = padded.view(kv_heads, count, -1, self.page).sum(-1) > self.share * g  # [G, R, pages]
            last = torch.where(busy, rows[:, None], -1).amax(1).repeat_interleave(self.page, 1)[:, :slots]
        self.take(mass, recent, last)

    def take(self, mass: torch.Tensor | None, recent: torch.Tensor | None, used: torch.Tensor | None) -> None:
        """What some more queries gave."""
        if mass is not None:
            self.mass = mass if self.mass is None else self.mass + mass
        if recent is not None:
            self.recent = recent if self.recent is None else self.recent + recent
        if used is not None:
            self.used = used if self.used is None else torch.maximum(self.used, used)


def attend(work: Slots, seen: Seen | None = None) -> torch.Tensor:
    """Attention [R, H, D] in float32; `seen` is told the probabilities. Rows that see nothing give 0."""
    heads, dim = work.queries.shape[1:]
    kv_heads, slots = work.positions.shape
    g = work.groups
    held = work.positions >= 0
    keys = work.keys.float().masked_fill(~held[..., None], 0).transpose(1, 2)  # a slot without a token may hold NaN
    values = work.values.float().masked_fill(~held[..., None], 0)
    bias = None if work.weights is None else work.weights.log().masked_fill(~held, 0)
    outputs = []
    for a in range(0, work.rows.shape[0], ROWS):
        queries, rows = work.queries[a : a + ROWS], work.rows[a : a + ROWS]
        count = queries.shape[0]
        q = queries.float().view(count, kv_heads, g, dim).permute(1, 2, 0, 3)
        scores = torch.matmul(q.reshape(kv_heads, g * count, dim), keys).view(kv_heads, g, count, slots)
        if work.softcap is not None:
            scores = work.softcap * torch.tanh(scores / work.softcap)
        if bias is not None:
            scores = scores + bias[:, None, None]
        scores = scores.masked_fill(~_visible(work, held, rows)[:, None], -torch.inf)
        top = scores.amax(-1, keepdim=True)
        if work.learned is not None:
            learned = work.learned.float().view(kv_heads, g, 1, 1)
            top = torch.maximum(top, learned)
        top = top.clamp_min(-1e30)
        probabilities = scores.sub_(top).exp_()
        total = probabilities.sum(-1, keepdim=True)
        if work.learned is not None:
            total = total + torch.exp(learned - top)
        probabilities = probabilities.div_(total.clamp_min(1e-30))
        if seen is not None:
            seen.add(probabilities, rows)
        out = torch.matmul(probabilities.view(kv_heads, g * count, slots), values)
        outputs.append(out.view(kv_heads, g, count, dim).permute(2, 0, 1, 3).reshape(count, heads, dim))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _visible(work: Slots, held: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[G, R, S]."""
    at = work.positions[:, None]
    visible = held[:, None] & (at <= rows[:, None])
    if work.window is not None:
        visible &= (at > rows[:, None] - work.window) | (at < work.sinks)
    return visible

"""A 2-bit copy of the keys."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from longspan.cache.formats.packing import half_above, half_below
from longspan.cache.summaries.choose import among
from longspan.cache.summaries.scan import blocks, largest_dot, per_block
from longspan.cache.summaries.selection import Buffers, Few, Stored, fill, hide
from longspan.kernels import cpu, score_sketch

TOP = 3  # the largest code


@dataclasses.dataclass(frozen=True)
class Sketch(Few):
    """A page is worth its best key, scored on a copy of its keys in four levels per channel: k̂ = min + Δ·code.

    Asymmetric per channel over the page (as KIVI does for keys, arXiv:2402.02750), Δ = (max − min)/3. min and Δ are
    float16, rounded outwards, so |k − k̂| ≤ Δ/2 and a score errs by at most Σ_d |q_d|·Δ_d/2. Byte g of a slot holds
    the codes of channels g, g + D/4, g + 2D/4, g + 3D/4, the first in its lowest bits.

    coarse: percent of a lane's pages whose copy is read. Below 100, every row first ranks all pages by the bound
    Σ_d max(q_d·min_d, q_d·(min_d + 3·Δ_d)), at a tenth of the cost; pages that it drops score −inf. The pages that a
    query reads anyway are allowed for. pages: read by a query of each lane. near: newest tokens always read. sinks:
    first tokens always read.
    """

    coarse: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.coarse <= 100:
            self._refuse(f"coarse={self.coarse:g}; it is a percentage of pages, above 0 and at most 100")

    def layout(self, page: int, head_dim: int) -> Buffers:
        if head_dim % 4:
            self._refuse(f"head_dim {head_dim} is no multiple of 4, which codes need; select quest or representative")
        return {
            "codes": ((head_dim // 4, page), torch.uint8),
            "min": ((head_dim,), torch.float16),
            "step": ((head_dim,), torch.float16),
        }

    def summarise(self, keys: Tensor, valid: Tensor | None = None, mass: Tensor | None = None) -> Stored:
        done = cpu.seal(keys, 1, 2) if valid is None else None
        if done is not None:
            return {"codes": done[0], "min": done[1].flatten(1), "step": done[2].flatten(1)}
        keys = fill(keys, valid)
        low = half_below(keys.amin(-1))
        step = half_above((keys.amax(-1) - low.float()) / TOP)
        codes = keys.sub_(low.float().unsqueeze(-1)).div_(step.float().unsqueeze(-1)).round_().clamp_(0, TOP)
        a, b, c, d = codes.nan_to_num_(0).to(torch.uint8).chunk(4, 1)  # 0/0 where a channel is constant
        return {"codes": a | b << 2 | c << 4 | d << 6, "min": low, "step": step}

    def score(self, queries: Tensor, stored: Stored) -> Tensor:
        """The largest q · k̂ over the page's slots."""
        if self._reads(stored) is None:
            scores = score_sketch(queries.float(), stored["codes"], stored["min"], stored["step"])
            if scores is not None:
                return scores
        return self.opened(queries, stored)

    def _reads(self, stored: Stored) -> int | None:
        """How many pages of a lane each row reads the copy of; None: all."""
        pages, _, slots = stored["codes"].shape[1:]
        read = math.ceil(pages * self.coarse / 100) + self.pages + self.near // slots + 2
        return None if self.coarse == 100 or read >= pages else read

    def opened(self, queries: Tensor, stored: Stored) -> Tensor:
        """The same by torch, which opens the codes block by block."""
        queries = queries.float()
        codes, low, step = stored["codes"], stored["min"], stored["step"]
        (lanes, rows, dim), (pages, _, slots) = queries.shape, codes.shape[1:]
        size = 4 * max(dim * slots, rows * dim, rows * slots)
        most = per_block(size)
        work = _Work(min(most, lanes * pages), rows, dim, slots, queries.device)
        out = largest_dot(queries, low.unsqueeze(2))  # q · min, to which the best code's share is added
        read = self._reads(stored)
        if read is None:
            for lane, page in blocks(lanes, pages, size):
                best = work.best(queries[lane, None], codes[lane, page], step[lane, page])
                out[lane, :, page] += best.transpose(1, 2)
            return hide(out)
        kept = among(out + TOP * largest_dot(queries.clamp(min=0), step.unsqueeze(2)), read)
        at_lane, at_page = kept.any(1).nonzero(as_tuple=True)
        by_page = out.transpose(1, 2)
        for b, n in zip(torch.split(at_lane, most), torch.split(at_page, most), strict=True):
            by_page[b, n] += work.best(queries[b], codes[b, n], step[b, n])
        return hide(out).masked_fill_(~kept, -torch.inf)


class _Work:
    """Buffers for a block of pages."""

    def __init__(self, pages: int, rows: int, dim: int, slots: int, device: torch.device) -> None:
        self.planes = torch.empty((pages, 4, dim // 4, slots), dtype=torch.uint8, device=device)
        self.codes = torch.empty((pages, dim, slots), device=device)
        self.queries = torch.empty((pages, rows, dim), device=device)
        self.products = torch.empty((pages, rows, slots), device=device)

    def best(self, queries: Tensor, codes: Tensor, step: Tensor) -> Tensor:
        """[…, R]: the largest Σ_d q_d·Δ_d·code_d over slots. queries […, R, D], codes […, D/4, P], step […, D].

        Codes are only masked, never shifted: the two bits at place j read as 4^j·code, and the query carries 4^−j.
        """
        lead, group = codes.shape[:-2], codes.shape[-2]
        n = lead.numel()
        planes, scaled = (torch.unflatten(x[:n], 0, lead) for x in (self.planes, self.queries))
        unit = step.to(torch.float32, copy=True)
        for j in range(4):
            torch.bitwise_and(codes, TOP << 2 * j, out=planes[..., j, :, :])
            unit[..., j * group : (j + 1) * group] *= 4.0**-j
        torch.mul(queries, unit.unsqueeze(-2), out=scaled)
        self.codes[:n].copy_(self.planes[:n].flatten(1, 2))
        torch.bmm(self.queries[:n], self.codes[:n], out=self.products[:n])
        return torch.unflatten(self.products[:n].amax(-1), 0, lead)

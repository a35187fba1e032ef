"""A step of a model for few rows as a list of operations in C++, on buffers that stay where they are.

Python is left out between two operations; where one is not known here, or attention is not over pages that lie in
memory, the tape stops, and whoever runs it does that one and goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from longspan.kernels.cpu.decode import DENSE, UNIT, address, operands
from longspan.kernels.cpu.kept import Kept
from longspan.kernels.cpu.linear import KINDS, Prepared
from longspan.kernels.cpu.native import NATIVE, level
from longspan.kernels.work import Raw

Turn = tuple[Tensor, Tensor] | None


class Pages:
    """The pages that a sequence holds in some layers, each a list of what lies together, in the order of the text.

    None of them may be fleeting; they are read where they lie as long as this is used.
    """

    def __init__(self, layers: Sequence[Sequence[Raw]], dim: int) -> None:
        assert NATIVE is not None, "compiled kernels"
        self.held, self.native = layers, NATIVE.Pages(len(layers))
        for index, raws in enumerate(layers):
            start = 0
            for raw in raws:
                assert not raw.fleeting, "pages that stay"
                if raw.pages:
                    self.native.add(index, *operands(raw, start, dim))
                start += raw.pages


@dataclasses.dataclass(frozen=True)
class Stretch:
    """The rows of one sequence: `first`, `base`, `begin` and `window` as in `Work`. distances: cos and sin of each page
    [N, d/2]; None: nothing is turned."""

    pages: Pages
    rows: int
    first: int
    base: int
    begin: int
    window: int | None
    distances: Turn


@dataclasses.dataclass(frozen=True)
class LaneStretch:
    """The rows of one sequence at text positions `at` [R], in layers where eviction decides what stays: in all of them,
    as `kept.Kept` and `kept.attend` have it for one, with a first dimension of layers; slots: of the fullest lane of
    any. queries: cos and sin [R, d/2] of the rows, or [L, G, R, d/2]; None: nothing is turned. mass, used [L, G, S],
    recent [L, G, g, S]: what is added to; None: not asked for."""

    at: Tensor
    heads: int
    kept: Kept
    slots: int
    window: int | None
    sinks: int
    queries: Turn
    mass: Tensor | None
    recent: Tensor | None
    used: Tensor | None
    since: int
    share: float


class Held:
    """What a step's rows write and read in the cache.

    layers: how many the model has. keys [N, D, P], values [N, P, D]: the pages that are written.
    """

    def __init__(self, layers: int, kv_heads: int, keys: Tensor, values: Tensor) -> None:
        assert NATIVE is not None, "compiled kernels"
        narrow = keys.dtype == torch.bfloat16
        self.dtype, self._tensors = keys.dtype, [keys, values]
        self._pages: list[Pages] = []
        self.native = NATIVE.Held(layers, kv_heads, keys.shape[2], narrow, keys.data_ptr(), values.data_ptr())

    def reading(
        self, layers: list[int], pages: Tensor, places: Tensor, keys: Turn, queries: Turn, parts: Sequence[Stretch]
    ) -> None:
        """Layers that hold the same pages of the text and turn alike.

        layers: of the model, in the order of `pages` [layers, G, T], the ids of those that keys go to; −1: not this
        one. places [T]: in the page. keys, queries: cos and sin of the rows [T, 1, d/2].
        """
        self._tensors += [pages, places]
        self.native.reading(layers, pages.data_ptr(), places.data_ptr(), *self._turn(keys, 3), *self._turn(queries, 3))
        for part in parts:
            self._pages.append(part.pages)
            begin, turn = max(part.begin, part.base), self._turn(part.distances, 2)
            self.native.sequence(part.pages.native, part.rows, part.first, part.base, begin, part.window or 0, *turn)

    def keeping(
        self, layers: list[int], pages: Tensor, places: Tensor, keys: Turn, parts: Sequence[LaneStretch]
    ) -> None:
        """Layers where eviction decides what stays, and that turn alike.

        layers: as in `reading`. pages, places [layers, G, T]: where keys go. keys: cos and sin of the rows
        [T, 1, d/2].
        """
        self._tensors += [pages, places]
        assert pages.is_contiguous()
        assert places.is_contiguous()
        self.native.keeping(layers, pages.data_ptr(), places.data_ptr(), *self._turn(keys, 3))
        for part in parts:
            kept = part.kept
            dim, room = kept.values.shape[2], kept.positions.shape[2]
            notes = [part.mass, part.recent, part.used]
            tensors = [part.at, kept.table, kept.sealed, kept.counts, kept.positions, kept.weights, *notes]
            assert all(x is None or x.is_contiguous() for x in tensors)
            assert all(x is None or x.shape[-1] == room for x in notes)
            self._tensors += [x for x in tensors if x is not None]
            half = cos = sin = turns = 0
            if kept.turns is not None:
                by = kept.turns.counts.contiguous()
                assert by.shape == kept.positions.shape
                self._tensors.append(by)
                half, cos, sin = self._turn((kept.turns.cos, kept.turns.sin), 2)
                turns = by.data_ptr()
            apart = part.queries is not None and part.queries[0].dim() == 4
            _, query_cos, query_sin = self._turn(part.queries, 4 if apart else 2)
            self.native.lanes(
                *(part.at.data_ptr(), len(part.at), part.heads, dim, part.slots, kept.table.shape[2]),
                *(x.data_ptr() for x in (kept.table, kept.sealed, kept.counts)),
                DENSE[kept.keys.dtype],
                [] if kept.coded is None else list(operands(kept.coded, 0, dim)),
                *(kept.positions.data_ptr(), address(kept.weights), room, half, cos, sin, turns),
                *(part.window or 0, part.sinks, address(part.mass), address(part.recent), part.since),
                *(address(part.used), part.share, query_cos, query_sin, apart),
            )

    def _turn(self, turn: Turn, dims: int) -> tuple[int, int, int]:
        if turn is None:
            return 0, 0, 0
        both = [x.float().contiguous() for x in turn]
        assert all(x.dim() == dims for x in both)
        self._tensors += both
        return both[0].shape[-1], both[0].data_ptr(), both[1].data_ptr()


def serves(dtype: torch.dtype, dim: int, page: int) -> bool:
    """Whether attention over such pages can be on a tape."""
    return NATIVE is not None and dtype in DENSE and dim % UNIT == 0 and page % UNIT == 0


class Tape:
    """Operations in the order in which they are added. All tensors are contiguous and stay where they are; those that
    are computed with are of `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        assert NATIVE is not None, "compiled kernels"
        self.dtype, self.size = dtype, 0
        self._held: list[object] = []
        self._native = NATIVE.Tape(level(), KINDS[dtype])

    def rows(self, table: Tensor, ids: Tensor, out: Tensor) -> None:
        """out [n, …] = table[ids]."""
        self._add(table, ids, out)
        row = table.stride(0) * table.element_size()
        self._native.rows(table.data_ptr(), row, ids.data_ptr(), ids.numel(), out.data_ptr())

    def norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        """See `linear.rms_norm`."""
        self._add(x, weight, out)
        columns = x.shape[-1]
        places = x.data_ptr(), weight.data_ptr(), out.data_ptr()
        self._native.norm(KINDS[self.dtype], x.numel() // columns, columns, *places, eps)

    def linear(self, layers: Prepared, x: Tensor, outs: Sequence[Tensor]) -> None:
        self._add(layers, x, outs)
        rows = x.numel() // x.shape[-1]
        self._native.linear(layers.native, rows, x.data_ptr(), [out.data_ptr() for out in outs])

    def add(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        self._add(a, b, out)
        self._native.add(a.numel(), a.data_ptr(), b.data_ptr(), out.data_ptr())

    def scale(self, a: Tensor, by: float, out: Tensor) -> None:
        self._add(a, out)
        self._native.scale(a.numel(), a.data_ptr(), by, out.data_ptr())

    def widen(self, a: Tensor, out: Tensor) -> None:
        """out = a in float32."""
        self._add(a, out)
        self._native.widen(a.numel(), a.data_ptr(), out.data_ptr())

    def finite(self, a: Tensor, out: Tensor) -> None:
        """out, one bool: no number is NaN or Inf."""
        self._add(a, out)
        self._native.finite(a.numel(), a.data_ptr(), out.data_ptr())

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
        out: Tensor,
    ) -> None:
        """Attention of a layer's query [1, H, T, D], key and value [1, G, T, D], however they lie but for their
        channels, over what a run's `Held` says; out [1, T, H, D]."""
        sinks = None if sinks is None else sinks.float().contiguous()
        self._add(query, key, value, sinks, out)
        _, heads, rows, dim = query.shape
        strides = [n for x in (query, key, value) for n in (x.stride(2), x.stride(1))]
        self._native.attend(
            *(layer, rows, heads, dim, query.data_ptr(), key.data_ptr(), value.data_ptr(), *strides),
            *(scaling, softcap or 0.0, address(sinks), out.data_ptr()),
        )

    def stop(self) -> None:
        """Something that is done by whoever runs the tape."""
        self._add()
        self._native.stop()

    def run(self, at: int, held: Held | None) -> int:
        """From operation `at` on. The number of the one at which the tape stopped, −1 at its end."""
        native = None if held is None or held.dtype != self.dtype else held.native
        stopped: int = self._native.run(at, torch.get_num_threads(), native)
        return stopped

    def _add(self, *tensors: object) -> None:
        self._held += tensors
        self.size += 1

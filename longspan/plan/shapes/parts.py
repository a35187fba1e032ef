"""Parameters of a decoder layer's parts, counted from their sizes. h: hidden size, H query heads, G KV heads."""

from __future__ import annotations

from dataclasses import dataclass


def grouped(h: int, H: int, G: int, D: int, *, qkv_bias: bool = False, out_bias: bool = False) -> int:
    """Attention whose query heads share keys and values: four matrices (arXiv:2305.13245)."""
    count = 2 * h * H * D + 2 * h * G * D
    return count + (H + 2 * G) * D * qkv_bias + h * out_bias


@dataclass(frozen=True)
class Latent:
    """Attention that keeps one latent vector of a token (MLA, arXiv:2405.04434): `rank` numbers, and `rope` that are
    rotated, for all heads together. q_rank: of the queries' own latent vector; None: they are made directly."""

    rank: int
    rope: int
    nope: int
    v: int
    q_rank: int | None

    def parameters(self, h: int, H: int, bias: bool = False) -> int:
        width = H * (self.nope + self.rope)
        queries = h * width
        if self.q_rank is not None:
            queries = h * self.q_rank + self.q_rank + self.q_rank * width + self.q_rank * bias
        stored = h * (self.rank + self.rope) + self.rank + (self.rank + self.rope) * bias
        return queries + stored + self.rank * H * (self.nope + self.v) + H * self.v * h + h * bias


@dataclass(frozen=True)
class Delta:
    """A gated delta rule (arXiv:2412.06464): a state of one matrix for each value head in place of keys and values, and
    the last inputs of a convolution."""

    key_heads: int
    value_heads: int
    key: int
    value: int
    kernel: int

    @property
    def mixed(self) -> int:
        """Channels that the convolution mixes: queries, keys and values."""
        return 2 * self.key_heads * self.key + self.value_heads * self.value

    @property
    def state(self) -> int:
        return self.value_heads * self.key * self.value + self.mixed * (self.kernel - 1)

    def parameters(self, h: int) -> int:
        values = self.value_heads * self.value
        into = h * (self.mixed + values + 2 * self.value_heads)
        return into + self.mixed * self.kernel + 2 * self.value_heads + self.value + values * h


def mlp(h: int, inner: int, *, gated: bool = True, bias: bool = False) -> int:
    """Two matrices, or three where the first comes with a gate."""
    return (3 if gated else 2) * h * inner + ((2 if gated else 1) * inner + h) * bias


@dataclass(frozen=True)
class Mixture:
    """An MLP of `experts` of which a token uses `top`, and besides what all tokens use (`shared`, router and all)."""

    experts: int
    top: int
    expert: int
    shared: int

    @property
    def parameters(self) -> int:
        return self.experts * self.expert + self.shared

    @property
    def active(self) -> int:
        return self.top * self.expert + self.shared

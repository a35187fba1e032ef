"""Products of float32 numbers with narrow ones on tensor cores, without rounding the former to the latter."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def product(a, b, PARTS: tl.constexpr):
    """float32 [M, N]: a float32 [M, K] times b [K, N].

    PARTS 0: b is float32, and so are all products. Else a is cut into so many numbers of b's dtype, each what the ones
    before leave: 3 of bfloat16 hold all bits of a, 2 the first 16. An M of 16 is the least that tensor cores do, more
    than most groups of heads fill, and reading pages takes longer than either.
    """
    if PARTS == 0:
        return tl.dot(a, b, input_precision="ieee")
    out = tl.zeros((a.shape[0], b.shape[1]), tl.float32)
    for _ in tl.static_range(PARTS):
        part = a.to(b.dtype)
        # the interpreter has no products of bfloat16
        out = tl.dot(part.to(tl.float32), b.to(tl.float32), out) if INTERPRETED else tl.dot(part, b, out)
        a = a - part.to(tl.float32)
    return out

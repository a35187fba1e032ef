"""Compile every kind of Triton kernel for a GPU, without one: run as a script, without TRITON_INTERPRET.

What the interpreter lets pass (types, shapes, constants) is refused here. Kernels are compiled as the host code
launches them: in place of each stands an object that compiles it for the arguments of the launch. Prints a line for
each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import triton
from test_compiled import work
from test_triton import narrowed
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from longspan.cache.formats.fp8 import Fp8
from longspan.cache.formats.int4 import Int4
from longspan.cache.formats.int8 import Int8
from longspan.cache.summaries.sketch import Sketch
from longspan.kernels.triton import decode, sketch

SHARED = 99 * 1024
"""Bytes that a program may have of a processor's own memory on any NVIDIA GPU since compute capability 8.6."""
POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.uint8: "*u8", torch.int64: "*i64",
}  # fmt: skip
SINKS = torch.zeros(4)


class Compiled:
    """In place of a kernel."""

    def __init__(self, kernel: triton.JITFunction, arch: int) -> None:
        self.kernel, self.arch = kernel, arch

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(0 < n < 65536 for n in grid[1:]), grid
        return self.launch

    def launch(self, *args: object, num_warps: int = 4, num_stages: int = 3, **constants: object) -> None:
        names = self.kernel.arg_names
        given = dict(zip(names, args, strict=False)) | constants
        assert given.keys() == set(names)
        signature, fixed, aligned = {}, {}, {}
        for i, name in enumerate(names):
            value = given[name]
            if isinstance(value, torch.Tensor):
                signature[name], aligned[i,] = POINTERS[value.dtype], [["tt.divisibility", 16]]
            elif name in constants or value is None:
                signature[name], fixed[name] = "constexpr", value
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        made = triton.compile(
            ASTSource(self.kernel, signature, fixed, aligned),
            target=GPUTarget("cuda", self.arch, 32),
            options={"num_warps": num_warps, "num_stages": num_stages},
        )
        assert made.asm["cubin"]
        assert made.metadata.shared <= SHARED, made.metadata.shared
        shown = {name: str(value) for name, value in fixed.items()}
        print(self.kernel.__name__, self.arch, f"{made.metadata.shared} bytes shared", shown)


def main() -> None:
    kernels = {"read": decode.read, "join": decode.join}
    for arch, format, dtype, case in [
        (90, Int8(), torch.bfloat16, {"dim": 128, "page": 64, "g": 4}),
        (90, Int4(), torch.bfloat16, {"dim": 128, "page": 64, "g": 8, "kv_heads": 1}),
        (90, Int8(), torch.float32, {"dim": 64, "page": 32, "rows": 8, "window": 20}),
        (90, Int4(group=16), torch.float16, {"dim": 80, "page": 64, "softcap": 5.0, "sinks": SINKS}),
        (90, Int4(), torch.float32, {"dim": 256, "page": 64}),
        (90, Fp8(), torch.bfloat16, {"dim": 96, "page": 128}),
        (90, Fp8(), torch.float32, {"dim": 256, "page": 128, "window": 200, "softcap": 5.0, "sinks": SINKS}),
        (80, Int4(), torch.bfloat16, {"dim": 64, "page": 64, "g": 3}),
    ]:
        for name, kernel in kernels.items():
            setattr(decode, name, Compiled(kernel, arch))
        w = narrowed(work(format, pages=2, **case), dtype)
        decode.attend(w)
    decode.attend(dataclasses.replace(w, cos=None, sin=None))
    best = sketch.best
    for arch, dim, rows in ((90, 128, 1), (80, 80, 20)):
        sketch.best = Compiled(best, arch)
        stored = {name: x[None] for name, x in Sketch().summarise(torch.randn(3, dim, 64)).items()}
        sketch.score(torch.randn(1, rows, dim), stored["codes"], stored["min"], stored["step"])


if __name__ == "__main__":
    main()

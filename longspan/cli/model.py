"""`longspan model`: what a model is and what its cache costs, without reading its weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longspan.cli import options, say

if TYPE_CHECKING:
    from longspan.cache.bytes import Layout
    from longspan.model.shape import Shape
    from longspan.rope import Rope

LENGTHS = {"4K": 4096, "32K": 32768, "128K": 131072}


def model(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id.", show_default=False)],
    dtype: options.Dtype = "auto",
    page: options.Page = 64,
    chunk: options.Chunk = 2048,
    json: options.Json = False,
) -> None:
    """Say what a model is, whether it runs here, and what its cache costs. Reads no weights.

    Exit code 3, with the reason, when it does not run.
    """
    options.check(page=page, chunk=chunk)

    from longspan.errors import UsageError
    from longspan.model.load import DTYPES, inspect

    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not known; known: auto, {', '.join(DTYPES)}")
    shape = inspect(name)
    if dtype == "auto":
        dtype = shape.dtype
    layout = shape.layout(DTYPES[dtype].itemsize, page)
    report = _report(name, shape, dtype, layout, chunk)
    if json:
        say.dump(report)
    else:
        _show(report)


def _report(name: str, shape: Shape, dtype: str, layout: Layout, chunk: int) -> dict[str, Any]:
    windows = sorted({layer.window for layer in shape.layers if layer.window is not None})
    return {
        "model": name,
        "supported": True,
        "family": shape.family,
        "parameters": shape.parameters,
        "layers": len(shape.layers),
        "full_layers": sum(layer.window is None for layer in shape.layers),
        "sliding_layers": sum(layer.window is not None for layer in shape.layers),
        "sliding_windows": windows,
        "layers_without_rope": sum(layer.rope is None for layer in shape.layers),
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden": shape.hidden,
        "vocab": shape.vocab,
        "rope": {
            kind: {
                "method": describe(method),
                "theta": geometry.theta,
                "channels": geometry.dim,
                "original_tokens": geometry.original,
            }
            for kind, (method, geometry) in shape.ropes.items()
        },
        "trained_tokens": shape.trained,
        "original_tokens": shape.original,
        "dtype": dtype,
        "kv_bytes_per_token": layout.token_bytes,
        "kv_bytes": {str(tokens): layout.bytes(tokens, chunk=min(chunk, tokens)) for tokens in LENGTHS.values()},
    }


def _show(report: dict[str, Any]) -> None:
    layers = f"{report['layers']}: {report['full_layers']} full"
    if report["sliding_layers"]:
        windows = ", ".join(f"{window:,}" for window in report["sliding_windows"])
        layers += f", {report['sliding_layers']} sliding (window {windows})"
    if report["layers_without_rope"]:
        layers += f"; {report['layers_without_rope']} without rope"
    rows = [
        ("model", report["model"]),
        ("supported", "yes"),
        ("family", report["family"]),
        ("parameters", f"{report['parameters']:,}"),
        ("layers", layers),
        ("heads", f"{report['heads']} query, {report['kv_heads']} KV, {report['head_dim']} channels each"),
    ]
    several = len(report["rope"]) > 1
    for kind, rope in report["rope"].items():
        where = f" ({kind.replace('_', ' ')})" if several else ""
        rows.append((f"rope{where}", f"{rope['method']}, theta {rope['theta']:,.0f}, {rope['channels']} channels"))
    trained = f"{report['trained_tokens']:,} tokens"
    if report["original_tokens"] != report["trained_tokens"]:
        trained += f" ({report['original_tokens']:,} before its own scaling)"
    rows.append(("trained length", trained))
    rows.append(("KV per token", f"{report['kv_bytes_per_token']:,} bytes in {report['dtype']}"))
    for label, tokens in LENGTHS.items():
        rows.append((f"KV for {label}", say.size(report["kv_bytes"][str(tokens)])))
    say.table(rows)


def describe(method: Rope) -> str:
    """A rope method as --rope takes it; lists of factors are only counted."""
    from longspan import spec
    from longspan.rope import METHODS

    text = spec.render(method, METHODS)
    for field in dataclasses.fields(method):  # type: ignore[arg-type]
        value = getattr(method, field.name)
        if isinstance(value, tuple) and value:
            listed = spec.render(method, METHODS).partition(f"{field.name}=")[2].partition(",")[0]
            text = text.replace(f"{field.name}={listed}", f"{field.name}=({len(value)} factors)")
    return text

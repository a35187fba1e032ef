"""`longspan doctor`: what this machine has, and whether longspan works on it."""

from __future__ import annotations

import os
import platform
from typing import Any

import typer

from longspan import __version__
from longspan.cli import options, say
from longspan.errors import LongspanError


def doctor(json: options.Json = False) -> None:
    """Say what this machine has, and whether longspan works on it. Exit code 1 when the embedded model does not."""
    import psutil
    import torch
    import transformers

    from longspan.kernels import ABSENT, BACKENDS, cpu, triton
    from longspan.kernels.cpu import linear
    from longspan.plan.here import processor

    memory = psutil.virtual_memory()
    name, features = processor()
    compiled = cpu.levels()
    used = compiled[cpu.level()] if compiled else None
    embedded = _embedded()
    if json:
        report = {
            "longspan": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cpu": {"model": name, "features": features, "count": os.cpu_count()},
            "threads": torch.get_num_threads(),
            "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
            "cuda": [{"name": name, "memory_bytes": size} for name, size in _cuda()],
            "backends": list(BACKENDS),
            "compiled_kernels": {
                "present": bool(compiled),
                "instruction_set": used,
                "available": compiled,
                "widened": linear.widened(),
                "in_bytes": linear.in_bytes(),
                "message": None if compiled else cpu.why_none(),
            },
            "triton_kernels": {
                "present": "triton" in BACKENDS,
                "interpreted": triton.interpreted(),
                "message": ABSENT.get("triton"),
            },
            "embedded_model": embedded,
            "ok": embedded["loads"],
        }
        say.dump(report)
    else:
        devices = [f"{name}, {say.size(size)}" for name, size in _cuda()]
        say.table(
            [
                ("longspan", __version__),
                ("python", platform.python_version()),
                ("torch", torch.__version__),
                ("transformers", transformers.__version__),
                ("CPU", f"{name}, {os.cpu_count()} cores"),
                ("CPU features", " ".join(features) or "none of those that matter here"),
                ("threads", str(torch.get_num_threads())),
                ("memory", f"{say.size(memory.available)} available of {say.size(memory.total)}"),
                ("CUDA devices", "; ".join(devices) or "none"),
                ("backends", ", ".join(BACKENDS)),
                ("compiled kernels", f"{used}, of {', '.join(compiled)}" if compiled else f"none: {cpu.why_none()}"),
                ("many rows", f"{', '.join(linear.widened()) or 'nothing'} multiplied in float32, as is faster here"),
                ("with --weights", f"many rows are {'' if linear.in_bytes() else 'not '}multiplied in bytes"),
                ("Triton kernels", _triton(ABSENT.get("triton"), triton.interpreted())),
                ("embedded model", embedded["message"]),
            ]
        )
    if not embedded["loads"]:
        raise typer.Exit(1)


def _triton(why_none: str | None, interpreted: bool) -> str:
    if why_none is not None:
        return f"none: {why_none}"
    return "interpreted, slowly: TRITON_INTERPRET=1" if interpreted else "for CUDA"


def _cuda() -> list[tuple[str, int]]:
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(device.name, device.total_memory) for device in devices]


def _embedded() -> dict[str, Any]:
    """Whether the embedded model is there and loads."""
    from longspan.engine.llm import EMBEDDED
    from longspan.model.load import load

    present = (EMBEDDED / "config.json").is_file()
    if not present:
        return {"present": False, "loads": False, "message": "missing from this copy of longspan"}
    try:
        shape = load(EMBEDDED, device="cpu").shape
    except LongspanError as error:
        return {"present": True, "loads": False, "message": f"does not load: {error}"}
    message = f"loads; {shape.family}, {shape.parameters:,} parameters, trained at {shape.trained:,} tokens"
    return {"present": True, "loads": True, "message": message}

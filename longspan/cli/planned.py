"""From words to what is planned: a model's shape, a machine, the work; and the words of `--compare`."""

from __future__ import annotations

import dataclasses
import re
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longspan.errors import ModelError, UsageError

if TYPE_CHECKING:
    from longspan.model.headers import Tensor
    from longspan.plan.machine import Machine
    from longspan.plan.report import Case
    from longspan.plan.shape import Shape

ELEMENTS = {"auto": 0, "float32": 4, "bfloat16": 2, "float16": 2}
HERE = "this"
ANSWER = 256
"""Tokens of an answer, where nothing is said; at most half of the context."""
SLACK = 0.005
"""Of a model's parameters, by which those that its config comes to may differ from those that its files hold."""
_NUMBERS = {"BF16", "F16", "F32", "F64"}


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says of one plan; sizes as they were written."""

    model: str
    context: str | None = None
    new: int | None = None
    batch: int = 1
    hardware: str | None = None
    memory: str | None = None
    format: str | None = None
    evict: str | None = None
    select: str | None = None
    offload: bool = False
    weights: str = "stored"
    dtype: str = "auto"
    page: int = 64
    chunk: int = 2048

    def case(self) -> Case:
        """All of it checked. Raises UsageError and ModelError."""
        from longspan.cache.pool import PAGE_SIZES
        from longspan.engine.memory import parse_bytes
        from longspan.engine.plan import Plan
        from longspan.plan.advice import replace_weights
        from longspan.plan.mix import tokens
        from longspan.plan.report import Case
        from longspan.plan.work import Work

        for name, least in (("new", 0), ("batch", 1), ("chunk", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name}: {value}; give {least} or more")
        if self.page not in PAGE_SIZES:
            raise UsageError(f"page: {self.page} tokens; choose one of {', '.join(map(str, PAGE_SIZES))}")
        if self.dtype not in ELEMENTS:
            raise UsageError(f"dtype {self.dtype!r} is not known; known: {', '.join(ELEMENTS)}")
        limit = None if self.memory is None else parse_bytes(self.memory)
        context = None if self.context is None else tokens(self.context)
        folder = "." if self.offload else None
        plan = Plan.parse(self.format or "dense", self.evict or "none", self.select or "all", "text", folder)
        machine = machine_of(self.hardware) if self.hardware is not None or limit is None else None
        shape = shape_of(self.model)
        context = shape.trained if context is None else context
        new = min(ANSWER, context // 2) if self.new is None else self.new
        if context <= new:
            raise UsageError(
                f"--new: {new:,} tokens of an answer in a context of {context:,}, which holds the prompt too; "
                ""
                "give fewer, or more --context"
            )
        work = Work(
            context=context,
            new=new,
            batch=self.batch,
            format=plan.format if self.format else None,
            evict=plan.evict,
            select=plan.select,
            offloaded=self.offload,
            element=ELEMENTS[self.dtype] or shape.element,
            page=self.page,
            chunk=self.chunk,
            ranks=1 if machine is None else machine.devices,
        )
        if self.offload and not self.format:
            work = dataclasses.replace(work, format=plan.format)
        if machine is not None and limit is None:
            limit = machine.memory
        return Case(shape, replace_weights(shape, work, self.weights), machine, self.weights, limit)


def compared(base: Settings, words: str) -> tuple[str, Settings]:
    """A plan in the words of this command, beside `base`: "qwen3-8b --hardware h200x2 --format int4"."""
    kinds = {field.name: field for field in dataclasses.fields(Settings)}
    try:
        split = shlex.split(words)
    except ValueError as error:
        raise UsageError(f"--compare {words!r}: {error}") from None
    if not split:
        raise UsageError('--compare: give a model, options or both, as in "qwen3-8b --hardware h200"')
    changed: dict[str, Any] = {}
    if not split[0].startswith("--"):
        changed["model"] = split.pop(0)
    while split:
        flag = split.pop(0)
        flag, sign, value = flag.partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or key not in kinds or key == "model":
            legal = ", ".join(f"--{name}" for name in kinds if name != "model")
            raise UsageError(f"--compare {words!r}: {flag!r} is not known; options: {legal}")
        if key == "offload":
            if sign:
                raise UsageError(f"--compare {words!r}: --offload takes no value; give it, or leave it out")
            changed[key] = True
            continue
        if not sign:
            if not split:
                raise UsageError(f"--compare {words!r}: {flag} needs a value")
            value = split.pop(0)
        if key in ("new", "batch", "page", "chunk"):
            if not re.fullmatch(r"-?\d{1,12}", value, re.ASCII):
                raise UsageError(f"--compare {words!r}: {flag} {value}; give a number")
            changed[key] = int(value)
        else:
            changed[key] = value
    return words, dataclasses.replace(base, **changed)


def label(settings: Settings) -> str:
    """A short name of the plan that the command's own options give."""
    given = [settings.model]
    for name in ("hardware", "context", "format", "evict", "select"):
        if getattr(settings, name) is not None:
            given.append(str(getattr(settings, name)))
    return " ".join(given)


def machine_of(name: str | None) -> Machine:
    """A machine of the table, several of it with "xN"; "this", or None: this one, with the speeds that were measured
    where it was calibrated. Raises UsageError, with the nearest names, and for "this" with a calibration that does not
    hold any more; where nothing was said, its memory alone counts then, with a warning."""
    from longspan.plan import hardware

    if name is not None and name.strip().lower() != HERE:
        return hardware.machine(name)
    try:
        return here()
    except UsageError as error:
        if name is not None:
            raise
        warnings.warn(f"{error}; its memory alone counts", stacklevel=2)
        return unmeasured()


def here() -> Machine:
    """This machine. Raises UsageError where it was calibrated, and that does not hold any more."""
    from longspan.plan import calibration

    return calibration.read().machine if calibration.place().exists() else unmeasured()


def unmeasured() -> Machine:
    """This machine, of which memory alone is known."""
    import psutil

    from longspan.plan.machine import Machine

    memory = psutil.virtual_memory().total
    return Machine(
        "this machine", memory, 0.0, 0.0, source="its memory alone; --calibrate measures its speeds", kind="cpu"
    )


def shape_of(name: str) -> Shape:
    """Of a known name, a folder, a config.json, or a hub id, of which config.json alone is fetched.

    Raises ModelError for one that is not found, with the nearest names, and for a config that contradicts itself or the
    files beside it.
    """
    from longspan.model import headers
    from longspan.plan.shapes.find import find

    shape = find(name)
    folder = Path(shape.place)
    if shape.place and folder.is_dir() and any((folder / file).exists() for file in (headers.SINGLE, headers.INDEX)):
        _agree(shape, folder)
    return shape


_OUTSIDE = re.compile(
    r"(^|\.)(vision|visual|audio|multi_modal|embed_vision|embed_audio|mm_|image_newline|patch_merger|mtp|nextn)"
)
"""Of names of tensors that are no part of the text model: other senses, and heads that foretell several tokens."""
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.*)")
_FORETELLS = "eh_proj", "enorm", "hnorm"
"""What a layer has behind the last one that foretells a further token."""


def _text(tensors: Mapping[str, Tensor], layers: int) -> list[Tensor]:
    """Those of the text model, which has so many layers."""
    placed = {name: _LAYER.search(name) for name in tensors}
    further = {int(match[1]) for match in placed.values() if match is not None and match[2].split(".")[0] in _FORETELLS}
    return [
        tensor
        for name, tensor in tensors.items()
        if not _OUTSIDE.search(name)
        and not ((match := placed[name]) is not None and int(match[1]) >= layers and int(match[1]) in further)
    ]


def _agree(shape: Shape, folder: Path) -> None:
    """Raises ModelError where weights lie beside the config, as plain numbers, and their count is another."""
    from longspan.model import headers

    tensors = _text(headers.read(folder), len(shape.layers))
    if {tensor.dtype for tensor in tensors} - _NUMBERS:
        return  # codes, several to a number or with scales beside
    held = sum(tensor.count for tensor in tensors)
    twice = shape.vocab * shape.hidden if shape.tied else 0  # a tied head may be stored as well
    if all(abs(held - claimed) > SLACK * held for claimed in (shape.parameters, shape.parameters + twice)):
        raise ModelError(
            f"{folder.name}: its config.json comes to {shape.parameters:,} parameters, its files hold {held:,}; one "
            "of them is of another model"
        )

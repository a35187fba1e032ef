"""One pass of the model over a packed row of tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch

from longspan.attention.attend import attend
from longspan.attention.held import held
from longspan.attention.placement import Placement
from longspan.attention.prefill.method import Prefill
from longspan.attention.step import Pages, Segment, Step, Trial
from longspan.errors import DoesNotFit, NumericalError
from longspan.kernels import Backend
from longspan.model.program import Differs, Program, record


@contextlib.contextmanager
def _memory(what: str) -> Iterator[None]:
    """Memory that the system refuses is one clear error."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if "alloc" in str(error) or "out of memory" in str(error).lower() or isinstance(error, MemoryError):
            raise DoesNotFit(f"memory: {what}") from error
        raise


def _finite(logits: torch.Tensor) -> bool:
    """One pass; any NaN or Inf shows in the sum. numpy stays on this thread: torch's own would wait for more on cores
    that the kernels want."""
    if not logits.is_cpu:
        return bool(torch.isfinite(logits.sum()))
    with np.errstate(all="ignore"):
        return bool(np.isfinite(logits.numpy().sum()))


class Forward:
    """Runs the Hugging Face model, unchanged, with our attention.

    ropes: the rope key of each layer, None where a layer rotates nothing. placement, prefill, pages: see `Step`.
    program: what the model does as a flat list of calls, which holds its weights as they were; None: the model's own
    code runs, and `why_no_program` says why.
    """

    def __init__(
        self,
        model: Any,
        ropes: Seq[str | None],
        backend: Backend,
        placement: Placement,
        prefill: Prefill | None = None,
    ) -> None:
        self.model, self.ropes, self.backend, self.placement = model, tuple(ropes), backend, placement
        self.prefill, self.pages = prefill, Pages()
        self._finite: torch.Tensor | None = None
        model.base_model.register_forward_hook(self._look)
        self.program: Program | None = None
        self.why_no_program: str | None = "only on CPUs"
        if next(model.parameters()).is_cpu:
            try:
                self.program, self.why_no_program = self._record(), None
            except Differs as error:
                self.why_no_program = str(error)

    def _look(self, _module: Any, _args: Any, output: Any) -> None:
        self._finite = torch.isfinite(output.last_hidden_state).all()

    @torch.inference_mode()
    def __call__(self, segments: Seq[Segment], ids: Seq[int], keep: Seq[int]) -> torch.Tensor:
        """Logits, float32 [len(keep), V], at the packed places `keep`; keys and values go to the cache.

        Raises NumericalError, naming the layer, when a layer gives NaN or Inf.
        """
        step = Step(segments, self.ropes, self.backend, self.placement, self.prefill, self.pages)
        device = step.pool.device
        row = torch.tensor([ids], dtype=torch.long, device=device)
        with _memory(f"a step of {len(ids)} tokens was refused memory by the system; give a smaller chunk"):
            logits = self._run(row, torch.tensor(keep, dtype=torch.long, device=device), step)
        if self._finite is not None and not bool(self._finite):
            raise NumericalError(self._blame(row, step))
        if not _finite(logits):
            raise NumericalError("the output head gave NaN or Inf; the checkpoint's weights are damaged or overflow")
        return logits

    def _run(self, row: torch.Tensor, keep: torch.Tensor, step: Step) -> torch.Tensor:
        if self.program is None:
            logits, self._finite = self._model(row, keep, step)
        else:
            logits, self._finite = self.program(
                lambda *x, **k: attend(*x, **k, step=step), row, keep, held=lambda: held(step)
            )
        return logits

    def _record(self) -> Program:
        """What the model does with a row, without its code. Raises Differs."""
        device = next(self.model.parameters()).device
        vocab = self.model.get_input_embeddings().weight.shape[0]

        def trial(tokens: int, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.arange(tokens, device=device)[None] % vocab, torch.arange(tokens, device=device)[-kept:]

        nowhere = Trial()
        with torch.inference_mode(), _memory("a step of a few tokens was refused memory by the system"):
            return record(lambda row, keep: self._model(row, keep, nowhere), trial, attend, ("step", nowhere))

    def _model(self, row: torch.Tensor, keep: torch.Tensor, step: Step | Trial) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and whether the last hidden states are finite."""
        places = torch.zeros((1, row.shape[1]), dtype=torch.long, device=row.device)
        output = self.model(input_ids=row, position_ids=places, use_cache=False, step=step, logits_to_keep=keep)
        assert self._finite is not None
        return output.logits[0].float(), self._finite

    def _blame(self, row: torch.Tensor, step: Step) -> str:
        """Run the step again with an eye on every layer; it writes the same keys and values to the same places."""
        bad: list[int] = []

        def watch(index: int) -> Any:
            def hook(_module: Any, _args: Any, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                if not bool(torch.isfinite(hidden).all()):
                    bad.append(index)

            return hook

        hooks = [layer.register_forward_hook(watch(i)) for i, layer in enumerate(self.model.base_model.layers)]
        try:
            self._model(row, torch.zeros(1, dtype=torch.long, device=row.device), step)
        finally:
            for hook in hooks:
                hook.remove()
        where = f"layer {bad[0]}" if bad else "the final norm"
        return f"{where} gave NaN or Inf; the weights are damaged, or {self.model.dtype} overflows: try dtype float32"

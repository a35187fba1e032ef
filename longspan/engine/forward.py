"""One pass of the model over a packed row of tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Seq
from typing import Any

import torch

from longspan.attention.attend import attend
from longspan.attention.placement import Placement
from longspan.attention.step import Segment, Step
from longspan.errors import DoesNotFit, NumericalError
from longspan.kernels import Backend
from longspan.model.program import Program, record


FORMS = 64
"""Row lengths whose programs are kept."""
SEEN = "a row of this length was seen once"


class Forward:
    """Runs the Hugging Face model, unchanged, with our attention.

    ropes: the rope key of each layer, None where a layer rotates nothing. placement: see `Step`.
    """

    def __init__(self, model: Any, ropes: Seq[str | None], backend: Backend, placement: Placement) -> None:
        self.model, self.ropes, self.backend, self.placement = model, tuple(ropes), backend, placement
        self._finite: torch.Tensor | None = None
        self._programs: OrderedDict[tuple[int, int], Program | str] = OrderedDict()
        model.base_model.register_forward_hook(self._look)

    def _look(self, _module: Any, _args: Any, output: Any) -> None:
        self._finite = torch.isfinite(output.last_hidden_state).all()

    @torch.inference_mode()
    def __call__(self, segments: Seq[Segment], ids: Seq[int], keep: Seq[int]) -> torch.Tensor:
        """Logits, float32 [len(keep), V], at the packed places `keep`; keys and values go to the cache.

        Raises NumericalError, naming the layer, when a layer gives NaN or Inf.
        """
        step = Step(segments, self.ropes, self.backend, self.placement)
        device = step.pool.device
        row = torch.tensor([ids], dtype=torch.long, device=device)
        try:
            logits = self._run(row, torch.tensor(keep, dtype=torch.long, device=device), step)
        except (RuntimeError, MemoryError) as error:
            if "alloc" in str(error) or "out of memory" in str(error).lower() or isinstance(error, MemoryError):
                raise DoesNotFit(
                    f"memory: a step of {len(ids)} tokens was refused memory by the system; give a smaller chunk"
                ) from error
            raise
        if self._finite is not None and not bool(self._finite):
            self._programs.clear()
            raise NumericalError(self._blame(row, step))
        if not bool(torch.isfinite(logits.sum())):  # one pass; any NaN or Inf shows in the sum
            raise NumericalError("the output head gave NaN or Inf; the checkpoint's weights are damaged or overflow")
        return logits

    def _run(self, row: torch.Tensor, keep: torch.Tensor, step: Step) -> torch.Tensor:
        """The model's own code the first time that a row has this length; written down the second time, and from then
        on only what was written down."""
        form = row.shape[1], keep.shape[0]
        places = torch.zeros_like(row)  # a constant of the program
        program = self._programs.pop(form, None)
        self._programs[form] = SEEN if program is None else program
        while len(self._programs) > FORMS:
            self._programs.popitem(last=False)
        if isinstance(program, Program):
            logits, self._finite = program(step, row, keep)
            return logits
        if program == SEEN:
            (logits, _), self._programs[form] = record(
                lambda *x: self._model(*x, step, places), (row, keep), attend, "step"
            )
            return logits
        return self._model(row, keep, step, places)[0]

    def _model(
        self, row: torch.Tensor, keep: torch.Tensor, step: Step, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and whether the last hidden states are finite."""
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
            self._model(row, torch.zeros(1, dtype=torch.long, device=row.device), step, torch.zeros_like(row))
        finally:
            for hook in hooks:
                hook.remove()
        where = f"layer {bad[0]}" if bad else "the final norm"
        return f"{where} gave NaN or Inf; the weights are damaged, or {self.model.dtype} overflows: try dtype float32"

"""Write down what a model calls while it runs.

Every function of torch that gets or gives tensors passes a mode of torch's own (`TorchFunctionMode`), so no model's
code is known here. What does not depend on the tokens is kept as the constant that it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from longspan.model.program.calls import Call, Form, Value, each

PLAIN = {"__get__", "size", "dim", "ndimension", "stride", "numel", "nelement", "element_size", "__len__", "type"} | {
    "is_contiguous",
    "is_floating_point",
    "is_complex",
    "storage_offset",
}
"""What may be asked about a tensor of the row: the answer is the same for all rows of this length."""
OPEN = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "repeat_interleave", "bincount"} | {
    "one_hot",
    "bernoulli",
    "multinomial",
    "rand_like",
    "randn_like",
    "randint_like",
}
"""What gives tensors whose shape depends on the numbers, or on chance."""
IN_PLACE = {"__setitem__", "__iadd__", "__imul__", "__isub__", "__itruediv__", "__iand__", "__ior__"}


class Recorder(TorchFunctionMode):
    """Notes calls from `inputs` on. trouble: why the notes do not hold for other tokens; None: they do."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.forms: list[Form] = []
        self.trouble: str | None = None
        self._numbers: dict[int, int] = {}
        self._held: list[torch.Tensor] = []  # so that no other tensor gets the identity of one that is numbered
        self._views: dict[int, tuple[int, int]] = {}  # root and offset of those that only look at another
        for tensor in inputs:
            self._number(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.trouble is None:
            self._note(func, args, kwargs or {}, out)
        return out

    def number(self, tensor: torch.Tensor) -> int | None:
        """Of a tensor that depends on the row; None: it does not, or was made behind torch's back."""
        return self._numbers.get(id(tensor))

    def _number(self, tensor: torch.Tensor) -> int:
        self._numbers[id(tensor)] = len(self._held)
        self._held.append(tensor)
        self.forms.append(Form.of(tensor))
        return len(self._held) - 1

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name, read, masks = getattr(func, "__name__", str(func)), [], []

        def place(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            number = self._numbers.get(id(x))
            if number is None:
                return x
            read.append(x)
            masks.append(x.dtype == torch.bool)
            return Value(number)

        args, kwargs = each(place, args), each(place, kwargs)
        if not read:
            return
        several = isinstance(out, tuple | list) and any(isinstance(x, torch.Tensor) for x in out)
        tensors = list(out) if several else [out]
        changes = name in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or kwargs.get("out") is not None
        masked = name == "__getitem__" and any(masks[1:])
        if changes or masked or name in OPEN or (name == "where" and len(args) + len(kwargs) < 3):
            self.trouble = f"{name} of numbers that depend on the tokens"
        elif not any(isinstance(x, torch.Tensor) for x in tensors):
            if name not in PLAIN:
                self.trouble = f"{name} looks at numbers that depend on the tokens"
        elif several or id(out) not in self._numbers:  # a tensor that it was given stays what it is
            outs = [self._number(x) if isinstance(x, torch.Tensor) else -1 for x in tensors]
            self.calls.append(Call(func, args, kwargs, tuple(outs), several))
            if not several:
                self._look(read, out, outs[0])

    def _look(self, read: list[torch.Tensor], out: torch.Tensor, number: int) -> None:
        """A chain of views is one look at the tensor at its beginning."""
        for x in read:
            if x.untyped_storage().data_ptr() != out.untyped_storage().data_ptr() or x.dtype != out.dtype:
                continue
            at = self._numbers[id(x)]
            root, begin = self._views.get(at, (at, int(x.storage_offset())))
            if not self._held[root].is_contiguous():
                return
            self._views[number] = root, begin
            look = (Value(root), tuple(out.shape), tuple(out.stride()), out.storage_offset() - begin)
            self.calls[-1] = Call(torch.as_strided, look, {}, (number,))
            return

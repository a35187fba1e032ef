"""Several calls as one: root mean square norms, linear layers that read the same row, gated activations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch

from longspan.kernels.cpu.linear import Prepared, why_not
from longspan.kernels.rows import Gate, GatedLinear, Linears, Norm, SumNorm
from longspan.model.program.calls import Call, Form, Value
from longspan.model.program.simplify import PLUS, TIMES
from longspan.model.quantized import QuantizedLinear, multiply

ACTIVATIONS = {"silu", "gelu"}
CAST = {"to", "float", "type_as", "type", "bfloat16", "half"}


class Fuser:
    """Replaces calls one pattern after another. Where a pattern is not met exactly, the calls stay as they are."""

    def __init__(self, calls: list[Call], forms: list[Form], outputs: list[int]) -> None:
        self.calls, self.forms, self.outputs = calls, forms, outputs

    def fuse(self) -> list[Call]:
        self._index()
        for call in list(self.calls):
            if call.name == "rsqrt":
                self._norm(call)
        self._index()
        for call in list(self.calls):
            if isinstance(call.function, Norm):
                self._sum(call)
        self._index()
        for call in list(self.calls):
            if call.name in TIMES:
                self._gate(call)
        self._index()
        self._linears()
        return self.calls

    def _index(self) -> None:
        self.maker = {out: call for call in self.calls for out in call.outs}
        self.users: dict[int, list[Call]] = {}
        for call in self.calls:
            for number in set(call.reads()):
                self.users.setdefault(number, []).append(call)

    def _only(self, number: int) -> Call | None:
        """The one call that reads it."""
        users = self.users.get(number, [])
        return users[0] if len(users) == 1 and number not in self.outputs else None

    def _replace(self, old: list[Call], new: Call, at: Call) -> None:
        """`new` where `at` was, in place of all of `old`."""
        gone = {id(call) for call in old}
        self.calls = [new if call is at else call for call in self.calls if call is at or id(call) not in gone]

    # norms

    def _norm(self, root: Call) -> None:
        """x · rsqrt(mean(x²) + eps), times a weight, in whatever order of casts."""
        found = self._mean(root)
        if found is None:
            return
        inner, x, eps = found
        scaled = self._only(root.out)
        if scaled is None or scaled.name not in TIMES or _values(scaled) != {x, root.out}:
            return
        old, last, weight = [*inner, root, scaled], scaled, None
        while True:
            user = self._only(last.out)
            if user is not None and user.name in CAST and self._same(user.out, x):
                last = user
            elif (
                user is not None
                and weight is None
                and user.name in TIMES
                and (w := self._weight(user, last.out)) is not None
            ):
                last, weight = user, w
            else:
                break
            old.append(last)
        source, cast = x, self.maker.get(x)
        if cast is not None and cast.name in CAST and isinstance(cast.args[0], Value) and self._same(x, cast.args[0]):
            source = cast.args[0]
            if set(map(id, self.users[x])) <= set(map(id, old)):
                old.append(cast)
        form = self.forms[last.out]
        if weight is None:  # one of ones was left out
            weight = torch.ones(form.shape[-1], dtype=form.dtype, device=form.device)
        norm = Norm(weight, eps, form.dtype)
        self._replace(old, Call(norm, (Value(source),), {}, (last.out,)), last)

    def _sum(self, norm: Call) -> None:
        """a + b of one form, and the norm of it."""
        total = self.maker.get(norm.args[0])
        if total is None or total.name not in PLUS or total.kwargs or len(total.args) != 2:
            return
        if not all(isinstance(x, Value) and self.forms[x] == self.forms[total.out] for x in total.args):
            return
        assert isinstance(norm.function, Norm)
        both = Call(SumNorm(norm.function), total.args, {}, (total.out, norm.out), several=True)
        self._replace([norm], both, total)

    def _mean(self, root: Call) -> tuple[list[Call], Value, float] | None:
        """The calls of mean(x²) + eps, x and eps."""
        plus = self.maker.get(root.args[0]) if isinstance(root.args[0], Value) else None
        if plus is None or plus.name not in PLUS or len(plus.args) != 2 or plus.kwargs:
            return None
        mean = self.maker.get(plus.args[0]) if isinstance(plus.args[0], Value) else None
        if mean is None or mean.name != "mean" or not isinstance(plus.args[1], float):
            return None
        over = mean.args[1:] or (mean.kwargs.get("dim"),)
        power = self.maker.get(mean.args[0]) if isinstance(mean.args[0], Value) else None
        if power is None or power.name != "pow" or power.args[1] != 2 or over[0] not in (-1, (-1,), [-1]):
            return None
        x = power.args[0]
        if not isinstance(x, Value) or any(self._only(c.out) is None for c in (plus, mean, power)):
            return None
        return [power, mean, plus], x, plus.args[1]

    def _weight(self, call: Call, number: int) -> torch.Tensor | None:
        """The constant of one number for each channel that a product multiplies `number` by."""
        if len(call.args) != 2 or _values(call) != {number} or not self._same(call.out, number):
            return None
        other = call.args[1] if isinstance(call.args[0], Value) else call.args[0]
        if not isinstance(other, torch.Tensor) or other.shape != self.forms[number].shape[-1:]:
            return None
        return other

    def _same(self, out: int, x: int) -> bool:
        return self.forms[out].shape == self.forms[x].shape

    # activations

    def _gate(self, product: Call) -> None:
        """act(a) · b."""
        if len(product.args) != 2 or not all(isinstance(x, Value) for x in product.args):
            return
        for a, b in (product.args, product.args[::-1]):
            active = self.maker.get(a)
            if active is None or active.name not in ACTIVATIONS or self._only(a) is not product:
                continue
            kind = active.name
            if kind == "gelu":
                kind = {"none": "gelu", "tanh": "gelu_pytorch_tanh"}[active.kwargs.get("approximate", "none")]
            inner = active.args[0]
            if not isinstance(inner, Value) or not self._same(inner, b) or self.forms[inner] != self.forms[b]:
                continue
            gate, up = self.maker.get(inner), self.maker.get(b)
            if gate is not None and up is not None and self._joined(gate, up, active, product):
                layers = [_layer(gate), _layer(up)]
                both = GatedLinear(layers[0].run, layers[1].run, kind, prepared(layers, kind))
                self._replace([active, gate, up], Call(both, (gate.args[0],), {}, (product.out,)), product)
            else:
                self._replace([active], Call(Gate(kind), (inner, b), {}, (product.out,)), product)
            return

    def _joined(self, gate: Call, up: Call, active: Call, product: Call) -> bool:
        """Whether these are two linear layers that read the same row, and that nobody else reads."""
        return (
            gate is not up
            and all(self._plain(call) for call in (gate, up))
            and gate.args[0] == up.args[0]
            and _layer(gate).codes == _layer(up).codes
            and self._only(gate.out) is active
            and self._only(up.out) is product
        )

    # linear layers

    def _linears(self) -> None:
        """Layers that read the same tensor are one call, where the first of them stood."""
        groups: dict[tuple[int, str | None], list[Call]] = {}
        for call in self.calls:
            if self._plain(call):
                groups.setdefault((int(call.args[0]), _layer(call).codes), []).append(call)
        for (x, _), members in groups.items():
            layers = [_layer(call) for call in members]
            linears = Linears([layer.run for layer in layers], prepared(layers))
            outs = tuple(call.out for call in members)
            self._replace(members, Call(linears, (Value(x),), {}, outs, several=True), members[0])

    def _plain(self, call: Call) -> bool:
        """Whether it is a linear layer with weights of its own."""
        if call.function is multiply:
            return True
        if call.function is not torch.nn.functional.linear or not isinstance(call.args[0], Value):
            return False
        given = [*call.args[1:], *call.kwargs.values()]
        return (
            isinstance(given[0], torch.Tensor)
            and given[0].dtype == self.forms[call.args[0]].dtype
            and all(x is None or isinstance(x, torch.Tensor) for x in given)
        )


@dataclasses.dataclass(frozen=True)
class Layer:
    """A linear layer. codes: what its weights are kept as, [N, …] bytes; None: numbers [N, K]."""

    run: Callable[[torch.Tensor], torch.Tensor]
    weight: torch.Tensor
    bias: torch.Tensor | None
    columns: int
    codes: str | None
    dtype: torch.dtype


def _layer(call: Call) -> Layer:
    if call.function is multiply:
        quantized: QuantizedLinear = call.args[1]
        packed, columns, dtype = quantized.packed, quantized.in_features, quantized.dtype
        return Layer(quantized.multiply, packed, quantized.bias, columns, quantized.form, dtype)
    weight: torch.Tensor = call.args[1]
    bias: torch.Tensor | None = call.args[2] if len(call.args) > 2 else call.kwargs.get("bias")
    run = functools.partial(torch.nn.functional.linear, weight=weight, bias=bias)
    return Layer(run, weight, bias, weight.shape[1], None, weight.dtype)


def prepared(layers: Sequence[Layer], act: str | None = None) -> Prepared | None:
    """All of them, compiled; None: compiled kernels do not serve."""
    weights, first = [layer.weight for layer in layers], layers[0]
    if why_not(weights, act, first.dtype) is not None or any(layer.dtype != first.dtype for layer in layers):
        return None
    biases = [layer.bias for layer in layers]
    return Prepared(weights, biases, act=act, codes=first.codes, columns=first.columns, dtype=first.dtype)


def _values(call: Call) -> set[int]:
    return {int(x) for x in call.args if isinstance(x, Value)}


def fuse(calls: list[Call], forms: list[Form], outputs: list[int]) -> list[Call]:
    return Fuser(calls, forms, outputs).fuse()

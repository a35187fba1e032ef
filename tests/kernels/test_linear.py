"""Products of rows with a layer's matrices: every dtype, instruction set and number of rows."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from longspan.errors import UsageError
from longspan.kernels import codes, cpu
from longspan.kernels.cpu import linear
from longspan.kernels.rows import GatedLinear, Linears

needs_compiled = pytest.mark.skipif(cpu.NATIVE is None, reason=cpu.why_none())
LEVELS = cpu.levels() or [None]
CLOSE = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
ACTS = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def some(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differ(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected).abs().max() / expected.abs().max())


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("columns", [1, 7, 33, 100, 576])
def test_several_matrices_with_biases(dtype, columns: int, instructions: str):
    weights = [some(n, columns, dtype=dtype, seed=n) for n in (130, 5, 1)]
    biases = [some(130, dtype=dtype), None, some(1, dtype=dtype)]
    prepared = linear.Prepared(weights, biases, instructions=instructions)
    for rows in (*range(1, linear.FEW + 1), linear.FEW + 1, 64, 131):
        x = some(rows, columns, dtype=dtype, seed=99)
        for out, w, b in zip(prepared(x), weights, biases, strict=True):
            right = x.double() @ w.double().T + (0 if b is None else b.double())
            assert out.dtype == dtype
            assert differ(out, right) < CLOSE[dtype]


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("rows", [3, 40])
def test_a_gate_goes_with_what_it_gates(rows: int, dtype, act: str, instructions: str):
    gate, up, x = some(75, 64, dtype=dtype), some(75, 64, dtype=dtype, seed=1), some(rows, 64, dtype=dtype, seed=2)
    (out,) = linear.Prepared([gate, up], act=act, instructions=instructions)(x)
    assert differ(out, ACTS[act](x.double() @ gate.double().T) * (x.double() @ up.double().T)) < 2 * CLOSE[dtype]


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("columns", [7, 100, 576])
@pytest.mark.parametrize("form", codes.BITS)
def test_codes_count_as_what_they_open_to(form: str, columns: int, instructions: str):
    weight, bias = some(193, columns), some(193)
    packed = codes.quantize(weight, codes.BITS[form])
    opened = codes.dequantize(packed, columns, codes.BITS[form], torch.float32)
    prepared = linear.Prepared(
        [packed], [bias], codes=form, columns=columns, dtype=torch.float32, instructions=instructions
    )
    for rows in (1, 2, 3, 5, 16, 17, 70):
        x = some(rows, columns, seed=3)
        assert differ(prepared(x)[0], x.double() @ opened.double().T + bias.double()) < 1e-6
    out = torch.empty(100, columns)
    prepared.native.open(2, 93, 193, out.data_ptr())
    assert torch.allclose(out, opened[93:], atol=1e-6)


def in_bytes(x: torch.Tensor) -> torch.Tensor:
    """x in float64 as bytes with a scale for 64 channels of a row, opened again."""
    groups = functional.pad(x.float(), (0, -x.shape[1] % codes.GROUP)).unflatten(1, (-1, codes.GROUP))
    top = groups.abs().amax(-1, keepdim=True)
    times = torch.where(top > 0, torch.full_like(top, 127) / top, 0)  # 127 / top would be 127 · (1 / top) in torch
    whole = (groups * times).round()
    return (whole.double() * (top / 127)).flatten(1)[:, : x.shape[1]]


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("form", codes.BITS)
@pytest.mark.parametrize(("rows", "columns"), [(17, 7), (18, 100), (70, 576), (1029, 576), (40, 1100)])
def test_many_rows_are_bytes_where_the_processor_multiplies_them(
    rows: int, columns: int, form: str, dtype, instructions: str
):
    weights = [some(n, columns, seed=n) for n in (70, 193)]
    biases = [some(70, dtype=dtype), None]
    packed = [codes.quantize(w, codes.BITS[form]) for w in weights]
    prepared = linear.Prepared(packed, biases, codes=form, columns=columns, dtype=dtype, instructions=instructions)
    assert prepared.native.in_bytes() == ((instructions or "").endswith("bf16"))
    x = some(rows, columns, dtype=dtype, seed=3) * torch.logspace(-3, 2, rows).unsqueeze(1).to(dtype)
    read = in_bytes(x) if prepared.native.in_bytes() else x.double()
    for out, weight, bias in zip(prepared(x), packed, biases, strict=True):
        opened = codes.dequantize(weight, columns, codes.BITS[form], torch.float32)
        right = read @ opened.double().T + (0 if bias is None else bias.double())
        assert ((out - right).abs().amax(1) <= CLOSE[dtype] * right.abs().amax(1)).all()


@needs_compiled
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_none_is_in_all_results_of_its_row(bad: float):
    packed = codes.quantize(some(9, 100), 8)
    prepared = linear.Prepared([packed], codes="int8", columns=100, dtype=torch.bfloat16)
    x = some(20, 100, dtype=torch.bfloat16)
    x[3, 99], x[4] = bad, 0
    (out,) = prepared(x)
    assert not out[3].isfinite().any()
    assert (out[4] == 0).all()
    assert torch.cat([out[:3], out[4:]]).isfinite().all()


@needs_compiled
@pytest.mark.parametrize("form", codes.BITS)
def test_rows_in_bytes_do_not_depend_on_their_neighbours(form: str):
    packed = codes.quantize(some(100, 200), codes.BITS[form])
    prepared = linear.Prepared([packed], codes=form, columns=200, dtype=torch.bfloat16)
    x = some(1300, 200, dtype=torch.bfloat16)
    (together,) = prepared(x)
    for start, stop in ((0, 17), (5, 90), (1000, 1300)):
        assert torch.equal(prepared(x[start:stop])[0], together[start:stop])


@pytest.mark.parametrize(("form", "bound"), [("int8", 0.007), ("int4", 0.11)])
def test_codes_are_near_the_weights(form: str, bound: float):
    weight = some(64, 200)
    opened = codes.dequantize(codes.quantize(weight, codes.BITS[form]), 200, codes.BITS[form], torch.float32)
    assert (opened - weight).norm() < bound * weight.norm()


@pytest.mark.parametrize("form", codes.BITS)
def test_a_matrix_becomes_the_same_codes_block_by_block(form: str, monkeypatch: pytest.MonkeyPatch):
    weight = some(50, 130)
    whole = codes.quantize(weight, codes.BITS[form])
    monkeypatch.setattr(codes, "AT_ONCE", 7 * 130)
    assert torch.equal(codes.quantize(weight, codes.BITS[form]), whole)


@pytest.mark.parametrize("form", codes.BITS)
def test_zeros_stay_zeros_and_broken_weights_are_noticed(form: str):
    weight = torch.zeros(3, 128)
    weight[1, 5], weight[2, 70] = torch.nan, torch.inf
    opened = codes.dequantize(codes.quantize(weight, codes.BITS[form]), 128, codes.BITS[form], torch.float32)
    assert (opened[0] == 0).all()
    assert opened[1, :64].isnan().all()
    assert opened[2, 64:].isnan().all()


@needs_compiled
@pytest.mark.parametrize("instructions", LEVELS)
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("rows", [2, 20])
def test_a_number_that_is_none_reaches_the_result(rows: int, dtype, bad: float, instructions: str):
    weight, x = some(9, 70, dtype=dtype).abs(), some(rows, 70, dtype=dtype).abs()
    weight[4, 69], x[1, 3] = bad, bad
    (out,) = linear.Prepared([weight], instructions=instructions)(x)
    assert not out[1].isfinite().any()
    for row in (0, *range(2, rows)):
        assert [bool(n) for n in out[row].isfinite()] == [True] * 4 + [False] + [True] * 4


@needs_compiled
@pytest.mark.parametrize(("rows", "part"), [(7, 1), (300, 29)])
def test_threads_and_neighbours_change_nothing(rows: int, part: int):
    weights = [some(n, 576, dtype=torch.bfloat16) for n in (576, 192)]
    prepared, x = linear.Prepared(weights), some(rows, 576, dtype=torch.bfloat16)
    together = prepared(x)
    try:
        torch.set_num_threads(3)
        for _ in range(50):
            assert all(torch.equal(a, b) for a, b in zip(prepared(x), together, strict=True))
    finally:
        torch.set_num_threads(1)
    for t in range(0, rows - part + 1, part):
        here = slice(t, t + part)
        assert all(torch.equal(a, b[here]) for a, b in zip(prepared(x[here]), together, strict=True))


@needs_compiled
@pytest.mark.parametrize("instructions", range(len(cpu.levels())))
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("plus_one", [False, True])
def test_norm_with_and_without_residual(dtype, plus_one: bool, instructions: int):
    for rows, columns in ((3, 5), (3, 576), (200, 576)):
        x, weight, residual = (
            some(rows, columns, dtype=dtype),
            some(columns, dtype=dtype, seed=1),
            some(rows, columns, seed=2).to(dtype),
        )
        for base in (None, residual.clone()):
            total = x if base is None else (x.float() + residual.float()).to(dtype)
            out = linear.rms_norm(x, weight, 1e-5, plus_one, residual=base, instructions=instructions)
            wide = total.double()
            right = wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * (weight.double() + plus_one)
            assert differ(out, right) < CLOSE[dtype]
            assert base is None or torch.equal(base, total)


@needs_compiled
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_a_sum_may_go_elsewhere_than_to_the_residual(dtype):
    x, residual, weight = (some(*size, dtype=dtype, seed=i) for i, size in enumerate([(70, 576), (70, 576), (576,)]))
    before, total = residual.clone(), torch.empty_like(x)
    out = linear.rms_norm(x, weight, 1e-5, residual=residual, total=total)
    assert torch.equal(residual, before)
    assert torch.equal(total, (x.float() + residual.float()).to(dtype))
    assert torch.equal(out, linear.rms_norm(total, weight, 1e-5))


@pytest.mark.parametrize("dtype", [*CLOSE, torch.float64], ids=str)
def test_numbers_are_rounded_as_torch_rounds_them(dtype):
    edges = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 7e4, 1e-6, 1e-8, 3e-5, -1.0])
    x = torch.cat([some(99_990), edges])
    for given in (x, x.view(1000, 100).T):
        torch.testing.assert_close(linear.narrow(given, dtype), given.to(dtype), rtol=0, atol=0, equal_nan=True)


@needs_compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("most", [linear.FEW, linear.ANY])
def test_who_multiplies_many_rows_does_not_matter(most: int, dtype):
    x, layers = some(2, 25, 96, dtype=dtype), [torch.nn.Linear(96, n).to(dtype) for n in (80, 80)]
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
    both, gated = linear.Prepared(weights, biases), linear.Prepared(weights, biases, act="silu")
    both.most = gated.most = most
    right = [x.double() @ w.double().T + b.double() for w, b in zip(weights, biases, strict=True)]
    with torch.inference_mode():
        for given in (x, some(2, 25, 192, dtype=dtype)[..., ::2].copy_(x)):  # these do not lie side by side
            for out, expected in zip(Linears(layers, both)(given), right, strict=True):
                assert differ(out, expected) < 2 * CLOSE[dtype]
            out = GatedLinear(*layers, "silu", gated)(given)
            assert differ(out, functional.silu(right[0]) * right[1]) < 3 * CLOSE[dtype]


@needs_compiled
def test_what_does_not_go_together_is_refused():
    for weights, act in (
        ([some(4, 8), some(4, 9)], None),
        ([some(4, 8), some(4, 8, dtype=torch.bfloat16)], None),
        ([some(4, 8).double()], None),
        ([some(8, 4).T], None),
        ([some(4, 8), some(5, 8)], "silu"),
        ([some(4, 8), some(4, 8)], "cos"),
    ):
        with pytest.raises(UsageError, match="prepared matrices: "):
            linear.Prepared(weights, act=act)

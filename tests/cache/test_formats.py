"""Formats: the error stays within Δ/2, holes influence nothing, the bytes are the stated ones."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from longspan.cache.formats import FORMATS
from longspan.cache.formats.format import Format
from longspan.cache.formats.int4 import rotate
from longspan.errors import NumericalError, UsageError
from longspan.spec import parse, render

# Each format as it comes, and once more with each switch on.
SPECS = [
    f"{name}:{field.name}=true" if field else name
    for name, cls in FORMATS.items()
    for field in (None, *(f for f in dataclasses.fields(cls) if f.default is False))  # type: ignore[arg-type]
]
LOSSY = [spec for spec in SPECS if spec != "dense"]
BITS = {"int8": 8, "int4": 4}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HEAD_DIMS = [16, 64, 80, 96, 128]
P = 64

Pages = tuple[torch.Tensor, torch.Tensor]


def build(spec: str, head_dim: int = 64) -> Format:
    """The format, with a group that divides head_dim where the default does not."""
    made = parse(spec, FORMATS, "format")
    if "group" in {f.name for f in dataclasses.fields(made)} and head_dim > 32 and head_dim % 32:  # type: ignore[arg-type]
        made = dataclasses.replace(made, group=16)  # type: ignore[type-var]
    return made


def gaussian(head_dim: int, n: int = 3, seed: int = 0, page: int = P) -> Pages:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(n, head_dim, page, generator=made), torch.randn(n, page, head_dim, generator=made)


def outliers(head_dim: int) -> Pages:
    """Two channels fifty times as large as the others."""
    keys, values = gaussian(head_dim, seed=1)
    keys[:, [3, 10]] *= 50
    values[..., [3, 10]] *= 50
    return keys, values


def offset(head_dim: int) -> Pages:
    """Channels far from 0, where float16's rounding of the minimum is coarser than Δ of int8."""
    keys, values = gaussian(head_dim, seed=2)
    return keys + 300, values - 300


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bitwise."""
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and torch.equal(a[k].view(torch.uint8), b[k].view(torch.uint8)) for k in a
    )


def assert_within(found: torch.Tensor, true: torch.Tensor, step: torch.Tensor) -> None:
    """|x − x̂| ≤ Δ/2, plus the rounding to the output dtype and that of float32 arithmetic."""
    allowed = step.expand(true.shape) / 2 * (1 + 1e-5) + torch.finfo(found.dtype).eps / 2 * found.float().abs()
    allowed += 1e-6 * true.float().abs().amax()
    excess = ((found.float() - true.float()).abs() - allowed).max().item()
    assert found.isfinite().all()
    assert excess <= 0, f"error exceeds the bound by {excess}"


@pytest.mark.parametrize("spec", SPECS)
def test_the_text_names_the_format(spec: str):
    assert render(parse(spec, FORMATS, "format"), FORMATS) == spec
    with pytest.raises(UsageError, match="no option 'bits'"):
        parse(f"{spec.split(':')[0]}:bits=3", FORMATS, "format")


@pytest.mark.parametrize("pages", [gaussian, outliers, offset])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", LOSSY)
def test_the_error_is_at_most_half_a_step(spec: str, dtype: torch.dtype, head_dim: int, pages):
    format = build(spec, head_dim)
    keys, values = (x.to(dtype) for x in pages(head_dim))
    before = keys.clone(), values.clone()
    stored = format.seal(keys, values, None)
    opened = format.open(stored, dtype)
    steps = format.steps(stored)
    assert torch.equal(keys, before[0])
    assert torch.equal(values, before[1])
    assert steps is not None
    for found, true, step in zip(opened, (keys, values), steps, strict=True):
        assert found.dtype == dtype
        assert found.shape == true.shape
        assert_within(found, true, step)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("spec", LOSSY)
def test_the_error_is_at_most_half_a_step_on_cuda(spec: str):
    format = build(spec)
    keys, values = (x.cuda() for x in outliers(64))
    valid = torch.arange(P, device="cuda").expand(3, P) % 5 > 0
    poisoned = keys.masked_fill(~valid[:, None], math.nan), values.masked_fill(~valid[..., None], math.nan)
    stored = format.seal(*poisoned, valid)
    steps = format.steps(stored)
    assert steps is not None
    found_keys, found_values = format.open(stored, torch.float32)
    assert_within(found_keys[..., valid[0]], keys[..., valid[0]], steps[0].expand_as(keys)[..., valid[0]])
    assert_within(found_values[:, valid[0]], values[:, valid[0]], steps[1][:, valid[0]])
    assert found_keys.isfinite().all()
    assert found_values.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_loses_nothing(dtype: torch.dtype):
    keys, values = (x.to(dtype) for x in outliers(64))
    stored = build("dense").seal(keys, values, None)
    opened = build("dense").open(stored, dtype)
    assert torch.equal(opened[0], keys)
    assert torch.equal(opened[1], values)
    assert build("dense").steps(stored) is None


@pytest.mark.parametrize("name", BITS)
def test_steps_are_the_range_over_the_levels(name: str):
    """Keys per channel over the page, values per token in groups of 32; the bound is no wider than that."""
    keys, values = outliers(64)
    stored = build(name).seal(keys, values, None)
    key_step, value_step = build(name).steps(stored)  # type: ignore[misc]
    levels = 2 ** BITS[name] - 1
    expected = (keys.amax(-1, keepdim=True) - keys.amin(-1, keepdim=True)) / levels
    torch.testing.assert_close(key_step, expected, rtol=4e-3, atol=0)
    grouped = values.unflatten(-1, (2, 32))
    ranges = grouped.amax(-1) - grouped.amin(-1)
    torch.testing.assert_close(value_step, (ranges / levels).repeat_interleave(32, -1), rtol=4e-3, atol=0)
    assert (stored["key_min"].float() <= keys.amin(-1)).all()
    assert (stored["key_min"].float() + levels * stored["key_step"].float() >= keys.amax(-1)).all()
    error = (build(name).open(stored, torch.float32)[0] - keys).abs() / key_step
    assert error.max() > 0.45, "a bound that is never approached says nothing"


def test_fp8_keeps_small_numbers_relatively_as_well_as_large_ones():
    keys, values = gaussian(64)
    keys[:, :, 0] = 100  # beside it, int8 would lose what is below 0.2
    stored = build("fp8").seal(keys, values, None)
    found = build("fp8").open(stored, torch.float32)[0]
    normal = keys.abs() > stored["key_scale"].float().unsqueeze(-1) * 2**-6
    assert normal.float().mean() > 0.9
    assert ((found - keys).abs() <= keys.abs() / 16 + 1e-6)[normal].all()
    step = build("fp8").steps(stored)[0]  # type: ignore[index]
    assert (step <= found.abs() / 8 * (1 + 1e-6))[normal].all(), "the bound is as tight as three bits of mantissa"


def per_token(keys: torch.Tensor, bits: int) -> torch.Tensor:
    """What the formats do not do: one range for all channels of a slot."""
    low, high = keys.amin(1, keepdim=True), keys.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return low + ((keys - low) / step).round() * step


@pytest.mark.parametrize("name", BITS)
def test_keys_per_channel_beat_keys_per_token_beside_an_outlier_channel(name: str):
    keys, values = outliers(64)
    found = build(name).open(build(name).seal(keys, values, None), torch.float32)[0]
    ordinary = [c for c in range(64) if c not in (3, 10)]
    channel = (found - keys)[:, ordinary].norm()
    token = (per_token(keys, BITS[name]) - keys)[:, ordinary].norm()
    assert channel < token / 8


def test_hadamard_helps_single_outliers_and_harms_beside_outlier_channels():
    def loss(spec: str, keys: torch.Tensor, channels: list[int]) -> float:
        found = build(spec).open(build(spec).seal(keys, values, None), torch.float32)[0]
        return float((found - keys)[:, channels].norm())

    keys, values = gaussian(64)
    single = keys.clone()
    single[torch.rand(keys.shape, generator=torch.Generator().manual_seed(3)) < 0.005] *= 20
    every = list(range(64))
    assert loss("int4:hadamard=true", single, every) < 0.9 * loss("int4", single, every)
    channel, _ = outliers(64)
    ordinary = [c for c in every if c not in (3, 10)]
    assert loss("int4:hadamard=true", channel, ordinary) > 2 * loss("int4", channel, ordinary)


@pytest.mark.parametrize("constant", [0.0, 1.0, -math.pi, 0.1, -1000.1, 1e-3, 1e-7, -6e-8, 1e-30])
@pytest.mark.parametrize("spec", SPECS)
def test_constant_groups_open_to_their_value(spec: str, constant: float):
    keys, values = torch.full((2, 64, P), constant), torch.full((2, P, 64), constant)
    for found in build(spec).open(build(spec).seal(keys, values, None), torch.float32):
        error = (found - constant).abs().max().item()  # NaN fails the comparison
        # fp8 rounds every number to 4 bits, a constant too; the integer formats hold it as the zero point.
        assert error <= abs(constant) * (2**-4 if spec.startswith("fp8") else 2**-10) + 2**-24
        if constant == 0.0 or (constant == 1.0 and not spec.startswith("fp8")):
            assert error <= 1e-6


@pytest.mark.parametrize("spec", [s for s in SPECS if "hadamard" not in s])
def test_the_ends_of_float16_open_without_overflow(spec: str):
    keys, values = (x.sign() * 65504 for x in gaussian(64))
    opened = build(spec).open(build(spec).seal(keys, values, None), torch.float16)
    for found, true in zip(opened, (keys, values), strict=True):
        torch.testing.assert_close(found.float(), true, rtol=2e-3, atol=0)


def holes(n: int = 3) -> torch.Tensor:
    """Forty valid slots in each page, others each time."""
    made = torch.Generator().manual_seed(4)
    order = torch.rand(n, P, generator=made).argsort(dim=-1)
    return order < 40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", SPECS)
def test_holes_influence_nothing(spec: str, dtype: torch.dtype):
    format = build(spec)
    keys, values = (x.to(dtype) for x in outliers(64))
    valid = holes()
    key_hole, value_hole = ~valid[:, None].expand_as(keys), ~valid[..., None].expand_as(values)
    sealed = [
        format.seal(keys.masked_fill(key_hole, garbage), values.masked_fill(value_hole, garbage), valid)
        for garbage in (math.nan, math.inf, -math.inf, 60000.0, 0.0)
    ]
    assert all(same(sealed[0], other) for other in sealed[1:])

    found_keys, found_values = format.open(sealed[0], dtype)
    assert found_keys.isfinite().all()
    assert found_values.isfinite().all()
    dense_keys = keys.transpose(1, 2)[valid].reshape(3, 40, 64).transpose(1, 2)  # pages that never had holes
    dense_values = values[valid].reshape(3, 40, 64)
    pure_keys, pure_values = format.open(format.seal(dense_keys, dense_values, None), dtype)
    assert torch.equal(found_keys.transpose(1, 2)[valid], pure_keys.transpose(1, 2).reshape(-1, 64))
    assert torch.equal(found_values[valid], pure_values.reshape(-1, 64))

    weights = valid / 40  # a weight of 0 must make its slot vanish: 0 × NaN would not
    mean = torch.einsum("np,npd->nd", weights, found_values.float())
    torch.testing.assert_close(mean, pure_values.float().mean(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_a_page_of_holes_opens_to_zero(spec: str):
    keys, values = (torch.full_like(x, math.nan) for x in gaussian(64))
    opened = build(spec).open(build(spec).seal(keys, values, torch.zeros(3, P, dtype=torch.bool)), torch.float32)
    assert all((x == 0).all() for x in opened)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e8])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("spec", LOSSY)
def test_a_valid_number_that_cannot_be_held_is_an_error(spec: str, side: int, garbage: float):
    pages = gaussian(64)
    pages[side][1, 5, 7] = garbage
    name = spec.split(":")[0]
    with pytest.raises(NumericalError, match=rf"^{name}: a {('key', 'value')[side]} is NaN or beyond"):
        build(spec).seal(*pages, torch.ones(3, P, dtype=torch.bool))


@pytest.mark.parametrize("page", [P, 16, 63])
@pytest.mark.parametrize("head_dim", [*HEAD_DIMS, 15])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", SPECS)
def test_layout_and_bytes_are_those_of_what_is_stored(spec: str, dtype: torch.dtype, head_dim: int, page: int):
    format = build(spec, head_dim)
    keys, values = (x.to(dtype) for x in gaussian(head_dim, n=2, page=page))
    for n in (0, 2):
        stored = format.seal(keys[:n], values[:n], None)
        layout = format.layout(page, head_dim, dtype)
        assert {k: ((n, *shape), kind) for k, (shape, kind) in layout.items()} == {
            k: (tuple(x.shape), x.dtype) for k, x in stored.items()
        }
        assert n * format.bytes(page, head_dim, dtype) == sum(x.nelement() * x.element_size() for x in stored.values())
        opened = format.open(stored, dtype)
        assert [x.shape for x in opened] == [(n, head_dim, page), (n, page, head_dim)]


@pytest.mark.parametrize(("spec", "share"), [("int8", 140 / 256), ("int4", 76 / 256), ("fp8", 134 / 256)])
def test_the_bytes_that_are_promised(spec: str, share: float):
    for head_dim in (64, 128):
        dense = build("dense").bytes(P, head_dim, torch.bfloat16)
        assert dense == 2 * P * head_dim * 2
        assert build(spec).bytes(P, head_dim, torch.bfloat16) == dense * share


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "dense"])
def test_a_group_that_does_not_divide_the_head_names_the_way_out(name: str):
    format = parse(name, FORMATS, "format")
    with pytest.raises(UsageError, match=f"use {name}:group=20 "):
        format.layout(P, 80, torch.bfloat16)
    with pytest.raises(UsageError, match=f"use {name}:group=20 "):
        format.seal(*gaussian(80), None)
    assert parse(f"{name}:group=20", FORMATS, "format").layout(P, 80, torch.bfloat16)
    with pytest.raises(UsageError, match=f"{name}: group=0"):
        parse(f"{name}:group=0", FORMATS, "format")


@pytest.mark.parametrize("spec", SPECS)
def test_pages_are_sealed_independently(spec: str):
    """A page's codes never depend on what is sealed beside it, so they never change afterwards."""
    keys, values = outliers(64)
    together = build(spec).seal(keys, values, holes())
    for i in range(3):
        alone = build(spec).seal(keys[i : i + 1], values[i : i + 1], holes()[i : i + 1])
        assert same(alone, {k: x[i : i + 1] for k, x in together.items()})


@pytest.mark.parametrize("pages", [gaussian, outliers])
@pytest.mark.parametrize("spec", FORMATS)
def test_sealing_again_in_float32_changes_no_code(spec: str, pages):
    format = build(spec)
    first = again = format.seal(*pages(64), None)
    for _ in range(5):
        again = format.seal(*format.open(again, torch.float32), None)
    assert same(first, again)


@pytest.mark.parametrize("pages", [gaussian, offset])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", LOSSY)
def test_sealing_again_elsewhere_moves_a_number_by_half_a_step(spec: str, dtype: torch.dtype, pages):
    format = build(spec)
    first = format.open(format.seal(*pages(64), None), dtype)
    stored = format.seal(*first, None)
    for found, true, step in zip(format.open(stored, dtype), first, format.steps(stored), strict=True):  # type: ignore[arg-type]
        assert_within(found, true, step)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_the_hadamard_transform_is_orthonormal_and_its_own_inverse(head_dim: int):
    keys, _ = gaussian(head_dim)
    turned = rotate(keys)
    torch.testing.assert_close(rotate(turned), keys)
    torch.testing.assert_close(turned.norm(dim=1), keys.norm(dim=1))
    block = math.gcd(head_dim, 1 << 20)
    matrix = torch.ones(1, 1)
    while len(matrix) < block:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    whole = torch.block_diag(*[matrix / math.sqrt(block)] * (head_dim // block))
    torch.testing.assert_close(turned, whole @ keys)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_immutable(name: str):
    with pytest.raises(dataclasses.FrozenInstanceError):
        build(name).anything = 1  # type: ignore[attr-defined]

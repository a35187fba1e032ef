"""Every rope method: published values, transformers' own, and the properties that a rotation must have."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longspan import spec
from longspan.errors import ModelError, UnsupportedModel, UsageError
from longspan.rope import FOREVER, METHODS, Geometry
from longspan.rope.angles import GROWTH, frequencies
from longspan.rope.declared import declared
from longspan.rope.default import Default
from longspan.rope.dynamic import Dynamic
from longspan.rope.linear import Linear
from longspan.rope.llama3 import Llama3
from longspan.rope.longrope import LongRope
from longspan.rope.ntk import Ntk, ntk_base
from longspan.rope.ntk_by_parts import NtkByParts
from longspan.rope.rotate import apply, rerotate
from longspan.rope.when_needed import WhenNeeded
from longspan.rope.yarn import Yarn, correction_range

LLAMA2 = Geometry(dim=128, theta=1e4, original=4096, positions=4096)
PLAIN = frequencies(128, 1e4)


def freq(method, geometry: Geometry = LLAMA2, tokens: int = 10**6) -> np.ndarray:
    return np.array(method.angles(geometry, tokens).inv_freq)


# published values


def test_yarn_correction_range_of_the_paper():
    low, high = correction_range(32, 1, 128, 1e4, 4096, truncate=False)
    assert low == pytest.approx(20.944, abs=1e-3)
    assert high == pytest.approx(45.027, abs=1e-3)
    assert correction_range(32, 1, 128, 1e4, 4096, truncate=True) == (20, 46)


@pytest.mark.parametrize(("s", "factor"), [(16, 1.27726), (32, 1.34657)])
def test_yarn_attention_factor(s: int, factor: float):
    assert Yarn(factor=s).angles(LLAMA2, 1).attention_factor == pytest.approx(factor, abs=1e-5)


def test_yarn_logits_factor_at_16():
    assert Yarn(factor=16).angles(LLAMA2, 1).attention_factor ** 2 == pytest.approx(1.6314, abs=1e-4)


def test_ntk_base_at_4():
    assert ntk_base(1e4, 4, 128) == pytest.approx(40889.94, abs=5e-3)
    assert np.allclose(freq(Ntk(factor=4)), frequencies(128, 40889.9408), rtol=1e-7)


def test_dynamic_base_at_four_times_the_length():
    base = freq(Dynamic(factor=2), tokens=4 * 4096)[1] ** (-128 / 2)
    assert base == pytest.approx(72195.86, abs=5e-3)


def test_longrope_attention_factor_4k_to_128k():
    g = Geometry(dim=4, theta=1e4, original=4096, positions=131072)
    assert LongRope((1.0, 1.0), (2.0, 3.0)).angles(g, 1).attention_factor == pytest.approx(1.19024, abs=1e-5)


def test_llama3_bands():
    """Short wavelengths stay, long ones are divided by the factor, and the blend between is monotone."""
    g = Geometry(dim=128, theta=5e5, original=8192, positions=131072)
    plain, scaled = frequencies(128, 5e5), freq(Llama3(), g)
    wavelength = 2 * np.pi / plain
    assert np.allclose(scaled[wavelength < 8192 / 4], plain[wavelength < 8192 / 4], rtol=1e-12)
    assert np.allclose(scaled[wavelength > 8192], plain[wavelength > 8192] / 8, rtol=1e-12)
    assert (np.diff(scaled / plain) <= 1e-12).all()


def test_ntk_by_parts_ramp_is_linear_in_turns():
    ratio = freq(NtkByParts(factor=4)) / PLAIN
    turns = 4096 * PLAIN / (2 * np.pi)
    assert np.allclose(ratio, 0.25 + 0.75 * np.clip((turns - 1) / 31, 0, 1), rtol=1e-12)


# transformers' own

_HF = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 8.0, "original_max_position_embeddings": 512},
    "yarn, final attention_factor": {"factor": 8.0, "original_max_position_embeddings": 512, "attention_factor": 1.3},
    "yarn, mscale": {
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
        "truncate": False,
    },
    "llama3": {
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "longrope": {
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "short_factor": [1 + 0.1 * i for i in range(16)],
        "long_factor": [1.0 + i for i in range(16)],
    },
}


@pytest.mark.parametrize("tokens", [100, 512, 513, 4096, 5000, 16384])
@pytest.mark.parametrize("name", _HF)
def test_equals_transformers(name: str, tokens: int):
    kind = name.partition(",")[0]
    block = {"rope_type": kind, "rope_theta": 10000.0, **_HF[name]}
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=4, head_dim=32, max_position_embeddings=4096, rope_parameters=dict(block)
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=tokens)
    method, geometry = declared(block, 32, 4096)
    ours = method.angles(geometry, tokens)
    assert np.allclose(ours.inv_freq, theirs.double().numpy(), rtol=2e-6, atol=0)
    assert ours.attention_factor == pytest.approx(factor, abs=1e-6)


# properties


@pytest.mark.parametrize("method", [Linear(1.0), Ntk(1.0), NtkByParts(1.0), Yarn(1.0), Dynamic(1.0), Llama3(1.0)])
@pytest.mark.parametrize("theta", [1e4, 1e5, 5e5, 1e6])
def test_scale_one_is_default_exactly(method, theta):
    geometry = dataclasses.replace(LLAMA2, theta=theta)
    angles = method.angles(geometry, 4096)
    assert angles.inv_freq == Default().angles(geometry, 4096).inv_freq
    assert angles.attention_factor == 1.0


@settings(max_examples=50, deadline=None)
@given(
    m=st.integers(0, 5000), n=st.integers(0, 5000), seed=st.integers(0, 999), name=st.sampled_from(["default", "yarn"])
)
def test_only_the_distance_matters(m: int, n: int, seed: int, name: str):
    """⟨R_m q, R_n k⟩ depends on m − n alone, also when both positions are ten million further on."""
    angles = (Default() if name == "default" else Yarn(factor=8)).angles(LLAMA2, 30000)
    q, k = torch.randn(2, 128, generator=torch.Generator().manual_seed(seed)) / 128**0.25

    def score(a: int, b: int) -> float:
        return float((apply(q[None], angles, np.array([a])) * apply(k[None], angles, np.array([b]))).sum())

    assert score(m, n) == pytest.approx(score(m + 10_000_000, n + 10_000_000), abs=1e-5)
    if m >= n:
        assert score(m, n) == pytest.approx(score(m - n, 0), abs=1e-5)


def test_rerotation_composes_and_its_drift_is_bounded():
    angles = Default().angles(LLAMA2, 1)
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    there = apply(x, angles, np.array([1000] * 4))
    assert torch.allclose(rerotate(apply(x, angles, np.array([300] * 4)), angles, 700), there, atol=1e-5)
    y = x
    for _ in range(10_000):
        y = rerotate(y, angles, 1)
    assert (y - apply(x, angles, np.array([10_000] * 4))).abs().max() < 2e-3


def test_partial_rotation_leaves_the_other_channels():
    angles = Default().angles(dataclasses.replace(LLAMA2, dim=8), 1)
    x = torch.randn(3, 32)
    y = apply(x, angles, np.array([5, 6, 7]))
    assert torch.equal(x[:, 8:], y[:, 8:])
    assert not torch.allclose(x[:, :8], y[:, :8])
    assert torch.allclose(x.norm(dim=-1), y.norm(dim=-1), atol=1e-5)


def test_a_scale_without_factor_is_the_least_that_the_text_needs():
    g = Geometry(dim=64, theta=1e4, original=1024, positions=1024)
    for method in (Yarn(), Linear(), Ntk(), NtkByParts()):
        early = method.angles(g, 1024)
        assert np.allclose(early.inv_freq, frequencies(64, 1e4))
        assert early.until == 1024
        for tokens in (1025, 1152, 1153, 8192, 100_000):
            angles = method.angles(g, tokens)
            assert tokens <= angles.until <= math.ceil(tokens * GROWTH)
            assert angles == method.angles(g, angles.until)
            assert method.angles(g, angles.until + 1) != angles


def test_when_needed_starts_after_the_trained_length():
    method = WhenNeeded(Default(), Yarn(factor=8))
    assert np.array_equal(freq(method, tokens=4096), PLAIN)
    assert method.angles(LLAMA2, 4096).until == 4096
    assert method.angles(LLAMA2, 4097) == Yarn(factor=8).angles(LLAMA2, 4097)
    assert WhenNeeded(Default(), Yarn(8), original=100).angles(LLAMA2, 101).attention_factor > 1


def test_longrope_takes_the_long_list_from_original_plus_one():
    g = Geometry(dim=4, theta=1e4, original=100, positions=400)
    rope = LongRope(short_factor=(1.0, 2.0), long_factor=(3.0, 4.0))
    assert np.allclose(freq(rope, g, 100), frequencies(4, 1e4) / [1, 2])
    assert rope.angles(g, 100).until == 100
    assert np.allclose(freq(rope, g, 101), frequencies(4, 1e4) / [3, 4])
    assert rope.angles(g, 101).until == FOREVER


# text ↔ method


@pytest.mark.parametrize(
    "text",
    [
        "yarn:factor=8",
        "yarn",
        "linear:factor=2.5,original=2048",
        "default",
        "dynamic:factor=2",
        "llama3",
        "ntk_by_parts:alpha=2,beta=16",
        "yarn:factor=4,truncate=false",
        "longrope:short_factor=1/2,long_factor=3/4.5",
    ],
)
def test_spec_round_trip(text: str):
    method = spec.parse(text, METHODS, "rope")
    assert spec.render(method, METHODS) == text
    assert spec.parse(spec.render(method, METHODS), METHODS, "rope") == method


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yarm", "known: default, linear, ntk"),
        ("yarn:faktor=2", "its options: factor, original"),
        ("yarn:factor=two", "should be float"),
        ("yarn:factor", "no option 'factor'|option=value"),
        ("yarn:factor=0.5", "≥ 1"),
        ("linear:factor=nan", "≥ 1"),
        ("linear:factor=2,factor=3", "twice"),
        ("ntk:original=0", "≥ 1"),
        ("ntk_by_parts:alpha=9,beta=2", "below beta"),
        ("yarn:beta_slow=64", "below beta_fast"),
        ("llama3:low_freq_factor=5", "below high_freq_factor"),
        ("longrope", "needs short_factor, long_factor"),
        ("longrope:short_factor=0,long_factor=1", "numbers > 0"),
        ("dynamic:factor=-1", "≥ 1"),
        ("yarn:attention_factor=-1", "> 0"),
    ],
)
def test_wrong_specs_are_refused(text: str, says: str):
    with pytest.raises(UsageError, match=says) as caught:
        spec.parse(text, METHODS, "rope")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("block", "error", "says"),
    [
        ({"rope_type": "proportional"}, UnsupportedModel, "supported: default, linear"),
        ({"rope_type": "linear"}, ModelError, "lacks 'factor'"),
        ({"rope_type": "linear", "factor": -2.0}, ModelError, "makes no sense"),
        ({"rope_type": "linear", "factor": math.nan}, ModelError, "finite"),
        ({"rope_type": "linear", "factor": "8"}, ModelError, "finite number"),
        ({"rope_theta": 0.0}, ModelError, "above 1"),
        ({"rope_theta": math.inf}, ModelError, "finite"),
        ({"partial_rotary_factor": 0.1}, ModelError, "even number"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 8}, ModelError, "has 1 values"),
    ],
)
def test_senseless_declarations_are_refused(block: dict, error: type, says: str):
    with pytest.raises(error, match=says) as caught:
        declared({"rope_theta": 10000.0, **block}, 16, 4096)
    assert caught.value.exit_code == 3

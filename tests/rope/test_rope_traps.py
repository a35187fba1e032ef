"""Bugs that other engines shipped, one test each (positions under scaling)."""

from __future__ import annotations

import numpy as np
import pytest

from longspan.engine.ropes import Ropes
from longspan.rope import Geometry
from longspan.rope.angles import frequencies
from longspan.rope.declared import declared
from longspan.rope.default import Default
from longspan.rope.dynamic import Dynamic
from longspan.rope.llama3 import Llama3
from longspan.rope.ntk import Ntk
from longspan.rope.rotate import table
from longspan.rope.yarn import Yarn

SMALL = Geometry(dim=16, theta=1e4, original=64, positions=64)


def test_dynamic_keeps_no_state_between_texts():
    """transformers 5.2–5.5: after one long input, later short inputs keep the scaled frequencies."""
    rope = Dynamic(factor=2.0)
    short, long = rope.angles(SMALL, 32), rope.angles(SMALL, 500)
    assert rope.angles(SMALL, 32) == short
    assert rope.angles(SMALL, 500) == long != short


def test_ntk_below_the_trained_length_is_plain():
    """vLLM PR 52675: serving below the trained length gave a negative base and NaN."""
    for tokens in (1, 2, 63, 64):
        angles = Dynamic(factor=8.0).angles(SMALL, tokens)
        assert np.array_equal(angles.inv_freq, frequencies(16, 1e4))
    assert np.isfinite(Ntk().angles(SMALL, 1).inv_freq).all()


def test_tables_reach_as_far_as_the_text():
    """vLLM PR 55910: a cos/sin table shorter than the extended length. Ours grows by itself."""
    from longspan.attention.rotation import Rotation

    rotation = Rotation(Default().angles(SMALL, 1), 64, "cpu")
    cos, _ = rotation.distances(nearest=0, pages=1000)
    expected, _ = table(rotation.angles, np.arange(999, -1, -1) * 64)
    assert cos.shape == (1000, 8)
    assert np.array_equal(cos.numpy(), expected.numpy())


@pytest.mark.parametrize("given", [0.5, 1.0, 1.3])
def test_a_given_attention_factor_is_final(given: float):
    """vLLM PR 46280 dropped it, SGLang #33558 squared it, TensorRT-LLM #16379 applied the logarithm twice."""
    block = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "attention_factor": given}
    method, geometry = declared(block, 16, 512)
    assert method.angles(geometry, 500).attention_factor == given


def test_mscale_and_mscale_all_dim_are_a_ratio():
    """DeepSeek's pair: equal values cancel."""
    same = Yarn(factor=40.0, mscale=0.707, mscale_all_dim=0.707).angles(SMALL, 1)
    assert same.attention_factor == pytest.approx(1.0)
    alone = Yarn(factor=40.0, mscale=0.707).angles(SMALL, 1)
    assert alone.attention_factor == pytest.approx(0.1 * np.log(40) + 1)


def test_an_explicit_yarn_factor_is_obeyed():
    """transformers#38224: the factor was replaced by max_position_embeddings / original."""
    block = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    method, geometry = declared(block, 16, 64 * 8)
    assert method.angles(geometry, 1) == Yarn(factor=2.0, original=64).angles(geometry, 1)


def test_original_is_taken_before_any_change():
    """`original_max_position_embeddings` falls back to the *current* maximum, so raising that first would shift
    YaRN's correction range. What a user adds uses the config's length as it was."""
    own = declared({"rope_type": "default", "rope_theta": 1e4}, 16, 64)
    ropes = Ropes({"all": own}, ["all"], "yarn:factor=8")
    assert ropes.angles(500)["all"] == Yarn(factor=8.0, original=64).angles(SMALL, 500)


def test_a_declared_llama3_block_is_used():
    """Parsed but unused, which short prompts do not show."""
    block = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
             "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # fmt: skip
    method, geometry = declared(block, 16, 512)
    assert method == Llama3(factor=8.0, original=64)
    assert not np.allclose(method.angles(geometry, 1).inv_freq, frequencies(16, 1e4))


def test_added_scaling_waits_until_the_text_needs_it():
    """vllm#18728: static YaRN costs 15–20 % quality on short texts."""
    own = declared({"rope_type": "default", "rope_theta": 1e4}, 16, 64)
    for choice in ("yarn:factor=8", "auto", "linear:factor=8", "ntk:factor=8"):
        ropes = Ropes({"all": own}, ["all"], choice)
        assert np.array_equal(ropes.angles(64)["all"].inv_freq, frequencies(16, 1e4)), choice
        assert ropes.angles(64)["all"].until == 64
        assert ropes.angles(65)["all"].inv_freq != ropes.angles(64)["all"].inv_freq


def test_long_factors_follow_the_tokens_present():
    """llama.cpp#24823: short prompts got the long factors because the factor was chosen by allocated context;
    vllm#27414: the long factors start at original + 1."""
    block = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
             "original_max_position_embeddings": 64}  # fmt: skip
    method, geometry = declared(block, 16, 4096)
    assert np.array_equal(method.angles(geometry, 64).inv_freq, frequencies(16, 1e4))
    assert np.allclose(method.angles(geometry, 65).inv_freq, frequencies(16, 1e4) / 4)

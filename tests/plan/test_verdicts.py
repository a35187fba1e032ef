"""What is often said of long contexts, against arithmetic done here by hand."""

from __future__ import annotations

import by_hand
import pytest

from longspan.cache.formats.int4 import Int4
from longspan.plan.verdicts import VERDICTS, until, verdicts
from longspan.plan.work import Work

LLAMA = by_hand.dense()


def verdict(name, shape=LLAMA, work=None, machine=None):
    found = VERDICTS[name](shape, work or Work(131072, new=0), machine)
    assert found is not None
    assert found.name == name
    assert found.claim
    assert found.holds
    return found


def test_prefill_is_linear_until_attention_is_a_tenth_of_it():
    # a token: 2 · 6,979,584,000 FLOPs; a pair of tokens: 2 · 32 heads · 256 channels · 32 layers, half of the square
    found = verdict("linear_prefill").numbers
    assert found["within_tenth"] == pytest.approx(0.1 * 2 * 6_979_584_000 / (32 * 32 * 256), rel=0.01)
    assert found["attention_equals_linear"] == pytest.approx(10 * found["within_tenth"], rel=0.01)
    million = verdict("linear_prefill", work=Work(1_048_576, new=0), machine=by_hand.H100)
    assert million.numbers["attention_share"] == pytest.approx(0.95, abs=0.005)
    assert "510 s at 60%" in million.why


def test_a_model_of_windows_reads_linearly_at_any_length():
    small = by_hand.dense(window=64)
    assert verdict("linear_prefill", small).numbers["within_tenth"] is None
    assert verdict("linear_prefill", small).holds == "for by-hand at any length"


def test_the_rule_of_prefill_times_is_that_of_a_small_model():
    assert verdict("linear_prefill").numbers["implied_parameters"] == pytest.approx(2.3e9, rel=0.02)


def test_decode_is_constant_until_the_cache_outweighs_the_weights():
    # weights that a token reads: all but the embedding, 16 bits; 131,072 bytes of cache a token
    read = 2 * (LLAMA.parameters - LLAMA.embedding)
    found = verdict("constant_decode").numbers
    assert found["cache_equals_weights"] == pytest.approx(read / 131072, rel=0.001)
    assert found["within_tenth"] == pytest.approx(read / 131072 / 10, rel=0.001)


def test_a_batch_ends_it_earlier_and_a_format_later():
    alone = verdict("constant_decode").numbers["cache_equals_weights"]
    eight = verdict("constant_decode", work=Work(131072, new=0, batch=8)).numbers["cache_equals_weights"]
    codes = verdict("constant_decode", work=Work(131072, new=0, format=Int4())).numbers["cache_equals_weights"]
    assert eight == pytest.approx(alone / 8, rel=0.001)
    assert codes == pytest.approx(alone * 3.37, rel=0.01)


def test_the_matrix_of_all_scores():
    found = verdict("attention_matrix").numbers
    assert found["elements"] == 16_384_000_000
    assert found["terabytes"] == pytest.approx(33.55, rel=0.001)
    assert found["here_bytes"] == 131072**2 * 2 * 32 * 32
    assert found["tile_bytes"] < 32e6


def test_int4_with_its_scales():
    found = verdict("int4_ratio").numbers
    # keys: 4 bits and 2 · 16 for 64 slots; values: 4 bits and 2 · 16 for 32 (or 128) channels
    assert found["ratio"] == pytest.approx(16 / ((4 + 32 / 64 + 4 + 32 / 32) / 2))
    assert found["best"] == pytest.approx(16 / ((4 + 32 / 64 + 4 + 32 / 128) / 2))
    assert found["q4_0"] == pytest.approx(16 / 4.5)
    assert all(3.3 < found[name] < 3.7 for name in ("ratio", "best", "q4_0"))
    narrow = verdict("int4_ratio", by_hand.dense(head_dim=80)).numbers  # 32 does not divide 80
    assert 3.3 < narrow["ratio"] < 3.7


def test_the_rule_of_cards_is_right_for_the_models_it_was_made_for():
    old = verdict("hardware_rule", by_hand.dense(**by_hand.LLAMA_2_7B))
    assert old.numbers["wrong_rows"] == 0
    # 6.74 B · 2 bytes, 524,288 bytes a token, a gigabyte for the engine
    assert old.numbers["gb_131072"] == pytest.approx((6.738e9 * 2 + 524288 * 131072) / 1e9 + 1, rel=0.001)
    new = verdict("hardware_rule")
    assert new.numbers["wrong_rows"] >= 2
    assert "4K (too small)" in new.holds
    assert "128K (far too large)" in new.holds
    assert verdict("hardware_rule", work=Work(4096, weights=4, group=32)).numbers["gb_4096"] < 7


def test_contexts_by_use_are_counted_from_parts():
    found = verdict("context_rule")
    assert found.numbers["book_least"] == round(80_000 / 0.75) + round(300 / 0.75)
    assert found.holds == "the same order of size in 5 of 5 tasks"
    assert "enough for chat," in found.why
    assert "enough for none" in verdict("context_rule", by_hand.dense(trained=2048)).why


def test_vllm_scales_nothing_by_itself():
    plain = verdict("vllm_ntk", work=Work(262144))
    assert plain.holds == "no"
    assert plain.numbers["declared"] == "default"
    # base · (f·f − (f − 1))^(d/(d−2)), f = 2
    assert plain.numbers["vllm_base"] == pytest.approx(500000 * 3 ** (128 / 126))
    assert "base" not in verdict("vllm_ntk", work=Work(4096)).why
    assert VERDICTS["vllm_ntk"](by_hand.dense(theta=0.0), Work(4096), None) is None
    told = verdict("vllm_ntk", by_hand.dense(rope={"rope_type": "dynamic", "factor": 2.0}))
    assert "declares 'dynamic'" in told.why


def test_windows_reach_as_far_as_their_sum():
    assert VERDICTS["window_reach"](LLAMA, Work(4096), None) is None
    assert verdict("window_reach", by_hand.dense(window=4096)).numbers["reach"] == 131072


def test_all_of_them_are_told_where_they_apply():
    names = [found.name for found in verdicts(LLAMA, Work(131072), by_hand.H100)]
    assert names == [name for name in VERDICTS if name != "window_reach"]


@pytest.mark.parametrize("limit", [0, 1, 7, 1000])
def test_the_last_length_within_a_limit(limit):
    assert until(lambda tokens: tokens * 3, limit) == limit // 3
    assert until(lambda tokens: min(tokens, 5), 5) is None

"""The plan that a memory and a length call for: the first that fits, and it does fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import checkpoints
import pytest
import torch

from longspan import LLM
from longspan.cache.bytes import Layout
from longspan.engine.choose import Case, choose
from longspan.errors import DoesNotFit, UsageError

NONE: Mapping[str, str] = MappingProxyType({})
LAYOUT = Layout((None,) * 4, kv_heads=2, head_dim=64, element=2, page=64, heads=4)


def case(tokens: int, limit: int, trained: int = 4096, given: Mapping[str, str] = NONE) -> Case:
    return Case(LAYOUT, torch.bfloat16, tokens, trained, limit, min(limit // 4, 64_000_000), 1024, given)


def shape_of(plan) -> tuple[str, ...]:
    names = {name: text.partition(":")[0] for name, text in plan.texts.items()}
    return (*(names[name] for name in ("format", "evict", "select", "place")), str(plan.offload is not None))


def test_less_memory_gives_up_least_first():
    """One text of 16,384 tokens: dense takes 33.6 MB."""
    found = [
        shape_of(choose(case(16_384, limit))) for limit in (40_000_000, 25_000_000, 12_000_000, 6_000_000, 2_000_000)
    ]
    assert found == [
        ("dense", "none", "all", "text", "False"),
        ("int8", "none", "all", "text", "False"),
        ("int4", "none", "all", "text", "False"),
        ("dense", "none", "sketch", "far", "True"),
        ("dense", "streaming", "all", "slot", "False"),
    ]


def test_far_beyond_the_trained_length_questions_choose():
    assert shape_of(choose(case(8 * 1024, 1 << 30, trained=1024)))[2] == "all"
    plan = choose(case(8 * 1024 + 1, 1 << 30, trained=1024))
    assert shape_of(plan) == ("dense", "none", "sketch", "far", "False")
    assert plan.why is not None
    assert "more than 8 times the 1,024 tokens" in plan.why


@pytest.mark.parametrize("tokens", [100, 5000, 70_000, 1_000_000])
@pytest.mark.parametrize("limit", [3_000_000, 30_000_000, 300_000_000])
def test_what_is_chosen_fits(tokens: int, limit: int):
    for trained in (1024, 131_072):
        one = case(tokens, limit, trained)
        assert one.bytes(choose(one)) <= limit


def test_what_was_given_stays(tmp_path: Path):
    assert shape_of(choose(case(16_384, 25_000_000, given={"format": "int4"})))[0] == "int4"
    plan = choose(case(16_384, 6_000_000, given={"offload": str(tmp_path), "format": "int8"}))
    assert (plan.texts["format"], plan.offload) == ("int8", str(tmp_path))
    assert choose(case(100_000, 30_000_000, given={"evict": "h2o:budget=1024"})).texts["evict"].startswith("h2o")
    assert choose(case(100, 30_000_000, given={"select": "quest:pages=4"})).texts["select"].startswith("quest")
    with pytest.raises(UsageError):
        choose(case(100, 30_000_000, given={"format": "int9"}))
    with pytest.raises(DoesNotFit, match=r"no plan holds 1,000,000 tokens in 1,000 bytes .* the smallest needs"):
        choose(case(1_000_000, 1000))


def test_an_engine_that_chose_reads_such_a_text(folder: Callable[..., Path], tmp_path: Path):
    ids = torch.randint(3, checkpoints.VOCAB, (3000,), generator=torch.Generator().manual_seed(1)).tolist()
    for memory in (2_000_000, 800_000, 300_000):
        llm = LLM(folder("llama"), memory=memory, context=3020, dtype="float32")
        assert llm.plan.why
        output = llm.generate(ids, max_new_tokens=4, ignore_eos=True)
        assert len(output.ids) == 4
        assert llm.pool.peak_bytes <= memory

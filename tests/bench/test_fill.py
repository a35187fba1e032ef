"""A cache that was filled at random lies in the pages that reading gives it, and decoding reads as much of it."""

from __future__ import annotations

import checkpoints
import pytest
from checkpoints import VOCAB
from longer import longer

from longspan import LLM
from longspan.bench import cost
from longspan.bench.clock import decode, read
from longspan.bench.fill import fill, refusal
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS

BUDGET = 128
TOKENS = 700
PROMPTS = [[(7 * i + k) % VOCAB for i in range(TOKENS + 30 * k)] for k in range(2)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made = {}
    for family in ("llama", "mistral", "qwen2"):
        made[family] = tmp_path_factory.mktemp(family)
        checkpoints.make(family, made[family])
    return made


def shape_of(text):
    """All that decides what the text's cache takes and what a query reads of it."""
    cache = text.cache
    groups = [(g.window, g.first, g.count, g.sealed, g.summed) for g in cache.groups]
    lanes = None
    if cache.lanes is not None:
        lanes = cache.lanes.counts.tolist(), cache.lanes.sealed.tolist(), (cache.lanes.sums >= 0).sum(2).tolist()
    return cache.length, cache.bytes, groups, lanes


def compare(path, **options):
    """Read and fill in two engines, then decode in both: the same pages before and after."""
    engines = [LLM(path, memory="64MB", **options) for _ in range(2)]
    texts = [way(llm, PROMPTS)[0] for way, llm in zip((read, fill), engines, strict=True)]
    for _ in range(2):
        assert [shape_of(text) for text in texts[0]] == [shape_of(text) for text in texts[1]]
        assert engines[0].pool.owned_bytes == engines[1].pool.owned_bytes
        assert engines[0].pool.peak_bytes == engines[1].pool.peak_bytes
        reads = [[cost.reads(llm, text) for text in some] for llm, some in zip(engines, texts, strict=True)]
        assert reads[0] == reads[1]
        steps = [decode(llm, some, 70) for llm, some in zip(engines, texts, strict=True)]
        assert len(steps[0]) == len(steps[1]) == 70
    for llm, some in zip(engines, texts, strict=True):
        for text in some:
            llm.scheduler.drop(text)
        assert llm.pool.owned_bytes == 0


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("select", SELECTIONS)
def test_every_format_with_every_selection(models, format, select):
    compare(models["llama"], format=format, select=select if select == "all" else f"{select}:pages=2,near=64")


@pytest.mark.parametrize("place", ["text", "far:near=64", "far:near=64,order=true"])
def test_every_placement_of_selected_pages(models, place):
    compare(models["llama"], select="sketch:pages=2,near=64,hold=1", place=place)


@pytest.mark.parametrize(
    "policy",
    longer(POLICIES, lambda policy: policy in ("lru", "adakv", "streaming", "h2o", "snapkv", "expected_attention")),
)
def test_policies(models, policy):
    evict = f"{policy}:budget={BUDGET}"
    if policy in ("lru", "adakv"):
        assert policy in (refusal(LLM(models["llama"], evict=evict).plan) or "")
        return
    compare(models["llama"], evict=evict)
    compare(models["llama"], evict=evict, select="sketch:pages=1,near=32", place="slot")


@pytest.mark.parametrize("policy", ["sliding_window", "streaming"])
@pytest.mark.parametrize("format", longer(FORMATS, lambda format: format == "int8"))
def test_policies_that_look_at_positions_only_go_with_every_format(models, policy, format):
    compare(models["llama"], evict=f"{policy}:budget={BUDGET}", format=format)


@pytest.mark.parametrize("options", [{"merge": "true"}, {"wait": "true"}])
def test_options_of_eviction(models, options):
    words = ",".join(f"{name}={value}" for name, value in options.items())
    compare(models["llama"], evict=f"h2o:budget={BUDGET},{words}")


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
@pytest.mark.parametrize("format", ["dense", "int8"])
def test_layers_with_windows(models, family, format):
    compare(models[family], format=format)


def test_pages_in_a_file(models, tmp_path):
    compare(models["llama"], format="int4", offload=str(tmp_path), resident="1MB", select="sketch:pages=2,near=64")


def test_an_odd_chunk(models):
    compare(models["llama"], chunk=53, format="int8")


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_holes_depend_on_the_text(models, format):
    plan = LLM(models["llama"], evict="h2o:budget=128", format=format).plan
    assert f"h2o with format {format}" in (refusal(plan) or "")


def test_the_model_is_back_afterwards(models):
    llm = LLM(models["llama"], memory="8MB")
    before = llm.scheduler.forward
    fill(llm, PROMPTS[:1])
    assert llm.scheduler.forward is before


def test_a_text_that_outgrows_the_trained_length_is_not_read_anew_under_the_clock(models):
    llm = LLM(models["llama"], memory="8MB")
    trained = llm.shape.trained
    for ahead, restarts in ((0, 1), (4, 0)):
        [text], _ = fill(llm, [[5] * trained], ahead)
        decode(llm, [text], 4)
        assert text.restarts == restarts
        llm.scheduler.drop(text)

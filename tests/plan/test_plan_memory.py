"""Memory of a plan: figures that are known, and what must hold for any."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from longspan import spec
from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.errors import DoesNotFit, UsageError
from longspan.plan import caches, counts
from longspan.plan.advice import replace_weights
from longspan.plan.hardware import machine
from longspan.plan.memory import CEILING, max_context, memory, weights
from longspan.plan.shape import Layer, Shape
from longspan.plan.shapes import KNOWN, find
from longspan.plan.work import Work

GB, GIB = 10**9, 1 << 30


def made(layers: int, kv_heads: int, dim: int, window: int | None = None, heads: int = 80) -> Shape:
    """A model of that many equal layers."""
    kind = "full" if window is None else "sliding"
    layer = Layer(kind, window, heads, kv_heads, dim, dim, 10**6, 10**6, 10**6)
    return Shape("made", "llama", (layer,) * layers, 8192, 100, 100, 10, 0, 10, True, 131_072, 131_072, 1e4, {})


def cache(shape: Shape, context: int, **more: object) -> int:
    return memory(shape, Work(context, new=0, **more)).cache  # type: ignore[arg-type]


def test_the_seed_figures():
    assert cache(made(80, 80, 128), 4096) == 13_421_772_800
    assert round(cache(made(80, 80, 128), 4096) / GB, 1) == 13.4
    assert round(cache(made(80, 80, 128), 128_000) / GB) == 419
    assert round(cache(made(80, 8, 128), 128_000) / GB) == 42


def test_scout_at_ten_million_tokens():
    shape, work = find("llama-4-scout"), Work(10_485_760, ranks=8)
    need = memory(shape, work)
    assert need.cache / GIB == pytest.approx(60, abs=0.3)
    full = dataclasses.replace(shape, layers=tuple(dataclasses.replace(x, window=None) for x in shape.layers))
    assert memory(full, work).cache / GIB == 240
    assert need.minimum / GIB / 8 == pytest.approx(60.14, abs=0.01)


@pytest.mark.parametrize(
    ("name", "context", "gib"),
    [
        ("gemma-3-27b", 131_072, 80 * 131_072 / (1 << 20) + 0.40625),
        ("gemma-2-9b", 8192, 168 * 8192 / (1 << 20) + 0.65625),
        ("gpt-oss-20b", 131_072, 24 * 131_072 / (1 << 20) + 12 * 128 * 2048 / GIB),
        ("deepseek-v3", 131_072, 68.625 * 131_072 / (1 << 20)),
        ("qwen3.5-27b", 262_144, 16 + 48 * 4 * find("qwen3.5-27b").layers[0].state / GIB),
        ("mistral-7b-v0.1", 32_768, 0.5),
    ],
)
def test_right_by_construction(name: str, context: int, gib: float):
    shape = find(name)
    assert caches.minimum(shape, context) / GIB == pytest.approx(gib, rel=1e-9)
    need = memory(shape, Work(context, chunk=64))
    assert caches.minimum(shape, context) <= need.cache
    # whole pages, and what a step reads beside a window, are all that comes on top
    windows = [layer for layer in shape.layers if layer.window is not None]
    assert need.cache - caches.minimum(shape, context) <= sum(3 * 64 * layer.token_numbers * 2 for layer in windows)


def test_weights():
    shape = find("llama-3.1-8b")
    assert memory(shape, Work(512)).parts[0].bytes == 2 * shape.parameters
    assert memory(shape, Work(512, weights=32)).parts[0].bytes == 4 * shape.parameters
    layers = sum(layer.attention + layer.mlp for layer in shape.layers)
    four = memory(shape, Work(512, weights=4, group=64)).parts[0].bytes
    assert four == pytest.approx(layers * (4 + 0.25) / 8 + 2 * (shape.parameters - layers), rel=1e-9)
    tied = find("llama-3.2-1b")  # codes of the head come beside the embedding
    eight = memory(tied, Work(512, weights=8, group=64)).parts[0].bytes
    inner = sum(layer.attention + layer.mlp for layer in tied.layers)
    assert eight == pytest.approx((inner + tied.embedding) * 8.25 / 8 + 2 * (tied.parameters - inner), rel=1e-9)


def test_heads_that_cannot_be_split_are_copied_and_said():
    shape = find("qwen2.5-7b")  # 28 heads, 4 stored
    one, four = memory(shape, Work(65_536)), memory(shape, Work(65_536, ranks=4))
    assert four.cache * 4 == one.cache
    assert not four.notes
    wide = find("qwen3-30b-a3b")  # 32 heads, 4 stored
    eight = memory(wide, Work(65_536, ranks=8))
    assert eight.cache * 4 == memory(wide, Work(65_536)).cache
    assert any("4 KV heads cannot be split over 8 devices: 2 of them hold the same head" in n for n in eight.notes)
    latent = memory(find("deepseek-v3"), Work(65_536, ranks=8))
    assert latent.cache == memory(find("deepseek-v3"), Work(65_536)).cache
    assert any("each of 8 devices holds them whole" in note for note in latent.notes)
    with pytest.raises(UsageError, match="28 heads cannot be split over 8 devices; give 1, 2, 4, 28"):
        memory(shape, Work(65_536, ranks=8))
    with pytest.raises(UsageError, match="2 devices are asked for, H100 SXM has 1"):
        memory(shape, Work(65_536, ranks=2), machine("h100"))


def test_past_the_trained_length_is_said():
    assert any("more than the 40,960" in note for note in memory(find("qwen3-8b"), Work(131_072)).notes)
    assert not memory(find("qwen3-8b"), Work(40_960)).notes


def test_parts_say_how_they_come_about():
    need = memory(find("gemma-3-27b"), Work(131_072), machine("h100"))
    text = need.part("cache")
    assert text is not None
    assert "10 full layers × 16 KV heads × (128 + 128) × 2 bytes × 131,072 tokens" in text.formula
    assert "52 sliding layers" in text.formula
    assert need.total == sum(part.bytes for part in need.parts)
    assert need.low < need.total < need.high
    assert need.fits == (need.total <= 80 * GB)
    assert need.token == 80 * 1024


def test_sizes_that_make_no_sense():
    for wrong, said in (
        ({"context": 0}, "context: 0"),
        ({"context": 100, "new": 200}, "new: 200 tokens to generate"),
        ({"context": 100, "new": -1}, "new: -1"),
        ({"context": 512, "batch": -3}, "batch: -3"),
        ({"context": 512, "weights": 0}, "weights: 0 bits"),
        ({"context": 512, "element": 3}, "element: 3"),
        ({"context": 512, "ranks": 0}, "ranks: 0"),
    ):
        with pytest.raises(UsageError, match=said):
            Work(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="offload"):
        Work(512, offloaded=True, evict=spec.parse("h2o", POLICIES, "evict"))
    with pytest.raises(DoesNotFit, match=r"takes .* bytes of each device, 1,000,000 are there"):
        max_context(find("llama-3.1-8b"), Work(4096), 10**6)


FORMAT = st.sampled_from([None, "int8", "int4", "fp8"])
EVICT = st.sampled_from(
    [None, "h2o:budget=512", "streaming:budget=1024", "snapkv:budget=256,wait=true", "adakv", "pyramidkv"]
)
SELECT = st.sampled_from([None, "landmark", "sketch", "quest"])


@st.composite
def works(draw: st.DrawFn) -> Work:
    format, evict, select = draw(FORMAT), draw(EVICT), draw(SELECT)
    return Work(
        draw(st.integers(1, 2_000_000)),
        new=0,
        batch=draw(st.integers(1, 9)),
        format=None if format is None else spec.parse(format, FORMATS, "format"),
        evict=None if evict is None else spec.parse(evict, POLICIES, "evict"),
        select=None if select is None else spec.parse(select, SELECTIONS, "select"),
        chunk=draw(st.sampled_from([64, 512, 2048])),
        page=draw(st.sampled_from([32, 64])),
    )


NAMES = st.sampled_from([*KNOWN])


@settings(max_examples=150)
@given(name=NAMES, work=works(), more=st.integers(1, 500_000))
def test_more_context_never_needs_less(name: str, work: Work, more: int):
    shape = find(name)
    longer = memory(shape, dataclasses.replace(work, context=work.context + more))
    shorter = memory(shape, work)
    assert longer.total >= shorter.total
    assert longer.cache >= shorter.cache


@settings(max_examples=150)
@given(name=NAMES, work=works())
def test_a_format_of_fewer_bits_never_needs_more(name: str, work: Work):
    """Where something is evicted, sealed pages have holes and so can outweigh pages as they were written: there the
    formats are compared with each other."""
    shape = find(name)

    def of(format: str | None) -> int:
        kept = None if format is None else spec.parse(format, FORMATS, "format")
        return memory(shape, dataclasses.replace(work, format=kept)).total

    assert of("int4") <= of("int8")
    if work.evict is None:
        assert of("int8") <= of(None)
        assert of("fp8") <= of(None)


@settings(max_examples=60)
@given(name=NAMES, work=works(), gigabytes=st.integers(2, 1000))
def test_the_longest_text_fits_and_a_page_more_does_not(name: str, work: Work, gigabytes: int):
    shape, limit = find(name), gigabytes * GB
    assume(memory(shape, dataclasses.replace(work, context=work.page)).total <= limit)
    most = max_context(shape, work, limit)
    assert most % work.page == 0
    assert memory(shape, dataclasses.replace(work, context=most)).total <= limit
    if most < CEILING // work.page * work.page:
        assert memory(shape, dataclasses.replace(work, context=most + work.page)).total > limit


@settings(max_examples=60)
@given(name=NAMES, work=works(), ranks=st.sampled_from([2, 4, 8]))
def test_more_devices_never_need_more_each(name: str, work: Work, ranks: int):
    shape = find(name)
    try:
        shared = memory(shape, dataclasses.replace(work, ranks=ranks))
    except UsageError:
        assume(False)
    alone = memory(shape, work)
    assert shared.total <= alone.total
    # what is known of slots is less where fewer heads share a budget, so keys and values are compared
    each, whole = shared.part("cache"), alone.part("cache")
    assert each is not None
    assert whole is not None
    assert each.bytes * ranks >= whole.bytes


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gemma-3-1b"])
@pytest.mark.parametrize("form", ["stored", "fp8", "int8", "int4"])
def test_a_step_reads_the_weights_that_memory_holds(name: str, form: str):
    """All but the input embedding, of which a step reads a row, and norms."""
    shape = find(name)
    work = replace_weights(shape, Work(4096), form)
    held = weights(shape, work).bytes
    beside = (shape.rest + (shape.embedding if not shape.tied or form == "int8" else 0)) * 2
    assert counts.read_weights(shape, work, 1) == pytest.approx(held - beside, rel=1e-6)
    assert (counts.head_bytes(shape, work) < 2 * counts.head_parameters(shape)) == (form == "int8")

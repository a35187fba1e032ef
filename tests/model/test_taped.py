"""Steps of few rows as tapes: the same bits as call by call, whatever is kept and however many texts there are."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch

from longspan import LLM
from longspan.attention import held as holding
from longspan.attention.attend import attend
from longspan.attention.step import Trial
from longspan.engine.session import together
from longspan.kernels import cpu
from longspan.model.program.taped import Taped

pytestmark = pytest.mark.skipif(cpu.NATIVE is None, reason="no compiled kernels here")

WITH = [name for name in checkpoints.FAMILIES if name not in ("mixtral", "qwen3_moe", "gpt_oss", "phi3", "gpt_neox")]


def made(tmp_path: Path, family: str, **options: Any) -> LLM:
    path = tmp_path / family
    if not path.exists():
        checkpoints.make(family, path)
    return LLM(path, memory="16MB", **{"dtype": "bfloat16", **options})


def call_by_call(llm: LLM) -> LLM:
    assert llm.scheduler.forward.program is not None  # type: ignore[attr-defined]
    llm.scheduler.forward.program._dtype = None  # type: ignore[attr-defined]
    return llm


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many tapes ran, how many times they stopped, and for attention alone."""
    counts = {"runs": 0, "stops": 0, "calls": 0}
    run, do = Taped.__call__, Taped._do

    def counted(self: Taped, *args: Any) -> Any:
        counts["runs"] += 1
        return run(self, *args)

    def stopped(self: Taped, line: Any, *args: Any) -> None:
        counts["stops"] += 1
        counts["calls"] += line.kind == "opaque"
        do(self, line, *args)

    monkeypatch.setattr(Taped, "__call__", counted)
    monkeypatch.setattr(Taped, "_do", stopped)
    return counts


DTYPES = "float32", "bfloat16", "float16"
PAIRS = [(name, dtype) for name in WITH for dtype in DTYPES if name != "olmo2" or dtype == "float32"]
"""In 16 bits olmo2 has no program: its rotation by position 0 widens."""


@pytest.mark.parametrize(("family", "dtype"), PAIRS)
@torch.inference_mode()
def test_a_tape_gives_the_bits_of_its_calls(tmp_path: Path, family: str, dtype: str, ran: dict[str, int]):
    program = made(tmp_path, family, dtype=dtype).scheduler.forward.program  # type: ignore[attr-defined]
    runs = ran["runs"]
    for tokens, kept in [(1, 1), (3, 1), (5, 5), (16, 2)]:
        row = torch.randint(0, checkpoints.VOCAB, (1, tokens), generator=torch.Generator().manual_seed(tokens))
        keep, nowhere = torch.arange(tokens)[-kept:], Trial()

        def away(*args: Any, nowhere: Trial = nowhere, **told: Any) -> Any:
            return attend(*args, **told, step=nowhere)

        first, second, third = (program(away, row, keep) for _ in range(3))
        for mine, other, again in zip(first, second, third, strict=True):
            assert torch.equal(mine, other)
            assert torch.equal(mine, again)
        assert not {x.data_ptr() for x in second} & {x.data_ptr() for x in third}  # a result stays what it was
    assert ran["runs"] == runs + 8


OPTIONS: list[dict[str, Any]] = [
    {},
    {"format": "int8"},
    {"format": "int4"},
    {"format": "fp8"},
    {"evict": "h2o:budget=128"},
    {"select": "sketch:pages=2,near=64", "place": "far:near=64"},
    {"weights": "int8"},
    {"backend": "torch"},
    {"page": 16},
]


CASES = [("llama", options) for options in OPTIONS] + [("gemma3_text", OPTIONS[2]), ("smollm3", OPTIONS[0])]


@pytest.mark.parametrize(("family", "options"), CASES)
def test_texts_go_on_the_same(tmp_path: Path, family: str, options: dict[str, Any], ran: dict[str, int]):
    """One text and three at once, of other lengths, across ends of pages."""
    prompts = [[(7 * i * i + 3) % 250 + 3 for i in range(n)] for n in (61, 200, 383)]
    wish = {"max_new_tokens": 70, "ignore_eos": True, "logprobs": 2}
    other_order = "select" in options or "evict" in options  # of turning and scaling queries, which rounds otherwise
    if other_order:
        options = {**options, "dtype": "float32"}
    taped, plain = made(tmp_path, family, **options), call_by_call(made(tmp_path, family, **options))
    for some in ([prompts[1]], prompts):
        before = ran["runs"]
        mine, theirs = taped.generate(some, **wish), plain.generate(some, **wish)
        assert ran["runs"] > before + 60
        for one, other in zip(mine, theirs, strict=True):
            assert one.ids == other.ids
            if not other_order:
                assert one.logprobs == other.logprobs
            for a, b in zip(one.logprobs or (), other.logprobs or (), strict=True):
                assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_attention_over_pages_in_memory_needs_no_python(tmp_path: Path, ran: dict[str, int]):
    llm = made(tmp_path, "llama", format="int8")
    before = ran["stops"]
    llm.generate([[5] * 300, [6] * 200], max_new_tokens=20, ignore_eos=True)
    assert ran["stops"] == before


def test_what_was_chosen_before_is_read_without_python(tmp_path: Path, ran: dict[str, int]):
    llm = made(tmp_path, "llama", select="sketch:pages=2,near=64", place="far:near=64")
    runs, stops = ran["runs"], ran["stops"]
    llm.generate([(7 * i * i + 3) % 250 + 3 for i in range(700)], max_new_tokens=100, ignore_eos=True)
    assert ran["runs"] > runs + 90
    assert 0 < ran["stops"] - stops <= 3 * 3  # layers, where the question's end or the answer looks around


KEPT = [
    ("llama", {"evict": "sliding_window:budget=128"}),
    ("llama", {"evict": "lru:budget=128", "place": "far:near=64"}),
    ("llama", {"evict": "streaming:budget=128", "place": "slot"}),
    ("llama", {"evict": "adakv:budget=128", "place": "slot"}),
    ("llama", {"evict": "snapkv:budget=128", "format": "int4"}),
    ("llama", {"evict": "h2o:budget=128,merge=true,similarity=0", "place": "far:near=64,order=true"}),
    ("gemma3_text", {"evict": "attention_score:budget=128"}),
    ("smollm3", {"evict": "tova:budget=128"}),
]


@pytest.mark.parametrize(("family", "options"), KEPT)
def test_what_eviction_left_is_read_without_python(
    tmp_path: Path, family: str, options: dict[str, Any], ran: dict[str, int]
):
    """The same answers as call by call, the same notes of what each slot was given, for one text and for three."""
    options = {"dtype": "float32", **options}
    taped, plain = made(tmp_path, family, **options), call_by_call(made(tmp_path, family, **options))
    prompts = [[(7 * i * i + 3) % 250 + 3 for i in range(n)] for n in (61, 200, 383)]
    for some in ([prompts[2]], prompts):
        said: list[list[list[int]]] = []
        notes: list[list[torch.Tensor]] = []
        for llm in (taped, plain):
            before = dict(ran)
            sessions = [llm.session() for _ in some]
            for session, prompt in zip(sessions, some, strict=True):
                session.feed(prompt)
            wish = llm.sampling(None, {"max_new_tokens": 90, "ignore_eos": True})
            said.append([x.ids for x in together(sessions, [[9, 8]] * len(some), wish)])
            assert (ran["runs"] > before["runs"] + 60) == (llm is taped)
            assert ran["calls"] == before["calls"]
            caches = [session._text.cache for session in sessions]
            notes.append([array for cache in caches if cache.lanes is not None for array in cache.lanes.arrays()])
            for session in sessions:
                session.close()
        assert said[0] == said[1]
        assert len(notes[0]) == len(notes[1]) > 0
        for mine, theirs in zip(*notes, strict=True):
            assert torch.allclose(mine.double(), theirs.double(), atol=1e-4)


OTHERS = [{"format": "fp8"}, {"evict": "expected_attention:budget=128"}, {"backend": "torch"}]


@pytest.mark.parametrize("options", OTHERS)
def test_other_attention_is_called(tmp_path: Path, options: dict[str, Any], ran: dict[str, int]):
    llm = made(tmp_path, "llama", **options)
    runs, stops = ran["runs"], ran["stops"]
    llm.generate([5] * 300, max_new_tokens=20, ignore_eos=True)
    assert ran["runs"] > runs
    assert ran["stops"] - stops == 3 * (ran["runs"] - runs)  # layers


def test_pages_in_a_file_are_read_by_who_knows_them(tmp_path: Path, ran: dict[str, int]):
    options: dict[str, Any] = {"select": "sketch:pages=2,near=64", "place": "far:near=64"}
    filed = made(tmp_path, "llama", offload=str(tmp_path), resident="200KB", **options)
    wish = {"max_new_tokens": 40, "ignore_eos": True}
    prompt = [(7 * i * i + 3) % 250 + 3 for i in range(700)]
    before = dict(ran)
    said = filed.generate(prompt, **wish).ids
    assert ran["stops"] - before["stops"] == 3 * (ran["runs"] - before["runs"]) > 0  # layers
    assert said == call_by_call(made(tmp_path, "llama", **options)).generate(prompt, **wish).ids


def test_blocks_that_look_at_few_pages_do_so(tmp_path: Path):
    """Also where a step has no more rows than a tape takes."""
    options: dict[str, Any] = {"prefill": "sparse:block=8,stride=8,near=0,least=64,density=0.2", "chunk": 9, "rows": 1}
    prompt = [(7 * i * i + 3) % 250 + 3 for i in range(640)]
    read = []
    for llm in (made(tmp_path, "llama", **options), call_by_call(made(tmp_path, "llama", **options))):
        text = llm.generate(prompt, max_new_tokens=2, ignore_eos=True)
        read.append((text.ids, llm.pages.seen, llm.pages.read))
    assert read[0] == read[1]
    assert 0 < read[0][2] < read[0][1]


def test_a_layer_that_is_not_finite_is_named(tmp_path: Path, ran: dict[str, int]):
    from longspan.errors import NumericalError

    llm = made(tmp_path, "llama", dtype="float16")
    llm.generate([5] * 4, max_new_tokens=4, ignore_eos=True)  # so that there is a tape for as many
    runs = ran["runs"]
    with torch.no_grad():
        llm.scheduler.forward.model.model.layers[1].mlp.down_proj.weight.fill_(60000.0)  # type: ignore[attr-defined]
    with pytest.raises(NumericalError, match="layer 1"):
        llm.generate([5] * 4, max_new_tokens=4, ignore_eos=True)
    assert ran["runs"] > runs


def test_a_fork_and_its_parent_go_their_own_ways(tmp_path: Path):
    """What was worked out of a text's pages is not taken for its twin's."""
    llm, plain = made(tmp_path, "llama"), call_by_call(made(tmp_path, "llama"))
    said = []
    for one in (llm, plain):
        with one.session() as session:
            session.feed([7] * 100)
            first = session.ask([9, 8, 7], max_new_tokens=30, ignore_eos=True).ids
            with session.fork() as twin:
                other = twin.ask([4, 5], max_new_tokens=90, ignore_eos=True).ids
                mine = session.ask([4, 5, 6], max_new_tokens=90, ignore_eos=True).ids
            said.append((first, other, mine))
    assert said[0] == said[1]


@pytest.mark.parametrize(("family", "kinds"), [("llama", 1), ("gemma3_text", 2), ("smollm3", 4)])
def test_what_is_held_is_told_once_for_layers_that_turn_alike(
    tmp_path: Path, family: str, kinds: int, monkeypatch: pytest.MonkeyPatch
):
    told: list[list[int]] = []
    keep: Callable[..., None] = holding.Held.reading

    def reading(self: Any, layers: list[int], *rest: Any) -> None:
        told.append(layers)
        keep(self, layers, *rest)

    monkeypatch.setattr(holding.Held, "reading", reading)
    made(tmp_path, family).generate([5] * 40, max_new_tokens=4, ignore_eos=True)
    each = collections.Counter(layer for layers in told for layer in layers if layer >= 0)
    assert set(each) == set(range(checkpoints.FAMILIES[family]["num_hidden_layers"]))
    assert set(each.values()) == {len(told) // kinds}

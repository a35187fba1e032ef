from __future__ import annotations

import math

import pytest
import torch
import transformers

from longspan import LLM
from longspan.errors import UsageError
from longspan.evals.perplexity import Perplexity, Window, beginning
from longspan.evals.suite import evaluate

TEXT = "".join(f"Line {i} of a text, {i * i % 97}.\n" for i in range(60))


def nats(path, ids: list[int]) -> list[float]:
    """Transformers' own cross entropy of each id but the first."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    row = torch.tensor([ids])
    with torch.no_grad():
        logits = model(row).logits[0, :-1]
        mean = float(model(row, labels=row).loss)
    each = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none").tolist()
    assert math.fsum(each) / len(each) == pytest.approx(mean, abs=1e-5)
    return each


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_losses_are_those_of_transformers(llama, chunk):
    ids = llama.encode(TEXT)[:65]
    assert llama.losses(ids, chunk=chunk).tolist() == pytest.approx(nats(llama.path, ids), abs=1e-4)
    assert llama.pool.free == llama.pool.total, "nothing stays cached"
    assert llama.losses(ids[:1]).tolist() == []


def test_it_equals_transformers_cross_entropy(llama):
    made = evaluate(Perplexity(length=50, samples=4), llama, TEXT)
    ids = llama.encode(TEXT)
    there = len(ids) // 50
    each = []
    for window in made.samples:
        own = nats(llama.path, ids[window.start : window.start + 50])
        assert (window.tokens, window.late_tokens) == (49, 25)
        assert window.nats / 49 == pytest.approx(math.fsum(own) / 49, abs=1e-4)
        assert window.late_nats / 25 == pytest.approx(math.fsum(own[24:]) / 25, abs=1e-4)
        each += own
    assert [window.start for window in made.samples] == [i * there // 4 * 50 for i in range(4)]
    values = made.results.values
    assert (values["windows"], values["tokens"]) == (4, 4 * 49)
    assert values["nats_per_token"] == pytest.approx(math.fsum(each) / len(each), abs=1e-4)
    assert math.log(values["perplexity"]) == pytest.approx(values["nats_per_token"])
    low, high = values["interval"]
    assert low < values["perplexity"] < high


@pytest.mark.parametrize("stride", [None, 16, 50])
def test_position_and_length_are_told_apart_as_transformers_does(llama, stride):
    """The windows of https://huggingface.co/docs/transformers/perplexity, in which a token that an earlier window
    counted does not count again."""
    ids, count = llama.encode(TEXT)[:500], 5 if stride else 3
    made = evaluate(Perplexity(lengths=(50, 80), stride=stride, samples=1000), llama, llama.tokenizer.decode(ids))
    for length in (50, 80):
        step = stride or length
        starts = range(0, len(ids) - length + 1, step)
        assert [one.start for one in made.samples if one.length == length] == list(starts)
        for start in starts:
            own = nats(llama.path, ids[start : start + length]) if start < count * step else None
            (one,) = (one for one in made.samples if (one.length, one.start) == (length, start))
            counted = length - 1 if start == 0 or stride is None else min(stride, length - 1)
            assert (one.tokens, sum(one.part_tokens)) == (counted, counted)
            assert math.fsum(one.part_nats) == pytest.approx(one.nats)
            if own is None:
                continue
            assert one.nats / counted == pytest.approx(math.fsum(own[-counted:]) / counted, abs=1e-4)
            for place in range(10):
                mine = [value for i, value in enumerate(own, 1) if i >= length - counted and i * 10 // length == place]
                assert one.part_nats[place] == pytest.approx(math.fsum(mine), abs=1e-4 * max(len(mine), 1))
        told = made.results.values["lengths"][str(length)]
        assert [part["tokens"] for part in told["deciles"]] == [
            sum(one.part_tokens[i] for one in made.samples if one.length == length) for i in range(10)
        ]
    values = made.results.values
    assert values["perplexity"] == values["lengths"]["80"]["perplexity"]
    assert [row[0] for row in made.results.rows[:4]] == [
        *("50 tokens: whole windows", "50 tokens: second halves"),
        *("80 tokens: whole windows", "80 tokens: second halves"),
    ]


def test_a_stride_beyond_the_window_is_refused(llama):
    with pytest.raises(UsageError, match="stride: 60 tokens are more than the 50"):
        evaluate(Perplexity(length=50, stride=60), llama, TEXT)


def test_chunks_do_not_matter(folder):
    suite = Perplexity(length=60, samples=2)
    figures = [
        evaluate(suite, LLM(folder("llama"), memory="64MB", dtype="float32", chunk=chunk), TEXT).results.values
        for chunk in (7, 1024)
    ]
    assert figures[0]["nats_per_token"] == pytest.approx(figures[1]["nats_per_token"], abs=1e-5)


def test_windows_do_not_overlap_and_never_exceed_the_text(llama):
    ids = llama.encode(TEXT)
    for asked in (1, 3, 1000):
        windows = evaluate(Perplexity(length=100, samples=asked), llama, TEXT).samples
        assert len(windows) == min(asked, len(ids) // 100)
        starts = [window.start for window in windows]
        assert all(b - a >= 100 for a, b in zip(starts, [*starts[1:], len(ids)], strict=True))


def test_a_window_begins_with_the_first_token_where_the_model_knows_it(llama):
    assert beginning(llama) == []
    llama.tokenizer.bos_token = "!"
    first = llama.tokenizer.bos_token_id
    assert beginning(llama) == [], "neither the tokenizer nor a template puts it there"
    llama.tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}"
    assert beginning(llama) == [first]
    (window,) = evaluate(Perplexity(length=40, samples=1), llama, TEXT).samples
    ids = [first, *llama.encode(TEXT, special=False)[:39]]
    assert (window.tokens, window.nats / 39) == (39, pytest.approx(math.fsum(nats(llama.path, ids)) / 39, abs=1e-4))
    llama.tokenizer.chat_template = "{{ messages[0]['content'] }}{{ bos_token }}"
    assert beginning(llama) == []


def test_a_template_that_refuses_is_no_reason_to_fail(llama):
    llama.tokenizer.bos_token = "!"
    llama.tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert beginning(llama) == []


def window(index: int, start: int, tokens: int, nats: float, late_tokens: int, late_nats: float) -> Window:
    """All of it in the first tenth."""
    nothing = (0,) * 9
    return Window(index, start, tokens, nats, late_tokens, late_nats, 10, (tokens, *nothing), (nats, *nothing))


def test_figures_are_weighted_by_tokens():
    suite = Perplexity(length=10)
    results = suite.results([window(0, 0, 9, 9.0, 5, 10.0), window(1, 10, 3, 12.0, 1, 2.0)])
    assert results.values["nats_per_token"] == pytest.approx(21 / 12)
    assert results.values["second_half"]["nats_per_token"] == pytest.approx(2)
    assert results.values["second_half"]["interval"] == pytest.approx([math.exp(2), math.exp(2)])
    assert results.values["interval"] == pytest.approx(
        [math.exp(2.5 - 1.96 * 1.5), math.exp(2.5 + 1.96 * 1.5)], rel=1e-4
    )
    one = suite.results([window(0, 0, 9, 9.0, 5, 10.0)])
    assert one.values["interval"] is None
    assert one.rows[0] == ("whole windows", "2.718", "–", "9")
    assert [row[0] for row in one.rows] == ["whole windows", "second halves", "0 – 10 %"]


def test_a_text_that_fills_no_window(llama):
    with pytest.raises(UsageError, match=r"the text has 11 tokens and fills no window: give 11 or less"):
        evaluate(Perplexity(length=12), llama, "hello world")
    assert len(evaluate(Perplexity(length=11), llama, "hello world").samples) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"length": 3},
        {"length": -1},
        {"samples": 0},
        {"stride": 0},
        {"seed": -1},
        {"lengths": (3,)},
        {"length": 9, "lengths": (8,)},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(UsageError, match=next(iter(settings)).removesuffix("s")):
        Perplexity(**settings)

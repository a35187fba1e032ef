"""LongBench's scores against values by hand, and against those that its own packages gave."""

from __future__ import annotations

import sys
import types

import pytest

from longspan.errors import UsageError
from longspan.evals.longbench.datasets import DATASETS
from longspan.evals.longbench.scores import SCORES
from longspan.evals.metrics import METRICS


@pytest.fixture
def jieba(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its place, a divider of pairs of letters."""
    fake = types.ModuleType("jieba")
    fake.lcut = lambda text: [text[i : i + 2] for i in range(0, len(text), 2)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jieba", fake)


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], 1.0),
        ("the tower in Paris", ["Eiffel Tower"], 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("tower tower", ["tower"], 2 * 0.5 * 1 / 1.5),  # a word counts as often as both have it
        ("a an the", ["tower"], 0.0),
        ("", ["tower"], 0.0),
        ("second", ["first", "second one"], 2 * 1 * 0.5 / 1.5),  # the best of all references
    ],
)
def test_words_f1(answer: str, references: list[str], score: float):
    assert SCORES["qa_f1"](answer, references) == pytest.approx(score)


def test_only_the_first_line_counts_where_examples_could_go_on():
    assert SCORES["qa_f1_line"]("\nParis\nPassage: London", ["Paris"]) == 1
    assert SCORES["qa_f1"]("\nParis\nPassage: London", ["Paris"]) < 1
    assert SCORES["rouge_l_line"]("a b\nc d", ["a b"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        # those of rouge 1.0.1, which LongBench calls
        ("the cat sat on the mat", "the cat lay on the mat", 0.7999999950000002),
        ("A b. C d", "c d. a b", 0.4999999950000001),
        ("police killed the gunman", "the gunman kill police.", 0.4999999950000001),
        # four different words of five in order, of five and of five; and a sentence of blanks is a word
        ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", 2 * (4 / 8) * (4 / 5) / (4 / 8 + 4 / 5)),
        ("w1 w2. ", "w1 w2", 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("", "w1", 0.0),
        ("...", "w1", 0.0),
        ("w1", "w2", 0.0),
    ],
)
def test_rouge_l(answer: str, reference: str, score: float):
    assert SCORES["rouge_l"](answer, [reference]) == pytest.approx(score, abs=1e-8)


def test_rouge_l_has_no_limit_of_depth():
    words = " ".join(f"w{number}" for number in range(1500))
    assert SCORES["rouge_l"](words, [words]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("There are 7.", "7", 1.0),
        ("7, or 8, or 17", "7", 1 / 3),
        ("seven", "7", 0.0),
        ("Paragraph 12", "Paragraph 12", 1.0),
        ("Paragraph 1", "Paragraph 12", 0.0),
        ("段落3", "段落3", 1.0),
    ],
)
def test_numbers(answer: str, reference: str, score: float):
    assert SCORES["number"](answer, [reference]) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "right", "score"),
    [
        ("Date", "Date", 1.0),
        ("Date\nType: City", "Date", 1.0),
        ("Date or City", "Date", 0.5),
        ("City", "Date", 0.0),
        ("Other location", "Other location", 1.0),  # "location" is part of the right class
        ("Other location", "location", 0.5),  # the right class is part of another
        ("", "Date", 0.0),
    ],
)
def test_classes(answer: str, right: str, score: float):
    classes = ("Date", "City", "location", "Other location")
    assert SCORES["classification"](answer, (right, "", *classes)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("return x", "return x", 1.0),
        ("\n# a comment\nreturn x\nreturn y", "return x", 1.0),
        ("```\nreturn x", "return x", 1.0),
        ("abcd", "abxd", 0.75),  # three of four letters, twice over eight
        ("ab", "abc", 0.8),
        ("// nothing", "return x", 0.0),
        ("", "return x", 0.0),
    ],
)
def test_code(answer: str, reference: str, score: float):
    assert SCORES["code_similarity"](answer, [reference]) == pytest.approx(score)


@pytest.mark.usefixtures("jieba")
def test_chinese_words():
    assert SCORES["qa_f1_zh"]("北京清华", ["北京大学"]) == pytest.approx(0.5)
    assert SCORES["qa_f1_zh"]("北京，。", ["北京！？"]) == 1  # punctuation alone is no word
    assert SCORES["rouge_l_zh"]("北京清华", ["北京大学"]) == pytest.approx(0.5)


def test_without_jieba_chinese_answers_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UsageError, match="pip install"):
        SCORES["qa_f1_zh"]("北京", ["北京"])


@pytest.mark.usefixtures("jieba")
def test_every_data_set_has_a_score_that_knows_right_from_wrong():
    assert SCORES.items() <= METRICS.items()
    assert {one.metric for one in DATASETS.values()} == set(SCORES)
    for name in SCORES:
        right = ("Date", "", "Date", "City") if name == "classification" else ("Paragraph 12",)
        assert METRICS[name](right[0], right) == pytest.approx(1)
        assert METRICS[name]("~", right) == 0

"""What holds for every suite of the table: who knows everything scores 100, who is always wrong 0, an interrupted
evaluation goes on to the same figures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence as Seq
from pathlib import Path

import pytest
from small_suites import SMALL

from longspan import LLM
from longspan.engine import prompts
from longspan.engine.words import Words
from longspan.errors import UsageError
from longspan.evals.ask import Said
from longspan.evals.cases import Case, Question
from longspan.evals.haystack import SLACK
from longspan.evals.longbench.suite import LongBench
from longspan.evals.make import make
from longspan.evals.metrics import METRICS
from longspan.evals.raw import Cost, Raw
from longspan.evals.ruler.suite import Ruler
from longspan.evals.suite import Asking, Suite, contents, evaluate
from longspan.evals.suites import SUITES

TEXT = "".join(f"line {i} of a text about nothing, {i * i % 97}\n" for i in range(60))
ASKING = [name for name, suite in SUITES.items() if hasattr(suite, "cases")]


def own(suite: Suite) -> str | None:
    """The text around, for a suite that takes one."""
    return None if isinstance(suite, LongBench) else TEXT


def none(done: float, total: float) -> None: ...


@pytest.fixture
def suite(request: pytest.FixtureRequest, tmp_path: Path) -> Suite:
    return SMALL[request.param](tmp_path)


def test_every_suite_has_a_small_one():
    assert set(SMALL) == set(SUITES)


def right(question: Question) -> str:
    """An answer that is worth everything; of metrics that want all references, all of them."""
    every = " ".join(question.references)
    return max((*question.references, every), key=lambda said: METRICS[question.metric](said, question.references))


def answering(say):
    def answer(cases: Seq[Case], progress) -> list[list[Said]]:
        return [[Said(say(question), 1) for question in case.questions] for case in cases]

    return answer


@pytest.mark.parametrize("suite", ASKING, indirect=True)
def test_who_knows_everything_scores_all_and_who_is_wrong_nothing(suite, llama):
    oracle = evaluate(suite, llama, own(suite), answerer=answering(right))
    assert [one.score for one in oracle.samples] == [1.0] * suite.count()
    wrong = evaluate(suite, llama, own(suite), answerer=answering(lambda question: "§"))
    assert [one.score for one in wrong.samples] == [0.0] * suite.count()
    silent = evaluate(suite, llama, own(suite), answerer=answering(lambda question: ""))
    assert [one.score for one in silent.samples] == [0.0] * suite.count()
    assert oracle.results.values != wrong.results.values
    assert oracle.results.rows != wrong.results.rows


@pytest.mark.parametrize("suite", ASKING, indirect=True)
def test_cases_are_as_long_as_they_should_and_hold_their_questions(suite, llama):
    cases = list(suite.cases(llama, None))
    assert sum(len(case.questions) for case in cases) == suite.count()
    assert len({(case.group, case.index) for case in cases}) == len(cases)
    for case in cases:
        assert case.length <= suite.length
        sizes = []
        for question in case.questions:
            assert question.metric in METRICS
            assert question.references
            assert question.room >= 1
            ids = prompt(llama, case, question)
            assert question.text in llama.tokenizer.decode(ids)
            sizes.append(len(ids) + question.room)
        assert max(sizes) <= case.length
        if not isinstance(suite, LongBench):  # whose texts may be short
            assert max(sizes) >= case.length - SLACK


def prompt(llm: LLM, case: Case, question: Question) -> list[int]:
    """What the model reads of a question that is asked by itself."""
    if case.plain:
        return llm.encode(case.text + question.text + question.begins)
    first = case.asked == "start"
    return prompts.conversation(llm, case.text, [question.text], question_first=first, begins=question.begins)


@pytest.mark.parametrize("suite", ASKING, indirect=True)
def test_cases_need_no_weights_and_a_seed_repeats_them(suite, llama, tmp_path):
    told = [make(suite, Words.of(llama.path), own(suite), tmp_path / str(i), none) for i in range(2)]
    first, again = ((tmp_path / str(i)).read_bytes() for i in range(2))
    assert first == again
    lines = [json.loads(line) for line in first.decode().splitlines()]
    assert told[0][1:] == (len(lines), suite.count())
    for line, case in zip(lines, suite.cases(llama, own(suite)), strict=True):
        assert line["text"] == case.text
        assert [one["references"] for one in line["questions"]] == [list(one.references) for one in case.questions]
        assert all(one["tokens"] + one["room"] <= case.length for one in line["questions"])


def test_what_asks_nothing_cannot_be_made(llama, tmp_path):
    with pytest.raises(UsageError, match="asks nothing"):
        make(SMALL["perplexity"](tmp_path), llama, None, tmp_path / "file", none)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("suite", SUITES, indirect=True)
def test_an_interrupted_evaluation_goes_on_to_the_same_figures(suite, folder, tmp_path, monkeypatch):
    """Interrupted when one sample was written, with half a line after it."""
    llm = LLM(folder("llama"), memory="64MB", dtype="float32")
    whole = evaluate(suite, llm, own(suite), tmp_path / "whole", batch=2)
    raw = tmp_path / "raw"
    with monkeypatch.context() as patch:
        add, added = Raw.add, []

        def once(self: Raw, sample: object, cost: Cost) -> None:
            if added:
                raise Interrupted
            added.append(sample)
            add(self, sample, cost)

        patch.setattr(Raw, "add", once)
        with pytest.raises(Interrupted):
            evaluate(suite, llm, own(suite), raw, batch=2)
    assert len(raw.read_text().splitlines()) == 2
    with raw.open("a") as file:
        file.write('{"group": "hal')
    seen: list[tuple[float, float]] = []
    made = evaluate(suite, llm, own(suite), raw, lambda done, total: seen.append((done, total)), batch=2)
    assert seen[-1][0] == seen[-1][1]
    assert made.samples == whole.samples
    assert made.results == whole.results
    assert [strip(line) for line in raw.open()] == [strip(line) for line in (tmp_path / "whole").open()]
    again = evaluate(suite, llm, own(suite), raw, batch=2)
    assert (again.samples, again.costs) == (made.samples, made.costs)
    other = LLM(folder("llama"), memory="64MB", dtype="float32", format="int8")
    with pytest.raises(UsageError, match=r'plan\.format "dense" there, "int8" here'):
        evaluate(suite, other, own(suite), raw, batch=2)


def strip(line: str) -> dict[str, object]:
    """Without what it cost, which differs each time."""
    return {name: value for name, value in json.loads(line).items() if name != "cost"}


@pytest.mark.parametrize("suite", ASKING, indirect=True)
def test_two_seeds_differ(suite, llama):
    other = dataclasses.replace(suite, seed=suite.seed + 1)
    assert isinstance(other, Asking)
    assert next(suite.cases(llama, own(suite))) != next(other.cases(llama, own(suite)))


def test_samples_of_files_that_changed_are_others(llama, tmp_path):
    suite, raw = SMALL["longbench"](tmp_path), tmp_path / "raw"
    evaluate(suite, llama, raw=raw, answerer=answering(right))
    evaluate(suite, llama, raw=raw, answerer=answering(right))
    path = tmp_path / "longbench.jsonl"
    path.write_text(path.read_text().replace("Ada", "Bob"))
    with pytest.raises(UsageError, match=rf"another evaluation \(file {path} "):
        evaluate(suite, llama, raw=raw, answerer=answering(right))


def test_the_digests_of_all_that_the_user_gives(tmp_path):
    article = {"context": "Ada is tall.", "qas": [{"question": "Who?", "answers": [{"text": "Ada"}]}]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [article]}]}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert contents(Ruler(qa=(str(path),)), None) == {f"file {path}": digest}
    assert contents(Ruler(), "a text") == {"text": hashlib.sha256(b"a text").hexdigest()}
    assert contents(Ruler(), None) == {}

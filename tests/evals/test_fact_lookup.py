from __future__ import annotations

import dataclasses
import random

import pytest

from longspan import LLM
from longspan.engine.generate import Output
from longspan.errors import UsageError
from longspan.evals import asker, fact_lookup, lookup
from longspan.evals.cases import PLACES, Scored
from longspan.evals.fact_lookup import FactLookup
from longspan.evals.suite import evaluate

TEXT = "".join(f"line {i} of a text about nothing\n" for i in range(60))
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}U: {{ m['content'] | trim }}\n"
    "{% else %}A: {{ m['content'] }}\n{% endif %}{% endfor %}A:"
)
NAMES = tuple(lookup.ABILITIES)
SMALL = FactLookup(length=900, facts=4, samples=2)


class Model:
    """An LLM that keeps its prompts and answers as it is told."""

    def __init__(self, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.llm, self.prompts, self.rooms = llm, [], []
        self.say = lambda prompt: ""
        self.together = asker.together
        monkeypatch.setattr(asker, "together", self.answer)

    def answer(self, sessions, texts, sampling, *reading):
        if reading:
            return self.together(sessions, texts, sampling, *reading)
        prompts = [[*session.ids, *ids] for session, ids in zip(sessions, texts, strict=True)]
        told = [self.llm.tokenizer.decode(ids) for ids in prompts]
        self.prompts += told
        self.rooms += [one.max_new_tokens for one in sampling]
        return [
            Output(self.say(text), (), "stop", len(ids), 0, 0.0, 0.0, "default")
            for text, ids in zip(told, prompts, strict=True)
        ]

    def know(self, suite: FactLookup) -> None:
        """Answer every question right: the one that was asked last."""
        answers = {question.text: question.answer for one in suite.drawn() for question in one.questions}
        self.say = lambda prompt: answers[max((q for q in answers if q in prompt), key=prompt.rindex)]


@pytest.fixture
def model(llama, monkeypatch) -> Model:
    return Model(llama, monkeypatch)


@pytest.fixture
def chatting(llama, monkeypatch) -> Model:
    llama.tokenizer.chat_template = TEMPLATE
    return Model(llama, monkeypatch)


def run(model: Model, suite: FactLookup) -> list[Scored]:
    model.prompts.clear()
    model.rooms.clear()
    regime = "aware" if suite.asked == "start" else "agnostic"
    batch = 1 if suite.asked == "row" else 8  # so that prompts come in the order of the samples
    return list(evaluate(suite, model.llm, TEXT, regime=regime, batch=batch).samples)


def test_a_seed_fixes_the_prompts(model):
    run(model, SMALL)
    first = list(model.prompts)
    run(model, SMALL)
    assert model.prompts == first
    run(model, dataclasses.replace(SMALL, seed=1))
    assert not set(model.prompts) & set(first)


@pytest.mark.parametrize("place", PLACES)
def test_more_questions_only_append(model, place):
    suite = FactLookup(length=1500, facts=5, samples=2, asked=place)

    def prompts(suite: FactLookup) -> dict[tuple[str, int, int], tuple[Scored, str]]:
        answers = run(model, suite)
        assert len(answers) == suite.samples * len(NAMES)
        return {(a.group, a.index, a.turn): (a, p) for a, p in zip(answers, model.prompts, strict=True)}

    few, many = prompts(suite), prompts(dataclasses.replace(suite, samples=7))
    assert few.items() <= many.items()


def test_a_sample_does_not_depend_on_the_others(model):
    all_of_them = run(model, SMALL)
    alone = run(model, dataclasses.replace(SMALL, abilities=("chain",)))
    assert alone == [one for one in all_of_them if one.group == "chain"]
    assert SMALL.draw("chain", 1).questions[0].text == alone[1].question


@pytest.mark.parametrize("length", [700, 2000])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["model", "chatting"])
def test_a_prompt_and_its_answer_fill_the_length(request, form, length, place):
    model = request.getfixturevalue(form)
    model.say = lambda prompt: "an answer that runs on and on, far beyond what was asked for, \xff\xff\xff" * 3
    suite = FactLookup(length=length, facts=3, asked=place, samples=5)
    if place == "row":
        suite = dataclasses.replace(suite, length=length + 400)
    for one, prompt in zip(run(model, suite), model.prompts, strict=True):
        room = len(one.references[0]) + 1 + 4
        assert one.tokens == len(prompt.encode())
        assert one.tokens + room <= suite.length
        if place != "row":
            assert one.tokens + room >= suite.length - 32


def test_the_sentences_stand_in_the_text_in_order(model):
    for one in SMALL.drawn():
        text = one.text(TEXT)
        assert [line for line in text.splitlines() if line in one.sentences] == list(one.sentences)
        assert [line for line in text.splitlines() if line not in one.sentences] == TEXT.splitlines()


def test_names_are_held_out(model):
    drawn = [SMALL.draw("single", index) for index in range(50)]
    made = [lookup.ABILITIES["single"](random.Random(f"0/single/{i}"), 4, 1, "held_out") for i in range(50)]
    assert [one.sentences for one in drawn] == [one.sentences for one in made]
    assert {lookup.split_of(fact.entity) for one in made for fact in one.facts} == {"held_out"}


def test_the_question_stands_where_it_should(model):
    for place, begins in (("end", False), ("start", True)):
        for one, prompt in zip(run(model, dataclasses.replace(SMALL, asked=place)), model.prompts, strict=True):
            question = f"Question: {one.question}\n"
            assert prompt.startswith(f"{question}\n") if begins else prompt.endswith(f"\n\n{question}Answer:")
            assert prompt.endswith("\n\nAnswer:") == begins


def test_the_template_is_used(chatting):
    for place in ("end", "start"):
        for one, prompt in zip(run(chatting, dataclasses.replace(SMALL, asked=place)), chatting.prompts, strict=True):
            begin, end = ("U: ", f"\n\n{one.question}\nA:") if place == "end" else (f"U: {one.question}\n\n", "\nA:")
            assert prompt.startswith(begin)
            assert prompt.endswith(end)


@pytest.mark.parametrize("form", ["model", "chatting"])
def test_a_row_holds_the_models_own_answers(request, form):
    model = request.getfixturevalue(form)
    said = iter(range(1000))
    model.say = lambda prompt: f" my {next(said)}"
    suite = FactLookup(length=1500, facts=6, samples=7, abilities=("single", "unknown"), asked="row")
    answers = run(model, suite)
    assert len(answers) == 14
    by_place = {
        (one.group, one.index, one.turn): (one, prompt) for one, prompt in zip(answers, model.prompts, strict=True)
    }
    assert {place for place in by_place if place[0] == "single"} == {
        *(("single", 0, turn) for turn in range(5)),
        *(("single", 1, turn) for turn in range(2)),
    }
    for (ability, index, turn), (one, prompt) in by_place.items():
        earlier = [by_place[ability, index, before][0] for before in range(turn)]
        for before in earlier:
            if form == "chatting":
                assert f"{before.question}\nA: {before.answer}\n" in prompt
            else:
                assert f"Question: {before.question}\nAnswer: {before.answer}\n\n" in prompt
        assert prompt.count("my ") == turn
        assert prompt.index(one.question) > prompt.index("line ")


def test_an_answer_has_room(model):
    answers = run(model, SMALL)
    assert model.rooms == [len(one.references[0]) + 1 + 4 for one in answers]


@pytest.mark.parametrize("place", PLACES)
def test_who_knows_everything_is_always_right(model, place):
    suite = FactLookup(length=2500, facts=6, samples=6, asked=place)
    model.know(suite)
    made = evaluate(suite, model.llm, TEXT, regime="aware")
    for name in NAMES:
        figures = made.results.values["abilities"][name]
        assert (figures["right"], figures["asked"], figures["accuracy"]) == (6, 6, 1.0)
    assert made.results.values["unknown"] == {
        "answerable": {"said_unknown": 0, "asked": 24},
        "unanswerable": {"said_unknown": 6, "asked": 6},
    }


def test_who_knows_nothing_is_never_right(model):
    model.say = lambda prompt: "nothing that was asked for"
    figures = evaluate(SMALL, model.llm, TEXT).results.values
    assert {one["right"] for one in figures["abilities"].values()} == {0}
    assert (figures["all"]["asked"], figures["all"]["accuracy"]) == (2 * len(NAMES), 0.0)
    assert figures["all"]["interval"][0] == 0


def test_going_on_after_the_value_is_wrong(model):
    model.know(SMALL)
    know = model.say
    model.say = lambda prompt: f"{know(prompt)} and more"
    assert not any(one.score for one in run(model, SMALL))
    model.say = lambda prompt: f"  {know(prompt)}\n"
    assert all(one.score for one in run(model, SMALL))


def test_who_always_says_unknown(model):
    model.say = lambda prompt: "unknown."
    results = evaluate(SMALL, model.llm, TEXT).results
    assert results.values["unknown"] == {
        "answerable": {"said_unknown": 8, "asked": 8},
        "unanswerable": {"said_unknown": 2, "asked": 2},
    }
    for name, figures in results.values["abilities"].items():
        assert (figures["said_unknown"], figures["right"]) == (2, 2 * (name == "unknown"))
    assert results.notes == ('Answered "unknown": 8 of 8 answerable questions, 2 of 2 unanswerable questions.',)


def test_the_table(model):
    suite = dataclasses.replace(SMALL, abilities=("single", "unknown"), samples=4)
    made = evaluate(suite, model.llm, TEXT)
    assert made.results.header == ("ability", "right", "asked", "accuracy", "95 % interval")
    assert made.results.rows == (
        ("single", "0", "4", "0.0 %", "0.0 % – 49.0 %"),
        ("unknown", "0", "4", "0.0 %", "0.0 % – 49.0 %"),
        ("all", "0", "8", "0.0 %", "0.0 % – 32.4 %"),
    )
    one = dataclasses.replace(suite, abilities=("single",))
    assert [row[0] for row in one.results(made.samples[:4]).rows] == ["single"]


def test_the_depth_of_an_answer():
    sentences = ("The depth is 12.", "The age is 123.", "Two of 7.", "And 7.")
    text = lookup.plant("a\n" * 100, sentences, random.Random(0), [0.0, 0.25, 0.5, 1.0])
    assert fact_lookup.depth(text, sentences, "12") == 0
    assert fact_lookup.depth(text, sentences, "123") == pytest.approx(0.25, abs=0.1)
    assert fact_lookup.depth(text, sentences, "7") is None
    assert fact_lookup.depth(text, sentences, "unknown") is None


def test_the_model_itself_answers(llama):
    """No stub: the answers are those of `generate`, greedily, one line of each."""
    suite = FactLookup(length=400, facts=2, samples=1, abilities=("single", "chain", "count"))
    made = evaluate(suite, llama, TEXT)
    assert (made.rope, made.suite) == ("default", suite)
    for one in made.samples:
        drawn = suite.draw(one.group, one.index)
        assert one.question == drawn.questions[0].text
        assert one.score == lookup.score(one.answer, drawn.questions[0].answer)
        assert "\n" not in one.answer


def test_progress_ends_where_it_should(llama):
    told: list[tuple[float, float]] = []
    suite = FactLookup(length=400, facts=2, samples=2, abilities=("single", "chain"))
    evaluate(suite, llama, TEXT, batch=3, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, 4), (4, 4))


def test_too_many_facts_say_what_would_hold_them(model):
    short = dataclasses.replace(SMALL, length=200)
    with pytest.raises(UsageError, match=r"200 tokens do not hold 4 facts with a question; give [\d,]+ or more") as why:
        run(model, short)
    assert not model.prompts
    least = int(str(why.value).partition("give ")[2].split()[0].replace(",", ""))
    assert len(run(model, dataclasses.replace(short, length=least))) == 2 * len(NAMES)
    with pytest.raises(UsageError):
        run(model, dataclasses.replace(short, length=least - 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length: 0; give a whole number, 1 or more"),
        ({"facts": 0}, "facts: 0"),
        ({"samples": 0}, "samples: 0"),
        ({"seed": -1}, "seed: -1"),
        ({"asked": "middle"}, "known: end, start, row"),
        ({"abilities": ("magic",)}, f"known: {', '.join(NAMES)}"),
        ({"abilities": ()}, "at least one"),
        ({"facts": 1000}, "ability (chain|count) has names for"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        FactLookup(**settings)


def test_an_ability_named_twice_is_asked_once():
    assert FactLookup(abilities=("chain", "single", "chain")).abilities == ("chain", "single")

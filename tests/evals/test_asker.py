"""How cases are put to a model: what is read before a question is known, and that every prompt is the whole prompt."""

from __future__ import annotations

import checkpoints
import pytest

from longspan import LLM
from longspan.engine import prompts
from longspan.errors import DoesNotFit, UsageError
from longspan.evals import asker, regimes
from longspan.evals.asker import Asker
from longspan.evals.cases import Case, Question

TEXT = "".join(f"line {i} of a text, {i * i % 97}, about nothing\n" for i in range(20))
ASKED = tuple(
    Question(f"What is in line {i}?", ("x",), "exact", 6, begins) for i, begins in ((3, ""), (11, "In line"), (17, ""))
)
TEMPLATE = "{% for m in messages %}{{ m['role'][0] }}: {{ m['content'] }}\n{% endfor %}a:"


def case(asked: str = "end", index: int = 0) -> Case:
    return Case("g", index, 1000, TEXT + f"This is text {index}.\n", ASKED, asked)


def none(done: float, total: float) -> None: ...


@pytest.fixture(scope="module", params=["", TEMPLATE], ids=["plain", "template"])
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("asker")
    checkpoints.make("llama", path)
    checkpoints.tokenizer(path, request.param or None)
    return path


@pytest.mark.parametrize(
    ("regime", "plan"),
    [
        ("agnostic", {}),
        ("aware", {}),
        ("agnostic", {"format": "int8"}),
        ("aware", {"evict": "snapkv:budget=64,wait=true"}),
        ("aware", {"evict": "h2o:budget=64,recent=8,wait=true"}),
        ("aware", {"evict": "streaming:budget=128", "place": "slot"}),
        ("agnostic", {"evict": "streaming:budget=128", "place": "slot"}),
    ],
    ids=str,
)
def test_answers_are_those_of_whole_prompts(path, regime, plan):
    """Text and question as one prompt, with no session and no fork."""
    llm = LLM(path, memory="64MB", dtype="float32", **plan)
    cases = [case(index=i) for i in range(3)]
    for one, said in zip(cases, Asker(llm, regime)(cases, none), strict=True):
        for question, told in zip(one.questions, said, strict=True):
            ids = prompts.conversation(llm, one.text, [question.text], begins=question.begins)
            stop = () if llm.has_template else ("\n",)
            output = llm.generate(ids, max_new_tokens=question.room, stop=stop)
            assert (told.text, told.tokens) == (output.text.strip(), len(ids))
            assert told.steps == max(output.tokens_out - 1, 0)
            assert (told.seconds > 0) == (told.steps > 0)
    assert llm.pool.free == llm.pool.total, "nothing stays cached"


def read(llm: LLM, regime: str, cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model reads while no question is known."""
    texts, together = [], asker.together

    def seen(sessions, ids, sampling, *reading):
        texts.extend(llm.tokenizer.decode(one) for one in ids if reading)
        return together(sessions, ids, sampling, *reading)

    monkeypatch.setattr(asker, "together", seen)
    Asker(llm, regime)(cases, none)
    return texts


def test_no_question_is_known_while_a_text_is_read(path, monkeypatch):
    llm = LLM(path, memory="64MB", dtype="float32", evict="snapkv:budget=64")
    cases = [case(), case("row", 1)]
    texts = read(llm, "agnostic", cases, monkeypatch)
    for text, one in zip(texts, cases, strict=True):
        assert one.text.strip() in text
        assert not any(question.text in text for question in ASKED)
        assert "What" not in text


def test_agnostic_evicts_before_the_question_and_aware_after_it(path):
    """What is held of a read text: a budget's worth, or all of it."""
    length = len(LLM(path, memory="64MB").encode(TEXT))
    held = {}
    for regime, wait in (("agnostic", ""), ("aware", ",wait=true")):
        llm = LLM(path, memory="64MB", dtype="float32", evict=f"snapkv:budget=128{wait}", page=16)
        (said,) = Asker(llm, regime)([case()], none)
        held[regime] = {one.held for one in said}
    (few,), (all_,) = held["agnostic"], held["aware"]
    page = 16 * 2 * 2 * 3 * 16 * 4  # slots, keys and values, lanes of a layer, layers, channels, bytes
    assert all_ >= length // 16 * page
    assert few < all_ / 3


def test_answers_do_not_depend_on_the_company(path):
    llm = LLM(path, memory="64MB", dtype="float32", evict="h2o:budget=64,recent=8")
    ask = Asker(llm, "agnostic")
    cases = [case(index=0), case("row", 1), case(index=2)]
    together = [[one.text for one in said] for said in ask(cases, none)]
    alone = [[one.text for one in ask([one], none)[0]] for one in cases]
    assert together == alone
    last = Case("g", 0, 1000, cases[0].text, ASKED[2:])
    assert ask([last], none)[0][0].text == together[0][2]


def test_a_question_may_stand_before_the_text(path):
    llm = LLM(path, memory="64MB", dtype="float32")
    (said,) = Asker(llm, "aware")([case("start")], none)
    for question, told in zip(ASKED, said, strict=True):
        ids = prompts.conversation(llm, case().text, [question.text], (), True, question.begins)
        stop = () if llm.has_template else ("\n",)
        assert told.text == llm.generate(ids, max_new_tokens=question.room, stop=stop).text.strip()
    with pytest.raises(UsageError, match="give --regime aware"):
        Asker(llm, "agnostic")([case("start")], none)


def test_a_row_is_one_conversation(path):
    llm = LLM(path, memory="64MB", dtype="float32")
    (said,) = Asker(llm, "agnostic")([case("row")], none)
    texts = [question.text for question in ASKED]
    for turn, told in enumerate(said):
        answers = [asker.cut(llm, one.text, ASKED[i].room) for i, one in enumerate(said[:turn])]
        ids = prompts.conversation(llm, case().text, texts[: turn + 1], answers, begins=ASKED[turn].begins)
        stop = () if llm.has_template else ("\n",)
        assert told.text == llm.generate(ids, max_new_tokens=6, stop=stop).text.strip()


def test_as_many_at_once_as_memory_holds(path):
    small = LLM(path, memory="1MB", dtype="float32")
    cases = [case(index=i) for i in range(5)]
    large = LLM(path, memory="64MB", dtype="float32")
    said = [
        [[one.text for one in answers] for answers in Asker(llm, "agnostic")(cases, none)] for llm in (small, large)
    ]
    assert said[0] == said[1]
    with pytest.raises(DoesNotFit, match="raise memory or shorten the text"):
        Asker(LLM(path, memory="500kB", dtype="float32"), "agnostic")(cases, none)


def test_a_plan_that_contradicts_the_regime_is_refused(path):
    waiting = LLM(path, memory="64MB", evict="snapkv:budget=64,wait=true")
    with pytest.raises(UsageError, match="wait=true lets it see the question"):
        Asker(waiting, "agnostic")
    eager = LLM(path, memory="64MB", evict="snapkv:budget=64")
    with pytest.raises(UsageError, match="add wait=true to --evict"):
        Asker(eager, "aware")
    with pytest.raises(UsageError, match="known: agnostic, aware"):
        Asker(eager, "both")


def test_aware_makes_policies_wait_that_can():
    assert regimes.evict("snapkv:budget=64", "aware") == "snapkv:budget=64,wait=true"
    assert regimes.evict("snapkv:budget=64,wait=true", "aware") == "snapkv:budget=64,wait=true"
    assert regimes.evict("streaming:budget=64", "aware") == "streaming:budget=64"
    assert regimes.evict("snapkv:budget=64", "agnostic") == "snapkv:budget=64"
    assert (regimes.evict(None, "aware"), regimes.evict("none", "aware")) == (None, "none")
    with pytest.raises(UsageError, match="unknown method"):
        regimes.evict("magic", "aware")

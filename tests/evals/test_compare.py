from __future__ import annotations

import math

import evaluations
import pytest

from longspan.errors import UsageError
from longspan.evals.bootstrap import ratio
from longspan.evals.compare import compare, setups
from longspan.evals.intervals import wilson
from longspan.evals.records import read
from longspan.evals.table import sentences, table


def records(*told):
    return [read(one, "x") for one in told]


def changed(told, plan, places, score, **more):
    """The same answers under another plan, but for those at `places`."""
    samples = [{**one, "score": score} if i in places else one for i, one in enumerate(told["samples"])]
    return {**told, "plan": plan, "samples": samples, **more}


ALL_RIGHT = evaluations.answers(right=1.1, samples=20)


def test_won_and_lost_are_counted_sample_by_sample():
    other = changed(ALL_RIGHT, "worse", {0, 1, 2, 25}, 0.0, kv_bytes_peak=4_000_000)
    rows = compare(records(ALL_RIGHT, other))
    assert [(row.task, row.plan) for row in rows] == [
        (task, plan) for task in ("single", "count", "all") for plan in ("full", "worse")
    ]
    base, worse = rows[-2:]
    assert (base.score, base.change, base.against, base.won) == (1.0, None, None, None)
    assert (worse.score, worse.change, worse.against) == (0.9, pytest.approx(-0.1), "full")
    assert (worse.won, worse.lost, worse.questions, worse.texts) == (0, 4, 40, 40)
    assert -0.25 < worse.change_low < -0.1 < worse.change_high < 0
    assert (base.low, base.high) == pytest.approx(wilson(40, 40))
    assert base.by == "wilson"
    back = compare(records(ALL_RIGHT, other), "worse")[-2]
    assert (back.plan, back.won, back.lost, back.change) == ("full", 4, 0, pytest.approx(0.1))


def test_a_plan_against_itself_has_an_interval_around_nothing():
    row = compare(records(ALL_RIGHT, changed(ALL_RIGHT, "same", (), 0.0)))[-1]
    assert (row.change, row.won, row.lost, row.change_by) == (0.0, 0, 0, "wilson")
    assert row.change_low == pytest.approx(-wilson(0, 40)[1])


def test_pairing_makes_the_interval_narrower_than_the_scores_apart():
    half = changed(ALL_RIGHT, "full", range(0, 40, 2), 0.0)
    row = compare(records(half, changed(half, "other", {1}, 0.0)))[-1]
    assert row.change_high - row.change_low < 0.5 * (row.high - row.low)


def test_fronts_are_of_wholes_and_of_bytes_in_memory_or_all():
    told = [
        changed(ALL_RIGHT, "full", (), 0.0, kv_bytes_peak=100),
        changed(ALL_RIGHT, "file", (), 0.0, kv_bytes_peak=10, disk_bytes=100),
        changed(ALL_RIGHT, "small", range(10), 0.0, kv_bytes_peak=50),
    ]
    rows = compare(records(*told))
    assert {row.plan: (row.on_front, row.on_total_front) for row in rows if row.whole} == {
        "full": (False, True),
        "file": (True, False),
        "small": (False, True),
    }
    assert all(row.on_front is None and row.kv_bytes_peak is None for row in rows if not row.whole)


def test_several_lengths_have_rows_of_their_own_and_a_whole():
    rows = compare(records(evaluations.answers(lengths=(512, 1024), samples=3)))
    assert [(row.length, row.task, row.whole) for row in rows] == [
        (512, "single", False), (512, "count", False), (512, "all", False),
        (1024, "single", False), (1024, "count", False), (1024, "all", False),
        (None, "all", True),
    ]  # fmt: skip


def test_perplexity_is_of_all_tokens_and_changes_as_a_ratio():
    base, other = evaluations.windows(), evaluations.windows(plan="int4", nats=2.1)
    rows = compare(records(base, other))
    for row, told in zip(rows, (base, other), strict=True):
        nats, tokens = (sum(one[name] for one in told["samples"]) for name in ("nats", "tokens"))
        assert row.score == pytest.approx(math.exp(nats / tokens))
        assert row.low < row.score < row.high
    assert rows[1].change == pytest.approx(rows[1].score / rows[0].score - 1)
    assert rows[1].change_low < rows[1].change < rows[1].change_high
    assert rows[1].won + rows[1].lost == 6
    assert (rows[0].on_front, rows[1].on_front) == (True, False), "of as many bytes, the lower perplexity"


def test_what_does_not_belong_together_is_refused():
    aware = evaluations.answers(plan="other", regime="aware")
    with pytest.raises(UsageError, match="regimes agnostic and aware never mix"):
        compare(records(evaluations.answers(), aware))
    with pytest.raises(UsageError, match="not given the same samples"):
        compare(records(evaluations.answers(), evaluations.answers(plan="other", samples=19)))
    with pytest.raises(UsageError, match="not given the same samples"):
        compare(records(evaluations.answers(), evaluations.answers(plan="other", model="another")))
    with pytest.raises(UsageError, match="baseline 'none'"):
        compare(records(evaluations.answers()), "none")
    moved = evaluations.answers(plan="other")
    moved["samples"][3]["question"] += "?"
    with pytest.raises(UsageError, match="not given the same samples"):
        compare(records(evaluations.answers(), moved))


def test_setups_keep_apart_what_does_not_belong_together():
    told = [evaluations.answers(), evaluations.answers(plan="a"), evaluations.answers(plan="a", regime="aware")]
    assert [[one.plan for one in some] for some in setups(records(*told))] == [["full", "a"], ["a"]]


def test_the_table_leaves_out_what_nothing_is_in():
    header, lines = table(compare(records(ALL_RIGHT)))
    assert header == (
        "task",
        "plan",
        "score",
        "95 % interval",
        "n",
        "KV peak",
        "a text",
        "process",
        "ms/token",
        "front",
    )
    assert lines[-1][:5] == ("all", "full", "100.0 %", "91.2 % – 100.0 %", "40")
    assert lines[0][5:] == ("–",) * 5
    header, lines = table(compare(records(ALL_RIGHT, changed(ALL_RIGHT, "b", {0}, 0.0, disk_bytes=5))))
    assert header[5:9] == ("change", "95 % interval", "won", "lost")
    assert "on disk" in header
    assert (lines[-1][5], lines[-1][7:9]) == ("-2.5", ("0", "1"))


def test_sentences_say_what_chance_explains():
    told = [ALL_RIGHT, changed(ALL_RIGHT, "bad", range(20), 0.0), changed(ALL_RIGHT, "good", {0}, 0.0)]
    first, sure, rest = sentences(compare(records(*told)))
    assert first == "3 plans: 40 questions about 40 texts of 1,024 tokens, query-agnostic."
    assert sure.startswith("Different from full beyond chance (95 %): bad -50.0 points (")
    assert rest == "Chance may explain the difference from full: good."


def test_tasks_count_alike_however_many_questions_they_have():
    def uneven(told):
        kept = [one for one in told["samples"] if one["group"] == "single" or one["index"] < 5]
        return {**told, "samples": kept}

    base = uneven(changed(ALL_RIGHT, "full", range(4), 0.0))  # 16 of 20, and 5 of 5
    other = uneven(changed(ALL_RIGHT, "other", (*range(4), 20), 0.0))  # 16 of 20, and 4 of 5
    rows = {(row.task, row.plan): row for row in compare(records(base, other))}
    whole, worse = rows["all", "full"], rows["all", "other"]
    assert (whole.score, worse.score) == (pytest.approx(0.9), pytest.approx(0.8))
    assert whole.score == pytest.approx((rows["single", "full"].score + rows["count", "full"].score) / 2)
    assert (worse.change, worse.won, worse.lost, worse.questions) == (pytest.approx(-0.1), 0, 1, 25)
    assert whole.low < 0.9 < whole.high <= 1
    # the second task does not vary, so the whole varies half as much as the first
    spread = rows["single", "full"].high - rows["single", "full"].low
    assert whole.high - whole.low == pytest.approx(spread / 2, rel=0.1)
    assert worse.change_low == pytest.approx(-0.3, abs=0.01)


def test_figures_of_tasks_with_as_many_questions_are_those_of_all_questions():
    told = changed(ALL_RIGHT, "full", range(0, 40, 3), 0.0)
    row = compare(records(told))[-1]
    values = [one["score"] for one in told["samples"]]
    ends = ratio(values, [1.0] * 40, [one["group"] for one in told["samples"]], bounds=(0, 1))
    assert (row.score, row.low, row.high) == (sum(values) / 40, ends.low, ends.high)


def test_evaluations_of_files_with_other_contents_are_no_pair():
    one, other = ({**ALL_RIGHT, "plan": plan, "contents": {"text": plan}} for plan in ("a", "b"))
    assert len(setups(records(one, other))) == 2
    with pytest.raises(UsageError, match="not given the same samples"):
        compare(records(one, other))


def test_facts_of_one_text_are_told_as_that():
    samples = [
        {"index": i, "depth": 0.1 * i, "question": f"q{i}", "expected": "a", "answer": "a", "right": i > 0}
        for i in range(4)
    ]
    told = evaluations.evaluation("needles", samples, regime="agnostic", settings={"length": 2048}, seed=0)
    rows = compare(records(told))
    assert (rows[0].questions, rows[0].texts, rows[0].drawn) == (4, 1, "fact")
    (first,) = sentences(rows)
    assert first == "The plan full: 4 questions about 4 facts in one text of 2,048 tokens, query-agnostic."

"""Figures that advice is made of stand where they say."""

from __future__ import annotations

import re
from pathlib import Path

import by_hand
import pytest

from longspan.cache.eviction import POLICIES
from longspan.cache.formats import FORMATS
from longspan.cache.summaries import SELECTIONS
from longspan.errors import UsageError
from longspan.plan import losses
from longspan.plan.scaling import STRETCH, advise
from longspan.plan.tasks import TASKS, THRESHOLD, effective, scores, task_named

DOCS = (Path(__file__).parents[2] / "docs" / "measurements.md").read_text()
SECTION = DOCS.split("## 2026-11-24 · What formats, evictions and selections cost in answers")[1].split("\n## ")[0]
FOUND = DOCS.split("## 2026-11-24 · Answers go on from what their question found")[1].split("\n## ")[0]


def rows(text):
    """First cell → (points, low, high) of a table's rows, as they are written."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if len(cells) > 4 and re.fullmatch(r"[+-]\d+\.\d", cells[2]):
            found[cells[0]] = (float(cells[2]), *(float(part) for part in cells[3].split(" to ")))
    return found


SHORT, REST = SECTION.split("With the question in view")
WAIT, LONG = REST.split("At 4,096 tokens")


@pytest.mark.parametrize("name", losses.FORMATS)
def test_losses_of_formats_are_those_of_the_log(name):
    assert losses.FORMATS[name] == (rows(SHORT)[name], rows(LONG)[name])


@pytest.mark.parametrize("name", losses.HALF)
def test_losses_of_evictions_are_those_of_the_log(name):
    for table, budgets in ((losses.HALF, (512, 2048)), (losses.QUARTER, (256, 1024))):
        logged = (rows(SHORT)[f"{name}:budget={budgets[0]}"], rows(LONG)[f"{name}:budget={budgets[1]}"])
        assert table[name] == logged


@pytest.mark.parametrize("name", losses.WAITING)
def test_losses_with_the_question_in_view_are_those_of_the_log(name):
    assert losses.WAITING[name] == rows(WAIT)[f"{name}:budget=512,wait=true"]


@pytest.mark.parametrize("name", losses.SELECTIONS)
def test_losses_of_selections_are_those_of_the_log(name):
    for tokens, row in losses.SELECTIONS[name]:
        points = re.findall(
            rf"\| `{name}` \| {tokens:,} \|.*?\|.*?\| ([+-][\d.]+) \(([+-][\d.]+) to ([+-][\d.]+)\)", FOUND
        )
        assert row in [tuple(map(float, point)) for point in points]


def test_every_method_that_the_engine_has_was_measured():
    assert set(losses.HALF) == set(losses.QUARTER) == set(POLICIES)
    assert set(losses.FORMATS) == set(FORMATS) - {"dense"}
    assert set(losses.SELECTIONS) == set(SELECTIONS) - {"all"}
    assert set(losses.PAPERS) <= set(POLICIES)


def test_a_loss_is_that_of_the_next_harder_case():
    assert losses.of_eviction("keydiff", 1.0, 4096) is None
    assert losses.of_eviction("keydiff", 0.7, 4096).points == -5.0
    assert losses.of_eviction("keydiff", 0.3, 4096).points == -10.0
    assert losses.of_eviction("keydiff", 0.1, 4096) is None
    assert losses.of_eviction("snapkv", 0.5, 1024, waits=True).points == -24.5
    assert losses.of_eviction("snapkv", 0.3, 1024, waits=True) is None
    assert losses.of_eviction("keydiff", 0.5, 1024, waits=True) is None
    assert losses.of_selection("landmark", 30_000).points == -60.0
    assert losses.of_selection("landmark", 10_000_000).points == -80.0
    assert losses.of_selection("all", 4096) is None
    assert losses.of_format("dense", 4096) is None
    assert losses.of_format("int4", 4096).points == 0.0
    assert losses.elsewhere("snapkv", 0.2).startswith("23.5 of 95.4 with 90 % removed")
    assert losses.elsewhere("snapkv", 0.3).startswith("40 of 95.4 with 75 % removed")
    assert losses.elsewhere("lru", 0.5) is None


def test_what_models_do_with_their_length():
    assert effective("meta-llama/Llama-3.1-8B-Instruct") == 32768
    assert effective("meta-llama/Meta-Llama-3.1-70B-Instruct") == 65536
    assert effective("mistral-7b-v0.2") == 16384
    assert effective("mistral-7b-v0.1") is None
    assert scores("llama-3.1-8b")[131072] == 77.0
    assert scores("llama-3.1-80b") is None
    assert scores("CohereForAI/c4ai-command-r-plus-08-2024")[65536] == 85.4
    assert scores("command-r7b") is None
    assert THRESHOLD == 85.6


def test_tasks():
    assert task_named("Document QA").name == "document-qa"
    assert all(0 < task.least <= task.most for task in TASKS.values())
    assert [task.most for task in TASKS.values()] == sorted(task.most for task in TASKS.values())
    with pytest.raises(UsageError, match="known: chat, code-completion"):
        task_named("poetry")


def test_scaling_for_a_wanted_length():
    plain = by_hand.dense("llama-2-7b", **by_hand.LLAMA_2_7B)
    inside = advise(plain, 4096)
    assert (inside.rope, inside.trains) == ("checkpoint", False)
    twice = advise(plain, 8192)
    assert twice.rope == "yarn:factor=2"
    assert any("3.35" in evidence.found for evidence in twice.evidence)
    assert any(evidence.ours for evidence in twice.evidence)
    odd = advise(plain, 10_000)
    assert odd.rope == "yarn:factor=2.45"
    assert float(odd.rope.partition("=")[2]) * 4096 >= 10_000
    assert advise(plain, STRETCH * 4096).rope == "yarn:factor=8"
    far = advise(plain, STRETCH * 4096 + 1)
    assert far.rope is None
    assert far.trains
    assert far.plan == "--select sketch:pages=32,near=2048 --place far:near=2048"
    assert any("498 of 500" in evidence.found for evidence in far.evidence)
    assert all(evidence.source for evidence in far.evidence)


def test_scaling_beyond_a_checkpoints_own():
    llama = by_hand.dense("llama-3.1-8b", rope={"rope_type": "llama3", "factor": 8.0}, original=8192)
    inside = advise(llama, 131072)
    assert inside.rope == "checkpoint"
    assert "77 at 131,072 tokens" in inside.evidence[0].found
    beyond = advise(llama, 262144)
    assert beyond.rope is None
    assert "llama3" in beyond.why
    assert beyond.plan.startswith("--select sketch")
    qwen = by_hand.dense(rope={"rope_type": "yarn", "factor": 4.0}, original=32768)
    assert advise(qwen, 262144).rope == "yarn:factor=8,original=32768"
    assert "not measured" in advise(qwen, 262144).why
    assert advise(qwen, 262145).rope is None


def test_learned_positions_end():
    learned = advise(by_hand.dense(theta=0.0, trained=1024), 4096)
    assert learned.rope is None
    assert "learned" in learned.why
    assert "retrieval" in learned.plan


def test_windows_alone_need_no_scaling():
    assert advise(by_hand.dense(window=4096, trained=8192), 1 << 20).rope == "checkpoint"

"""RULER's cases: solvable from their text alone, as long as asked for, the same for the same seed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import checkpoints
import pytest
from ruler_solver import solve

from longspan import LLM
from longspan.errors import UsageError
from longspan.evals.cases import Case
from longspan.evals.ruler.made import Space
from longspan.evals.ruler.questions import read
from longspan.evals.ruler.suite import Ruler
from longspan.evals.ruler.tasks import GENERATED, NAMES

ROOMS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}
"""Tokens of an answer, as RULER has them."""


@pytest.fixture(scope="module")
def byte(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """A token is a byte, and there is no chat template."""
    path = tmp_path_factory.mktemp("byte")
    checkpoints.make("llama", path)
    checkpoints.tokenizer(path)
    return LLM(path, memory="32MB")


@pytest.fixture(scope="module")
def embedded() -> LLM:
    return LLM(memory="32MB")


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of questions in the two forms, all answered by one document each."""
    folder = tmp_path_factory.mktemp("qa")
    roles, towns = ("mayor", "baker", "judge"), [f"Town{letter}" for letter in "ABCDEFGHIJKLMNOP"]
    said = {
        (role, town): f"{town} lies by a river. The {role} of {town} is {role.title()}{town[-1]}. It rains there."
        for role in roles
        for town in towns
    }
    squad = [
        {
            "title": town,
            "paragraphs": [
                {
                    "context": said[role, town],
                    "qas": [
                        {
                            "question": f"Who is the {role} of {town}?",
                            "answers": [{"text": f"{role.title()}{town[-1]}", "answer_start": 0}] * 2,
                            "is_impossible": False,
                        },
                        {"question": "Who is nobody?", "answers": [], "is_impossible": True},
                    ],
                }
                for role in roles
            ],
        }
        for town in towns
    ]
    hotpot = [
        {
            "question": f"Who is the mayor of {town}?",
            "answer": f"Mayor{town[-1]}",
            "supporting_facts": [[town, 1]],
            "context": [[town, [said["mayor", town]]], [f"{town}'s bakery", [said["baker", town], " Good bread."]]],
        }
        for town in towns
    ]
    files = folder / "squad.json", folder / "hotpot.json"
    for file, content in zip(files, ({"version": "v2.0", "data": squad}, hotpot), strict=True):
        file.write_text(json.dumps(content), encoding="utf-8")
    return str(files[0]), str(files[1])


def cases(llm: LLM, qa: tuple[str, ...], lengths: tuple[int, ...], samples: int = 2, seed: int = 0) -> list[Case]:
    suite = Ruler(lengths=lengths, samples=samples, qa=qa, seed=seed)
    made = list(suite.cases(llm, None))
    assert len(made) == suite.count() == len(lengths) * len(suite.chosen()) * samples
    return made


def check(llm: LLM, made: list[Case]) -> None:
    for case in made:
        (question,) = case.questions
        assert sorted(solve(case.text, question.text)) == sorted(set(question.references)), case.group
        assert question.metric == ("some" if case.group.startswith("qa") else "every")
        assert question.room >= ROOMS[case.group.split("_")[0]]
        space = Space(llm, case.length)
        joined = case.text + question.text + question.begins
        tokens = len(llm.encode(joined)) + question.room if case.plain else space.tokens(case.text, question)
        assert 0.98 * case.length <= tokens <= case.length, f"{case.group}: {tokens:,} of {case.length:,}"


def test_every_case_is_solved_from_its_text_and_has_the_length(byte: LLM, qa: tuple[str, str]):
    made = cases(byte, qa, (3000, 8192, 20_000))
    assert {case.group for case in made} == set(NAMES)
    assert all(case.plain for case in made)
    check(byte, made)


def test_the_same_with_a_tokenizer_of_words_and_a_template(embedded: LLM, qa: tuple[str, str]):
    made = cases(embedded, qa, (1024, 4096, 16_384), seed=3)
    assert {case.group for case in made} == set(NAMES)
    assert not any(case.plain for case in made)
    check(embedded, made)


def test_one_seed_repeats_byte_for_byte_and_two_differ(byte: LLM, qa: tuple[str, str]):
    def written(seed: int) -> list[str]:
        return [json.dumps(dataclasses.asdict(case)) for case in cases(byte, qa, (8192,), 3, seed)]

    first = written(0)
    assert written(0) == first
    assert len(set(first)) == len(first)
    assert not set(written(1)) & set(first)
    fewer = [json.dumps(dataclasses.asdict(case)) for case in cases(byte, qa, (8192,), 2, 0)]
    assert set(fewer) < set(first)  # more samples add to those that there were


def test_without_a_template_prompts_are_rulers_own(byte: LLM, qa: tuple[str, str]):
    made = {case.group: case for case in cases(byte, qa, (7200,), 1)}
    prompts = {name: case.text + case.questions[0].text + case.questions[0].begins for name, case in made.items()}
    key = re.search(r"number for (\S+) mentioned", prompts["niah_single_1"])
    assert key is not None
    assert prompts["niah_single_1"].startswith(
        "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about "
        "the number afterwards.\n"
    )
    assert prompts["niah_single_1"].endswith(
        f"\nWhat is the special magic number for {key[1]} mentioned in the provided text? The special magic number for "
        f"{key[1]} mentioned in the provided text is"
    )
    assert re.search(
        r"\nWhat are all the special magic numbers for \S+, \S+, \S+, and \S+ mentioned in the provided text\? The "
        r"special magic numbers for \S+, \S+, \S+, and \S+ mentioned in the provided text are$",
        prompts["niah_multiquery"],
    )
    value = (
        r"\nQuestion: Find all variables that are assigned the value (\d{5}) in the text above\. Answer: According to "
    )
    value += (
        r"the chain\(s\) of variable assignment in the text above, 5 variables are assigned the value \1, they are:"
    )
    assert re.search(value + "$", prompts["vt"])
    assert len(re.findall(value, prompts["vt"])) == 2
    assert prompts["cwe"].endswith(
        "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear most "
        "often in the list are:"
    )
    assert prompts["fwe"].endswith(
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
        "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently "
        "appeared words are:"
    )
    assert re.search(
        r"\n\nAnswer the question based on the given documents\. Only give me the answer and do not output any other "
        r"words\.\n\nQuestion: Who is the \w+ of \w+\? Answer:$",
        prompts["qa_1"],
    )


def test_needles_are_of_the_kind_and_number_of_their_task(byte: LLM):
    number, uuid, key = r"\d{7}", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"[a-z]+-[a-z]+"
    wanted = {  # key, value, needles with another key, values, keys asked for
        "niah_single_1": (key, number, 0, 1, 1),
        "niah_single_2": (key, number, 0, 1, 1),
        "niah_single_3": (key, uuid, 0, 1, 1),
        "niah_multikey_1": (key, number, 3, 1, 1),
        "niah_multikey_2": (key, number, None, 1, 1),
        "niah_multikey_3": (uuid, uuid, None, 1, 1),
        "niah_multivalue": (key, number, 0, 4, 1),
        "niah_multiquery": (key, number, 0, 4, 4),
    }
    made = list(Ruler(length=6000, samples=3, tasks=tuple(wanted)).cases(byte, None))
    assert {case.group for case in made} == set(wanted)
    for case in made:
        keys, value, others, right, asked = wanted[case.group]
        (question,) = case.questions
        found = re.findall(
            rf"^One of the special magic (?:numbers|uuids) for ({keys}) is: ({value})\.$", case.text, re.M
        )
        assert len(question.references) == right
        assert len({one for one, held in found if held in question.references}) == asked
        rest = [held for _, held in found if held not in question.references]
        assert len(rest) == others if others is not None else len(rest) > 20
        assert ("Some" if right > 1 else "A") == case.text.split()[0]
        noise = case.text.count("The grass is green.")
        assert noise > 20 if case.group == "niah_single_1" else noise <= 1
        if right == 1:
            assert question.depth is not None
            assert abs(case.text.index(question.references[0]) / len(case.text) - question.depth) < 0.1
        else:
            assert question.depth is None


def test_words_of_the_list_stand_as_often_as_the_task_says(byte: LLM):
    for length, often, seldom in ((3000, 6, 1), (9000, 30, 3)):
        (case,) = Ruler(length=length, samples=1, tasks=("cwe",)).cases(byte, None)
        example, listed = case.text.split("Below is a numbered list of words.")[1:]
        assert f"Answer: {case.questions[0].begins.strip().removeprefix('Answer: ')} 1. " in example
        words = re.findall(r"\d+\. (\S+)", listed)
        times = {word: words.count(word) for word in set(words)}
        common = case.questions[0].references
        assert {times.pop(word) for word in common} == {often}
        assert set(times.values()) == {seldom}
        assert not any(one in other for one in common for other in times)  # so an answer is right for itself alone


def test_coded_words_follow_the_power_law(byte: LLM):
    (case,) = Ruler(length=20_000, samples=1, tasks=("fwe",)).cases(byte, None)
    words = case.text.partition("coded words. ")[2].split()
    dots, *asked = (words.count(word) for word in ("...", *case.questions[0].references))
    for rank, times in enumerate(asked, 2):  # one more each, and less than one by rounding down
        assert abs(times - dots / rank**2) <= 1 + 1 / rank**2
    assert all(re.fullmatch(r"[a-z]{6}", word) for word in words if word != "...")


def test_a_text_of_the_users_own_is_the_haystack(byte: LLM):
    own = "".join(f"Line {number} is about nothing at all.\n" for number in range(50))
    (case,) = Ruler(length=5000, samples=1, tasks=("niah_single_2",)).cases(byte, own)
    assert case.text.count("is about nothing at all.") > 80  # it begins anew where it ends
    check(byte, [case])


def test_questions_come_with_their_documents_and_others(byte: LLM, qa: tuple[str, str]):
    made = cases(byte, qa, (2500, 9000), 16)
    for name in ("qa_1", "qa_2"):
        asked = [case.questions[0].text for case in made if case.group == name and case.length == 9000]
        assert len(set(asked)) == 16
    assert all(case.text.count("Only give me the answer") == 2 for case in made if case.group.startswith("qa"))
    with pytest.raises(UsageError, match=r"qa_2: samples: .* has 16"):
        cases(byte, qa, (9000,), 17)


def test_what_is_missing_or_unknown_is_refused_by_name(byte: LLM, qa: tuple[str, str], tmp_path: Path):
    assert Ruler().chosen() == tuple(GENERATED)
    assert Ruler(qa=qa[:1]).chosen() == (*GENERATED, "qa_1")
    with pytest.raises(UsageError, match=r"task qa_2: .* HotpotQA's form"):
        Ruler(tasks=("qa_2",), qa=qa[:1])
    with pytest.raises(UsageError, match="unknown 'niah'; known: niah_single_1, "):
        Ruler(tasks=("niah",))
    with pytest.raises(UsageError, match="second file in SQuAD's form"):
        Ruler(qa=(qa[0], qa[0]))
    with pytest.raises(UsageError, match="length: 0"):
        Ruler(lengths=(0,))
    with pytest.raises(UsageError, match="one of the two"):
        Ruler(length=1024, lengths=(512,))
    with pytest.raises(UsageError, match=r"task cwe: length: 700 tokens .* give [\d,]+ or more"):
        list(Ruler(length=700, tasks=("cwe",)).cases(byte, None))
    for content, why in (("[", "not JSON"), ("{}", "neither"), ("[]", "no question"), ('[{"answer": "x"}]', "neither")):
        bad = tmp_path / "bad.json"
        bad.write_text(content)
        with pytest.raises(UsageError, match=why):
            read(str(bad))
        bad.unlink()
    with pytest.raises(UsageError, match="No such file"):
        read(str(tmp_path / "none.json"))

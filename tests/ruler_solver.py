"""Answers RULER's questions from their text and wording alone. It knows nothing of what made them."""

from __future__ import annotations

import re
from collections import Counter


def solve(text: str, question: str) -> list[str]:
    """All right answers, in no order."""
    question = question.strip()
    if "special magic" in question:
        return _needles(text, question)
    if "variables that are assigned the value" in question:
        return _variables(text, question)
    if "most common words" in question:
        return _most(re.findall(r"\d+\. (\S+)", text.rpartition("Below is a numbered list of words.")[2]), 10)
    if "most frequently appeared words" in question:
        coded = text.partition("Find the three most frequently appeared coded words. ")[2].split()
        return _most([word for word in coded if set(word) != {"."}], 3)
    return _documents(text, question)


def _needles(text: str, question: str) -> list[str]:
    match = re.fullmatch(
        r"What (?:is|are all) the special magic (\w+) for (.+) mentioned in the provided text\?", question
    )
    assert match is not None
    found = []
    for key in re.split(r", and |, ", match[2]):
        values = re.findall(rf"^One of the special magic \w+ for {re.escape(key)} is: (\S+)\.$", text, re.MULTILINE)
        assert values, f"{key} is nowhere in the text"
        found += values
    return found


def _variables(text: str, question: str) -> list[str]:
    value = re.search(r"the value (\d+) in the text", question)
    assert value is not None
    holds: dict[str, str] = {}
    for name, variable, number in re.findall(r"VAR (\w+) = (?:VAR (\w+)|(\d+))", text):
        assert name not in holds, "a variable is assigned twice"
        holds[name] = number or holds[variable]
    return [name for name, held in holds.items() if held == value[1]]


def _most(words: list[str], count: int) -> list[str]:
    ranked = Counter(words).most_common(count + 1)
    assert ranked[count - 1][1] > ranked[count][1], "there is a tie"
    return [word for word, _ in ranked[:count]]


def _documents(text: str, question: str) -> list[str]:
    """Of the tests' own documents: "The mayor of Ulm is Ada." answers "Question: Who is the mayor of Ulm?"."""
    match = re.fullmatch(r"Question: Who is the (\w+) of (\w+)\?", question)
    assert match is not None
    return sorted(set(re.findall(rf"The {match[1]} of {match[2]} is (\w+)\.", text)))

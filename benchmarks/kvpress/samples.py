"""The samples that both sides are asked: texts of the embedded model's fact lookup and questions about them, as ids.

    python benchmarks/kvpress/samples.py samples.jsonl
    python benchmarks/kvpress/samples.py fresh.jsonl --seed 1 --texts 24

One JSON object a line: "ability", "context" (ids of the text, the first token included), and "questions", each with its
"ids" (to the token after which the answer begins), "reference", and "room" (tokens that an answer may have). Context,
any one question and its answer have up to 1,024 tokens together, which the model was trained on. Names, phrasings and
texts are held out from its training.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from longspan import LLM
from longspan.engine import prompts
from longspan.evals import haystack, lookup

ABILITIES = ("single", "distractor", "several", "updated", "unknown", "two_hop")
"""Those where the whole cache scores 60 or more."""
ROOM = 4
"""Tokens of an answer beyond those expected."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--length", type=int, default=1024, help="tokens of a text with a question and its answer")
    parser.add_argument("--texts", type=int, default=8, help="for each ability")
    parser.add_argument("--questions", type=int, default=5, help="about each text, at most")
    parser.add_argument("--facts", type=int, default=16)
    parser.add_argument("--abilities", nargs="+", default=list(ABILITIES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    llm = LLM(memory="64MB")
    hay = haystack.Haystack(haystack.held_out(given.seed))
    asked = 0
    with given.out.open("w") as file:
        for number in range(given.texts):  # abilities in turn, so that any part of the file is alike
            for ability in given.abilities:
                one = sample(llm, hay, ability, number, given)
                asked += len(one["questions"])
                file.write(json.dumps(one) + "\n")
    print(f"{given.texts * len(given.abilities)} texts, {asked} questions")


def sample(llm: LLM, hay: haystack.Haystack, ability: str, number: int, given: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(f"{given.seed}/{ability}/{number}")
    made = lookup.ABILITIES[ability](rng, given.facts, given.questions, "held_out")
    depths, place = sorted(rng.random() for _ in made.sentences), rng.random()
    asked = [question.text for question in made.questions]
    rooms = [len(llm.encode(f" {question.answer}", special=False)) + ROOM for question in made.questions]

    def split(characters: int) -> prompts.Split:
        text = lookup.plant(hay.piece(place, characters), made.sentences, random.Random(0), depths)
        return prompts.questions(llm, text, asked)

    def need(characters: int) -> int:
        ids = split(characters)
        return len(ids.common) + max(len(rest) + room for rest, room in zip(ids.rests, rooms, strict=True))

    ids = split(haystack.fit(need, given.length))
    questions = [
        {"ids": rest, "reference": question.answer, "room": room}
        for rest, question, room in zip(ids.rests, made.questions, rooms, strict=True)
    ]
    return {"ability": ability, "context": ids.common, "questions": questions}


if __name__ == "__main__":
    main()

"""The cases of a suite as a file, for checkers and for engines from outside."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals.cases import Case
from longspan.evals.progress import Progress
from longspan.evals.suite import Asking, Suite, settled

if TYPE_CHECKING:
    from longspan.engine.words import Words


def make(suite: Suite, llm: Words, text: str | None, path: Path, progress: Progress) -> tuple[Suite, int, int]:
    """Write each case as a line of JSON: its fields, and for each question the tokens of its prompt. The suite with its
    length, cases and questions. Raises UsageError for a suite that asks nothing."""
    suite = settled(suite, llm)
    if not isinstance(suite, Asking):
        raise UsageError("--make: this suite asks nothing, so there is nothing to write down; leave it out")
    total, cases, asked = suite.count(), 0, 0
    progress(0, total)
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--make {path}: {error.strerror}; give a file that can be written") from None
    with file:
        for case in suite.cases(llm, text):
            file.write(json.dumps(written(case, llm), ensure_ascii=False) + "\n")
            cases, asked = cases + 1, asked + len(case.questions)
            progress(asked, total)
    return suite, cases, asked


def written(case: Case, llm: Words) -> dict[str, object]:
    """A case for JSON. tokens: of the prompt that asks the question by itself."""
    value = dataclasses.asdict(case)
    for question, told in zip(case.questions, value["questions"], strict=True):
        first = case.asked == "start"
        told["tokens"] = len(prompts.conversation(llm, case.text, [question.text], (), first, question.begins))
    return value

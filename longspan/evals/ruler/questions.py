"""Files of questions about paragraphs, in the form of SQuAD or of HotpotQA."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from longspan.errors import UsageError

SQUAD, HOTPOT = "SQuAD", "HotpotQA"


@dataclass(frozen=True)
class Asked:
    """A question. answers: all that are right. needed: documents that it cannot do without. near: documents that are
    the best to distract from them. Both are places in the list of documents."""

    text: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    near: tuple[int, ...]


@dataclass(frozen=True)
class Collection:
    """form: SQUAD or HOTPOT. documents: all of the file, each once."""

    form: str
    documents: tuple[str, ...]
    asked: tuple[Asked, ...]


def read(path: str) -> Collection:
    """Raises UsageError for a file that is missing, or in neither form."""
    try:
        state = Path(path).stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise UsageError(f"qa: {path}: {error.strerror}; give a file in SQuAD's or HotpotQA's form") from None


@lru_cache(maxsize=4)
def _read(path: str, changed: int, size: int) -> Collection:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"qa: {path}: not JSON in UTF-8 ({error}); give a file in SQuAD's or HotpotQA's form"
        ) from None
    try:
        made = _squad(content) if isinstance(content, dict) else _hotpot(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"qa: {path}: neither SQuAD's form (an object with `data`) nor HotpotQA's (a list of objects with "
            f"question, answer and context): {type(error).__name__}: {error}"
        ) from None
    if not made.asked:
        raise UsageError(f"qa: {path}: there is no question with an answer in it")
    return made


def _squad(content: dict[str, Any]) -> Collection:
    articles = [[paragraph["context"] for paragraph in one["paragraphs"]] for one in content["data"]]
    documents, number = _numbered([text for article in articles for text in article])
    asked = []
    for one, article in zip(content["data"], articles, strict=True):
        for paragraph in one["paragraphs"]:
            needed = number[paragraph["context"]]
            near = tuple(dict.fromkeys(number[text] for text in article if number[text] != needed))
            for each in paragraph["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in each["answers"]))
                if answers and not each.get("is_impossible", False):
                    asked.append(Asked(each["question"], answers, (needed,), near))
    return Collection(SQUAD, documents, tuple(asked))


def _hotpot(content: Seq[dict[str, Any]]) -> Collection:
    contexts = [{title: f"{title}\n{''.join(sentences)}" for title, sentences in one["context"]} for one in content]
    documents, number = _numbered([text for context in contexts for text in context.values()])
    asked = []
    for one, context in zip(content, contexts, strict=True):
        wanted = {title for title, _ in one.get("supporting_facts", ())} or set(context)
        needed = tuple(dict.fromkeys(number[text] for title, text in context.items() if title in wanted))
        near = tuple(dict.fromkeys(number[text] for text in context.values() if number[text] not in needed))
        asked.append(Asked(one["question"], (one["answer"],), needed, near))
    return Collection(HOTPOT, documents, tuple(asked))


def _numbered(texts: Seq[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    documents = tuple(sorted(set(texts)))
    return documents, {text: place for place, text in enumerate(documents)}

"""A text and its questions as token ids, cut so that the text is read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longspan.engine.words import Words


@dataclasses.dataclass(frozen=True)
class Split:
    """common: the ids that begin every prompt. rests: what follows them, one per prompt, never empty.

    `common + rest` are exactly the ids of the whole prompt.
    """

    common: list[int]
    rests: list[list[int]]


def questions(llm: Words, text: str, asked: Seq[str], begins: Seq[str] = ()) -> Split:
    """The prompts that ask each question about the text, on its own. begins: the first words of each answer."""
    firsts = begins or [""] * len(asked)
    prompts = [written(llm, text, [one], begins=first) for one, first in zip(asked, firsts, strict=True)]
    return shared(llm, text, prompts, firsts[0] if firsts else "")


def shared(llm: Words, text: str, prompts: Seq[str], begins: str = "") -> Split:
    """Prompts that `written` made of one text, cut before the question. begins: of the first of them."""
    begin = _begin(*(written(llm, text, [question], begins=begins) for question in ("0", "Z")))
    for prompt in prompts:
        begin = begin if prompt.startswith(begin) else _begin(begin, prompt)
    rests = [prompt[len(begin) :] for prompt in prompts]
    cut = 0 if llm.encoder is None else llm.encoder.seam(begin)
    if cut == 0:
        return split(lambda rest: begin + rest, lambda prompt: _encode(llm, prompt), rests)
    # a long text is encoded once; of each prompt only what comes after the cut
    head = _encode(llm, begin[:cut])
    rest = split(lambda rest: begin[cut:] + rest, lambda prompt: llm.encode(prompt, special=False), rests)
    return Split(head + rest.common, rest.rests)


def conversation(
    llm: Words,
    text: str,
    asked: Seq[str],
    answered: Seq[str] = (),
    question_first: bool = False,
    begins: str = "",
) -> list[int]:
    """Ids of the prompt that `written` makes."""
    return _encode(llm, written(llm, text, asked, answered, question_first, begins))


def written(
    llm: Words,
    text: str,
    asked: Seq[str],
    answered: Seq[str] = (),
    question_first: bool = False,
    begins: str = "",
) -> str:
    """Questions about a text in a row, each but the last with its answer: through the chat template where there is one.

    question_first: the first question stands before the text. begins: the first words of the last answer; without a
    template they say well enough where the answer goes, so "Question:" and "Answer:" are left out of a lone question.
    """
    text = text.rstrip() or text
    if llm.has_template:
        from longspan.model.template import render

        first = f"{asked[0]}\n\n{text}" if question_first else f"{text}\n\n{asked[0]}"
        messages = [{"role": "user", "content": first}]
        for question, answer in zip(asked[1:], answered, strict=True):
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
        return render(llm.tokenizer, messages) + begins
    if begins and len(asked) == 1 and not question_first:
        return f"{text}\n\n{asked[0]} {begins}"
    asks = [f"Question: {question}" for question in asked]
    first = f"{asks[0]}\n\n{text}\n\nAnswer:" if question_first else f"{text}\n\n{asks[0]}\nAnswer:"
    later = (f" {answer}\n\n{ask}\nAnswer:" for ask, answer in zip(asks[1:], answered, strict=True))
    return "".join((first, *later)) + (f" {begins}" if begins else "")


def _encode(llm: Words, prompt: str) -> list[int]:
    # a template writes the tokenizer's own first token itself
    return llm.encode(prompt, special=not llm.has_template)


def completion(llm: Words, text: str) -> Split:
    """The text as one prompt that goes on."""
    ids = llm.encode(text)
    return Split(ids[:-1], [ids[-1:]] if ids else [])


def split(whole: Callable[[str], str], encode: Callable[[str], list[int]], asked: Seq[str]) -> Split:
    """Cut the prompts `whole(question)` where their ids begin to differ, but not within a question.

    Each prompt is encoded whole, so that no token is cut at the seam: where the text's last characters and the
    question's first make one token, that token belongs to the rest.
    """
    head = encode(_begin(whole("0"), whole("Z")))
    tails: list[tuple[int, list[int]]] = []
    for question in asked:
        ids = encode(whole(question))
        same = min(_same(head, ids), len(ids) - 1)
        tails.append((same, ids[same:]))
    cut = min((same for same, _ in tails), default=len(head))
    return Split(head[:cut], [head[cut:same] + rest for same, rest in tails])


def _begin(one: str, other: str) -> str:
    return one[: _same(one, other)]


def _same(one: Seq[object], other: Seq[object]) -> int:
    """How many items both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

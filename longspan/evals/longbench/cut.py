"""A prompt that is longer than it may be loses its middle, as LongBench has it: the ends say what is to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longspan.engine import prompts
from longspan.errors import UsageError

if TYPE_CHECKING:
    from longspan.engine.words import Words


def fitted(llm: Words, text: str, asked: str, room: int, length: int, plain: bool) -> tuple[str, str]:
    """The text and the question, with `room` tokens for an answer `length` tokens at most. plain: see `Case`.

    Raises UsageError when nothing of the text and the question would be left.
    """
    need = _tokens(llm, text, asked, plain) + room
    if need <= length:
        return text, asked
    ids = llm.encode(text + asked, special=False)
    keep = len(ids) - (need - length)
    while keep >= 2:
        one, other = (_decoded(llm, part) for part in (ids[: keep // 2], ids[-(keep // 2) :]))
        if other.endswith(asked):
            short, question = one + other.removesuffix(asked), asked
        else:  # the question is longer than half of what may stay
            short, question = one, other
        over = _tokens(llm, short, question, plain) + room - length
        if over <= 0:
            return short, question
        keep -= over  # at the seam, and where the halves are encoded anew, there may be a few more
    raise UsageError(f"length: {length:,} tokens hold no question with {room:,} tokens for its answer; give more")


def _tokens(llm: Words, text: str, asked: str, plain: bool) -> int:
    if plain:
        return len(llm.encode(text + asked))
    return len(prompts.conversation(llm, text, [asked]))


def _decoded(llm: Words, ids: list[int]) -> str:
    assert llm.tokenizer is not None
    return str(llm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

"""Long texts are encoded piece by piece, to the same ids as at once."""

from __future__ import annotations

import pydoc_data.topics
import random

import pytest

from longspan import LLM
from longspan.engine import encode, prompts


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(memory="8MB")


@pytest.fixture(scope="module")
def text() -> str:
    return "\n".join(pydoc_data.topics.topics.values())


@pytest.mark.parametrize("piece", [1000, 20_000])
def test_pieces_give_the_ids_of_the_whole(llm: LLM, text: str, piece: int, monkeypatch: pytest.MonkeyPatch):
    whole, sizes = llm.encoder.plain(text), []
    monkeypatch.setattr(encode, "PIECE", piece)

    def one(part: str) -> list[int]:
        sizes.append(len(part))
        return llm.encoder.plain(part)

    assert encode.pieces(one, text) == whole
    assert max(sizes) < max(4 * piece, 20_000)


def test_special_tokens_stand_where_they_do(llm: LLM, text: str, monkeypatch: pytest.MonkeyPatch):
    long = text[:450_000]
    assert len(long) > 2 * encode.PIECE
    assert llm.encode(long) == llm.encoder.plain(long, True)
    assert llm.encode(long, special=False) == llm.encoder.plain(long)


def test_a_tokenizer_that_marks_beginnings_is_never_cut(llm: LLM, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "PIECE", 1000)
    marked = lambda part: [7, *llm.encoder.plain(part)]  # noqa: E731 - as SentencePiece's dummy prefix
    assert encode.pieces(marked, text[:50_000]) == marked(text[:50_000])
    assert encode.last_seam(marked, text[:50_000]) == 0


def test_a_text_of_one_line_is_never_cut(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encode, "PIECE", 1000)
    line = "a word and another " * 1000
    assert encode.pieces(llm.encoder.plain, line) == llm.encoder.plain(line)
    assert encode.last_seam(llm.encoder.plain, line) == 0


def test_questions_about_a_long_text_get_their_whole_prompts(llm: LLM, text: str, monkeypatch: pytest.MonkeyPatch):
    """What is cut from the text is what the whole prompts begin with, whatever they end with."""
    rng = random.Random(1)
    asked = ["What is it?", " 7", "\nWhere?", "é", "\n\n\nx"]
    for _ in range(12):
        end = rng.randrange(30_000, len(text))
        part = text[end - 30_000 : end]
        split = prompts.questions(llm, part, asked)
        for question, rest in zip(asked, split.rests, strict=True):
            assert split.common + rest == llm.encode(prompts.written(llm, part, [question]), special=False)
            assert len(rest) < 2000

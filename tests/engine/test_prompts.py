from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from longspan.engine.prompts import split

TEXTS = st.text(alphabet=".\nab ", max_size=12)


def merging(text: str) -> list[int]:
    """A tokenizer whose tokens run over the seam between a text and what follows: ".\n\n" is one."""
    return [hash(piece) for piece in re.findall(r"[ab]+|[.\n]+| ", text)]


def template(text: str, trim: bool):
    def whole(question: str) -> str:
        content = f"{text}\n\n{question}"
        return f"<user>{content.strip() if trim else content}<assistant>"

    return whole


@given(TEXTS, st.lists(TEXTS.map(lambda q: f"{q}a"), min_size=1, max_size=4), st.booleans())
def test_cut_prompts_are_the_whole_prompts(text: str, asked: list[str], trim: bool) -> None:
    whole = template(text, trim)
    made = split(whole, merging, asked)
    assert len(made.rests) == len(asked)
    for question, rest in zip(asked, made.rests, strict=True):
        assert made.common + rest == merging(whole(question))
        assert rest


def test_the_text_is_in_the_common_part_and_no_question_is() -> None:
    made = split(template("ab ab", False), lambda text: list(text.encode()), ["what is a?", "what is b?"])
    assert bytes(made.common) == b"<user>ab ab\n\n"
    assert [bytes(rest) for rest in made.rests] == [b"what is a?<assistant>", b"what is b?<assistant>"]


def test_a_token_over_the_seam_belongs_to_the_question() -> None:
    made = split(template("ab.", False), merging, ["..a", "b"])
    assert made.common == merging("<user>ab")[: len(made.common)]
    assert made.common + made.rests[0] == merging("<user>ab.\n\n..a<assistant>")
    assert made.rests[0][0] == hash(".\n\n..")


def test_one_question_is_never_all_common() -> None:
    made = split(lambda question: "the same", lambda text: list(text.encode()), ["a"])
    assert bytes(made.common) == b"the sam"
    assert bytes(made.rests[0]) == b"e"

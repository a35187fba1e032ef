from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.errors import UsageError
from longspan.evals.haystack import SLACK, Haystack, fit, held_out
from longspan.evals.text import documents


def test_a_piece_begins_with_a_line_and_goes_round():
    hay = Haystack("one\ntwo\nthree")
    assert hay.piece(0, 7) == "one\ntwo"
    assert hay.piece(1, 20) == "three\none\ntwo\nthree\n"
    assert hay.piece(0.4, 0) == ""
    assert hay.piece(0.4, 5) == "two\nt"


@given(st.floats(0, 1), st.integers(0, 500))
def test_a_piece_is_as_long_as_asked(place, characters):
    assert len(Haystack("a\n\nbc\r\nd" * 9).piece(place, characters)) == characters


def test_a_text_in_one_line_is_broken_between_words():
    piece = Haystack("some words " * 1000).piece(0, 5000)
    lines = piece.splitlines()
    assert len(lines) > 9
    assert {word for line in lines[:-1] for word in line.split()} == {"some", "words"}


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_nothing_is_no_text(text):
    with pytest.raises(UsageError, match="empty"):
        Haystack(text)


def test_the_seed_orders_the_documents_that_were_held_out():
    texts = [document.text for document in documents("held_out")]
    assert held_out() == "\n\n\n".join(texts)
    assert held_out(3) == held_out(3) != held_out(4)
    assert sorted(held_out(3)) == sorted(held_out())


@given(
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    least=st.integers(0, 50),
    room=st.integers(0, 5000),
)
def test_a_fitted_text_is_never_too_long_and_hardly_shorter(widths, least, room):
    """Tokens of changing widths, in characters."""
    calls = 0

    def tokens(characters: int) -> int:
        nonlocal calls
        calls += 1
        period, count = sum(widths), least
        count += characters // period * len(widths)
        rest = characters % period
        for width in widths:
            count, rest = count + (rest > 0), rest - width
        return count

    found = fit(tokens, least + room)
    assert least + room - SLACK <= tokens(found) <= least + room
    assert calls < 40

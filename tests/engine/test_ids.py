"""Ids are a list that forks share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.engine.ids import Ids

STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.lists(st.integers(0, 9), max_size=4)), max_size=12)


@given(STEPS)
def test_forks_are_lists_that_go_their_own_ways(steps: list[tuple[int, int, list[int]]]):
    """Whatever grows or is forked in whatever order; read whole, in part, and one by one."""
    made: list[tuple[Ids, list[int]]] = [(Ids([7, 8]), [7, 8])]
    for action, which, some in steps:
        ids, same = made[which % len(made)]
        if action == 0:
            made.append((ids.fork(), list(same)))
        elif action == 1:
            ids.extend(some)
            same.extend(some)
        else:
            ids.append(len(some))
            same.append(len(some))
        for mine, theirs in made:
            assert list(mine) == theirs
            assert len(mine) == len(theirs)
            assert [mine[i] for i in range(-len(theirs), len(theirs))] == theirs + theirs
            for a in range(-1, len(theirs) + 1):
                assert mine[a : a + 3].tolist() == theirs[a : a + 3]
                assert mine[a:].tolist() == theirs[a:]


def test_forks_of_a_long_text_copy_nothing():
    ids = Ids(range(1000))
    one, other = ids.fork(), ids.fork()
    assert one._shared is other._shared is ids._shared

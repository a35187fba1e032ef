"""Options that are lists, as methods and suites write them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from longspan import spec
from longspan.errors import UsageError


@dataclass(frozen=True)
class Lists:
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()


TABLE = {"lists": Lists}


def test_elements_have_the_type_that_is_declared():
    made = spec.parse("lists:names=a/b+c,counts=1/20,shares=1/2.5", TABLE, "thing")
    assert made == Lists(("a/b", "c"), (1, 20), (1.0, 2.5))
    assert [type(one) for one in (*made.counts, *made.shares)] == [int, int, float, float]
    assert spec.parse(spec.render(made, TABLE), TABLE, "thing") == made


def test_elements_that_do_not_parse_are_refused():
    with pytest.raises(
        UsageError, match="thing: lists:counts should be one or more int with / between them, got '1/x'"
    ):
        spec.parse("lists:counts=1/x", TABLE, "thing")

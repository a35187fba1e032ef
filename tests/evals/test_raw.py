"""Files of samples: what is gone on with, and what is refused."""

from __future__ import annotations

import json

import pytest

from longspan.errors import UsageError
from longspan.evals.cases import Scored
from longspan.evals.raw import Cost, Raw

HEADER = {"suite": "Some", "settings": {"length": 5, "names": ("a",)}, "seed": 1}
ONE = Scored("g", 0, 0, 5, 4, "q\u2028?", ("r", "s"), "some", "an answer", 1.0, 0.25)


def opened(path, header=HEADER) -> Raw:
    return Raw(path, header, Scored)


def test_what_was_written_comes_back(tmp_path):
    path, cost = tmp_path / "raw", Cost(0.5, 3, 0.25, 1000, 0, 900, 0)
    first = opened(path)
    assert first.held == []
    first.add(ONE, cost)
    first.close()
    assert json.loads(path.read_text().split("\n")[1])["cost"]["kv_bytes_peak"] == 1000
    again = opened(path)
    assert again.held == [(ONE, cost)]
    again.add(ONE, cost)
    again.close()
    assert len(opened(path).held) == 2


@pytest.mark.parametrize("left", [b'{"gro', b"{", b'{"group": "g"}'])
def test_a_line_that_was_cut_off_is_dropped(tmp_path, left):
    path = tmp_path / "raw"
    opened(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + left)
    opened(path).close()
    assert path.read_bytes() == whole
    path.write_bytes(whole + '{"group": "gé'.encode()[:-1])
    opened(path).close()
    assert path.read_bytes() == whole, "a line that was cut off inside a character"
    path.write_bytes(whole[:-5])
    opened(path).close()
    assert path.read_bytes() == whole, "a header that was cut off is written again"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({**HEADER, "seed": 2}, "(seed 1 there, 2 here)"),
        ({**HEADER, "settings": {"length": 6, "names": ("a",)}}, "(settings.length 5 there, 6 here)"),
        ({**HEADER, "more": None, "regime": "aware"}, '(regime null there, "aware" here)'),
        ({"suite": "Some", "seed": 1}, '(settings {"length": 5, "names": ["a"]} there, null here)'),
    ],
)
def test_samples_of_something_else_are_refused(tmp_path, header, told):
    path = tmp_path / "raw"
    opened(path).close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="samples of another evaluation") as why:
        opened(path, header)
    assert told in str(why.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"a letter\n", b"a letter", b'{"a": 1}\n', b"[1]\n", b"\xff\xfe\n", b'{"a": 1}\nhalf a li'],
    ids=str,
)
def test_what_is_no_raw_file_stays_as_it_is(tmp_path, content):
    path = tmp_path / "raw"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="something other than samples"):
        opened(path)
    assert path.read_bytes() == content


def test_a_sample_of_another_form_is_refused(tmp_path):
    path = tmp_path / "raw"
    opened(path).close()
    with path.open("a") as file:
        file.write('{"group": "g", "cost": {}}\n')
    with pytest.raises(UsageError, match="something other than samples"):
        opened(path)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="No such file or directory"):
        opened(tmp_path / "no" / "raw")

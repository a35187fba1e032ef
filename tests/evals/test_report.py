"""The report: every number where it should be, every text harmless, nothing loaded from anywhere."""

from __future__ import annotations

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import evaluations
import pytest

from longspan.errors import UsageError
from longspan.evals.records import Loaded, read
from longspan.evals.report import style
from longspan.evals.report.figure import slug
from longspan.evals.report.needles import nearest, rows_for
from longspan.evals.report.write import Origin, write

HOSTILE = "<script>alert('x')</script> & \"${y}$ {{ 7*7 }} ../../up"
ORIGIN = Origin("longspan eval report x", "0123abc", {"longspan": "0.1.0"}, "2026-01-02T03:04:05+00:00")


def load(*told):
    return Loaded(tuple(read(one, "x") for one in told))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of everything, with a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    told = [
        evaluations.answers(lengths=(512, 2048), samples=10, kv_bytes_peak=9_000_000),
        evaluations.answers(plan=HOSTILE, right=0.5, lengths=(512, 2048), samples=10, disk_bytes=3_000_000),
        evaluations.answers(regime="aware", samples=4),
        evaluations.windows(),
        evaluations.windows(plan=HOSTILE, nats=2.3, kv_bytes_peak=4_000_000),
        evaluations.windows(length=1024),
    ]
    loaded = Loaded(load(*told).records, ((HOSTILE, "lookup", f"no room {HOSTILE}"),))
    files = write(loaded, folder, ORIGIN, title=f"Title {HOSTILE}")
    return folder, files, json.loads((folder / "report.json").read_text())


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_loads_nothing_and_runs_nothing(made):
    page = (made[0] / "report.html").read_text()
    assert not re.search(r"https?://", page)
    assert "url(" not in page
    assert "@import" not in page
    parsed = Page(page)
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "embed", "svg", "base"} == set()
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "srcset", "href", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:image/svg+xml;base64,") or name not in attributes
    policy = next(a["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_hostile_texts_are_texts(made):
    folder, files, _ = made
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "{{ 7*7 }}" in page, "no template runs what a name says"
    assert page.count("&lt;script&gt;alert") > 10
    assert HOSTILE in "".join(Page(page).text), "and it is readable"
    assert all(file.parent == folder and re.fullmatch(r"[a-z0-9.-]+", file.name) for file in files)


def test_every_figure_is_there_in_three_forms(made):
    folder, files, numbers = made
    assert (
        sorted(path.name for path in folder.iterdir())
        == sorted(file.name for file in files)
        == sorted(numbers["files"])
    )
    assert files[0] == folder / "report.html"
    kinds = {name.partition("-")[2].replace("agnostic-", "").replace("aware-", "") for name in numbers["figures"]}
    for kind in ("score", "cache", "process", "needles-full", "positions-512", "quality-512", "quality-512-to-2-048"):
        assert kind in kinds
    for name in numbers["figures"]:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"</svg>" in (folder / f"{name}.svg").read_bytes()
        assert (folder / f"{name}.csv").is_file()


def number(cell):
    try:
        return None if cell == "" else json.loads(cell)
    except ValueError:
        return cell


def test_csv_and_json_say_the_same(made):
    folder, _, numbers = made
    tables = {"scores": numbers["scores"]} | {name: one["rows"] for name, one in numbers["figures"].items()}
    assert len(tables) > 8
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open(newline="") as file:
            read_back = [{key: number(cell) for key, cell in row.items()} for row in csv.DictReader(file)]
        assert read_back == rows, name


def test_the_json_says_where_it_comes_from(made):
    numbers = made[2]
    assert (numbers["command"], numbers["revision"], numbers["date"]) == (ORIGIN.command, "0123abc", ORIGIN.date)
    assert numbers["versions"] == {"longspan": "0.1.0"}
    assert numbers["intervals"]["seed"] == 0
    assert [one["seed"] for one in numbers["evaluations"]] == [0] * 6
    assert all(one["dtype"] == "bfloat16" and "samples" not in one for one in numbers["evaluations"])
    page = (made[0] / "report.html").read_text()
    for words in ("longspan eval report x", "0123abc", "2026-01-02", "bfloat16", "version of longspan"):
        assert words in page


def test_regimes_never_share_a_table_or_a_figure(made):
    numbers = made[2]
    for name, one in numbers["figures"].items():
        if "agnostic" in name:
            assert {row["plan"] for row in one["rows"]} <= {"full", HOSTILE}
    aware = [row for row in numbers["scores"] if row["regime"] == "aware"]
    assert {row["plan"] for row in aware} == {"full"}
    assert all(row["change"] is None for row in aware)
    page = (made[0] / "report.html").read_text()
    assert page.index("<h2>Query-agnostic") < page.index("<h2>Query-aware") < page.index("<h2>Perplexity")


def test_needles_are_counted_by_length_and_depth(made):
    rows = made[2]["figures"]["lookup-agnostic-needles-full"]["rows"]
    assert len(rows) == 2 * 10
    assert {row["n"] for row in rows} == {2}
    assert sum(row["n"] for row in rows) == 40
    told = evaluations.answers(lengths=(512, 2048), samples=10)["samples"]
    for row in rows:
        mine = [one for one in told if one["length"] == row["length"] and abs(one["depth"] - row["depth"]) < 1e-9]
        assert row["score"] == sum(one["score"] for one in mine) / len(mine)


def test_rows_are_those_that_the_depths_lie_nearer_to():
    tenths, grid = rows_for([0.05, 0.149, 0.96]), rows_for([0.0, 0.101, 0.499, 0.93, 1.0])
    assert (len(tenths), len(grid)) == (10, 11)
    assert [nearest(depth, tenths) for depth in (0.0, 0.149, 1.0)] == [0.05, 0.15, 0.95]
    assert [nearest(depth, grid) for depth in (0.0, 0.101, 0.93, 1.0)] == [0.0, 0.1, 0.9, 1.0]


def test_the_same_evaluations_give_the_same_files(tmp_path):
    told = load(evaluations.answers(samples=4, tasks=("single",)))
    first, again = (write(told, tmp_path / name, ORIGIN) for name in ("a", "b"))
    assert len(first) > 6
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path):
    long = write(load(evaluations.answers(samples=2), evaluations.windows()), tmp_path, ORIGIN)
    short = write(load(evaluations.windows()), tmp_path, ORIGIN)
    assert set(tmp_path.iterdir()) == set(short)
    assert len(short) < len(long)
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(UsageError, match="'mine' in it"):
        write(load(evaluations.windows()), tmp_path, ORIGIN)
    assert (tmp_path / "mine").read_text() == "keep me"


def test_names_in_an_earlier_report_reach_no_other_folder(tmp_path):
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("keep me")
    (out / "report.json").write_text(json.dumps({"files": ["../precious", str(precious), "report.json"]}))
    write(load(evaluations.windows(count=2)), out, ORIGIN)
    assert precious.read_text() == "keep me"


def test_it_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="baseline 'none'"):
        write(load(evaluations.windows()), tmp_path / "a", ORIGIN, baseline="none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="give a new folder"):
        write(load(evaluations.windows()), tmp_path / "file", ORIGIN)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        write(load(evaluations.windows()), tmp_path / "b", ORIGIN)


def test_slugs_are_harmless_and_looks_differ():
    assert slug("lookup", None, HOSTILE) == "lookup-script-alert-x-script-y-7-7-up"
    assert slug("", "…") == "figure"
    assert Path(slug("../../etc/passwd")).name == "etc-passwd"
    looks = style.looks([str(i) for i in range(56)])
    assert len(set(looks.values())) == 56
    assert style.short("_hidden") == " _hidden"
    assert len(style.short("x" * 99)) == style.LONGEST


def test_a_comparison_whose_baseline_came_to_no_result_is_drawn(tmp_path):
    records = load(evaluations.answers(plan="a", samples=4), evaluations.answers(plan="b", samples=4)).records
    write(Loaded(records, (("full", "lookup", "no room"),), "full"), tmp_path / "out", ORIGIN)
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["scores"]
    assert {row["plan"]: row["against"] for row in scores} == {"a": None, "b": "a"}


def test_every_interval_has_the_seed_that_is_told(tmp_path):
    found = []
    for seed in (0, 1):
        write(load(evaluations.windows()), tmp_path / str(seed), ORIGIN, seed=seed)
        numbers = json.loads((tmp_path / str(seed) / "report.json").read_text())
        assert numbers["intervals"]["seed"] == seed
        found.append(next(one["rows"] for name, one in numbers["figures"].items() if "positions" in name))
    for name, alike in (("perplexity", True), ("low", False), ("high", False)):
        first, other = ([row[name] for row in rows] for rows in found)
        assert (first == other) == alike, name

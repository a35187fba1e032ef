"""What `longspan plan` foretells, beside what this machine then does.

    python benchmarks/foresight.py OUT [--quick] [--minutes 9] [--only small,S] [--contexts 512,4096] [--report docs]

Models with random weights read a prompt and generate, each case twice in a process of its own. Before the cases of
each shape and context the machine is calibrated anew, and every case is foretold from the latest calibration before it
is run. Rows are added to OUT/rows.jsonl as they come: started again, the script goes on with what is missing, so a long
matrix can be run in pieces (--minutes: no case is begun later than that). --report puts the figures into
docs/foresight.md.

Compared: bytes of the KV cache at their peak, the peak of resident memory, seconds to the first token (reading the
prompt), milliseconds of each later one. The noise beside is by how much the second run differs from the first.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHAPES = {
    "small": {"hidden": 512, "mlp": 1408, "layers": 12, "heads": 8, "kv_heads": 8, "head_dim": 64, "vocab": 32_000},
    "S": {"hidden": 576, "mlp": 1536, "layers": 30, "heads": 9, "kv_heads": 3, "head_dim": 64, "vocab": 49_152},
    "large": {"hidden": 1024, "mlp": 2816, "layers": 24, "heads": 8, "kv_heads": 4, "head_dim": 128, "vocab": 49_152},
}
"""Of 55 million parameters, SmolLM2-135M's, and one of 333 million."""
CONTEXTS = 512, 4096, 16_384
FORMATS = "dense", "int8", "int4"
WAYS = {"none": {}, "h2o": {"evict": "h2o:budget=2048"}, "landmark": {"select": "landmark"}}
NEW = 32
"""Generated tokens; they are part of the context."""
QUICK = {("S", 512), ("S", 4096), ("small", 4096)}
NAMES = {"kv": "KV bytes", "rss": "peak memory", "prefill": "prefill", "decode": "decode"}
AIMS = {"rss": 0.05, "prefill": 0.15, "decode": 0.15}
"""Relative differences that no case should exceed."""
BEGIN, END = "<!-- figures: benchmarks/foresight.py -->", "<!-- end of figures -->"
MEDIAN = 0.10
"""And the median over cases of the times."""
LEAST = 3
"""Calibrations that must be there before they are compared."""


@dataclasses.dataclass(frozen=True)
class Case:
    shape: str
    context: int
    format: str
    way: str

    @property
    def key(self) -> str:
        return f"{self.shape} {self.context} {self.format} {self.way}"

    @property
    def engine(self) -> dict[str, str]:
        return {"format": self.format, **WAYS[self.way]}


def cases(quick: bool) -> Iterator[Case]:
    for shape in SHAPES:
        for context in CONTEXTS:
            for format in FORMATS:
                for way in WAYS:
                    if not quick or ((shape, context) in QUICK and format != "int4"):
                        yield Case(shape, context, format, way)


def foretold(case: Case, config: dict[str, Any], from_file: Path | None = None) -> dict[str, float]:
    """From a calibration of this machine (none given: the latest) and the config alone. exact: whether KV bytes are
    foretold to the byte; where pages lose tokens and are sealed, what the text says decides, and an upper bound is
    foretold."""
    from longspan.engine.plan import Plan
    from longspan.plan import caches, calibration
    from longspan.plan.latency import latency
    from longspan.plan.memory import memory
    from longspan.plan.resident import resident
    from longspan.plan.shapes.config import from_config
    from longspan.plan.work import Work

    plan = Plan.parse(**case.engine)
    shape, machine = from_config(config, case.shape), calibration.read(from_file).machine
    work = Work(context=case.context, new=NEW, format=plan.format, evict=plan.evict, select=plan.select)
    found = latency(shape, work, machine)
    return {
        "kv": memory(shape, work).cache,
        "exact": all(layout.exact for layout in caches.layouts(shape, work)),
        "rss": resident(shape, work, machine).total,
        "prefill": found.prefill.seconds.mid,
        "decode": 1000 * found.answer.mid / NEW,
    }


def config_of(case: Case) -> dict[str, Any]:
    from longspan.bench import shapes

    return shapes.llama(**SHAPES[case.shape], theta=1e5, tied=True)


def measured(case: Case, folder: Path) -> list[dict[str, float]]:
    """Two runs, one after the other, in a new process."""
    given = json.dumps({"model": str(folder), "engine": case.engine, "prompt": case.context - NEW})
    done = subprocess.run(
        [sys.executable, __file__, "--child"], input=given, stdout=subprocess.PIPE, text=True, check=True
    )
    runs: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return runs


def child() -> None:
    import numpy as np

    from longspan import LLM
    from longspan.engine.memory import peak_rss

    given = json.load(sys.stdin)
    llm = LLM(given["model"], **given["engine"])
    ids = np.random.default_rng(0).integers(2, llm.shape.vocab, given["prompt"]).tolist()
    llm.generate(ids[::-1][:64], max_new_tokens=2, ignore_eos=True)
    runs = []
    for _ in range(2):
        llm.pool.reset_peak()
        output = llm.generate(ids, max_new_tokens=NEW, ignore_eos=True)
        runs.append(
            {
                "kv": llm.pool.peak_bytes,
                "rss": peak_rss(),
                "prefill": output.prefill_seconds,
                "decode": output.decode_ms_per_token,
            }
        )
    print(json.dumps(runs), flush=True)


def run(out: Path, wanted: list[Case], minutes: float) -> int:
    """Run what is missing; how many cases are left."""
    from longspan.bench import shapes
    from longspan.bench.calibrate import calibrate

    (out / "calibrations").mkdir(parents=True, exist_ok=True)
    file, began = out / "rows.jsonl", time.monotonic()
    done = {row["case"] for row in rows(out)}
    left = [case for case in wanted if case.key not in done]
    with tempfile.TemporaryDirectory(prefix="longspan-foresight-") as made:
        latest = None
        for number, case in enumerate(left):
            if time.monotonic() - began > 60 * minutes:
                return len(left) - number
            config = config_of(case)
            folder = Path(made) / case.shape
            if not folder.exists():
                shapes.write(folder, config)
            if latest != (case.shape, case.context):
                told = calibrate()
                told.save()
                told.save(out / "calibrations" / f"{told.taken.replace(':', '')}.json")
                latest = case.shape, case.context
                print(f"calibrated in {told.seconds:.0f} s, spread {told.costs.spread:.1%}", file=sys.stderr)
            row: dict[str, Any] = {"case": case.key, **dataclasses.asdict(case), "foretold": foretold(case, config)}
            row["runs"] = measured(case, folder)
            row |= {"calibrated": told.taken, "machine": told.identity}
            with file.open("a") as rows_file:
                rows_file.write(json.dumps(row) + "\n")
            print(line(row), file=sys.stderr, flush=True)
    return 0


def rows(out: Path) -> list[dict[str, Any]]:
    file = out / "rows.jsonl"
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def off(row: dict[str, Any], name: str) -> float:
    """By how much the first run differs from what was foretold, relative to that run."""
    return float(row["foretold"][name] / row["runs"][0][name] - 1)


def noise(row: dict[str, Any], name: str) -> float:
    first, second = (run[name] for run in row["runs"])
    return float(second / first - 1)


def line(row: dict[str, Any]) -> str:
    told, first = row["foretold"], row["runs"][0]
    parts = [
        f"{name} {told[name]:.4g} for {first[name]:.4g} ({off(row, name):+.0%}, noise {noise(row, name):+.0%})"
        for name in NAMES
    ]
    return f"{row['case']}: {', '.join(parts)}"


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: what was foretold / measured, and the difference, with the noise of both runs behind."""
    head = "| shape | context | format | way | KV MB | peak MB | prefill s | noise | decode ms | noise |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for row in found:
        told, first = row["foretold"], row["runs"][0]
        cells = [row["shape"], f"{row['context']:,}", row["format"], row["way"]]
        for name, unit, form in (("kv", 1e6, ",.2f"), ("rss", 1e6, ",.0f")):
            bound = "≤ " if name == "kv" and not told["exact"] else ""
            same = "equal" if told[name] == first[name] else format(off(row, name), "+.1%")
            cells.append(f"{bound}{told[name] / unit:{form}} / {first[name] / unit:{form}} ({same})")
        for name, form in (("prefill", ".2f"), ("decode", ".1f")):
            cells.append(f"{told[name]:{form}} / {first[name]:{form}} ({off(row, name):+.0%})")
            cells.append(f"{noise(row, name):+.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(found: list[dict[str, Any]]) -> str:
    lines = ["| | aim | cases within | median | worst | median noise |", "|---|---|---|---|---|---|"]
    exact = [row for row in found if row["foretold"]["exact"]]
    bounds = [row for row in found if not row["foretold"]["exact"]]
    equal = sum(row["foretold"]["kv"] == row["runs"][0]["kv"] for row in exact)
    under = sum(row["foretold"]["kv"] >= row["runs"][0]["kv"] for row in bounds)
    lines.append(f"| KV bytes, exact | equal | {equal} of {len(exact)} | | | |")
    lines.append(f"| KV bytes, bounds | not exceeded | {under} of {len(bounds)} | | | |")
    for name, title in NAMES.items():
        if name == "kv":
            continue
        errors = [abs(off(row, name)) for row in found]
        within = sum(error <= AIMS[name] for error in errors)
        worst = max(found, key=lambda row: abs(off(row, name)))
        aim = f"{AIMS[name]:.0%}"
        if name in ("prefill", "decode"):
            aim += f", median {MEDIAN:.0%}"
        quiet = statistics.median(abs(noise(row, name)) for row in found)
        lines.append(
            f"| {title} | {aim} | {within} of {len(found)} | {statistics.median(errors):.1%} | "
            f"{off(worst, name):+.0%} ({worst['case']}) | {quiet:.1%} |"
        )
    return "\n".join(lines)


def apart(found: list[dict[str, Any]]) -> str:
    """Medians of the differences by shape, context, format and way."""
    lines = ["| cases | | peak memory | prefill | decode |", "|---|---|---|---|---|"]
    for kind in ("shape", "context", "format", "way"):
        for which in dict.fromkeys(row[kind] for row in found):
            some = [row for row in found if row[kind] == which]
            cells = [f"{statistics.median(abs(off(row, name)) for row in some):.1%}" for name in NAMES if name != "kv"]
            lines.append(f"| {which} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def moments(out: Path, found: list[dict[str, Any]]) -> str:
    """What the moment of the calibration does: every case foretold from each of them."""
    files = sorted((out / "calibrations").glob("*.json"))
    if len(files) < LEAST:
        return ""
    stray, near = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for row in found:
        case = Case(row["shape"], row["context"], row["format"], row["way"])
        told = [foretold(case, config_of(case), file) for file in files]
        for name in ("prefill", "decode"):
            values = [one[name] for one in told]
            middle = statistics.median(values)
            stray[name] += [abs(value / middle - 1) for value in values]
            near[name].append(abs(middle / statistics.mean(run[name] for run in row["runs"]) - 1))
    lines = [f"Every case foretold from each of {len(files)} calibrations:", ""]
    lines += ["| | a forecast strays from their median by | worst | the median is off by |", "|---|---|---|---|"]
    for name in ("prefill", "decode"):
        of = statistics.median(stray[name]), max(stray[name]), statistics.median(near[name])
        lines.append(f"| {NAMES[name]} | {of[0]:.1%} | {of[1]:.0%} | {of[2]:.1%} |")
    return "\n".join(lines) + "\n\n"


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Foretold against measured, with the line where they are equal and the aim beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    for number, (name, title) in enumerate((("prefill", "prefill, s"), ("decode", "decode, ms per token")), 1):
        axes = figure.add_subplot(1, 2, number)
        for way, marker in zip(WAYS, "os^", strict=True):
            for format, colour in zip(FORMATS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
                some = [row for row in found if row["way"] == way and row["format"] == format]
                points = [(row["runs"][0][name], row["foretold"][name]) for row in some]
                if points:
                    label = f"{format}, {way}" if number == 1 else None
                    axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, label=label)
        ends = [f([row[k] for row in values]) for f, values, k in _ends(found, name)]
        low, high = min(ends) * 0.8, max(ends) * 1.25
        axes.plot([low, high], [low, high], color="black", linewidth=0.8)
        part = [low * (1 - AIMS[name]), high * (1 - AIMS[name])], [low * (1 + AIMS[name]), high * (1 + AIMS[name])]
        axes.fill_between([low, high], *part, alpha=0.12, color="grey")
        axes.set(xscale="log", yscale="log", xlabel=f"measured: {title}", ylabel=f"foretold: {title}")
        axes.grid(alpha=0.3)
        if number == 1:
            axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=110)


def _ends(found: list[dict[str, Any]], name: str) -> Iterator[tuple[Any, list[dict[str, float]], str]]:
    for values in ([row["runs"][0] for row in found], [row["foretold"] for row in found]):
        yield min, values, name
        yield max, values, name


def report(out: Path, docs: Path) -> None:
    """The rows and the plot as files; summary, machine and table between the marks in foresight.md."""
    found = rows(out)
    (docs / "foresight.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(found, docs / "foresight.png")
    on = found[-1]["machine"]
    about = (
        f"{len(found)} of {len(list(cases(False)))} cases, {found[0]['calibrated'][:10]}: {on['processor']}, "
        f"{on['threads']} threads, kernels {on['kernels']}, torch {on['torch']}, transformers {on['transformers']}."
    )
    picture = "![foretold against measured](foresight.png)"
    page = docs / "foresight.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = f"{summary(found)}\n\n{moments(out, found)}{apart(found)}\n\n{table(found)}"
    page.write_text(f"{before}{BEGIN}\n{about}\n\n{picture}\n\n{figures}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", help="where rows are kept")
    parser.add_argument("--quick", action="store_true", help="12 cases that take about three minutes")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", default="", help="shapes, comma between them")
    parser.add_argument("--contexts", default="", help="contexts, comma between them")
    parser.add_argument("--report", type=Path, help="folder of foresight.md, which gets the figures; docs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child()
        return
    if given.out is None:
        parser.error("OUT is missing")
    shapes = [name for name in given.only.split(",") if name] or list(SHAPES)
    contexts = [int(text) for text in given.contexts.split(",") if text] or list(CONTEXTS)
    wanted = [case for case in cases(given.quick) if case.shape in shapes and case.context in contexts]
    left = run(given.out, wanted, given.minutes)
    found = rows(given.out)
    print(f"{summary(found)}\n\n{moments(given.out, found)}{apart(found)}\n\n{table(found)}")
    if given.report is not None:
        report(given.out, given.report)
    if left:
        print(f"{left} cases are left: start again", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()

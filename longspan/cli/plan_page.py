"""The page that `longspan plan` shows: from the report that --json prints, in 80 columns, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from longspan.bench.plot import short
from longspan.cli import plan_answers, say
from longspan.cli.plan_paper import Report, band, console, inside, item, table

BAR = 58
FILLS = "█▓▒░#=+·"
"""What the parts of memory look like, so that they differ without colour too."""
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "white", "bright_black")


def show(report: Report, explain: bool) -> None:
    with console() as out:
        _head(out, report)
        _fits(out, report)
        _memory(out, report)
        _times(out, report)
        _curve(out, report)
        plan_answers.show(out, report, explain)
        if explain or any(found["differs"] for found in report["engines"]):
            plan_answers.engines(out, report)
        if explain:
            plan_answers.explain(out, report)
        if report["export"]:
            out.print(f"\n[bold]For {escape(report['export']['engine'])}[/]")
            out.print(escape(report["export"]["text"]), soft_wrap=True)
            for note in report["export"]["notes"]:
                item(out, escape(note))


def _head(out: Console, report: Report) -> None:
    model, work, machine = report["model"], report["work"], report["machine"]
    active = model["active_parameters"]
    size = f"{model['parameters'] / 1e9:.2f}B parameters"
    if active != model["parameters"]:
        size += f", {active / 1e9:.2f}B active"
    out.print(f"[bold]{escape(model['name'])}[/]  {size}; {model['layers_text']}")
    plan = [
        f"{name} {work[name]}" for name in ("format", "evict", "select") if work[name] not in ("dense", "none", "all")
    ]
    if work["offloaded"]:
        plan.append("full pages in a file")
    plan.append(f"weights {work['weights']}")
    texts = "" if work["batch"] == 1 else f" × {work['batch']:,} texts"
    out.print(f"{work['context']:,} tokens{texts}, {work['new']:,} of them new; {escape('; '.join(plan))}")
    if machine is not None:
        known = "measured" if machine["measured"] else "datasheet" if machine["bandwidth"] else "memory alone"
        each = " each" if machine["devices"] > 1 else ""
        out.print(f"{escape(machine['name'])}, {say.size(machine['memory'])}{each} ({known})")


def _fits(out: Console, report: Report) -> None:
    out.print()
    need, limit = report["memory"]["total"], report["limit"]
    if report["fits"] is None:
        out.print(f"Needs [bold]{say.size(need)}[/]. Give --hardware or --memory to see whether it fits.")
        return
    most = report["max_context"]
    room = f"; at most {most:,} tokens fit" if most else "; no context fits"
    if report["unbounded"]:
        room = "; any length fits"
    if report["fits"]:
        out.print(f"[bold green]Fits[/]: {say.size(need)} of {say.size(limit)} a device{room}.")
    else:
        out.print(f"[bold red]Does not fit[/]: {say.size(need)} of {say.size(limit)} a device{room}.")
    for line in _bar(report["memory"]["parts"], limit):
        out.print(line)


def _bar(parts: Sequence[Mapping[str, Any]], limit: int) -> list[str]:
    """What fills the memory, to scale; what is beyond the limit after a bar."""
    total = sum(part["bytes"] for part in parts)
    scale = BAR / max(total, limit)
    text, done, used = "", 0, 0.0
    for i, part in enumerate(parts):
        used += part["bytes"]
        upto = round(used * scale)
        text += f"[{COLOURS[i % len(COLOURS)]}]{FILLS[i % len(FILLS)] * (upto - done)}[/]"
        done = upto
    if total <= limit:
        return [f"|{text}{' ' * (BAR - done)}| {total / limit:.0%}"]
    mark = round(limit * scale)
    return [f"|{text}| {total / limit:.0%}", f" {' ' * max(mark - 1, 0)}^ {say.size(limit)}"]


def _memory(out: Console, report: Report) -> None:
    parts = [part for part in report["memory"]["parts"] if part["bytes"]]
    total = sum(part["bytes"] for part in parts) or 1
    marks = {part["name"]: FILLS[i % len(FILLS)] for i, part in enumerate(report["memory"]["parts"])}
    rows = table("", "a device", "size", "share")
    for part in parts:
        rows.add_row(marks[part["name"]], escape(part["name"]), say.size(part["bytes"]), f"{part['bytes'] / total:.0%}")
    out.print(rows)
    if report["resident"] is not None:
        out.print(f"  the process of longspan itself peaks at {say.size(report['resident']['total'])} here")
    for note in report["memory"]["notes"]:
        inside(out, escape(note), 2)


def _times(out: Console, report: Report) -> None:
    times = report["latency"]
    if times is None:
        out.print("\nHow long it takes can be told with --hardware NAME, or after --calibrate.")
        return
    rows = table("", "expected (low to high)", "binds", right=())
    phases = (
        ("reading the prompt", times["prefill"]),
        ("a token, at first", times["decode_first"]),
        ("a token, at the end", times["decode_last"]),
    )
    for name, phase in phases:
        rows.add_row(name, band(phase["seconds"]), escape(phase["binds"]))
    rows.add_row("whole answer", band(times["whole"]), f"{times['tokens_per_second']:,.3g} tokens/s")
    out.print()
    out.print(rows)
    if times["attention_share"] >= 0.1:
        out.print(f"  attention is {times['attention_share']:.0%} of the operations of reading")


def _curve(out: Console, report: Report) -> None:
    """Memory and decode time against context, one row a length."""
    points = report["curve"]
    if len(points) < 2:
        return
    most = max(point["memory"] for point in points)
    slow = max((point["decode_ms"] or 0) for point in points) or 1
    out.print("\n context  memory a device              decode, ms a token")
    for point in points:
        bars = [_hbar(point["memory"] / most, 14), _hbar((point["decode_ms"] or 0) / slow, 14)]
        here = "<" if point["context"] == report["work"]["context"] else " "
        over = "!" if report["limit"] and point["memory"] > report["limit"] else " "
        decode = "–" if point["decode_ms"] is None else f"{point['decode_ms']:.3g}"
        out.print(
            f"{short(point['context']):>8}  [cyan]{bars[0]}[/] {say.size(point['memory']):>9}{over} "
            f"  [green]{bars[1]}[/] {decode:>7} {here}"
        )
    if report["limit"] and any(point["memory"] > report["limit"] for point in points):
        out.print("          ! more than there is")


def _hbar(share: float, width: int) -> str:
    eighths = round(max(min(share, 1.0), 0.0) * width * 8)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]).ljust(width)[:width]

"""What the page of `longspan plan` says besides: positions, quality, what would fit, tasks, costs, formulas."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from longspan.cli import say
from longspan.cli.plan_paper import Report, inside, item, seconds, table

SHOWN = 2
"""Pieces of evidence on the page; all of them with --explain and --json."""


def show(out: Console, report: Report, whole: bool) -> None:
    """whole: all pieces of evidence."""
    for note in report["warnings"]:
        out.print(f"\n[yellow]Note:[/] {escape(note)}")
    scaling = report["scaling"]
    out.print(f"\n[bold]Positions[/]: {escape(scaling['rope'] or scaling['plan'])}: {escape(scaling['why'])}.")
    for evidence in scaling["evidence"][: None if whole else SHOWN]:
        item(out, f"{escape(evidence['found'])} ({escape(evidence['source'])})")
    losses = report["losses"]
    if losses:
        out.print("\n[bold]Quality[/], right answers of a hundred against everything kept in 16 bits:")
        for name, text in losses.items():
            item(out, f"{escape(name)}: {escape(text)}")
        for name, text in report["losses_elsewhere"].items():
            item(out, f"{escape(name)} elsewhere: {escape(text)}")
    _options(out, report)
    _nearest(out, report)
    _task(out, report)
    _cost(out, report)
    _capacity(out, report)


def _options(out: Console, report: Report) -> None:
    if not report["options"]:
        return
    out.print("\n[bold]Plans[/] by expected loss, in right answers of a hundred (of a small model; measure your own):")
    rows = table("plan", "a device", "fits", "points", right=(1, 3))
    for option in report["options"]:
        if option["dominated"] and not option["best"] and option["words"]:
            continue  # another one of no more parts loses no more and takes no more
        points = "unknown" if option["points"] is None else f"{option['points']:+.1f}"
        good = "yes" if option["fits"] else "no"
        good += ", best" if option["best"] else ""
        rows.add_row(escape(option["words"] or "as asked"), say.size(option["bytes"]), good, points)
    out.print(rows)


def _nearest(out: Console, report: Report) -> None:
    if not report["nearest"]:
        return
    out.print("\n[bold]What would fit[/], nearest first:")
    for near in report["nearest"]:
        item(
            out,
            f"[bold]{escape(near['words'])}[/]: {say.size(near['bytes'])} of {say.size(near['limit'])}"
            f"; {escape(near['note'])}",
        )


def _task(out: Console, report: Report) -> None:
    task = report["task"]
    if task is None:
        return
    out.print(
        f"\n[bold]Task {escape(task['name'])}[/]: {task['least']:,} to {task['most']:,} tokens. "
        f"{escape(task['verdict'])}"
    )
    for part in task["parts"]:
        item(out, f"{escape(part['what'])}: {part['least']:,} to {part['most']:,} tokens")


def _cost(out: Console, report: Report) -> None:
    cost = report["cost"]
    if cost is None:
        return
    out.print(f"\n[bold]Questions about {cost['corpus']:,} tokens[/]: {escape(cost['best'])}")
    rows = table("way", "first token", "machine a question", "cost", "of 1,000", right=(1, 2, 3, 4))
    for way in cost["ways"]:
        money = ["–", "–"] if way["dollars"] is None else [f"${way['dollars']:.3g}", f"${way['dollars'] * 1000:,.3g}"]
        name = way["name"] if way["possible"] else f"{way['name']} (does not fit)"
        if way["possible"] and cost["ttft"] is not None and way["ttft"] > cost["ttft"]:
            name += " (too late)"
        rows.add_row(name, seconds(way["ttft"]), seconds(way["seconds"]), *money)
    out.print(rows)
    for reason in cost["why"]:
        item(out, f"{escape(reason)}")
    for way in cost["ways"]:
        inside(out, f"{way['name']}: {escape(way['how'])}", 2)
    if cost["even"] is not None:
        out.print(f"  A kept text costs no more than retrieval from {cost['even']:,.0f} questions between updates on.")


def _capacity(out: Console, report: Report) -> None:
    found = report["capacity"]
    if found is None:
        return
    room = found["room"]
    out.print(
        f"\n[bold]Texts at once[/] ({escape(found['lengths'])}): {room['sure']:,} in 99 of 100 draws, "
        f"{room['worst']:,} if all are the longest, {room['mean']:,} of mean length"
    )
    served = found["served"]
    if found["problem"]:
        out.print(f"[bold red]{found['rate']:g} requests a second[/]: {escape(found['problem'])}")
    if served is None:
        return
    out.print(
        f"[bold]{found['rate']:g} requests a second[/], first token within {found['ttft']:g} s: {served['devices']:,} "
        f"devices ({served['replicas']:,} replicas); first token {seconds(served['ttft_p50'])} (median), "
        f"{seconds(served['ttft_p95'])} (95th percentile); {served['batch']:,} texts decoded together, "
        f"{seconds(served['token'])} a token; reading prompts {served['reading']:.0%} of the time, computing at least "
        f"{served['load']:.0%}"
    )
    for line in found["assumptions"]:
        item(out, f"{escape(line)}")


def engines(out: Console, report: Report) -> None:
    """What others allocate, where it is not what the architecture asks for."""
    minimum = report["memory"]["minimum"] / report["work"]["ranks"]
    out.print(
        f"\n[bold]Cache elsewhere[/], a device (the architecture asks for {say.size(round(minimum))} at 16 bits):"
    )
    for found in report["engines"]:
        differs = f"; {escape(found['differs'])}" if found["differs"] else ""
        item(out, f"{escape(found['engine'])}, {escape(found['dtype'])}: {say.size(found['bytes'])}{differs}")


def explain(out: Console, report: Report) -> None:
    """Every formula, and what is often said."""
    out.print("\n[bold]Formulas[/]")
    for part in report["memory"]["parts"]:
        item(out, f"{escape(part['name'])}: {escape(part['formula'])}")
    times = report["latency"]
    for name in ("prefill", "decode_first", "decode_last") if times else ():
        for term in times[name]["terms"]:
            item(out, f"{name.replace('_', ', ')}, {escape(term['name'])}: {escape(term['formula'])}")
    out.print("\n[bold]What is often said[/]")
    for verdict in report["verdicts"]:
        item(out, f"[bold]“{escape(verdict['claim'])}”[/]: {escape(verdict['holds'])}.")
        inside(out, f"{escape(verdict['why'])}. ({escape(verdict['source'])})", 4)

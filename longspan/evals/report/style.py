"""How figures look: colours that colour-blind readers tell apart, with a marker and a line of their own besides."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longspan.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Those of Okabe and Ito, 2008, "Color universal design", less black and yellow, which vanish on a dark or a white
page; and grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
LINES = ("-", "--", "-.", ":")
PAPER = {"light": ("#ffffff", "#1f2328"), "dark": ("#161b22", "#e6edf3")}
"""Of each theme the ground and the ink."""
WIDTH, HEIGHT = 4.7, 3.1
"""Inches. So small that at the width of a telephone's screen letters keep about eleven pixels."""
LONGEST = 46
"""Characters of a name in a figure."""


@dataclass(frozen=True, slots=True)
class Look:
    """Of one plan, the same in all figures."""

    colour: str
    marker: str
    line: str


def looks(names: Seq[str]) -> dict[str, Look]:
    """A look for each name; all differ up to 56 names."""
    return {
        name: Look(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i // len(COLOURS) % len(LINES)])
        for i, name in enumerate(names)
    }


def check() -> None:
    """Raises UsageError where figures cannot be drawn, before anything is done."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("a report needs matplotlib for its figures; pip install matplotlib") from None


def version() -> str:
    import matplotlib

    return str(matplotlib.__version__)


def short(name: str) -> str:
    """A name as figures show it. Matplotlib leaves out names that begin with "_"."""
    cut = " ".join(name.split())
    cut = cut if len(cut) <= LONGEST else cut[: LONGEST - 1] + "…"
    return f" {cut}" if cut.startswith("_") else cut


def rendered(draw: Callable[[Canvas, str], None], height: float, theme: str, form: str) -> bytes:
    """A drawing as a file of the form "png" or "svg"; the same drawing gives the same bytes. Names are shown letter by
    letter, also where they look like formulas."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    ground, ink = PAPER[theme]
    settings: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), ground),
        "font.size": 9,
        "axes.titlesize": 9,
        "legend.fontsize": 8,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "longspan",
    }
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        draw(canvas, ink)
        file = io.BytesIO()
        about = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        canvas.savefig(file, format=form, dpi=200, metadata=about)
    return file.getvalue()


@contextmanager
def plot(canvas: Canvas) -> Iterator[Axes]:
    """The axes of a figure with one panel, with a light grid under what is drawn."""
    axes = canvas.add_subplot()
    axes.set_axisbelow(True)
    yield axes
    axes.grid(alpha=0.25, linewidth=0.6)


def legend(canvas: Canvas, handles: Seq[Any], names: Seq[str]) -> None:
    """Below the panel, in two columns where names are short."""
    columns = 2 if max(map(len, names)) <= 20 else 1
    canvas.legend(
        list(handles), [short(name) for name in names], loc="outside lower center", ncols=columns, frameon=False
    )


def taller(names: Seq[str]) -> float:
    """The height of a figure with the legend below."""
    rows = -(-len(names) // (2 if max(map(len, names)) <= 20 else 1))
    return HEIGHT + 0.19 * rows


def tokens(axes: Any, lengths: Seq[int]) -> None:
    """An axis of lengths, doubling evenly, with a tick at each; of many, at some."""
    shown = sorted(set(lengths))
    step = -(-len(shown) // 7)
    shown = shown[::step]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [amount(one) for one in shown])
    axes.minorticks_off()
    axes.set_xlabel("length of the prompt, tokens")
    axes.margins(x=0.08)


def trained(axes: Any, length: float | None, where: float | None, ink: str, edge: str = "none") -> None:
    """An upright line at the trained length, where that is known. edge: a colour beside the line, over a picture."""
    if length is None or where is None:
        return
    axes.axvline(where, color=edge, linewidth=2.6)
    axes.axvline(where, color=ink, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.annotate(
        f"trained: {length:,.0f}",
        (where, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=7.5,
    )


def amount(tokens: int) -> str:
    """131072 as 128K."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "K")):
        if tokens >= size and tokens % size == 0:
            return f"{tokens // size}{unit}"
    return f"{tokens:,}"


def logarithmic(axes: Any, which: str) -> None:
    """A logarithmic axis, "x" or "y", with ticks at 1, 2 and 5 of every decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def bytes_axis(axis: Any) -> None:
    """Ticks in the units of bytes."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(5))

    def shown(value: float, _: object) -> str:
        size, unit = value, 0
        while size >= 1000 and unit < 4:
            size, unit = size / 1000, unit + 1
        return f"{size:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"

    axis.set_major_formatter(FuncFormatter(shown))

"""What formats, evictions and selections cost in answers: figures that were measured, each with where it is from."""

from __future__ import annotations

import dataclasses

MODEL = "the embedded model (4.1 M parameters, trained at 1,024 tokens)"
TABLE = "docs/measurements.md, 2026-11-24, What formats, evictions and selections cost in answers"
LONG = "docs/measurements.md, 2026-11-24, Answers go on from what their question found"
LENGTHS = 1024, 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """points: right answers of a hundred, against all tokens kept and read in 16 bits (negative: fewer), with the 95 %
    interval `low` to `high`. setup: of what, at which length. source: where the figure stands."""

    points: float
    low: float
    high: float
    setup: str
    source: str

    def __str__(self) -> str:
        return f"{self.points:+.1f} points ({self.low:+.1f} to {self.high:+.1f}; {self.setup})"


Row = tuple[float, float, float]

FORMATS: dict[str, tuple[Row, Row]] = {
    "int8": ((+0.0, -0.8, +0.8), (+0.0, -4.1, +4.1)),
    "int4": ((+0.2, -0.7, +1.2), (+0.0, -4.1, +4.1)),
    "fp8": ((+0.0, -0.8, +0.8), (+0.0, -4.1, +4.1)),
}
"""Points at 1,024 tokens (500 questions) and at 4,096 (100 questions)."""

HALF: dict[str, tuple[Row, Row]] = {
    "sliding_window": ((-51.0, -57.9, -43.6), (-44.0, -53.8, -33.7)),
    "streaming": ((-49.0, -55.9, -41.7), (-44.0, -53.8, -33.7)),
    "lru": ((-70.5, -76.3, -63.4), (-57.0, -66.2, -46.2)),
    "attention_score": ((-56.5, -63.2, -49.1), (-58.0, -67.2, -47.2)),
    "h2o": ((-59.5, -66.1, -52.1), (-69.0, -77.1, -58.4)),
    "tova": ((-93.5, -96.1, -88.3), (-96.0, -98.1, -89.0)),
    "snapkv": ((-81.0, -85.8, -74.6), (-75.0, -82.4, -64.8)),
    "pyramidkv": ((-79.5, -84.4, -72.9), (-77.0, -84.0, -66.9)),
    "adakv": ((-81.0, -85.8, -74.6), (-85.0, -90.5, -75.7)),
    "expected_attention": ((-55.5, -62.2, -48.2), (-91.0, -95.0, -82.7)),
    "keydiff": ((-5.0, -9.3, -1.3), (-5.0, -11.4, -0.0)),
    "cluster": ((-85.0, -89.2, -78.9), (-90.0, -94.3, -81.5)),
}
QUARTER: dict[str, tuple[Row, Row]] = {
    "sliding_window": ((-75.5, -80.9, -68.7), (-74.0, -81.5, -63.7)),
    "streaming": ((-72.5, -78.2, -65.5), (-74.0, -81.5, -63.7)),
    "lru": ((-86.5, -90.5, -80.6), (-80.0, -86.5, -70.2)),
    "attention_score": ((-80.5, -85.4, -73.8), (-81.0, -87.4, -71.3)),
    "h2o": ((-86.5, -90.5, -80.6), (-91.0, -95.0, -82.7)),
    "tova": ((-98.0, -99.0, -94.4), (-99.0, -99.8, -93.2)),
    "snapkv": ((-89.0, -92.5, -83.4), (-97.0, -98.7, -90.3)),
    "pyramidkv": ((-91.0, -94.1, -85.7), (-95.0, -97.6, -87.7)),
    "adakv": ((-89.0, -92.5, -83.4), (-96.0, -98.1, -89.0)),
    "expected_attention": ((-86.0, -90.0, -80.0), (-99.0, -99.8, -93.2)),
    "keydiff": ((-24.5, -31.0, -18.4), (-10.0, -17.6, -3.9)),
    "cluster": ((-92.0, -94.9, -86.9), (-98.0, -99.2, -91.7)),
}
"""Points where a half, and a quarter, of the tokens stay and no question was known: 200 and 100 questions."""

WAITING: dict[str, Row] = {
    "lru": (-18.5, -24.5, -13.3),
    "attention_score": (-42.0, -48.9, -35.0),
    "h2o": (-47.0, -53.9, -39.8),
    "tova": (-49.0, -55.9, -41.8),
    "snapkv": (-24.5, -30.9, -18.7),
    "pyramidkv": (-11.0, -16.1, -6.8),
    "adakv": (-33.5, -40.3, -27.0),
    "expected_attention": (-13.0, -18.4, -8.5),
}
"""The same for a half with `wait=true`, where the question is in view: 200 questions at 1,024 tokens. Not to be
mixed."""

SELECTIONS: dict[str, tuple[tuple[int, Row], ...]] = {
    "sketch": (
        (16_384, (+0.0, -0.9, +0.9)),
        (65_536, (+0.0, -0.9, +0.9)),
        (262_144, (-0.2, -1.3, +0.8)),
        (1_000_000, (-0.2, -1.3, +0.8)),
    ),
    "landmark": (
        (16_384, (-39.0, -48.8, -29.3)),
        (65_536, (-60.0, -69.1, -49.5)),
        (262_144, (-72.0, -79.9, -61.8)),
        (1_000_000, (-80.0, -86.7, -70.4)),
    ),
    "quest": (
        (16_384, (-6.0, -12.5, -1.1)),
        (65_536, (-6.0, -12.5, -1.1)),
        (262_144, (-6.0, -12.5, -1.1)),
        (1_000_000, (-3.0, -8.5, +1.2)),
    ),
    "representative": (
        (16_384, (-2.0, -7.0, +2.0)),
        (65_536, (+0.0, -3.7, +3.7)),
        (262_144, (-2.0, -7.0, +2.0)),
        (1_000_000, (-1.0, -5.4, +2.8)),
    ),
}
"""Points with pages=8, near=512 and the rest in a file, by tokens of the text; against the same questions inside the
trained length: 500 (sketch) and 100 questions."""

REMOVED = 25, 50, 75, 90
PAPERS: dict[str, tuple[float | None, ...]] = {
    "keydiff": (91.0, 84.7, 74.2, 65.2),
    "expected_attention": (87.6, 74.7, 52.6, 27.5),
    "tova": (86.5, 75.6, 64.2, 38.6),
    "snapkv": (80.3, 67.0, 40.0, 23.5),
    "streaming": (78.2, 60.0, 40.0, 26.5),
    "h2o": (72.9, 50.8, 28.9, 18.0),
}
PAPER_FULL = 95.4
PAPER = "RULER 4k, Llama-3.1-8B-Instruct, read off the plot of the leaderboard of NVIDIA's kvpress, ±0.3"
"""Others' figures beside ours: scores where so many percent of the cache were removed before the question was known."""


def of_format(name: str, context: int) -> Loss | None:
    """None: for `dense`, which loses nothing, and for what was not measured."""
    if name not in FORMATS:
        return None
    at = 0 if context <= LENGTHS[0] else 1
    return Loss(*FORMATS[name][at], f"{MODEL}, {LENGTHS[at]:,} tokens, {(500, 100)[at]} questions", TABLE)


def of_eviction(name: str, share: float, context: int, waits: bool = False) -> Loss | None:
    """share: tokens that stay, of all. The row for the next smaller share that was measured; None: below a quarter, for
    what was not measured, and where all stay."""
    if share >= 1:
        return None
    at = 0 if context <= LENGTHS[0] else 1
    questions = (200, 100)[at]
    if waits:
        row = WAITING.get(name) if share >= 0.5 else None
        setup = f"{MODEL}, 1,024 tokens, half of them kept with the question in view, 200 questions"
        return None if row is None else Loss(*row, setup, TABLE)
    table, kept = (HALF, "a half") if share >= 0.5 else (QUARTER, "a quarter")
    if share < 0.25 or name not in table:
        return None
    setup = f"{MODEL}, {LENGTHS[at]:,} tokens, {kept} kept before the question was known, {questions} questions"
    return Loss(*table[name][at], setup, TABLE)


def of_selection(name: str, context: int) -> Loss | None:
    """The row for the least length measured that is not shorter, else the longest; None: not measured."""
    rows = SELECTIONS.get(name)
    if rows is None:
        return None
    tokens, row = next((pair for pair in rows if pair[0] >= context), rows[-1])
    questions = 500 if name == "sketch" else 100
    return Loss(*row, f"{MODEL}, {tokens:,} tokens, {questions} questions, pages=8, near=512", LONG)


def elsewhere(name: str, share: float) -> str | None:
    """What others measured of an eviction where `share` of the tokens stay, as a sentence."""
    if name not in PAPERS or share >= 1:
        return None
    removed = next((r for r in REMOVED if r >= 100 * (1 - share) - 1e-9), REMOVED[-1])
    score = PAPERS[name][REMOVED.index(removed)]
    return f"{score:g} of {PAPER_FULL:g} with {removed} % removed ({PAPER})"

"""How much context a task wants, and until which length known models use theirs."""

from __future__ import annotations

import dataclasses
import re

from longspan.errors import UsageError

WORDS_PER_TOKEN = 0.75
"""English prose, tokenizers of 32,000 to 130,000 pieces; code and other languages take more tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """least, most: tokens of it in such a task."""

    what: str
    least: int
    most: int


def prose(what: str, least: int, most: int) -> Part:
    """A part that is counted in English words."""
    return Part(f"{what} of {least:,} to {most:,} words", round(least / WORDS_PER_TOKEN), round(most / WORDS_PER_TOKEN))


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """parts: what has to be in the context. rule: the range that teaching material gives, in tokens (most None: and
    more). scattered: whether an answer may need any place of the text, so that no part can be left out
    unread."""

    name: str
    parts: tuple[Part, ...]
    rule: tuple[int, int | None]
    scattered: bool

    @property
    def least(self) -> int:
        return sum(part.least for part in self.parts)

    @property
    def most(self) -> int:
        return sum(part.most for part in self.parts)


_K = 1024
TASKS = {
    task.name: task
    for task in (
        Task(
            "chat",
            (prose("instructions", 100, 600), prose("10 to 20 turns", 2_000, 5_000)),
            (4 * _K, 8 * _K),
            scattered=False,
        ),
        Task(
            "code-completion",
            (
                Part("the open file, 300 to 600 lines of 10 tokens", 3_000, 6_000),
                Part("5 to 10 neighbouring definitions of 80 lines", 4_000, 8_000),
            ),
            (8 * _K, 16 * _K),
            scattered=False,
        ),
        Task(
            "document-qa",
            (prose("a document of 20 to 45 pages", 10_000, 22_500), prose("questions and answers", 300, 1_500)),
            (16 * _K, 32 * _K),
            scattered=False,
        ),
        Task(
            "multi-document",
            (prose("8 to 12 documents of 12 to 16 pages", 48_000, 96_000), prose("questions and answers", 300, 1_500)),
            (64 * _K, 128 * _K),
            scattered=True,
        ),
        Task(
            "book",
            (prose("a book", 80_000, 200_000), prose("questions and answers", 300, 1_500)),
            (128 * _K, None),
            scattered=True,
        ),
    )
}


def task_named(name: str) -> Task:
    """Raises UsageError for one that is not in the table."""
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key not in TASKS:
        raise UsageError(f"task: {name!r} is not known; known: {', '.join(TASKS)}")
    return TASKS[key]


LENGTHS = 4 * _K, 8 * _K, 16 * _K, 32 * _K, 64 * _K, 128 * _K
RULER = "RULER, 13 tasks, README of github.com/hsiehjackson/RULER"
THRESHOLD = 85.6
"""RULER calls a length effective where a model scores more than Llama-2-7B at 4K."""
_SCORES: dict[str, tuple[float, ...]] = {
    "llama-3.1-8b": (95.5, 93.8, 91.6, 87.4, 84.7, 77.0),
    "llama-3.1-70b": (96.5, 95.8, 95.4, 94.8, 88.4, 66.6),
    "qwen2-72b": (96.9, 96.1, 94.9, 94.1, 79.8, 53.7),
    "mixtral-8x7b": (94.9, 92.1, 92.5, 85.9, 72.4, 44.5),
    "mixtral-8x22b": (95.6, 94.9, 93.4, 90.9, 84.7, 31.7),
    "mistral-7b-v0.2": (93.6, 91.2, 87.2, 75.4, 49.0, 13.8),
    "mistral-nemo": (87.8, 87.2, 87.7, 69.0, 46.8, 19.0),
    "mistral-large": (96.2, 96.1, 95.1, 93.0, 78.8, 23.7),
    "phi-3-mini-128k": (92.2, 91.5, 90.7, 87.5, 80.6, 66.7),
    "phi-3-medium-128k": (93.3, 93.2, 91.1, 86.8, 78.6, 46.1),
    "glm-4-9b-chat-1m": (94.7, 92.8, 92.1, 89.9, 86.7, 83.1),
    "yi-34b-200k": (93.3, 92.2, 91.3, 87.5, 83.2, 77.3),
    "command-r": (93.8, 93.3, 92.4, 89.5, 84.9, 76.0),
    "command-r-08-2024": (94.7, 93.7, 93.1, 90.8, 86.6, 74.7),
    "command-r-plus": (95.6, 95.2, 94.2, 92.0, 84.3, 63.1),
    "command-r-plus-08-2024": (96.0, 95.1, 94.0, 92.4, 85.4, 64.6),
    "dbrx": (95.1, 93.8, 83.6, 63.1, 2.4, 0.0),
}


def scores(model: str) -> dict[int, float] | None:
    """RULER's scores of the instruction-tuned model by length; None: of a model that it does not list."""
    plain = re.sub(r"[^a-z0-9.]+", "-", model.rsplit("/", 1)[-1].lower())
    plain = plain.replace("meta-", "").replace("c4ai-", "").replace("llama3.1", "llama-3.1")
    found = [key for key in _SCORES if plain == key or plain.startswith(f"{key}-")]
    return dict(zip(LENGTHS, _SCORES[max(found, key=len)], strict=True)) if found else None


def effective(model: str) -> int | None:
    """The longest length of RULER's at which the model, and at all shorter ones, is above the threshold."""
    known = scores(model)
    if known is None:
        return None
    best = None
    for length, score in known.items():
        if score <= THRESHOLD:
            break
        best = length
    return best

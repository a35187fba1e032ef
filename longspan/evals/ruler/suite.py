"""RULER as a suite: thirteen generated tasks at one length or several, and the effective length that follows.

After Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context Language Models?", arXiv 2404.06654:
its definitions, parameters, instructions and scores. What differs is told in docs/ruler.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from longspan.errors import UsageError
from longspan.evals import haystack, lengths
from longspan.evals.cases import Case, Scored
from longspan.evals.intervals import Z
from longspan.evals.ruler.answering import Answering
from longspan.evals.ruler.made import Space, Task
from longspan.evals.ruler.questions import Collection, read
from longspan.evals.ruler.tasks import FROM_FILES, GENERATED, NAMES
from longspan.evals.suite import Results, option, whole

if TYPE_CHECKING:
    from longspan.engine.words import Words

THRESHOLD = 85.6
"""Points that an effective length must reach: those of Llama-2-7B at 4,096 tokens, as the paper has it."""


@dataclass(frozen=True)
class Ruler:
    """RULER's tasks: needles, variable tracking, common and frequent words, questions about documents."""

    length: int | None = option(
        None, "TOKENS", "The prompt with the room for its answer. [default: 1024, or the trained length if shorter]"
    )
    lengths: tuple[int, ...] = option((), "TOKENS", lengths.SEVERAL)
    tasks: tuple[str, ...] = option(
        (), "NAME", f"One of {', '.join(NAMES)}. Repeatable. [default: all that there are questions for]", "task"
    )
    samples: int = option(20, "N", "Cases for each task and length.")
    qa: tuple[str, ...] = option(
        (), "FILE", "Questions for qa_1 (SQuAD's JSON) or qa_2 (HotpotQA's JSON); told apart by form. Repeatable."
    )
    seed: int = option(0, "N", "Other cases.")

    def __post_init__(self) -> None:
        lengths.check(self)
        for name, least in (("samples", 1), ("seed", 0)):
            whole(name, getattr(self, name), least)
        for name in self.tasks:
            if name not in NAMES:
                raise UsageError(f"task: unknown {name!r}; known: {', '.join(NAMES)}")
        object.__setattr__(self, "tasks", tuple(dict.fromkeys(self.tasks)))
        files = self.files()
        for name in self.tasks:
            if name in FROM_FILES and FROM_FILES[name] not in files:
                raise UsageError(
                    f"task {name}: it asks questions of a file in {FROM_FILES[name]}'s form; give it as --qa"
                )

    def paths(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.qa))

    def files(self) -> dict[str, Collection]:
        """The user's questions, by form."""
        made: dict[str, Collection] = {}
        for path in self.qa:
            collection = read(path)
            if collection.form in made:
                raise UsageError(f"qa: {path}: a second file in {collection.form}'s form; give one of each")
            made[collection.form] = collection
        return made

    def chosen(self) -> tuple[str, ...]:
        """The tasks of this run."""
        files = self.files()
        return self.tasks or tuple(one for one in NAMES if one not in FROM_FILES or FROM_FILES[one] in files)

    def count(self) -> int:
        return len(self.chosen()) * max(1, len(self.lengths)) * self.samples

    def cases(self, llm: Words, text: str | None) -> Iterator[Case]:
        assert self.length is not None
        files = self.files()
        essay = haystack.Haystack(haystack.everything(self.seed, 6 * self.length) if text is None else text)
        for place, length in enumerate(lengths.of(self)):
            for name in self.chosen():
                for index in range(self.samples):
                    task: Task
                    if name in FROM_FILES:
                        task = Answering(files[FROM_FILES[name]], index, self.seed)
                    else:
                        task = GENERATED[name]
                    rng, space = random.Random(f"{self.seed}/ruler/{name}/{length}/{index}"), Space(llm, length)
                    try:
                        yield space.case(name, place * self.samples + index, task.make(rng, space, essay))
                    except UsageError as error:
                        raise UsageError(f"task {name}: {error}") from None

    def results(self, samples: Seq[Scored]) -> Results:
        found = sorted({one.length for one in samples})
        names = [name for name in self.chosen() if any(one.group == name for one in samples)]
        scores = {
            length: {
                name: [100 * one.score for one in samples if (one.length, one.group) == (length, name)]
                for name in names
            }
            for length in found
        }
        averages = {length: _average(list(scores[length].values())) for length in found}
        reached = [length for length in found if (averages[length]["score"] or 0) >= THRESHOLD]
        left_out = [name for name in FROM_FILES if not self.tasks and name not in self.chosen()]
        values: dict[str, Any] = {
            "lengths": {
                str(length): {
                    "tasks": {name: _average([scores[length][name]]) for name in names},
                    "average": averages[length],
                }
                for length in found
            },
            "threshold": THRESHOLD,
            "effective_length": max(reached, default=None),
            "left_out": left_out,
        }
        rows = [(name, *(_shown(_average([scores[length][name]])) for length in found)) for name in names]
        if len(names) > 1:
            rows.append(("average", *(_shown(averages[length]) for length in found)))
            ends = [averages[length]["interval"] for length in found]
            rows.append(("95 % interval", *("–" if one is None else f"{one[0]:.1f} – {one[1]:.1f}" for one in ends)))
        return Results(values, ("task", *(f"{length:,}" for length in found)), tuple(rows), self._notes(values, names))

    def _notes(self, values: dict[str, Any], names: Seq[str]) -> tuple[str, ...]:
        effective = values["effective_length"]
        notes = [
            f"Effective length: {effective:,} tokens, the longest whose average is {THRESHOLD} or more."
            if effective
            else f"Effective length: none of these; no average is {THRESHOLD} or more."
        ]
        if values["left_out"]:
            notes.append(f"Left out: {' and '.join(values['left_out'])}, which need --qa FILE.")
        if len(names) < len(NAMES):
            notes.append(f"The average is over {len(names)} of RULER's {len(NAMES)} tasks; the threshold is for all.")
        return tuple(notes)


def _average(groups: Seq[Seq[float]]) -> dict[str, Any]:
    """The mean of the means of the groups that have scores, with its 95 % interval by the normal approximation; None
    where a group has fewer than two."""
    some = [group for group in groups if group]
    interval = None
    if some and all(len(group) > 1 for group in some):
        middle = fmean(fmean(group) for group in some)
        reach = Z * math.sqrt(sum(variance(group) / len(group) for group in some)) / len(some)
        interval = (max(0.0, middle - reach), min(100.0, middle + reach))
    return {
        "score": fmean(fmean(group) for group in some) if some else None,
        "asked": sum(map(len, some)),
        "interval": interval,
    }


def _shown(figures: dict[str, Any]) -> str:
    return "–" if figures["score"] is None else f"{figures['score']:.1f}"

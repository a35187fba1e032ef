"""The evaluations of a comparison: every suite for every plan, kept in a folder and gone on with."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from longspan import spec
from longspan.cli import child, options, say
from longspan.errors import DoesNotFit, UsageError
from longspan.evals import origin, regimes
from longspan.evals.records import COMPARISON
from longspan.evals.suite import Measuring, Suite
from longspan.evals.suites import SUITES


@dataclasses.dataclass(frozen=True)
class Task:
    """One suite for one plan. args: of `longspan`, without where samples are kept. contents: of the user's files, as
    `longspan.evals.suite.contents` tells them."""

    plan: str
    words: str
    suite: str
    args: tuple[str, ...]
    contents: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its files: of letters that any file system takes, and different for each task."""
        parts = (re.sub(r"[^A-Za-z0-9]+", "-", one).strip("-")[:40] for one in (self.suite, self.plan))
        mark = hashlib.sha256(f"{self.suite}\0{self.plan}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return "-".join((*filter(None, parts), mark))


@dataclasses.dataclass(frozen=True)
class Done:
    """A task, and either what its evaluation told or why there is no result."""

    task: Task
    told: Mapping[str, Any] | None
    error: str | None = None


def suite(text: str, shared: Mapping[str, int | None], regime: str) -> Suite:
    """A suite as it was written, "lookup:length=1024"; of what is given for all, it has what it does not name itself.
    Raises UsageError where it has another regime."""
    made = spec.parse(text, SUITES, "suite")
    given = {item.partition("=")[0].strip() for item in text.partition(":")[2].split(",")}
    fields = {field.name for field in dataclasses.fields(made)}  # type: ignore[arg-type]
    changed = {name: x for name, x in shared.items() if x is not None and name in fields - given}
    made = dataclasses.replace(made, **changed)  # type: ignore[type-var]
    if isinstance(made, Measuring) and made.regime not in (None, regimes.named(regime)):
        raise UsageError(f"--suite {text}: it is always {made.regime}; leave it out of a comparison that is {regime}")
    return made


def arguments(made: Suite, regime: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of `longspan` for a suite with the options that are given; those at their usual values are left out."""
    name = next(name for name, one in SUITES.items() if type(made) is one)
    usual = {one.name: one.default for one in inspect.signature(options.check).parameters.values()}
    words = ["eval", name]
    for field in dataclasses.fields(made):  # type: ignore[arg-type]
        value = getattr(made, field.name)
        if value != field.default:
            flag = field.metadata["name"] or field.name.replace("_", "-")
            for one in value if isinstance(value, tuple) else (value,):
                words += [f"--{flag}"] if one is True else [f"--no-{flag}"] if one is False else [f"--{flag}={one}"]
    for key, value in given.items():
        if value is not None and value != usual.get(key):
            words.append(f"--{key.replace('_', '-')}={value}")
    if not isinstance(made, Measuring):
        words.append(f"--regime={regime}")
    return tuple(words)


def run(tasks: Seq[Task], folder: Path, about: Mapping[str, Any]) -> Iterator[Done]:
    """Each task with what came of it, in order. What is in the folder from before is taken from there; what stopped in
    the middle goes on. about: added to each evaluation. A plan that does not fit does not end the others.

    Raises UsageError where the folder holds an evaluation of other settings or of files that have changed since.
    """
    for number, task in enumerate(tasks, 1):
        kept = folder / f"{task.name}.json"
        what = f"{number} of {len(tasks)}: {task.plan} on {task.suite}"
        told = _kept(kept, task, about)
        if told is not None:
            say.note(f"{what}, as it is in {kept}")
            yield Done(task, told)
            continue
        say.note(what)
        try:
            told = child.run([*task.args, f"--raw={folder / task.name}.raw.jsonl"])
        except DoesNotFit as error:
            yield Done(task, None, str(error))
            continue
        told |= {"plan": task.plan, "words": task.words, "asked": list(task.args), **about}
        told["command"] = origin.command(task.args)
        _write(kept, told)
        yield Done(task, told)


def listed(done: Seq[Done], folder: Path, about: Mapping[str, Any]) -> None:
    """Write down which evaluations the folder has, in order, for `longspan.evals.records`."""
    made = [
        {"plan": one.task.plan, "suite": one.task.suite, "file": f"{one.task.name}.json"}
        for one in done
        if one.told is not None
    ]
    failed = [{"plan": one.task.plan, "suite": one.task.suite, "error": one.error} for one in done if one.told is None]
    _write(folder / COMPARISON, {**about, "evaluations": made, "failures": failed})


def _kept(path: Path, task: Task, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run found out; None where there was none."""
    from longspan.evals.raw import versions

    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        asked, made = tuple(told["asked"]), told["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"--out: {path} is no evaluation of a comparison; give a new folder") from None
    if asked != task.args:
        there, here = (
            " ".join(sorted(set(a) - set(b))) or "nothing" for a, b in ((asked, task.args), (task.args, asked))
        )
        raise UsageError(
            f"--out: {path} was made with {there} where now {here} is asked for; give a new folder, or the same options"
        )
    held = told.get("contents") or {}
    changed = [name for name in {**held, **task.contents} if held.get(name) != task.contents.get(name)]
    if changed:
        raise UsageError(
            f"--out: {path} was made with other content of {' and '.join(changed)}; give a new folder, or the content "
            "that it had"
        )
    if made != versions():
        raise UsageError(
            f"--out: {path} was made with other versions of longspan, torch or transformers; give a new folder"
        )
    if told.get("revision") != about.get("revision"):
        warnings.warn(
            f"{path} was made at revision {told.get('revision')} of longspan's sources, not {about.get('revision')}",
            stacklevel=2,
        )
    return dict(told)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    part.replace(path)

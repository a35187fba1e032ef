"""`longspan demo`: facts planted in a text far longer than the embedded model was trained on, and looked up again."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Annotated

import typer

from longspan.cli import options, say
from longspan.cli.answers import Answers, answer
from longspan.engine import prompts
from longspan.errors import UsageError
from longspan.evals import lookup

if TYPE_CHECKING:
    from longspan.engine.generate import Output
    from longspan.engine.llm import LLM

FACTS = 20
SHORT = 2000
"""Tokens of the texts inside the trained length, at most."""
ANSWER_TOKENS, TEMPLATE_TOKENS = 16, 16
"""Kept free in each text, beside the question's own, for the answer and for the template around it."""


@dataclasses.dataclass(frozen=True)
class Planted:
    """A text with facts in it, questions about some of them, and how deep each of those stands (0 … 1)."""

    text: str
    questions: tuple[lookup.Question, ...]
    depths: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Answered:
    question: str
    expected: str
    answer: str
    right: bool
    depth: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """The answers to all questions, and what it took."""

    answered: tuple[Answered, ...]
    tokens: int
    """Of the longest text with its question and answer."""
    tokens_per_second: float | None
    ms_per_token: float | None
    kv_bytes_peak: int
    rope: str

    @property
    def right(self) -> int:
        return sum(one.right for one in self.answered)


def demo(
    context: typer.Context,
    tokens: Annotated[int, typer.Option(metavar="N", help="The text has at least so many.")] = 8192,
    questions: Annotated[int, typer.Option(metavar="N", help="How many facts to ask about.")] = 20,
    seed: Annotated[int, typer.Option(metavar="N", help="Another text and other facts.")] = 0,
    json: options.Json = False,
    model: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Read a text far longer than the embedded model was trained on, and answer questions about it.

    Invented facts are planted in Python's own documentation, at random depths. The same questions are asked with
    position scaling and without, and as many others inside the trained length.
    """
    if questions < 1:
        raise UsageError(f"--questions: {questions}; ask at least 1")
    if seed < 0:
        raise UsageError(f"--seed: {seed}; give a whole number, 0 or more")
    _check_tokens(tokens, max(FACTS, questions))
    llm = options.load(model)
    trained = llm.shape.trained
    # in every comparison the facts to choose from are as many, and none has a name that was trained on
    long = [plant_at_least(llm, seed, tokens, max(FACTS, questions), questions)]
    short: list[Planted] = []
    while sum(len(text.questions) for text in short) < questions:
        left = questions - sum(len(text.questions) for text in short)
        rng = random.Random((seed + 1) * 1_000_003 + len(short))
        short.append(plant(llm, rng, min(SHORT, trained, tokens), FACTS, min(FACTS, left)))

    tell: Callable[[str], None] = (lambda line: None) if json else print
    length = _count(llm, long[0].text)
    tell(f"A text of {length:,} tokens: {length / trained:.1f} times the {trained:,} that the model was trained on")
    tell(f"(Python's documentation), with {max(FACTS, questions)} invented facts; {questions} are asked about.\n")
    scaled = attempt(llm, long, lambda i, one: tell(_line(i, one)))
    tell(
        f"\nWith scaling: {scaled.right} of {questions} right\n"
        f"  {scaled.tokens:,} tokens read at {say.rate(scaled.tokens_per_second)}, "
        f"{say.milliseconds(scaled.ms_per_token)} per new token\n"
        f"  KV cache {say.size(scaled.kv_bytes_peak)} at its peak, rope {scaled.rope}\n"
    )
    del llm  # its cache goes before the next one comes
    llm = options.load(model, rope="checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot work is what is shown here
        bare = attempt(llm, long)
    sample = next((one for one in bare.answered if not one.right), bare.answered[0])
    tell(
        f"Without scaling: {bare.right} of {questions} right, rope {bare.rope}; for instance\n"
        f"  {sample.question}\n  expected {sample.expected}, answered {_shown(sample.answer)}\n"
    )
    inside = attempt(llm, short)
    tell(f"Inside the trained length ({inside.tokens:,} tokens): {inside.right} of {questions} right\n")
    tell(
        f"with scaling {scaled.right} of {questions}; without {bare.right} of {questions}; "
        f"inside the trained length {inside.right} of {questions}"
    )
    if json:
        trials = {"with_scaling": scaled, "without_scaling": bare, "inside_trained_length": inside}
        say.dump(
            {
                "model": model or "embedded",
                "tokens": length,
                "trained_tokens": trained,
                "questions": questions,
                "seed": seed,
                **{name: {"right": trial.right, **dataclasses.asdict(trial)} for name, trial in trials.items()},
                "warnings": say.notes(context).texts,
            }
        )


def attempt(llm: LLM, texts: Seq[Planted], told: Callable[[int, Answered], None] = lambda index, one: None) -> Trial:
    """Read each text once and ask its questions, each from that same text."""
    from longspan.engine.sample import Sampling

    answered: list[Answered] = []
    all_answers: list[Answers] = []
    longest = 0
    llm.pool.reset_peak()
    for text in texts:

        def finished(index: int, output: Output, text: Planted = text) -> None:
            question = text.questions[index]
            right = lookup.score(output.text, question.answer)
            one = Answered(question.text, question.answer, output.text.strip(), right, text.depths[index])
            answered.append(one)
            told(len(answered), one)

        split = prompts.questions(llm, text.text, [question.text for question in text.questions])
        made = answer(llm, split, Sampling(max_new_tokens=ANSWER_TOKENS), finished=finished)
        longest = max(longest, *(output.tokens_in + output.tokens_out for output in made.outputs))
        all_answers.append(made)
    together = Answers(
        tuple(output for made in all_answers for output in made.outputs),
        sum(made.tokens_in for made in all_answers),
        sum(made.prefill_seconds for made in all_answers),
    )
    return Trial(
        tuple(answered),
        longest,
        together.prefill_tokens_per_second,
        together.decode_ms_per_token,
        llm.pool.peak_bytes,
        together.rope,
    )


def plant_at_least(llm: LLM, seed: int, tokens: int, count: int, asked: int) -> Planted:
    """As `plant`, but the text alone has at least `tokens` tokens, and hardly more."""
    whole = tokens + ANSWER_TOKENS + TEMPLATE_TOKENS
    while True:
        made = plant(llm, random.Random(seed), whole, count, asked)
        missing = tokens - _count(llm, made.text)
        if missing <= 0:
            return made
        whole += missing


def plant(llm: LLM, rng: random.Random, tokens: int, count: int, asked: int) -> Planted:
    """Documentation with `count` facts, and questions about `asked` of them; `tokens` with a question and answer."""
    facts = lookup.make_facts(rng, count, "held_out", phrasing="plain", people=False)
    chosen = rng.sample(facts, asked)
    questions = tuple(lookup.ask(rng, fact, "plain") for fact in chosen)
    room = tokens - ANSWER_TOKENS - TEMPLATE_TOKENS - max(_count(llm, question.text) for question in questions)
    room -= sum(_count(llm, fact.sentence + "\n") for fact in facts)
    if room < 0:
        raise UsageError(
            f"{tokens:,} tokens do not hold {count} facts and a question; this model needs at least {tokens - room:,}"
        )
    around = documentation(rng, lambda part: _count(llm, part), room)
    text = lookup.plant(around, [fact.sentence for fact in facts], rng)
    return Planted(text, questions, tuple(text.index(fact.sentence + "\n") / len(text) for fact in chosen))


def documentation(rng: random.Random, count: Callable[[str], int], room: int) -> str:
    """Lines of this Python's documentation that make up to `room` tokens, its topics in an order drawn from `rng`."""
    from pydoc_data.topics import topics

    lines: list[str] = []
    while True:
        order = sorted(topics)
        rng.shuffle(order)
        for name in order:
            for line in [*topics[name].strip().splitlines(keepends=True), "\n", "\n"]:
                room -= count(line)
                if room < 0:
                    return "".join(lines)
                lines.append(line)


def _check_tokens(tokens: int, facts: int) -> None:
    if not 1 <= tokens <= 1 << 32:
        raise UsageError(f"--tokens: {tokens}; give a length that holds {facts} facts, as in 8192")


def _count(llm: LLM, text: str) -> int:
    return len(llm.encode(text, special=False))


def _line(index: int, one: Answered) -> str:
    mark = "right" if one.right else "wrong"
    said = one.answer if one.right else f"{_shown(one.answer)}, expected {one.expected}"
    return f"{index:>3}  {mark}  at {math.floor(100 * one.depth):>2} %  {one.question}\n{'':>19}{said}"


def _shown(answer: str) -> str:
    """An answer on one line, cut where it goes on and on."""
    text = " ".join(answer.split()) or "nothing"
    return text if len(text) <= 50 else f"{text[:49]}…"

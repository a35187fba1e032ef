"""EleutherAI's lm-evaluation-harness with our engine: a model class for it, and one call that runs tasks.

    from longspan.evals.harness import Harness
    lm_eval.simple_evaluate(model=Harness(LLM("path", evict="h2o:budget=4096")), tasks=["lambada_openai"])

Needs the package lm-eval (`pip install longspan[lm-eval]`), which is imported with this module only.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import torch
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from longspan.engine import logits
from longspan.engine.sample import Sampling
from longspan.errors import UsageError
from longspan.model.template import render

if TYPE_CHECKING:
    from longspan.engine.llm import LLM

SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""What a task may ask of sampling besides where an answer ends."""
BATCH = 16


class Harness(TemplateLM):  # type: ignore[misc]
    """An `LLM` as lm-eval wants it: log-likelihoods of continuations and of whole documents, and answers.

    max_length: tokens of a prompt with its continuation, beyond which its beginning is left out, as lm-eval's `hf`
    model does. None: nothing is left out, and documents are read in windows of the trained length, since rolling log-
    likelihoods are defined by windows. seed: of tasks that sample. A prompt is handled as one that came whole: with
    `select`, its last 128 tokens choose their pages. longest: tokens of the longest text so far, its answer included.
    """

    def __init__(
        self, llm: LLM, max_length: int | None = None, max_gen_toks: int = 256, seed: int | None = None
    ) -> None:
        super().__init__()
        if llm.tokenizer is None:
            raise UsageError(f"{llm.path}: this checkpoint has no tokenizer, and lm-eval gives texts")
        if max_length is not None and max_length < 2:
            raise UsageError(f"max_length: {max_length}; give the tokens of a prompt and its continuation, at least 2")
        self.llm, self.tokenizer, self.seed = llm, llm.tokenizer, seed
        self.max_length, self.max_gen_toks = max_length, max_gen_toks
        self.longest = 0

    # what lm-eval asks of a tokenizer

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else self.llm.shape.eos[0])

    @property
    def prefix_token_id(self) -> int:
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def tokenizer_name(self) -> str:
        return str(self.llm.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None:  # a chat template writes the first token itself
            begins = self.tokenizer.bos_token
            add_special_tokens = not (begins and string.startswith(begins))
        return self.llm.encode(string, special=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        written = render(self.tokenizer, chat_history, add_generation_prompt)
        if add_generation_prompt:
            return written
        last = chat_history[-1]["content"].strip()  # the last message is begun and goes on
        return written[: written.rindex(last) + len(last)]

    # what it measures

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """requests: what was asked, ids of the context, ids of the continuation. The sum of the continuation's log-
        probabilities, and whether greedy decoding would say it."""
        found: list[tuple[float, bool]] = []
        before: tuple[list[int], torch.Tensor] = [], torch.empty(0)
        for asked, context, continuation in requests:
            ids = [*context, *continuation]
            ids = ids[-(self.max_length + 1) :] if self.max_length is not None else ids
            count = len(continuation)
            if self.max_length is not None and count > self.max_length:
                raise UsageError(
                    f"max_length: a continuation of {count:,} tokens is longer than {self.max_length:,}; give "
                    f"{count:,} or more"
                )
            if ids[:-1] != before[0] or len(before[1]) < count:  # choices of one token share their prompt
                before = ids[:-1], self._last(ids[:-1], count)
            places = before[1][len(before[1]) - count :].log_softmax(-1)
            target = torch.tensor(continuation, device=places.device)
            total = float(places.gather(1, target[:, None]).sum())
            found.append((total, bool((places.argmax(-1) == target).all())))
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, found[-1])
        return found

    def loglikelihood_rolling(self, requests: Seq[Any], disable_tqdm: bool = False) -> list[float]:
        length = self.max_length or self.llm.shape.trained
        found = []
        for (string,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(self.tok_encode(string), self.prefix_token_id, length, 1)
            pairs = [(None, *utils.make_disjoint_window(window)) for window in windows]
            found.append(sum(total for total, _ in self._loglikelihood_tokens(pairs)))
            self.cache_hook.add_partial("loglikelihood_rolling", (string,), found[-1])
        return found

    def generate_until(self, requests: Seq[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, up to and without the first of the task's stop strings."""
        found = [""] * len(requests)
        ways: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            ways.setdefault(repr(request.args[1]), []).append(number)
        for numbers in ways.values():
            sampling = self._sampling(requests[numbers[0]].args[1])
            for first in range(0, len(numbers), BATCH):
                some = numbers[first : first + BATCH]
                prompts = [self._prompt(requests[number].args[0], sampling.max_new_tokens) for number in some]
                for number, output in zip(some, self.llm.generate(prompts, sampling), strict=True):
                    self.longest = max(self.longest, output.tokens_in + output.tokens_out)
                    found[number] = output.text
                    self.cache_hook.add_partial("generate_until", requests[number].args, output.text)
        return found

    def _last(self, ids: list[int], count: int) -> torch.Tensor:
        """Next-token logits [count, V] at the last places of a prompt."""
        self.longest = max(self.longest, len(ids))
        text, size = logits.opened(self.llm, ids, None, 0)
        text.turn(asks=True)
        rows: list[torch.Tensor] = []
        for place, step in logits.rows(self.llm, text, size, None):
            if place + len(step) > len(ids) - count:
                rows.append(step[max(len(ids) - count - place, 0) :].float())
        return torch.cat(rows)

    def _prompt(self, context: str, room: int) -> list[int]:
        ids = self.tok_encode(context)
        if self.max_length is None:
            return ids
        if room >= self.max_length:
            raise UsageError(f"max_length: {self.max_length} tokens leave no room for answers of {room}; raise it")
        return ids[-(self.max_length - room) :]

    def _sampling(self, given: Mapping[str, Any]) -> Sampling:
        asked: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), self.max_gen_toks))
        ends = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        stop = tuple(one for one in handle_stop_sequences(asked.pop("until"), eos=ends) if one)
        room = asked.pop("max_gen_toks")
        if not asked.pop("do_sample", False):
            for name in SAMPLED[:4]:
                asked.pop(name, None)
        unknown = sorted(set(asked) - set(SAMPLED))
        if unknown:
            raise UsageError(
                f"generation option {unknown[0]!r}; known: until, max_gen_toks, do_sample, {', '.join(SAMPLED)}"
            )
        return Sampling(max_new_tokens=room, stop=stop, seed=self.seed, **asked)


def run(model: Harness, tasks: Seq[str], include: str | None = None, **options: Any) -> dict[str, Any]:
    """lm-eval's results of tasks, by their names. include: a folder with YAML tasks of one's own. options: those of
    `lm_eval.simple_evaluate`. Raises UsageError for a task that is not known."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=include)
    unknown = [name for name in tasks if not manager.match_tasks([name])]
    if unknown:
        raise UsageError(
            f"tasks: lm-eval knows no {unknown[0]!r}; `lm-eval ls tasks` lists those it has, and --include-path adds "
            "your own"
        )
    found: dict[str, Any] | None = simple_evaluate(model=model, tasks=list(tasks), task_manager=manager, **options)
    assert found is not None  # only other ranks than the first get none
    return found

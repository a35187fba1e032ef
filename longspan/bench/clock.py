"""Texts read and decoded under a clock, one or several at once."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

from longspan.engine.sample import Sampling
from longspan.errors import DoesNotFit

if TYPE_CHECKING:
    from longspan.engine.llm import LLM
    from longspan.engine.schedule import Text

NEXT = 5
"""The id that a text goes on with."""


def read(llm: LLM, prompts: Seq[Seq[int]], ahead: int = 0) -> tuple[list[Text], float]:
    """The prompts as texts that are kept, and the seconds that reading them took, all at once.

    ahead: ids that each will go on with; where these outgrow what the rope's angles were made for, a text that was
    read without them would be read anew."""
    texts = [llm.text(ids) for ids in prompts]
    for text in texts:
        text.ahead = ahead
    requests = [llm.request(text, Sampling(max_new_tokens=0)) for text in texts]
    began = time.perf_counter()
    for _ in llm.drive(requests, finished=lambda request: llm.scheduler.keep(request.text)):
        pass
    return texts, time.perf_counter() - began


def decode(llm: LLM, texts: Seq[Text], steps: int, first: int = NEXT) -> list[float]:
    """Seconds of each of `steps` steps, in which every text goes on by one token; the first id is given. The texts are
    kept."""
    for text in texts:
        text.extend([first])
    sampling = Sampling(max_new_tokens=steps, ignore_eos=True)
    requests = [llm.request(text, sampling) for text in texts]
    seconds, came = [], 0
    began = time.perf_counter()
    for _ in llm.drive(requests, finished=lambda request: llm.scheduler.keep(request.text)):
        came += 1
        if came == len(texts):
            now = time.perf_counter()
            seconds.append(now - began)
            began, came = now, 0
    if any(request.reason == "memory" for request in requests):
        raise DoesNotFit(
            f"memory: the KV cache is full after {len(texts[0].ids):,} tokens of each text; raise --memory, or give a "
            "smaller --context or --batch"
        )
    return seconds

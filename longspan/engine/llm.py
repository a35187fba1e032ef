"""The public class: a model that reads texts of any length within a memory limit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from longspan.cache.bytes import INTERVAL
from longspan.cache.pool import Pool
from longspan.engine import logits, saved
from longspan.engine import session as sessions
from longspan.engine.choose import Case, choose
from longspan.engine.forward import Forward
from longspan.engine.generate import Output, Progress, Request, run
from longspan.engine.memory import available, give_back, parse_bytes, reuse
from longspan.engine.plan import Plan
from longspan.engine.progress import bar
from longspan.engine.ropes import Ropes
from longspan.engine.sample import Sampling
from longspan.engine.schedule import Scheduler, Text
from longspan.engine.session import Session
from longspan.engine.words import Prompt, Words
from longspan.errors import UsageError
from longspan.kernels import backend as backend_named
from longspan.model.load import load

RESIDENT = 32_000_000, 48
"""Memory for pages of a file: at least so many bytes, and so many pages of every lane. A query reads about half of
these, and the next one mostly the same."""
EMBEDDED = Path(__file__).parent.parent / "embedded"


class LLM(Words):
    """A Hugging Face decoder with our positions, attention and cache.

        llm = LLM("path-or-hub-id")
        llm.generate("Once upon a time", max_new_tokens=32).text
        for piece in llm.stream(long_prompt): print(piece, end="")

    model: a local folder or a hub id; None takes the small model that longspan carries.
    rope: "auto" (obey the checkpoint; add YaRN when the text outgrows a plain one), "checkpoint", or a method
        such as "yarn:factor=8".
    format: how the cache stores full pages: "dense" (as they are, the default), "int8", "int4", "fp8".
    evict: which tokens stay in layers without a window: "none" (all, the default), or as in "h2o:budget=4096".
    select: which pages a query reads in layers without a window: "all" (the default), or as in "sketch:pages=8".
    place: at which distance these stand: "text" (the default), "slot", "far:near=512".
    prefill: which pages the rows of a text look at while it is read, in layers without a window: "dense" (all that
        stand before, the default), or as in "sparse:mass=0.95". Answers look at all.
    offload: folder for a file that full pages are kept in; it has no name and is gone with the process. resident:
        memory for those of its pages that were used last; None: 32 MB, or 48 pages of every lane where that is more,
        but no more than a quarter of `memory`.
    context: tokens of the longest text. What is left open of format, evict, select, place and offload is then chosen
        so that such a text fits into `memory` (`longspan.engine.choose`); `plan.why` says why.
    dtype: "auto" (the checkpoint's), "float32", "bfloat16", "float16". device: "auto", "cpu", "cuda".
    weights: "stored" (as they are), or codes with one scale for 64 input channels: "int8" (layers and output head),
        "int4" (layers).
    memory: hard limit of the KV cache in bytes or as text ("2GB"); None takes what the machine has to spare.
    page: slots of a page. chunk: ids per step. rows: texts in one step. backend: see `longspan.kernels`.

    Every method takes text or token ids; a checkpoint without a tokenizer takes ids. Raises ModelError or
    UnsupportedModel when the model cannot be run, DoesNotFit, UsageError.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        rope: str = "auto",
        format: str | None = None,
        evict: str | None = None,
        select: str | None = None,
        place: str | None = None,
        prefill: str | None = None,
        offload: str | Path | None = None,
        resident: int | str | None = None,
        context: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        weights: str = "stored",
        memory: int | str | None = None,
        page: int = 64,
        chunk: int = 2048,
        rows: int = 16,
        backend: str = "auto",
    ) -> None:
        backend_named(backend)  # refused before anything is loaded
        folder = None if offload is None else str(offload)
        chosen = {"format": format, "evict": evict, "select": select, "place": place}
        chosen |= {"prefill": prefill, "offload": folder}
        given = {name: text for name, text in chosen.items() if text is not None}
        self.plan = Plan.parse(**given)
        self.plan.check_chunk(chunk, rows)
        limit = None if memory is None else parse_bytes(memory)
        loaded = load(EMBEDDED if model is None else model, dtype=dtype, device=device, weights=weights)
        self._take(loaded.tokenizer, loaded.shape, loaded.path)
        self.dtype, self.device, self.weights = loaded.dtype, loaded.device, weights
        reaching = [layer.rope for layer in self.shape.layers if layer.window is None]
        self.ropes = Ropes(self.shape.ropes, reaching, rope)
        plain = self.shape.layout(self.dtype.itemsize, page)
        if resident is None:
            held = max(RESIDENT[0], RESIDENT[1] * plain.page_bytes * plain.kv_heads * len(plain.windows))
            held = held if limit is None else min(held, limit // 4)
        else:
            held = parse_bytes(resident, "resident")
        size = available(self.device) if limit is None else limit
        if context is not None and not {"evict", "select"} <= given.keys():
            self.plan = choose(Case(plain, self.dtype, context, self.shape.trained, size, held, chunk, given))
        self.layout = self.plan.layout(plain, self.dtype)
        # on a CPU a slab is address space; elsewhere it is memory, and what is written shares it with what is sealed
        shared = self.plan.format is not None and self.plan.offload is None and self.device.type != "cpu"
        written = min(size // 2, rows * self.layout.bytes(INTERVAL + page)) if shared else None
        self.pool = Pool(
            self.layout,
            size,
            self.dtype,
            self.device,
            self.plan.format,
            written,
            self.plan.evict,
            self.plan.select,
            self.plan.offload,
            held,
        )
        kernel = backend_named(backend, self.device)
        ropes = [layer.rope for layer in self.shape.layers]
        forward = Forward(loaded.model, ropes, kernel, self.plan.place, self.plan.prefill)
        self.pages = forward.pages  # that sparse reading saw and read
        self.why_no_program = forward.why_no_program
        give_back()  # what loading took and left
        if self.plan.offload is None:  # with pages in a file, memory counts for more than time
            reuse()
        self.scheduler = Scheduler(forward, self.ropes, self.pool, chunk, rows)

    # texts in, texts out

    def generate(
        self,
        prompt: Prompt | Seq[Prompt],
        sampling: Sampling | None = None,
        *,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Any:
        """Continue one prompt (→ Output) or several at once (→ list of Output).

        prompt: text, ids, or a list of such. Options are the fields of `Sampling`. progress: True shows a bar
        on standard error; a function is called with the tokens read and in all.
        """
        single = isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int))
        prompts: list[Prompt] = [prompt] if single else list(prompt)  # type: ignore[list-item,arg-type]
        if not prompts:
            raise UsageError("prompt: the list is empty; give at least one")
        settings = self.sampling(sampling, options)
        requests = [self._open(p, settings) for p in prompts]
        for _ in self.drive(requests, progress):
            pass
        outputs = [r.output(self.ropes.used(self.reach(len(r.text.ids)))) for r in requests]
        return outputs[0] if single else outputs

    def stream(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Iterator[str]:
        """Continue one prompt, giving the text piece by piece; characters are never cut."""
        request = self._open(prompt, self.sampling(sampling, options))
        for _, new in self.drive([request], progress):
            if new:
                yield new

    def chat(
        self,
        messages: Seq[Mapping[str, str]],
        sampling: Sampling | None = None,
        *,
        progress: Progress | bool | None = None,
        **options: object,
    ) -> Output:
        """Answer the last of the messages ({"role", "content"}), through the checkpoint's chat template."""
        output: Output = self.generate(self.chat_ids(messages), sampling, progress=progress, **options)
        return output

    def logits(
        self,
        prompt: Prompt,
        *,
        chunk: int | None = None,
        start: int = 0,
        progress: Progress | bool | None = None,
    ) -> torch.Tensor:
        """Next-token logits at every place of the text, float32 [T, vocab], computed `chunk` ids at a time.

        start: text position of the first id; nothing but distances matters, so it changes the result by no
        more than rounding.
        """
        text, read = self._rows(prompt, chunk, start, progress)
        out = torch.empty((len(text.ids), self.shape.vocab), dtype=torch.float32)
        for place, rows in read:
            out[place : place + len(rows)] = rows
        return out

    def losses(
        self,
        prompt: Prompt,
        *,
        chunk: int | None = None,
        start: int = 0,
        progress: Progress | bool | None = None,
    ) -> torch.Tensor:
        """Nats of every token of the text but the first, given those before it: float32 [T - 1].

        As `logits`, but no more than `chunk` rows of logits are held at a time.
        """
        text, read = self._rows(prompt, chunk, start, progress)
        out = torch.empty(len(text.ids) - 1, dtype=torch.float32)
        for place, rows in read:
            next_ids = torch.tensor(text.ids[place + 1 :][: len(rows)], dtype=torch.long, device=rows.device)
            known = rows[: len(next_ids)]  # after the last id nothing is known
            out[place : place + len(known)] = torch.nn.functional.cross_entropy(known, next_ids, reduction="none")
        return out

    def session(self, start: int = 0) -> Session:
        """A text that is kept between turns; see `Session`."""
        return Session(self, start)

    def resume(self, path: str | Path) -> Session:
        """A session that goes on where `Session.save` wrote it down; `meta` is what was kept with it.

        Raises StoreError when the file is missing or damaged, or was saved under another model, dtype, rope, format,
        eviction, selection, placement or page size. The file stays as it is.
        """
        return Session(self, resumed=saved.load(self, saved.session_path(path)))

    # for the parts of the engine

    def sampling(self, base: Sampling | None, given: dict[str, object]) -> Sampling:
        return sessions.options(base or Sampling(), given)

    def text(self, ids: Seq[int], start: int = 0) -> Text:
        return Text(ids, self.pool, start, self.reach)

    def reach(self, tokens: int) -> int:
        """The largest distance that angles are formed of when `tokens` are present."""
        return self.plan.reach(tokens, self.layout)

    def request(self, text: Text, sampling: Sampling) -> Request:
        return Request(text, sampling, self.tokenizer, self.shape.vocab, self.shape.eos)

    def drive(
        self,
        requests: Seq[Request],
        progress: Progress | bool | None = None,
        finished: Callable[[Request], None] | None = None,
    ) -> Iterator[tuple[Request, str]]:
        """Run requests to their ends; warns once when a text outgrows what its rope was made for."""
        longest = max(self.reach(len(r.text.ids)) for r in requests)
        reach = self.ropes.reach(longest)
        if longest > reach:
            warnings.warn(
                f"{longest:,} tokens are more than the {reach:,} that rope {self.ropes.used(longest)} was made for; "
                "expect poor answers, or give another --rope",
                stacklevel=3,
            )
        with self._shown(progress) as tell:
            yield from run(self.scheduler, requests, tell, finished)

    def _rows(
        self, prompt: Prompt, chunk: int | None, start: int, progress: Progress | bool | None
    ) -> tuple[Text, Iterator[tuple[int, torch.Tensor]]]:
        """A text and its logits, step by step."""
        text, size = logits.opened(self, self._some(prompt), chunk, start)

        def read() -> Iterator[tuple[int, torch.Tensor]]:
            with self._shown(progress) as tell:
                yield from logits.rows(self, text, size, tell)

        return text, read()

    def _some(self, prompt: Prompt) -> list[int]:
        ids = self.encode(prompt)
        if not ids:
            raise UsageError("prompt: it is empty; give at least one token")
        return ids

    def _open(self, prompt: Prompt, sampling: Sampling) -> Request:
        ids = self._some(prompt)
        self.scheduler.check(len(ids))
        return self.request(self.text(ids), sampling)

    @staticmethod
    def _shown(progress: Progress | bool | None) -> Any:
        if progress is True:
            return bar("reading")
        return nullcontext(progress or None)

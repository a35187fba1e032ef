"""Between text and ids: what a checkpoint's tokenizer and chat template do, weights or not."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from longspan.engine.encode import Encoder
from longspan.errors import ModelError, UsageError
from longspan.model.load import words
from longspan.model.shape import Shape
from longspan.model.template import render

Prompt = str | Seq[int]


class Words:
    """A checkpoint's tokenizer and template. `Words.of(path)` opens no weights; an `LLM` is one that has them."""

    shape: Shape
    tokenizer: PreTrainedTokenizerBase | None
    path: Path
    encoder: Encoder | None

    @classmethod
    def of(cls, model: str | Path) -> Words:
        """Those of a local folder or a hub id. Raises ModelError as `LLM` does."""
        made = Words.__new__(Words)
        made._take(*words(model))
        return made

    def _take(self, tokenizer: PreTrainedTokenizerBase | None, shape: Shape, path: Path) -> None:
        self.tokenizer, self.shape, self.path = tokenizer, shape, path
        self.encoder = None if tokenizer is None else Encoder(tokenizer, shape.vocab)

    def encode(self, prompt: Prompt, special: bool = True) -> list[int]:
        """Ids of a prompt; ids pass through after a check. special: with the tokenizer's own first token."""
        if isinstance(prompt, str):
            if self.encoder is None:
                raise UsageError(f"{self.path}: this checkpoint has no tokenizer; give token ids")
            ids = self.encoder(prompt, special)
        else:
            ids = [int(i) for i in prompt]
        if ids and not (min(ids) >= 0 and max(ids) < self.shape.vocab):
            wrong = next(i for i in ids if not 0 <= i < self.shape.vocab)
            raise UsageError(f"prompt: token id {wrong} is outside the vocabulary of {self.shape.vocab:,}")
        return ids

    def chat_ids(self, messages: Seq[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation in the checkpoint's chat template, ready for the answer."""
        if self.tokenizer is None or not self.has_template:
            raise ModelError(f"{self.path}: this checkpoint has no chat template; use generate")
        return self.encode(render(self.tokenizer, [dict(m) for m in messages]), special=False)

    @property
    def has_template(self) -> bool:
        return self.tokenizer is not None and bool(self.tokenizer.chat_template)

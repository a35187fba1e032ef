"""From ids to text while they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"


class Detokenizer:
    """Turns a growing list of ids into text that never has to be taken back.

    A character of several bytes may be spread over several tokens, so text is held back while it ends in an
    unfinished one, and while it ends in what may become a stop string.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._ids: list[int] = []
        self._context = self._done = 0  # ids up to _done gave their text; those from _context on show its spacing
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that became certain with this token."""
        self._ids.append(token)
        return self._flush(self._fresh(final=False), final=False)

    def finish(self) -> str:
        """The rest, when no more tokens come."""
        return self._flush(self._fresh(final=True), final=True)

    def _fresh(self, final: bool) -> str:
        if self._tokenizer is None:
            return ""
        before = self._decode(self._ids[self._context : self._done])
        after = self._decode(self._ids[self._context :])
        if len(after) <= len(before) or (after.endswith(_UNFINISHED) and not final):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return after[len(before) :]

    def _flush(self, fresh: str, final: bool) -> str:
        if self.stopped:
            return ""
        held = self._held + fresh
        found = [at for at in (held.find(s) for s in self._stop) if at >= 0]
        if found:
            out, self._held, self.stopped = held[: min(found)], "", True
        else:
            keep = 0 if final else max((_overlap(held, s) for s in self._stop), default=0)
            out, self._held = held[: len(held) - keep], held[len(held) - keep :]
        self.text += out
        return out

    def _decode(self, ids: list[int]) -> str:
        assert self._tokenizer is not None
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0

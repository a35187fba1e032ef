"""The tokenizer of a checkpoint, checked against its embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from longspan.errors import ModelError
from longspan.model.quiet import quiet, reason

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


def load(folder: Path, config: Any, vocab: int) -> transformers.PreTrainedTokenizerBase | None:
    """The tokenizer in `folder`; None when there is none.

    vocab: rows of the embedding. Special tokens beyond them are let through, since some published text models
    keep one for images; whoever encodes text refuses such an id. Raises ModelError for a damaged tokenizer and
    for ordinary tokens beyond the embedding.
    """
    if not any((folder / name).exists() for name in _FILES):
        return None
    try:
        with quiet():
            if _is_generic(folder):
                made = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
            else:
                made = transformers.AutoTokenizer.from_pretrained(
                    folder, config=config, trust_remote_code=False, local_files_only=True
                )
            ids = made.get_vocab()
            added = made.added_tokens_decoder
    except Exception as error:
        # the tokenizer libraries raise bare exceptions; each means that these files cannot be read
        raise ModelError(f"the tokenizer in {folder} cannot be loaded: {reason(error)}") from None
    beyond = {i: token for token, i in ids.items() if i >= vocab and not (i in added and added[i].special)}
    if beyond:
        last = max(beyond)
        raise ModelError(
            f"the tokenizer has ids up to {last:,} ({beyond[last][:40]!r}), but the embedding has {vocab:,} rows; "
            "use the tokenizer that came with these weights"
        )
    return made


def _is_generic(folder: Path) -> bool:
    """Whether the checkpoint says that its tokenizer.json is all there is to know. transformers would take the class of
    the model's family in its place (Qwen2Tokenizer for a qwen2), which cuts text in that family's own way."""
    path = folder / "tokenizer_config.json"
    if not path.exists() or not (folder / "tokenizer.json").exists():
        return False
    declared = json.loads(path.read_text(encoding="utf-8"))
    return isinstance(declared, dict) and declared.get("tokenizer_class") in _GENERIC and "auto_map" not in declared

"""A random-weight model with a byte tokenizer, which all engines can read. Runs in longspan's environment.

python make_model.py FOLDER [--shape S|1b|8b]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from longspan.bench import shapes


def tokenizer(vocab: int) -> PreTrainedTokenizerFast:
    """One id for each byte, and names that no text holds for all others, so that every id has a token."""
    ends = ["<s>", "</s>"]  # ids 0 and 1, as the config says
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    rest = (f"<unused{i}>" for i in range(vocab - len(ends) - len(bytes_)))
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*ends, *bytes_, *rest])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=ends[0], eos_token=ends[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="S")
    given = parser.parse_args()
    config = shapes.SHAPES[given.shape]
    shapes.write(given.folder, config)
    tokenizer(config["vocab_size"]).save_pretrained(given.folder)


if __name__ == "__main__":
    main()

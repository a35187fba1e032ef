"""The text that the embedded model reads: what every machine with Python has."""

from __future__ import annotations

import random

from longspan.evals.text import documents

TOPIC_REPEATS = 3


def training_texts(seed: int) -> list[str]:
    """The training documents in an order fixed by `seed`, documentation three times."""
    texts = [one.text for one in documents("train") for _ in range(TOPIC_REPEATS if one.is_topic else 1)]
    random.Random(seed).shuffle(texts)
    return texts


def held_out_texts() -> list[str]:
    return [one.text for one in documents("held_out")]

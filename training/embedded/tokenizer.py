"""The embedded model's tokenizer: byte-level BPE, lines and digits kept apart, and its chat template."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from longspan.evals import lookup
from longspan.evals.lookup import names

BOS, ANSWER, END = "<|bos|>", "<|answer|>", "<|end|>"

#: A user turn ends in <|answer|>, so that a generation prompt has nothing to add.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ message['content'] + '<|answer|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + '<|end|>\\n' }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}"
    "{% endif %}{% endfor %}"
)


def train_bpe(texts: Iterable[str], vocab_size: int, seed: int) -> Tokenizer:
    """A BPE trained on `texts` and on generated facts.

    A newline is always a token of its own, so that the tokens of a text are the tokens of its lines
    put together. Digits go in pairs from the left, the first with the space before it: every number
    is few tokens, and its next token rarely stands after the same one elsewhere.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Split(Regex(" ?[0-9]{1,2}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, ANSWER, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_facts(texts, seed), trainer)
    return tokenizer


def for_transformers(tokenizer: Tokenizer, positions: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=[ANSWER],
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _with_facts(texts: Iterable[str], seed: int) -> Iterator[str]:
    """The texts, and enough sentences of every kind that each of their words, and each pair of digits, is one token.

    Pairs and names come often, so that none of them is left out by chance.
    """
    yield from texts
    for pair in (f"{number:02}" for number in range(100)):
        yield f" {pair} {pair}{pair}" * 3000
    for name in (*names.ADJECTIVES, *names.NOUNS, *names.FIRST_NAMES, *names.LAST_NAMES, *names.CITIES, *names.FRUITS):
        yield f" {name}" * 1000
    rng = random.Random(seed)
    for _ in range(1500):
        for ability in lookup.ABILITIES.values():
            sample = ability(rng, 16, 4, "train")
            yield "\n".join(
                (*sample.sentences, *(f"{question.text} {question.answer}" for question in sample.questions))
            )

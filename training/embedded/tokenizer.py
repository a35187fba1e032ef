"""The embedded model's tokenizer: byte-level BPE, lines and digits kept apart, and its chat template."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from longspan.evals import lookup

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

    A newline is always a token of its own and a digit too, so that the tokens of a text are the
    tokens of its lines put together.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
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
    yield from texts
    rng = random.Random(seed)
    for _ in range(2000):
        facts = lookup.make_facts(rng, 20, same_attribute=0, same_entity=0, near_entity=0)
        yield "\n".join(fact.sentence for fact in facts)
        yield "\n".join(lookup.ask(rng, fact).text for fact in facts[:5])

"""ROUGE-L as LongBench takes it: of whole summaries, by the union of common subsequences (Lin 2004, section 3.2).

The figure is that of the package `rouge` 1.0.1, which LongBench calls: sentences end at full stops, each different
word counts once, and F weighs precision and recall alike.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq


def rouge_l(answer: str, reference: str) -> float:
    """F of the words that the summaries have in common, in order; 0 where one has none."""
    said, wanted = _sentences(answer), _sentences(reference)
    said_words, wanted_words = _words(said), _words(wanted)
    if not said_words or not wanted_words:
        return 0.0
    common: set[str] = set()
    for one in wanted:
        for other in said:
            common |= set(_longest(one, other))
    precision, recall = len(common) / len(said_words), len(common) / len(wanted_words)
    return 2 * precision * recall / (precision + recall + 1e-8)


def _sentences(text: str) -> list[list[str]]:
    # of blanks alone the package makes a sentence of one empty word
    return [part.split() or [""] for part in text.split(".") if part]


def _words(sentences: Seq[Seq[str]]) -> set[str]:
    return {word for sentence in sentences for word in sentence}


def _longest(one: Seq[str], other: Seq[str]) -> list[str]:
    """The longest common subsequence; of several, the one that leaves the end of `other` first."""
    lengths = [[0] * (len(other) + 1)]
    for word in one:
        above, row = lengths[-1], [0]
        for place, another in enumerate(other):
            row.append(above[place] + 1 if word == another else max(above[place + 1], row[-1]))
        lengths.append(row)
    found: list[str] = []
    i, j = len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            found.append(one[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]

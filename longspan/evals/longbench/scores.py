"""LongBench's scores: of an answer and its references, 0 … 1; of several references the best counts.

The references of `classification` are the right classes, an empty one, and all classes that there are.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Seq

from longspan.errors import UsageError
from longspan.evals.longbench.rouge import rouge_l

Pair = Callable[[str, str], float]
Score = Callable[[str, Seq[str]], float]


def words_f1(answer: str, reference: str) -> float:
    """F of the words in common, without articles and punctuation, in lower case."""
    return _f1(_plain(answer).split(), _plain(reference).split())


def words_f1_zh(answer: str, reference: str) -> float:
    """The same of Chinese words, as jieba divides them."""
    return _f1(_plain_zh(answer), _plain_zh(reference))


def rouge_l_zh(answer: str, reference: str) -> float:
    """ROUGE-L of Chinese words."""
    return rouge_l(" ".join(_divided(answer)), " ".join(_divided(reference)))


def number(answer: str, reference: str) -> float:
    """The share of the answer's numbers that are the reference's own; of a reference such as "Paragraph 7", its."""
    wanted = re.search(r"\d+", reference)
    said: list[str] = re.findall(r"\d+", answer)
    return said.count(wanted[0]) / len(said) if said and wanted else 0.0


def code_similarity(answer: str, reference: str) -> float:
    """The likeness, in hundredths, of the reference and the answer's first line that is no comment and no fence."""
    lines = answer.lstrip("\n").split("\n")
    line = next((one for one in lines if not any(mark in one for mark in ("`", "#", "//"))), "")
    if line == reference:
        return 1.0
    return round(100 * difflib.SequenceMatcher(None, line, reference).ratio()) / 100


def classification(answer: str, references: Seq[str]) -> float:
    """One over the number of classes that the answer names, if the right one is among them. A class whose name is part
    of the right one's does not count."""
    end = references.index("")
    right, classes = references[:end], references[end + 1 :]
    line = first_line(answer)
    return max(_classified(line, one, classes) for one in right)


def first_line(answer: str) -> str:
    """What LongBench looks at where the prompt's examples could go on."""
    return answer.lstrip("\n").split("\n")[0]


def segmenter() -> Callable[[str], list[str]]:
    """Divides Chinese text into words. Raises UsageError where jieba is not installed."""
    try:
        import jieba
    except ImportError:
        raise UsageError(
            "longbench: Chinese answers are divided into words by jieba; pip install 'longspan[chinese]'"
        ) from None
    words: Callable[[str], list[str]] = jieba.lcut
    return words


def _best(pair: Pair, cut: Callable[[str], str] = str) -> Score:
    return lambda answer, references: max(pair(cut(answer), one) for one in references)


SCORES: dict[str, Score] = {
    "qa_f1": _best(words_f1),
    "qa_f1_line": _best(words_f1, first_line),
    "qa_f1_zh": _best(words_f1_zh),
    "rouge_l": _best(rouge_l),
    "rouge_l_line": _best(rouge_l, first_line),
    "rouge_l_zh": _best(rouge_l_zh),
    "number": _best(number),
    "classification": classification,
    "code_similarity": _best(code_similarity),
}


def _classified(answer: str, right: str, classes: Seq[str]) -> float:
    named = [one for one in classes if one in answer]
    for one in named:  # theirs removes while it walks, which passes over the one behind; so do we, for equal figures
        if one in right and one != right:
            named.remove(one)
    return 1 / len(named) if right in named else 0.0


def _f1(said: Seq[str], wanted: Seq[str]) -> float:
    same = sum((Counter(said) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _plain(text: str) -> str:
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", letters)


def _divided(text: str) -> list[str]:
    return segmenter()(text)


def _plain_zh(text: str) -> list[str]:
    parts = ("".join(letter for letter in word.lower() if _said(letter)) for word in _divided(text))
    return [part for part in parts if part]


def _said(letter: str) -> bool:
    """Neither space nor punctuation, of ASCII, in its wide form, or of any other kind."""
    mark = unicodedata.normalize("NFKC", letter) in string.punctuation or unicodedata.category(letter)[0] == "P"
    return not mark and not letter.isspace()

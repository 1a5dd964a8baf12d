"""How far a text agrees with reference texts: exact match, precision, recall and F1 of words, BLEU, ROUGE.

BLEU is corpus BLEU of Papineni et al. 2002 with sacreBLEU's `13a` words (Post 2018) and its exponential smoothing.
ROUGE is Lin 2004's, as F1, with the words of Google's rouge_score without stemming. Chinese is split into characters.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

MOST_WORDS = 4000  # of a text that is compared by its longest common subsequence, which takes the product of both
ORDERS = 4
ARTICLES = re.compile(r"\b(a|an|the)\b")
HAN = re.compile(r"([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
PUNCTUATION = str.maketrans("", "", string.punctuation + "。，、；：？！“”‘’（）《》【】")
ROUGE_WORD = re.compile(r"[a-z0-9]+|[\u3400-\u4dbf\u4e00-\u9fff]")
SYMBOLS = re.compile(r"([{-~\[-` -&(-+:-@/])")
PERIOD_BEHIND = re.compile(r"([^0-9])([.,])")
PERIOD_BEFORE = re.compile(r"([.,])([^0-9])")
DASH = re.compile(r"([0-9])(-)")


class Agreement(NamedTuple):
    """Shares of what was written and of what was wanted, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def normalised(text: str) -> str:
    """SQuAD's normal form (Rajpurkar et al. 2016): lower case, no punctuation, no English articles, single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(text: str, references: Sequence[str]) -> bool:
    """Whether the text is one of the references in normal form; a reference without any letter never matches."""
    mine = normalised(text)
    return any(mine == normalised(one) for one in references) if mine else False


def words_of(text: str) -> list[str]:
    """The words of the normal form; each Chinese character is one."""
    return HAN.sub(r" \1 ", normalised(text)).split()


def overlap(text: str, reference: str) -> Agreement:
    """Precision, recall and F1 of the words, as bags; 1 if both have none."""
    mine, wanted = Counter(words_of(text)), Counter(words_of(reference))
    return agreement((mine & wanted).total(), mine.total(), wanted.total())


def best_f1(text: str, references: Sequence[str]) -> float:
    """The F1 of the words against the reference that agrees most; 0 without references."""
    return max((overlap(text, one).f1 for one in references), default=0.0)


def agreement(common: float, mine: float, wanted: float) -> Agreement:
    """Of counts: in both, in the text, in the reference. Two empty texts agree, an empty one agrees with no other."""
    if not mine or not wanted:
        return Agreement(*[float(mine == wanted)] * 3)
    precision, recall = common / mine, common / wanted
    return Agreement(precision, recall, 2 * common / (mine + wanted))


def bleu_words(text: str) -> list[str]:
    """The words of mteval-v13a, which sacreBLEU's default takes; each Chinese character is one."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        text = text.replace(entity, character)
    text = HAN.sub(r" \1 ", text)
    text = SYMBOLS.sub(r" \1 ", f" {text} ")
    text = PERIOD_BEFORE.sub(r" \1 \2", PERIOD_BEHIND.sub(r"\1 \2 ", text))
    return DASH.sub(r"\1 \2 ", text).split()


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of texts against one or more references each, from 0 to 1.

    Orders that a text is too short for count as nothing found; where an order has no match, its share is 1 / 2^k of
    one match at the k-th such order, as in sacreBLEU. 0 if nothing at all matches.
    """
    found, possible = [0] * ORDERS, [0] * ORDERS
    length = wanted = 0
    for text, several in zip(texts, references, strict=True):
        mine = bleu_words(text)
        others = [bleu_words(one) for one in several]
        length += len(mine)
        wanted += min((abs(len(one) - len(mine)), len(one)) for one in others)[1]
        for order in range(ORDERS):
            counts = _grams(mine, order + 1)
            most: Counter[tuple[str, ...]] = Counter()
            for one in others:
                most |= _grams(one, order + 1)
            found[order] += (counts & most).total()
            possible[order] += counts.total()
    if not any(found):
        return 0.0
    logs, smooth = 0.0, 1.0
    for order in range(ORDERS):
        if not possible[order]:
            return 0.0
        if not found[order]:
            smooth *= 2
        logs += math.log(found[order] / possible[order] if found[order] else 1 / (smooth * possible[order]))
    return min(1.0, math.exp(1 - wanted / length)) * math.exp(logs / ORDERS)


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))


def rouge_words(text: str) -> list[str]:
    """Lower-case words of ASCII letters and digits, and Chinese characters."""
    return ROUGE_WORD.findall(text.lower())


def rouge_n(text: str, reference: str, order: int) -> Agreement:
    """ROUGE-1, ROUGE-2 and so on."""
    mine, wanted = _grams(rouge_words(text), order), _grams(rouge_words(reference), order)
    return agreement((mine & wanted).total(), mine.total(), wanted.total())


def rouge_l(text: str, reference: str) -> Agreement:
    """ROUGE-L: the longest common subsequence of both texts' first MOST_WORDS words."""
    mine, wanted = rouge_words(text)[:MOST_WORDS], rouge_words(reference)[:MOST_WORDS]
    return agreement(_common(mine, wanted), len(mine), len(wanted))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence, by Hyyro's bit-parallel method (2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    ones = (1 << len(one)) - 1
    row = ones
    for word in other:
        same = row & places.get(word, 0)
        row = ((row + same) | (row - same)) & ones
    return len(one) - row.bit_count()

"""Agreement with references, against published values and values by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.references import (
    agreement,
    best_f1,
    bleu,
    bleu_words,
    exact_match,
    normalised,
    overlap,
    rouge_l,
    rouge_n,
    rouge_words,
)  # fmt: skip


def test_bleu_of_sacrebleus_own_example() -> None:
    """The README of sacreBLEU: 48.530827009929865, of 82.4/50.0/45.5/37.5 with a brevity penalty of 0.943."""
    texts = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    assert bleu(texts, references) == pytest.approx(0.48530827009929865, abs=1e-12)


def test_bleu_by_hand() -> None:
    assert bleu(["a b c d"], [["a b c d"]]) == 1
    assert bleu(["a b c d"], [["e f g h"]]) == 0
    assert bleu(["a b c"], [["a b c"]]) == 0, "no four words are possible"
    # 1 to 4 words: 4/5, 2/4, 1/3 and none of 2, which counts as half of one.
    assert bleu(["a b c x d"], [["a b c d e"]]) == pytest.approx((4 / 5 * 2 / 4 * 1 / 3 * 1 / 4) ** 0.25)
    short = bleu(["a b c d"], [["a b c d e f g h"]])
    assert short == pytest.approx(math.exp(1 - 8 / 4))


def test_words_of_mteval() -> None:
    assert bleu_words("It's 3.5, or 1,000 (x-ray) 3-4 &amp; no.") == [
        "It's", "3.5", ",", "or", "1,000", "(", "x-ray", ")", "3", "-", "4", "&", "no", ".",
    ]  # fmt: skip
    assert bleu_words("今天 ok") == ["今", "天", "ok"]


def test_rouge_of_googles_own_example() -> None:
    """The README of rouge_score."""
    wanted, text = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."
    assert rouge_n(text, wanted, 1) == pytest.approx((0.75, 0.6666666666666666, 0.7058823529411765))
    assert rouge_l(text, wanted) == pytest.approx((0.625, 0.5555555555555556, 0.5882352941176471))
    assert rouge_n(text, wanted, 2) == pytest.approx((2 / 7, 2 / 8, 4 / 15))
    assert rouge_words("It's 今天") == ["it", "s", "今", "天"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_the_longest_common_subsequence_is_that_of_the_table(one: list[str], other: list[str]) -> None:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert rouge_l(" ".join(one), " ".join(other)) == agreement(table[-1][-1], len(one), len(other))


def test_squads_normal_form_and_exact_match() -> None:
    assert normalised(" The  Beatles' song, “Help!” ") == "beatles song help"
    assert exact_match("the Sun.", ["Moon", "Sun"])
    assert not exact_match("suns", ["Sun"])
    assert not exact_match("the", ["a"]), "nothing but articles is no answer"


def test_f1_of_words_by_hand() -> None:
    assert overlap("the red house", "red old house") == pytest.approx((1, 2 / 3, 0.8))
    assert overlap("a a b b", "b b b c").f1 == pytest.approx(2 * 2 / (2 + 4)), "articles do not count"
    assert overlap("今天好", "今天").f1 == 0.8
    assert best_f1("red house", ["blue", "red", "red house"]) == 1
    assert best_f1("red", []) == 0
    assert agreement(0, 0, 0).f1 == 1
    assert agreement(0, 0, 2).f1 == 0

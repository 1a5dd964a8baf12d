"""RefinedWeb's line corrections."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.settings.corpus import LineCorrection
from contract.settings.filter import Filter
from pipelines.rules.decide import decide, rules_for
from pipelines.rules.lines import Corrected, correct
from pipelines.text.words import Text, split_words

RULES = LineCorrection()


def judge(corrected, limit=0.05):
    rules = [rule for rule in rules_for(Filter(max_removed_word_fraction=limit), "en") if rule.rule_set == "lines"]
    return decide({"removed_word_fraction": corrected.removed_fraction}, rules)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("An ordinary line stays.", "An ordinary line stays."),
        ("CLICK HERE NOW to go", None),  # 12 of 16 letters
        ("ABcd ABcd", "ABcd ABcd"),  # exactly half
        ("12 345 / 6,7", None),
        ("« 1 2 3 … 10 »", None),
        ("2 + 2 = 4", "2 + 2 = 4"),
        ("5 > 3", "5 > 3"),
        ("3 likes", None),
        ("1.2K followers", None),
        ("· 12,345 Comments ·", None),
        ("We like 3 likes", "We like 3 likes"),
        ("Home", None),
        ("日本語の文です", "日本語の文です"),
        ("Sign in to read the whole story", "to read the whole story"),
        ("sign-in | Our news of today", "Our news of today"),
        ("The mayor has resigned today read more...", "The mayor has resigned today"),
        ("The mayor has resigned today Read more …", "The mayor has resigned today"),
        ("I wish I had more time to read more", "I wish I had more time to read more"),
        ("» Read more «", None),
        ("Shop now, 3 items in cart, total 5 euros", "Shop now, , total 5 euros"),
        ("Sign in", None),
        (
            "Sign in to read this line which has far more than ten words read more...",
            "Sign in to read this line which has far more than ten words read more...",
        ),
        ("Designs in many colours", "Designs in many colours"),
    ],
)
def test_one_line(line, left):
    corrected = correct(Text(line), RULES)
    assert corrected.text == (left or "")
    assert corrected.words == len(split_words(line))
    assert corrected.removed == corrected.words - len(split_words(left or ""))


@pytest.mark.parametrize("language", ["ja", "zh", "th"])
def test_a_line_of_spaced_words_is_counted_by_them_in_any_language(language):
    assert correct(Text("Hello world\nHome\n一二三四五六", language), RULES).text == "Hello world\n一二三四五六"
    assert correct(Text("漢字", language), RULES).text == "", "two characters are at most one word"
    english = "Sign in to read this line which has far more than ten words"
    assert correct(Text(english, language), RULES).text == english


def test_exactly_five_percent_is_kept():
    line = "nineteen words stand in this line and one more goes away with the next one which is a counter"
    assert len(line.split()) == 19
    kept = correct(Text(f"{line}\nHome"), RULES)
    assert (kept.words, kept.removed) == (20, 1)
    assert judge(kept) is None
    short = correct(Text(f"{line.rpartition(' ')[0]}\nHome"), RULES)
    assert judge(short) == ("lines_removed", pytest.approx(1 / 19))


@settings(deadline=None)  # the first call may compile
@given(st.integers(1, 2000), st.integers(0, 100))
def test_the_limit_is_exact_in_whole_words(words, percent):
    for removed in range(max(0, words * percent // 100 - 1), min(words, words * percent // 100 + 2) + 1):
        dropped = judge(Corrected("", words, removed), percent / 100) is not None
        assert dropped is (removed * 100 > percent * words)


@settings(deadline=None)  # the first call may compile
@given(
    st.lists(st.sampled_from(["", "Home", "An ordinary line.", "3 likes", "12 34", "And one more line"]), max_size=15)
)
def test_counts_add_up_and_correcting_again_changes_nothing(lines):
    once = correct(Text("\n".join(lines)), RULES)
    assert once.words == len(split_words("\n".join(lines)))
    assert once.words - once.removed == len(split_words(once.text))
    assert "\n\n\n" not in once.text
    assert correct(Text(once.text), RULES).text == once.text


def test_long_lines_of_punctuation_take_no_time():
    assert correct(Text("1" * 200_000 + "x " + "=" * 200_000 + " y"), RULES).removed == 0

"""Every rule at its limit, with the limits and the sides as the papers print them, and the order in which rules are asked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.scores import SCORES
from contract.settings.filter import COMPARISONS, RULES, Filter, Rule
from pipelines.rules.decide import decide, rules_for
from pipelines.text.languages import UNITS, unit
from pipelines.text.stopwords import STOP_WORDS

EVERYTHING = Filter.model_validate({name: {"enabled": True} for name in ("c4", "mc4", "bloom")})

# (score, limit, whether a document exactly at the limit stays, which side of it goes, reason)
PRINTED = [
    ("duplicate_lines", 0.30, True, "above", "duplicate_lines"),
    ("duplicate_line_chars", 0.20, True, "above", "duplicate_line_chars"),
    ("duplicate_paragraphs", 0.30, True, "above", "duplicate_paragraphs"),
    ("duplicate_paragraph_chars", 0.20, True, "above", "duplicate_paragraph_chars"),
    ("top_2gram", 0.20, True, "above", "top_ngram"),
    ("top_3gram", 0.18, True, "above", "top_ngram"),
    ("top_4gram", 0.16, True, "above", "top_ngram"),
    *(
        (f"duplicate_{n}grams", limit, True, "above", "duplicate_ngrams")
        for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
    ("words", 50, True, "below", "too_few_words"),
    ("words", 100_000, True, "above", "too_many_words"),
    ("mean_word_chars", 3, True, "below", "mean_word_length"),
    ("mean_word_chars", 10, True, "above", "mean_word_length"),
    ("hash_ratio", 0.1, True, "above", "hash_ratio"),
    ("ellipsis_ratio", 0.1, True, "above", "ellipsis_ratio"),
    ("bullet_lines", 0.9, True, "above", "bullet_lines"),
    ("ellipsis_lines", 0.3, True, "above", "ellipsis_lines"),
    ("alpha_words", 0.8, True, "below", "few_alpha_words"),
    ("stop_words", 2, True, "below", "few_stop_words"),
    ("removed_word_fraction", 0.05, True, "above", "lines_removed"),
    ("lorem_ipsum", 0, True, "above", "c4_lorem_ipsum"),
    ("curly_brackets", 0, True, "above", "c4_curly_bracket"),
    ("bad_words", 0, True, "above", "c4_bad_words"),
    ("sentences", 5, True, "below", "c4_too_few_sentences"),
    ("long_lines", 3, True, "below", "mc4_few_long_lines"),
    ("punctuated_lines", 0.12, False, "below", "line_punctuation"),
    ("kept_duplicate_line_chars", 0.1, False, "above", "fineweb_duplicate_line_chars"),
    ("short_lines", 0.67, False, "above", "short_lines"),
    ("char_repetition", 0.106, True, "above", "bloom_char_repetition"),
    ("word_repetition", 0.19, True, "above", "bloom_word_repetition"),
    ("special_chars", 0.4, True, "above", "bloom_special_chars"),
    ("stop_word_fraction", 0.3, True, "below", "bloom_stop_words"),
    ("bad_word_fraction", 0.01, True, "above", "bloom_flagged_words"),
    ("perplexity", 1500, True, "above", "bloom_perplexity"),
]


@pytest.mark.parametrize(("score", "limit", "stays", "goes", "reason"), PRINTED)
def test_a_limit_is_the_printed_one_to_the_last_bit(score, limit, stays, goes, reason):
    rules = rules_for(EVERYTHING, "en")
    out = math.nextafter(limit, math.inf if goes == "above" else -math.inf)
    fine = math.nextafter(limit, -math.inf if goes == "above" else math.inf)
    assert decide({score: out}, rules) == (reason, out)
    assert decide({score: limit}, rules) == (None if stays else (reason, limit))
    assert decide({score: fine}, rules) is None


def test_the_printed_rules_are_asked_in_this_order():
    """Other rules may stand between them; docs/filters.md shows every rule."""
    printed = [(score, limit, reason) for score, limit, _, _, reason in PRINTED]
    asked = [(rule.score, rule.limit, rule.reason) for rule in rules_for(EVERYTHING, "en")]
    assert [rule for rule in asked if rule in printed] == printed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.setting}")
def test_every_rule_drops_what_is_past_its_limit(rule):
    past = math.nextafter(rule.limit, math.inf if rule.comparison.startswith(">") else -math.inf)
    at_limit = decide({rule.score: rule.limit}, [rule])
    assert at_limit == ((rule.reason, rule.limit) if "=" in rule.comparison else None)
    assert decide({rule.score: past}, rules_for(EVERYTHING, "en")) == (rule.reason, past)
    assert decide({rule.score: None}, [rule]) is None


def test_the_order_is_refinedwebs():
    rule_sets = list(dict.fromkeys(rule.rule_set for rule in rules_for(EVERYTHING, "en")))
    published = ["gopher_repetition", "length", "gopher_quality", "lines", "c4", "mc4", "fineweb", "bloom"]
    assert [name for name in rule_sets if name in published] == published
    worst = {"removed_word_fraction": 1.0, "words": 1, "duplicate_lines": 1.0}
    assert decide(worst, rules_for(Filter(), "en")) == ("duplicate_lines", 1.0)
    assert decide(worst | {"duplicate_lines": 0.0}, rules_for(Filter(), "en")) == ("too_few_words", 1)


@given(st.sampled_from(["gopher_repetition", "gopher_quality", "c4", "mc4", "fineweb", "bloom"]))
def test_a_rule_set_that_is_off_asks_nothing(name):
    off = EVERYTHING.model_copy(update={name: getattr(EVERYTHING, name).model_copy(update={"enabled": False})})
    assert {rule.rule_set for rule in rules_for(EVERYTHING, "en")} - {
        rule.rule_set for rule in rules_for(off, "en")
    } == {name}


@pytest.mark.parametrize("language", ["zh", "ja", "th", "ko"])
def test_mean_length_is_not_asked_where_words_are_characters_or_syllables(language):
    assert "mean_word_length" not in {rule.reason for rule in rules_for(EVERYTHING, language)}


@pytest.mark.parametrize("language", ["eo", "th"])
def test_stop_words_are_not_asked_without_a_list(language):
    assert language not in STOP_WORDS
    assert {"stop_words", "stop_word_fraction"}.isdisjoint(rule.score for rule in rules_for(EVERYTHING, language))


def test_every_language_of_the_requirement_has_stop_words():
    assert {"en", "de", "fr", "es", "it", "pt", "pl", "ru", "zh", "ja"} <= set(STOP_WORDS)
    assert unit("zh") == unit("ja") == 2
    assert unit("en") == unit(None) == 1
    assert all(words == {word.lower() for word in words} for words in STOP_WORDS.values())
    assert all(len(word) == 1 for code in ("zh", "ja", "yue") for word in STOP_WORDS[code]), (
        "words are characters there"
    )
    assert min(UNITS.values()) > 1


@given(
    st.dictionaries(st.sampled_from(SCORES), st.none() | st.floats(0, 2e5)), st.sampled_from(["en", "zh", "eo", None])
)
def test_the_verdict_is_the_first_rule_that_a_document_breaks(scores, language):
    rules = rules_for(EVERYTHING, language)
    broken = [rule for rule in rules if scores.get(rule.score) is not None and rule.drops(scores[rule.score])]
    assert decide(scores, rules) == ((broken[0].reason, scores[broken[0].score]) if broken else None)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.sampled_from([*COMPARISONS]))
def test_a_rule_compares_as_it_is_written(value, limit, side):
    assert Rule("g", "short_lines", "short_lines", side, limit).drops(value) is eval(
        f"{value!r} {side} {limit!r}", {"inf": math.inf}
    )

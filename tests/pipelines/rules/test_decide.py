"""Every rule at its limit, with the limits and the sides as the papers print them, and the order in which rules are asked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.schema import Drop
from contract.scores import SCORES
from contract.settings.corpus import Filter
from pipelines.rules.decide import Rule, decide, rules_for
from pipelines.text.languages import UNITS, unit
from pipelines.text.stopwords import STOP_WORDS

EVERYTHING = Filter.model_validate({name: {"enabled": True} for name in ("c4", "mc4", "bloom")})

# (score, limit, whether a document exactly at the limit stays, which side of it goes, reason)
PRINTED = [
    ("duplicate_lines", 0.30, True, "above", Drop.DUPLICATE_LINES),
    ("duplicate_paragraphs", 0.30, True, "above", Drop.DUPLICATE_PARAGRAPHS),
    ("duplicate_line_chars", 0.20, True, "above", Drop.DUPLICATE_LINE_CHARS),
    ("duplicate_paragraph_chars", 0.20, True, "above", Drop.DUPLICATE_PARAGRAPH_CHARS),
    ("top_2gram", 0.20, True, "above", Drop.TOP_NGRAM),
    ("top_3gram", 0.18, True, "above", Drop.TOP_NGRAM),
    ("top_4gram", 0.16, True, "above", Drop.TOP_NGRAM),
    *(
        (f"duplicate_{n}grams", limit, True, "above", Drop.DUPLICATE_NGRAMS)
        for n, limit in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
    ("words", 50, True, "below", Drop.TOO_FEW_WORDS),
    ("words", 100_000, True, "above", Drop.TOO_MANY_WORDS),
    ("mean_word_chars", 3, True, "below", Drop.MEAN_WORD_LENGTH),
    ("mean_word_chars", 10, True, "above", Drop.MEAN_WORD_LENGTH),
    ("hash_ratio", 0.1, True, "above", Drop.HASH_RATIO),
    ("ellipsis_ratio", 0.1, True, "above", Drop.ELLIPSIS_RATIO),
    ("bullet_lines", 0.9, True, "above", Drop.BULLET_LINES),
    ("ellipsis_lines", 0.3, True, "above", Drop.ELLIPSIS_LINES),
    ("alpha_words", 0.8, True, "below", Drop.FEW_ALPHA_WORDS),
    ("stop_words", 2, True, "below", Drop.FEW_STOP_WORDS),
    ("removed_word_fraction", 0.05, True, "above", Drop.LINES_REMOVED),
    ("lorem_ipsum", 0, True, "above", Drop.C4_LOREM_IPSUM),
    ("curly_brackets", 0, True, "above", Drop.C4_CURLY_BRACKET),
    ("bad_words", 0, True, "above", Drop.C4_BAD_WORDS),
    ("sentences", 5, True, "below", Drop.C4_TOO_FEW_SENTENCES),
    ("long_lines", 3, True, "below", Drop.MC4_FEW_LONG_LINES),
    ("punctuated_lines", 0.12, False, "below", Drop.LINE_PUNCTUATION),
    ("kept_duplicate_line_chars", 0.1, False, "above", Drop.FINEWEB_DUPLICATE_LINE_CHARS),
    ("short_lines", 0.67, False, "above", Drop.SHORT_LINES),
    ("char_repetition", 0.106, True, "above", Drop.BLOOM_CHAR_REPETITION),
    ("word_repetition", 0.19, True, "above", Drop.BLOOM_WORD_REPETITION),
    ("special_chars", 0.4, True, "above", Drop.BLOOM_SPECIAL_CHARS),
    ("stop_word_fraction", 0.3, True, "below", Drop.BLOOM_STOP_WORDS),
    ("bad_word_fraction", 0.01, True, "above", Drop.BLOOM_FLAGGED_WORDS),
    ("perplexity", 1500, True, "above", Drop.BLOOM_PERPLEXITY),
]


@pytest.mark.parametrize(("score", "limit", "stays", "goes", "reason"), PRINTED)
def test_a_limit_is_the_printed_one_to_the_last_bit(score, limit, stays, goes, reason):
    rules = rules_for(EVERYTHING, "en")
    out = math.nextafter(limit, math.inf if goes == "above" else -math.inf)
    fine = math.nextafter(limit, -math.inf if goes == "above" else math.inf)
    assert decide({score: out}, rules) == (reason, out)
    assert decide({score: limit}, rules) == (None if stays else (reason, limit))
    assert decide({score: fine}, rules) is None


def test_no_rule_is_missing_above():
    rules = rules_for(EVERYTHING, "en")
    assert sorted((rule.score, rule.limit) for rule in rules) == sorted((row[0], float(row[1])) for row in PRINTED)
    assert {rule.score for rule in rules} == set(SCORES) - {"kept_words", "masked"}


def test_the_order_is_refinedwebs():
    groups = list(dict.fromkeys(rule.group for rule in rules_for(EVERYTHING, "en")))
    assert groups == ["gopher_repetition", "length", "gopher_quality", "lines", "c4", "mc4", "fineweb", "bloom"]
    worst = {"removed_word_fraction": 1.0, "words": 1, "duplicate_lines": 1.0}
    assert decide(worst, rules_for(Filter(), "en")) == (Drop.DUPLICATE_LINES, 1.0)
    assert decide(worst | {"duplicate_lines": 0.0}, rules_for(Filter(), "en")) == (Drop.TOO_FEW_WORDS, 1)


@given(st.sampled_from(["gopher_repetition", "gopher_quality", "c4", "mc4", "fineweb", "bloom"]))
def test_a_rule_set_that_is_off_asks_nothing(name):
    off = EVERYTHING.model_copy(update={name: getattr(EVERYTHING, name).model_copy(update={"enabled": False})})
    assert {rule.group for rule in rules_for(EVERYTHING, "en")} - {rule.group for rule in rules_for(off, "en")} == {
        name
    }


@pytest.mark.parametrize("language", ["zh", "ja", "th", "ko"])
def test_mean_length_is_not_asked_where_words_are_characters_or_syllables(language):
    assert Drop.MEAN_WORD_LENGTH not in {rule.reason for rule in rules_for(EVERYTHING, language)}


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


@given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.sampled_from([">", ">=", "<", "<="]))
def test_a_rule_compares_as_it_is_written(value, limit, side):
    assert Rule("g", Drop.SHORT_LINES, "short_lines", side, limit).drops(value) is eval(
        f"{value!r} {side} {limit!r}", {"inf": math.inf}
    )

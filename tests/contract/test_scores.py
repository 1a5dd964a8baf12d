"""The names of the scores are columns of files and keys of recipes: none goes, none comes twice, none moves."""

from contract.scores import NEEDED, SCORES
from contract.settings.corpus import Score
from contract.settings.filter import RULES

WRITTEN = [
    "duplicate_lines",
    "duplicate_line_chars",
    "duplicate_paragraphs",
    "duplicate_paragraph_chars",
    "top_2gram",
    "top_3gram",
    "top_4gram",
    "duplicate_5grams",
    "duplicate_6grams",
    "duplicate_7grams",
    "duplicate_8grams",
    "duplicate_9grams",
    "duplicate_10grams",
    "words",
    "mean_word_chars",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "stop_words",
    "lorem_ipsum",
    "curly_brackets",
    "bad_words",
    "long_lines",
    "char_repetition",
    "word_repetition",
    "special_chars",
    "stop_word_fraction",
    "bad_word_fraction",
    "perplexity",
    "removed_word_fraction",
    "kept_words",
    "sentences",
    "punctuated_lines",
    "kept_duplicate_line_chars",
    "short_lines",
    "masked",
]
"""The columns of files that exist. A new score may stand anywhere between them."""


def test_columns_that_exist_keep_their_names_and_order() -> None:
    assert [name for name in SCORES if name in WRITTEN] == WRITTEN


def test_each_score_has_a_name_of_its_own() -> None:
    assert len(SCORES) == len(set(SCORES))


def test_every_score_but_two_is_one_that_a_rule_judges() -> None:
    assert {rule.score for rule in RULES} == set(SCORES) - {"kept_words", "masked"}


def test_what_needs_a_file_names_the_setting_that_names_it() -> None:
    assert NEEDED == {
        "perplexity": "perplexity_model", "bad_words": "bad_words", "bad_word_fraction": "bad_words",
    }  # fmt: skip
    assert set(NEEDED.values()) <= set(Score.model_fields)

"""The names of what is measured are columns of files and keys of recipes: none goes, none comes twice."""

from contract.scores import NEEDED, SCORES
from contract.settings.corpus import Score


def test_repetition_is_measured_for_these_ngrams() -> None:
    made = [name for name in SCORES if name.rstrip("s").endswith("gram")]
    assert made == [f"top_{n}gram" for n in (2, 3, 4)] + [f"duplicate_{n}grams" for n in (5, 6, 7, 8, 9, 10)]


def test_each_score_has_a_name_of_its_own() -> None:
    assert len(SCORES) == len(set(SCORES))


def test_what_needs_a_file_names_the_setting_that_names_it() -> None:
    assert set(NEEDED) <= set(SCORES)
    assert set(NEEDED.values()) == {"perplexity_model", "bad_words"} <= set(Score.model_fields)

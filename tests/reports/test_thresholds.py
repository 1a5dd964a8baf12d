"""What another threshold keeps is what `filter` keeps with it."""

import pytest

from contract.errors import InputError
from reports import indexes, thresholds


def test_another_threshold_moves_the_documents_that_filter_would_move(searched):
    tried = thresholds.attempt(searched.run, "min_words", 3)
    assert (tried.kept, tried.change, tried.words_change, tried.override) == (4, 1, 3, "filter.min_words=3")
    assert [hit.id for hit in tried.changed] == [searched.ids["brief"]]
    tried = thresholds.attempt(searched.run, "min_words", 11)
    assert (tried.change, [hit.id for hit in tried.changed]) == (-1, [searched.ids["other"]])
    assert thresholds.attempt(searched.run, "min_words", 5).change == 0
    counted = thresholds.steps(searched.run, "min_words")
    assert sum(counted.documents) == 7
    assert 2.0 in counted.step
    assert thresholds.choices(counted, tried.rule) == sorted({*counted.step, 5})


@pytest.mark.parametrize(
    ("asked", "taken", "text"),
    [
        (0.1549, 0.15, "0.15"),
        (1234, 1200, "1200"),
        (0, 0, "0"),
        (7, 7, "7"),
        (0.00004, 0, "0"),
        (0.00007, 0.0001, "0.0001"),
    ],
)
def test_a_threshold_is_tried_at_the_nearest_step(asked, taken, text):
    assert thresholds.nearest(asked, 5) == taken
    assert thresholds.override("min_words", taken) == f"filter.min_words={text}"
    assert thresholds.nearest(0.1055, 0.1055) == 0.1055


def test_what_is_no_threshold_is_refused(searched):
    with pytest.raises(InputError, match="no threshold that this recipe uses"):
        thresholds.steps(searched.run, "c4.min_sentences")
    for limit in (float("nan"), -1, float("inf")):
        with pytest.raises(InputError, match="is no threshold"):
            thresholds.attempt(searched.run, "min_words", limit)


def test_a_threshold_that_judged_nothing_says_why(searched, commit_documents, monkeypatch):
    def why(run, setting="min_words"):
        with pytest.raises(InputError) as found:
            thresholds.steps(run, setting)
        return str(found.value).partition(" cannot be tried: ")[2]

    partition = searched.run.segments[0].partition
    searched.run.store.delete(f"{searched.run.task('filter', partition).prefix}/manifest.json")
    monkeypatch.setattr(indexes, "_REMEMBERED", indexes._Remembered())
    assert why(searched.run) == "filter is not done yet."
    commit_documents(searched.run, "filter", partition, [])
    assert why(searched.run) == "filter was given no document."


@pytest.mark.parametrize(
    ("overrides", "setting", "why"),
    [
        ({"filter.bloom.enabled": True}, "bloom.max_perplexity", "the score perplexity; score measures it only if score.perplexity_model is set."),
        ({"filter.gopher_quality.enabled": True}, "gopher_quality.min_stop_words", "the score stop_words; score did not measure it."),
    ],
)  # fmt: skip
def test_a_score_that_was_not_measured_is_named(
    scored_run, make_document, run_stage, without_spark, overrides, setting, why
):
    run = scored_run([[make_document("a b c", language="eo")]], overrides)
    run_stage(run, "filter")
    with pytest.raises(InputError, match=f"no document in whose language the rule is asked has {why}"):
        thresholds.steps(run, setting)
    assert thresholds.steps(run, "min_words").documents == (1,)

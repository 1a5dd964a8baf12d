"""What another threshold keeps is what `filter` keeps with it."""

import pytest

from contract.errors import InputError
from contract.manifest import need
from reports import thresholds


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


def test_results_without_steps_say_so(searched, commit_documents):
    run = searched.run
    partition = run.segments[0].partition
    done = need(run.store, run.task("filter", partition))
    path = f"{done.prefix}/manifest.json"
    data = done.model_copy(update={"files": tuple(file for file in done.files if file.kind != "steps")})
    run.store.write_bytes(path, data.model_dump_json().encode())
    with pytest.raises(InputError, match="did not count documents at each"):
        thresholds.steps(run, "min_words")

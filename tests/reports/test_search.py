"""Documents are found by what is known of them, page after page, and those that went are told once."""

import pytest

from contract.errors import InputError
from contract.manifest import Attempt, Rows
from reports import indexes, search
from reports.search import KEPT, Query


def names(searched, found):
    by_id = {key: name for name, key in searched.ids.items()}
    return [by_id[hit.id] for hit in found.hits]


def pages(run, query, size):
    """Every page of a search, one after the other."""
    found = search.search(run, query, size)
    yield found
    while found.after:
        found = search.search(run, Query(**{**query.__dict__, "after": found.after}), size)
        yield found


def test_an_id_finds_what_became_of_the_document(searched):
    [hit] = search.search(searched.run, Query(id=searched.ids["short"])).hits
    assert (hit.stage, hit.reason, hit.value, hit.snippet) == ("filter", "too_few_words", "2", "two words")
    [hit] = search.search(searched.run, Query(id=searched.ids["copy"])).hits
    assert (hit.stage, hit.reason, hit.value) == ("dedup_fuzzy", "near_duplicate", searched.ids["plain"])
    [hit] = search.search(searched.run, Query(id=searched.ids["plain"])).hits
    assert (hit.stage, hit.reason, hit.url) == ("score", None, "https://www.example.org/a")
    assert search.search(searched.run, Query(id="f" * 32)) == search.Found(())
    with pytest.raises(InputError, match="32 hexadecimal digits"):
        search.search(searched.run, Query(id="' or 1=1"))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("example.org", ["brief", "short", "copy", "plain"]),
        ("https://example.org/short", ["brief", "short"]),
        ("https://example.org/short?x=1", ["short"]),
        ("HTTP://EXAMPLE.ORG:80/short?utm_source=y&x=1#top", ["short"]),
        ("https://example.org/short?utm_source=y", ["brief", "short"]),
        ("https://example.org/short?", ["brief", "short"]),
        ("example.org/short", ["brief", "short"]),
        ("www.example.org", ["plain"]),
        ("evil.test", ["hostile", "tiny"]),
        ("nowhere.test", []),
    ],
)
def test_an_address_is_found_from_its_beginning_and_a_host_with_its_subdomains(searched, asked, found):
    assert names(searched, search.search(searched.run, Query(address=asked))) == found


def test_an_address_may_be_narrowed(searched):
    def found(**asked):
        return names(searched, search.search(searched.run, Query(address="example.org", **asked)))

    assert found(reason=KEPT) == ["plain"]
    assert found(reason="too_few_words") == ["brief", "short"]
    assert found(language="de") == ["brief"]
    assert found(stage="dedup_fuzzy") == ["copy"]
    assert found(stage="score") == []
    assert found(stage="filter", reason=KEPT) == ["copy", "plain"]
    assert found(words="THREE these") == ["brief"]


def test_a_long_address_is_told_apart_by_its_beginning(searched):
    found = search.search(searched.run, Query(address="https://example.org/" + "a" * 300))
    assert found == search.Found((), notes=(search.LONG,))


@pytest.mark.parametrize("size", [1, 2, 50])
def test_lists_go_on_page_after_page(searched, size, monkeypatch):
    ids = searched.ids
    dropped = [*sorted(["short", "brief", "tiny"], key=ids.get), "copy"]  # by segment, then of the whole corpus
    kept = sorted(["plain", "hostile", "other"], key=ids.get)
    for query, every in (
        (Query(), dropped),
        (Query(reason="too_few_words"), [name for name in dropped if name != "copy"]),
        (Query(stage="dedup_fuzzy"), ["copy"]),
        (Query(stage="filter", language="de"), ["brief"]),
        (Query(reason=KEPT), kept),
        (Query(reason=KEPT, language="de"), []),
        (Query(reason=KEPT, stage="filter"), sorted([*kept, "copy"], key=ids.get)),
        (Query(address="example.org"), ["brief", "short", "copy", "plain"]),
        (Query(address="example.org", reason=KEPT), ["plain"]),
        (Query(address="example.org", words="these"), ["brief"]),
        (Query(address="e", reason=KEPT), []),
        (Query(words="wordb"), ["copy"]),
        (Query(words="alert(1)"), ["tiny"]),
        (Query(reason="no_such"), []),
    ):
        found = list(pages(searched.run, query, size))
        assert [name for page in found for name in names(searched, page)] == every, query
        assert all(len(page.hits) <= size for page in found)
        assert all(2 * len(page.hits) >= size for page in found if page.after), (
            "a page with a next one is no empty page"
        )


def test_a_search_by_address_stops_in_time_and_goes_on(searched, monkeypatch):
    """Rows of what was dropped are read and not told."""
    monkeypatch.setattr(search, "ADDRESS_S", -1)
    asked = Query(address="example.org", reason=KEPT)
    first = search.search(searched.run, asked, 2)
    assert (first.hits, first.notes) == ((), ("2 rows were looked at for this page. Go on with the next page.",))
    assert [name for page in pages(searched.run, asked, 2) for name in names(searched, page)] == ["plain"]


def test_small_row_groups_change_nothing(searched, monkeypatch, run_stage):
    """A table of one row a group is read group by group."""
    monkeypatch.setattr("pipelines.spark.places.GROUP_ROWS", 1)
    for (stage, _), task in searched.run.tasks().items():
        if stage in ("score", "filter"):
            searched.run.store.delete(f"{task.prefix}/manifest.json")
    run_stage(searched.run, "score")
    run_stage(searched.run, "filter")
    kept = sorted(["plain", "hostile", "other"], key=searched.ids.get)
    assert [name for page in pages(searched.run, Query(reason=KEPT), 1) for name in names(searched, page)] == kept
    assert names(searched, search.search(searched.run, Query(address="example.org"))) == [
        "brief",
        "short",
        "copy",
        "plain",
    ]


@pytest.mark.parametrize("query", [Query(after="x"), Query(address="a.org", after="x:y"), Query(words="a", after="1:2"), Query(reason=KEPT, after="zz")])  # fmt: skip
def test_a_wrong_continuation_is_refused(searched, query):
    with pytest.raises(InputError, match="is not where a page ends"):
        search.search(searched.run, query)


def test_words_of_kept_documents_are_not_looked_for_and_the_page_says_so(searched):
    assert search.search(searched.run, Query(words="wordb", reason=KEPT)) == search.Found(
        (), notes=(search.DROPPED_ONLY,)
    )


def test_a_search_for_words_stops_in_time_and_goes_on(searched, monkeypatch):
    monkeypatch.setattr(search, "WORDS_S", -1)
    first = search.search(searched.run, Query(words="e"))
    assert first.after
    assert "of 4 dropped documents were searched" in first.notes[0]
    every = [name for page in pages(searched.run, Query(words="e"), 50) for name in names(searched, page)]
    assert sorted(every) == ["brief", "copy", "tiny"]


def test_results_without_an_index_are_named(searched):
    run = searched.run
    attempt = Attempt(run, run.task("dedup_substring"))
    attempt.commit([], Rows(read=3, kept=2, dropped=1, reasons={"substring_too_short": 1}))
    assert search.search(run, Query(id="f" * 32)).notes == (
        "What dedup_substring dropped cannot be searched: an older version wrote it without an index. Start the run again.",
    )


def test_an_id_that_was_kept_is_sought_in_few_tables(searched, monkeypatch):
    """A corpus has hundreds of tables; those of other segments and earlier stages cannot have a kept document."""
    opened = []
    look_up = indexes._look_up
    monkeypatch.setattr(
        indexes,
        "_look_up",
        lambda store, tasks, keys: opened.append([one.stage for one in tasks]) or look_up(store, tasks, keys),
    )
    tasks, _ = indexes.indexed(searched.run)
    for name, stages in (("copy", ["score", "dedup_fuzzy"]), ("short", ["filter", "score"])):
        [places] = indexes.find(searched.run.store, tasks, [searched.ids[name]]).values()
        assert sorted(place.task.stage for place in places) == sorted(stages)
    assert indexes.find(searched.run.store, tasks, ["f" * 32]) == {}
    assert opened[-1] == [one.stage for one in tasks if one.stage not in indexes.KEEPERS and one.partition != "all"]

"""What polls keep of crawls, and what a backfill finds there."""

from dataclasses import FrozenInstanceError

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import RecipeError
from gristmill_airflow.known import Kept, at_source, kept, report

CC, NEWS = "https://data.commoncrawl.org", "/data/news"
SEEN = {
    CC: {"offered": ["CC-MAIN-2024-18", "CC-MAIN-2024-10"], "recipe_name": "base", "overrides": ["ppo.steps=2"]},
    NEWS: {"offered": ["NEWS-2024-10"], "recipe_name": "tiny", "overrides": ["crawl.source=news"]},
}


def test_each_crawl_has_the_recipe_and_the_source_by_which_it_was_seen():
    assert kept(SEEN, "CC-MAIN-2024-10") == Kept("base", ("ppo.steps=2", f"crawl.source={CC}"))
    assert kept(SEEN, "NEWS-2024-10") == Kept("tiny", (f"crawl.source={NEWS}",))
    assert kept(SEEN, "CC-MAIN-2023-50") is None


def test_a_crawl_of_two_sources_is_refused_with_both():
    copy = {**SEEN, "/copy": {**SEEN[NEWS], "recipe_name": "base"}}
    with pytest.raises(
        RecipeError, match=r"^crawl NEWS-2024-10: /data/news and /copy both offer it; .* crawl.source=\.\.\."
    ):
        kept(copy, "NEWS-2024-10")
    assert kept(copy, "CC-MAIN-2024-10") == kept(SEEN, "CC-MAIN-2024-10")
    assert list(report(copy))[-1].startswith("crawl NEWS-2024-10 is offered by several sources")


def test_a_note_of_an_earlier_version_counts_as_none():
    older = {"/old": {"run": "a", "offered": ["NEWS-2024-10", "OLD-2023-01"], "fresh": []}, **SEEN}
    assert kept(older, "OLD-2023-01") is None
    assert kept(older, "NEWS-2024-10") == kept(SEEN, "NEWS-2024-10")
    assert list(report(older)) == list(report(SEEN))


def test_the_log_says_which_crawls_are_known():
    assert list(report(SEEN)) == [
        f"known at {CC}, to be run with recipe base with ppo.steps=2: CC-MAIN-2024-18, CC-MAIN-2024-10 (2)",
        f"known at {NEWS}, to be run with recipe tiny: NEWS-2024-10 (1)",
    ]


def test_a_plain_source_stands_as_it_is_and_any_other_in_quotes():
    for source in (CC, f"{CC}/", "/data/news", "s3://bucket/a-b.c_d:8"):
        assert at_source(["a.b=1"], source) == ["a.b=1", f"crawl.source={source}"]
    for source in ("/data/my news", "/data/#1", "relative/folder", "/ends:", "/a,b"):
        assert at_source([], source) == [f'crawl.source="{source}"']
    long = "/many words" * 50
    assert at_source([], long) == [f'crawl.source="{long}"'], "one line"


def test_a_crawl_of_one_source_alone_needs_no_form():
    assert [line for line in report(SEEN) if "several" in line] == []
    twice = {**SEEN, "/b": SEEN[NEWS], "/a": SEEN[CC]}
    said = [line.split()[1] for line in report(twice) if "several" in line]
    assert said == ["CC-MAIN-2024-10", "CC-MAIN-2024-18", "NEWS-2024-10"]
    with pytest.raises(FrozenInstanceError):
        kept(SEEN, "NEWS-2024-10").recipe = "other"


@given(st.one_of(st.text(min_size=1).map("/".__add__), st.sampled_from([CC, "s3://bucket/a b: c", "/a #b", "/d:"])))
def test_any_source_is_read_back_from_its_override(source):
    (line,) = at_source(["crawl.source=other"], source)
    assert yaml.safe_load(line.removeprefix("crawl.source=")) == source

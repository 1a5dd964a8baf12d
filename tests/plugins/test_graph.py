"""The tasks that are no stages: which crawls a poll publishes, whatever became of the poll before; how many segments are too many."""

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from contract import fetch, sources
from contract.sources import Segment, Source
from gristmill_airflow import graph, stage
from gristmill_airflow.assets import CRAWL, SEEN

OLD, NEW, NEWEST = "CC-MAIN-2024-10", "CC-MAIN-2024-18", "CC-MAIN-2024-22"


@pytest.fixture
def state():
    """CRAWL's state store."""
    return {}


@pytest.fixture
def events():
    """The asset events of polls."""
    return []


@pytest.fixture
def poll(monkeypatch, state, events):
    """`poll("run a", [NEW, OLD], ended_well=("run z",))` -> what the task publishes. Its state and events last for the test."""
    store = SimpleNamespace(get=state.get, set=state.__setitem__)

    def call(run_id, offered, ended_well=(), **said):
        event = SimpleNamespace(extra={}, add_partitions=lambda keys: None)
        events.append(event)
        context = {
            "params": {"recipe": "tiny", "overrides": None, **said},
            "run_id": run_id,
            "dag_run": SimpleNamespace(conf=said),
            "dag": SimpleNamespace(dag_id="crawl_refresh"),
            "ti": SimpleNamespace(get_dr_count=lambda dag_id, run_ids, states: len(set(run_ids) & set(ended_well))),
            "asset_state_store": {CRAWL: store},
            "outlet_events": {CRAWL: event},
        }
        monkeypatch.setattr(graph, "get_current_context", lambda: context)
        monkeypatch.setattr(graph, "list_snapshots", lambda source: list(offered))
        try:
            return graph.poll.function()
        except AirflowSkipException:
            return []

    return call


def test_a_crawl_is_published_once(poll):
    assert poll("a", [NEW, OLD]) == [NEW]
    assert poll("b", [NEW, OLD], ended_well=["a"]) == []
    assert poll("c", [NEWEST, NEW, OLD], ended_well=["a", "b"]) == [NEWEST]


def test_a_poll_killed_before_airflow_published_finds_the_same_again(poll):
    assert poll("a", [NEW, OLD]) == [NEW]
    assert poll("a", [NEW, OLD]) == [NEW], "its retry"
    assert poll("b", [NEWEST, NEW, OLD]) == [NEW, NEWEST], "the next run, after the first failed for good"
    assert poll("c", [NEWEST, NEW, OLD], ended_well=["b"]) == []


def test_recipe_overrides_and_source_are_kept_beside_the_crawls_and_published(poll, state, events, caplog):
    changes = ["ppo.steps=2", "crawl.source=/data/news"]
    with caplog.at_level("INFO"):
        poll("manual__a", [OLD], recipe="base", overrides=changes)
    kept = {"recipe_name": "base", "overrides": changes}
    assert state[SEEN] == {"/data/news": {"run": "manual__a", "offered": [OLD], "fresh": [OLD], **kept}}
    assert events[-1].extra == kept
    assert caplog.messages[0] == "uses recipe base, all crawls of /data/news, as the form says; with ppo.steps=2"
    assert caplog.messages[-1] == f"known at /data/news, to be run with recipe base with ppo.steps=2: {OLD} (1)"


def test_the_schedule_asks_where_a_person_last_told_it_to(poll, state, events, caplog):
    poll("manual__a", [OLD], recipe="base", overrides=["crawl.source=/data/news"])
    caplog.clear()
    with caplog.at_level("INFO"):
        assert poll("scheduled__b", [NEW, OLD], ended_well=["manual__a"]) == [NEW]
    assert events[-1].extra == {"recipe_name": "base", "overrides": ["crawl.source=/data/news"]}
    assert list(state[SEEN]) == ["/data/news"]
    assert caplog.messages[0] == "uses recipe base, all crawls of /data/news, as manual__a was told"
    poll("manual__c", [OLD], recipe="tiny")
    poll("scheduled__d", [NEW, OLD], ended_well=["manual__c"])
    assert state[SEEN]["https://data.commoncrawl.org"]["run"] == "scheduled__d"


def test_a_recipe_that_is_refused_is_not_remembered(poll, state):
    with pytest.raises(AirflowFailException, match=r"filter\.min_word: unknown key"):
        poll("manual__a", [OLD], recipe="base", overrides=["filter.min_word=1"])
    assert state == {}


@pytest.mark.parametrize("name", ["resolve", "poll"])
def test_a_source_that_cannot_be_reached_fails_once_and_shows_no_secret(name, monkeypatch, tmp_path, caplog):
    """The asking has taken as long as a person waits: a retry of the task would take it again."""
    hidden = []
    monkeypatch.setattr(stage, "mask_secret", hidden.append)
    for asks in (fetch.get, sources.list_snapshots):
        monkeypatch.setattr(asks, "__defaults__", (1.5,))
    source = "http://me:geheim@127.0.0.1:9/x?sig=S3CRET"
    context = {
        "triggering_asset_events": {},
        "params": {"recipe": "tiny", "overrides": [f"crawl.source={source}", f"store={tmp_path}"]},
        "dag_run": SimpleNamespace(partition_key=None, conf={}),
        "dag": SimpleNamespace(dag_id="corpus"),
        "run_id": "one",
        "asset_state_store": {CRAWL: {}},
    }
    monkeypatch.setattr(graph, "get_current_context", lambda: context)
    with pytest.raises(
        AirflowFailException, match=r"^http://\*\*\*@127\.0\.0\.1:9/x\?\*\*\*: cannot be reached for 1\.5 s; check"
    ):
        getattr(graph, name).function()
    assert {"geheim", "sig=S3CRET", "S3CRET"} <= set(hidden)
    told = [one.levelname for one in caplog.records if "Connection refused" in one.getMessage()]
    assert told == ["WARNING", "ERROR"], "one retry, one error"


def test_a_setting_that_a_later_stage_refuses_is_refused_before_the_first(resolve_run, tmp_path):
    """By the command itself, in its own process, and for good: a retry changes nothing."""
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    good = resolve_run(tmp_path / "crawl")
    assert graph.segments.function(good.uri) == [good.segments[0].partition]
    bad = resolve_run(tmp_path / "crawl", {"langid.languages": ["eo"]}, "two")
    with pytest.raises(AirflowFailException, match=r"^langid\.languages: there are no stop words for eo; set filter"):
        graph.segments.function(bad.uri)


def test_more_segments_than_airflow_maps_are_refused(monkeypatch):
    file = Source("/data/a.warc", "a.warc", 1, "a")
    run = SimpleNamespace(segments=[Segment(NEW, index, (file, file)) for index in range(5)])
    monkeypatch.setattr(graph, "open_run", lambda uri: run)
    monkeypatch.setattr(graph, "check", lambda uri: [])
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "5")
    assert len(graph.segments.function("uri")) == 5
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "4")
    with pytest.raises(AirflowFailException, match=r"10 files in 5 segments .* set crawl.files_per_segment=3 or more"):
        graph.segments.function("uri")

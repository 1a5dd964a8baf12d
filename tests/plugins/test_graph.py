"""The tasks that are no stages: which crawls a poll publishes, whatever became of the poll before; how many segments are too many."""

from types import SimpleNamespace

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from contract import fetch, sources
from contract.digest import split_digest
from contract.manifest import Attempt
from contract.plan import open_run
from contract.results import Gate, Ppo, Sft
from contract.sources import Segment, Source
from gristmill_airflow import alerts, graph
from gristmill_airflow.assets import ALIGNED, CRAWL, RESOLVED, SEEN, TOLD

OLD, NEW, NEWEST = "CC-MAIN-2024-10", "CC-MAIN-2024-18", "CC-MAIN-2024-22"


@pytest.fixture
def state():
    """CRAWL's state store."""
    return {}


@pytest.fixture
def events():
    """The asset events of polls."""
    return []


def recorded():
    """An asset event that keeps the partitions that are published with it."""
    partitions = []
    keep = lambda keys: partitions.extend([keys] if isinstance(keys, str) else keys)  # noqa: E731 (as Airflow takes them)
    return SimpleNamespace(extra={}, partitions=partitions, add_partitions=keep)


@pytest.fixture
def poll(monkeypatch, state, events):
    """`poll("run a", [NEW, OLD], ended_well=("run z",))` -> what the task publishes. Its state and events last for the test."""
    store = SimpleNamespace(get=state.get, set=state.__setitem__)

    def call(run_id, offered, ended_well=(), **said):
        event = recorded()
        events.append(event)
        context = {
            "params": {"recipe": "tiny", "overrides": None, **said},
            "run_id": run_id,
            "dag_run": SimpleNamespace(conf=said, run_type=run_id.partition("__")[0]),
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


def test_what_a_poll_finds_is_published_under_each_crawls_name(poll, events):
    poll("a", [NEW, OLD])
    poll("b", [NEWEST, NEW, OLD], ended_well=["a"])
    poll("c", [NEWEST, NEW, OLD], ended_well=["a", "b"])
    assert [event.partitions for event in events] == [[NEW], [NEWEST], []]
    how = {"recipe_name": "tiny", "overrides": ["crawl.source=https://data.commoncrawl.org"]}
    assert [event.extra for event in events] == [how, how, {}]


def test_a_poll_that_finds_nothing_says_what_there_is(poll, monkeypatch):
    poll("a", [NEW, OLD])
    seen = {}

    def skip(why):
        seen["why"] = why
        return AirflowSkipException(why)

    monkeypatch.setattr(graph, "AirflowSkipException", skip)
    assert poll("b", [NEW, OLD], ended_well=["a"]) == []
    assert seen["why"] == f"no new crawl; the newest of 2 is {NEW}"


def test_what_a_person_said_is_kept_under_the_run_that_said_it(poll, state):
    poll("scheduled__a", [OLD])
    assert TOLD not in state
    poll("manual__b", [OLD], recipe="base", overrides=["ppo.steps=2"])
    poll("scheduled__c", [OLD])
    assert state[TOLD] == {"run": "manual__b", "recipe_name": "base", "overrides": ["ppo.steps=2"]}


@pytest.fixture
def context(monkeypatch, tmp_path):
    """What `resolve` is given: the form names a recipe over two crawl files. It may be changed before the task runs."""
    (tmp_path / "crawl").mkdir()
    for name in ("a", "b"):
        (tmp_path / "crawl" / f"{name}.warc").write_bytes(b"WARC")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"snapshots: []\nstore: {tmp_path}/store\ncrawl: {{source: {tmp_path}/crawl, files_per_segment: 1}}\n"
    )
    made = {
        "params": {"recipe": str(recipe), "crawl": None, "overrides": ["filter.min_words=7"], "run": None},
        "triggering_asset_events": {},
        "dag_run": SimpleNamespace(partition_key=None, conf=None, run_type="manual"),
        "dag": SimpleNamespace(dag_id="corpus"),
        "run_id": "manual__2026-11-20T14:00",
        "asset_state_store": {CRAWL: {}},
        "outlet_events": {RESOLVED: recorded()},
    }
    monkeypatch.setattr(graph, "get_current_context", lambda: made)
    return made


def test_a_run_is_resolved_published_and_logged(context, tmp_path, caplog):
    with caplog.at_level("INFO"):
        uri = graph.resolve.function()
    place, digest = split_digest(uri)
    assert place == f"file://{tmp_path}/store/runs/corpus.manual__2026-11-20T14-00/recipe.yaml"
    assert digest is not None
    run = open_run(uri)
    assert run.recipe.filter.min_words == 7
    (crawl,) = run.recipe.snapshots
    event = context["outlet_events"][RESOLVED]
    used = f"crawl {crawl} of {tmp_path}/crawl, as the form says; with filter.min_words=7"
    assert event.partitions == [crawl]
    assert event.extra == {"recipe": uri, "uses": f"uses recipe {tmp_path}/mine.yaml, {used}"}
    said = [message for message in caplog.messages if message.startswith(("uses", "run:", "crawl:"))]
    assert said[0].startswith(f"uses recipe {tmp_path}/mine.yaml, the newest crawl of ")
    assert said[1:] == [f"run: {uri}", f"crawl: {crawl}, 2 files in 2 segments"]


def test_a_run_goes_on_with_the_newest_event_of_the_dag_before_it(context, resolve_run, tmp_path):
    old, new = (resolve_run(tmp_path / "crawl", name=name).uri for name in ("old", "new"))
    events = [SimpleNamespace(timestamp=stamp, extra={"recipe": uri}) for stamp, uri in ((2, new), (1, old))]
    context["triggering_asset_events"] = {"corpus": events[:1], "other": events[1:]}
    assert graph.resolve.function() == new


def test_a_backfill_finds_what_a_poll_kept(context, tmp_path):
    source = f"{tmp_path}/crawl"
    (crawl,) = graph.list_snapshots(source)
    how = {"recipe_name": context["params"]["recipe"], "overrides": ["filter.min_words=9"]}
    context["asset_state_store"] = {CRAWL: {SEEN: {source: {"offered": [crawl], **how}}}}
    context["dag_run"].partition_key = crawl
    assert open_run(graph.resolve.function()).recipe.filter.min_words == 9


def test_a_wrong_request_fails_the_task_for_good(context):
    context["params"]["overrides"] = ["filter.min_word=1"]
    with pytest.raises(AirflowFailException, match=r"filter\.min_word: unknown key"):
        graph.resolve.function()


def test_a_round_needs_the_finished_model(context, resolve_run, tmp_path):
    done, gate, shut = resolve_run(tmp_path / "crawl"), Gate.model_construct, "ppo of this recipe is not done"
    Attempt(done, done.task("gate")).commit([], result=gate(open=True, accuracy=0.7, low=0.6, high=0.8, threshold=0.5))
    context["dag"].dag_id = "feedback"
    context["params"] |= {"recipe": None, "run": done.uri, "overrides": []}
    with pytest.raises(AirflowFailException, match=shut):
        graph.resolve.function()
    Attempt(done, done.task("ppo")).commit([], result=Ppo.model_construct(reward_first=0.0, reward_last=1.0))
    assert graph.resolve.function() == done.uri
    context["params"]["overrides"] = ["ppo.steps=4"]
    with pytest.raises(AirflowFailException, match=shut):
        graph.resolve.function()
    context["params"]["overrides"] = ["ppo.steps=4", "sample.models=[sft]"]
    context["run_id"] = "manual__of_sft"
    assert open_run(graph.resolve.function()).recipe.ppo.steps == 4
    context["params"]["overrides"] = ["ppo.steps=5"]
    context["run_id"], context["dag"].dag_id = "manual__align", "align"
    assert open_run(graph.resolve.function()).recipe.ppo.steps == 5


def test_a_round_goes_by_the_tuned_model_where_the_gate_is_closed(context, resolve_run, tmp_path):
    done = resolve_run(tmp_path / "crawl")
    shut = Gate.model_construct(open=False, accuracy=0.5, low=0.4, high=0.6, threshold=0.55)
    Attempt(done, done.task("gate")).commit([], result=shut)
    context["dag"].dag_id = "feedback"
    context["params"] |= {"recipe": None, "run": done.uri, "overrides": []}
    assert graph.resolve.function() == done.uri


def test_edges_lead_from_what_a_stage_reads_or_from_the_first_task():
    drawn = {}
    names = ("sft", "reward", "gate", "ppo")
    operators = {
        name: SimpleNamespace(set_upstream=lambda found, name=name: drawn.__setitem__(name, found)) for name in names
    }
    graph.connect(operators, "first")
    sft, reward, gate, _ = (operators[name] for name in names)
    assert drawn == {"sft": ["first"], "reward": [sft], "gate": [reward], "ppo": [sft, reward, gate]}


def test_each_stage_gets_its_own_options():
    made = graph.stages(["sft", "ppo"], ppo={"needs_open_gate": True})
    assert [(name, one.stage, one.needs_open_gate) for name, one in made.items()] == [
        ("sft", "sft", False),
        ("ppo", "ppo", True),
    ]


def test_a_failed_task_is_tried_twice_more_within_minutes():
    assert graph.RETRIES == {
        "retries": 2, "retry_delay": 5.0, "retry_exponential_backoff": 2, "max_retry_delay": 120.0,
    }  # fmt: skip


def test_the_last_model_is_published_and_the_one_before_where_it_was_left_out(resolve_run, tmp_path, monkeypatch):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    run = resolve_run(tmp_path / "crawl")
    with DAG("align"):
        last = graph.publish_last(ALIGNED, "dpo", "ppo", otherwise="sft").operator
    assert (last.task_id, last.outlets, last.trigger_rule) == ("publish", [ALIGNED], "none_failed_min_one_success")
    event = recorded()
    context = {"task": last, "outlet_events": {ALIGNED: event}}
    monkeypatch.setattr(graph, "get_current_context", lambda: context)
    with pytest.raises(AirflowFailException, match="none of ppo, sft has a manifest; nothing to publish"):
        last.python_callable(run.uri)
    results = {
        "sft": Sft.model_construct(examples=7),
        "ppo": Ppo.model_construct(reward_first=1.0, reward_last=2.0, kl_first=0.0, kl_last=0.5),
    }
    for name, result in results.items():
        uri = run.store.full(Attempt(run, run.task(name)).commit([], result=result).path)
        assert last.python_callable(run.uri) == uri
        assert (event.extra["recipe"], event.extra["manifest"]) == (run.uri, uri)
    assert event.partitions == [run.recipe.snapshots[0]] * 2
    assert event.extra["summary"] == "reward 1 -> 2, KL 0 -> 0.5"
    assert event.extra["figures"] == {
        "reward_first": 1, "reward_last": 2, "kl_first": 0, "kl_last": 0.5, "examples": 7,
    }  # fmt: skip


def test_the_tasks_before_ppo_may_ask_a_person():
    with DAG("align"):
        operators = {name: EmptyOperator(task_id=name) for name in ("gate", "ppo", "dpo", "grpo")}
        graph.ask_before_ppo(operators)
    assert operators["gate"].downstream_task_ids == {"approval"}
    assert all(operators[name].upstream_task_ids == {"approval"} for name in ("ppo", "dpo", "grpo"))


def test_all_dags_share_owner_tags_and_deadline(monkeypatch):
    monkeypatch.delenv("GRISTMILL_ON_FAILURE", raising=False)
    shared = graph.common("spark")
    assert shared["default_args"] == {**graph.RETRIES, "owner": "gristmill"}
    assert shared["tags"] == ["gristmill", "spark"]
    assert shared["deadline"].interval.total_seconds() == 6 * 3600
    assert shared["on_failure_callback"] is None
    monkeypatch.setenv("GRISTMILL_ON_FAILURE", "ours.notify")
    assert graph.common()["on_failure_callback"] is alerts.tell


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
    assert caplog.messages[0] == "uses recipe base, all crawls of /data/news, as set in manual__a"
    poll("manual__c", [OLD], recipe="tiny")
    poll("scheduled__d", [NEW, OLD], ended_well=["manual__c"])
    assert state[SEEN]["https://data.commoncrawl.org"]["run"] == "scheduled__d"


def test_a_recipe_that_is_refused_is_not_remembered(poll, state):
    with pytest.raises(AirflowFailException, match=r"filter\.min_word: unknown key"):
        poll("manual__a", [OLD], recipe="base", overrides=["filter.min_word=1"])
    assert state == {}


@pytest.mark.parametrize("name", ["resolve", "poll"])
@pytest.mark.parametrize(
    ("run_type", "conf", "failure"),
    [
        ("manual", {"recipe": "tiny"}, AirflowFailException),
        ("manual", {}, AirflowException),
        ("asset_triggered", {}, AirflowException),
        ("scheduled", None, AirflowException),
        ("backfill", {"recipe": "tiny"}, AirflowException),
    ],
)
def test_a_source_that_cannot_be_reached_fails_at_once_only_where_a_person_waits(
    name, run_type, conf, failure, monkeypatch, tmp_path, caplog
):
    """For a person the asking has taken long enough; a run that nobody watches is retried."""
    for asks in (fetch.get, sources.list_snapshots, sources.list_segments):
        monkeypatch.setattr(asks, "__defaults__", (1.5,))
    source = "http://127.0.0.1:9/x"
    context = {
        "triggering_asset_events": {},
        "params": {"recipe": "tiny", "overrides": [f"crawl.source={source}", f"store={tmp_path}"]},
        "dag_run": SimpleNamespace(partition_key=None, conf=conf, run_type=run_type),
        "dag": SimpleNamespace(dag_id="corpus"),
        "run_id": "one",
        "asset_state_store": {CRAWL: SimpleNamespace(get={}.get, set={}.__setitem__)},
    }
    monkeypatch.setattr(graph, "get_current_context", lambda: context)
    with pytest.raises(
        AirflowException, match=r"^http://127\.0\.0\.1:9/x/.*: cannot be reached for 1\.5 s; check"
    ) as error:
        getattr(graph, name).function()
    assert error.type is failure
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


def test_more_segments_than_airflow_maps_are_refused(monkeypatch, caplog):
    file = Source("/data/a.warc", "a.warc", 1, "a")
    run = SimpleNamespace(segments=[Segment(NEW, index, (file, file)) for index in range(5)])
    monkeypatch.setattr(graph, "open_run", lambda uri: run)
    monkeypatch.setattr(graph, "check", lambda uri: [f"checked {uri}"])
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "5")
    with caplog.at_level("INFO"):
        names = graph.segments.function("uri")
    assert names == [f"{NEW}.{index:05d}" for index in range(5)]
    assert caplog.messages[-2:] == ["checked uri", f"5 segments: {', '.join(names)}"]
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "4")
    with pytest.raises(AirflowFailException, match=r"10 files in 5 segments .* set crawl.files_per_segment=3 or more"):
        graph.segments.function("uri")


def test_variants_are_found_checked_once_and_told(resolve_run, tmp_path, monkeypatch, caplog):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    given = {"ablate.variants": {"base": [], "strict": ["filter.min_words=99"]}, "ablate.tokens": 100_000}
    base = resolve_run(tmp_path / "crawl", given)
    checked = []
    monkeypatch.setattr(graph, "check", lambda uri: checked.append(uri) or ["fine"])
    with caplog.at_level("INFO"):
        found = graph.variants.function(base.uri)
    assert [uri.split("/")[-2] for uri in checked] == ["one.base.2", "one.strict.2"]
    assert "strict, seed 1: " in caplog.text
    assert {stage: len(tasks) for stage, tasks in found.items() if stage in ("crawl", "filter", "probe")} == {
        "crawl": 1, "filter": 2, "probe": 6,
    }  # fmt: skip
    assert graph.of_stage.function(found, "filter") == found["filter"]
    assert {"recipe", "partition"} == found["filter"][0].keys()
    assert open_run(found["comparison"]).recipe.ablate.measured.keys() == {"base", "strict"}
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "5")
    with pytest.raises(AirflowFailException, match="a stage would run 6 times for all variants, more than the 5"):
        graph.variants.function(base.uri)


def test_a_recipe_without_variants_is_refused_at_once(resolve_run, tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    with pytest.raises(AirflowFailException, match=r"ablate\.variants names no variant"):
        graph.variants.function(resolve_run(tmp_path / "crawl").uri)


@pytest.fixture
def asked(tmp_path, resolve_run):
    """A run that asks one benchmark that is written and one of code."""
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC/1.0\r\n")
    (tmp_path / "items.jsonl").write_text("{}")
    tasks = {name: {"items": f"{tmp_path}/items.jsonl"} for name in ("gsm8k", "humaneval")}
    return resolve_run(tmp_path / "crawl", {"benchmark.tasks": tasks})


def test_a_dag_maps_its_models_benchmarks(asked, monkeypatch):
    monkeypatch.setattr("evals.sandbox.require", lambda: None)
    found = {dag: graph.benchmarks.function(asked.uri, dag) for dag in ("pretrain", "align", "evaluate")}
    assert found["pretrain"] == ["pretrain.gsm8k", "pretrain.humaneval"]
    assert found["align"] == ["sft.gsm8k", "sft.humaneval", "aligned.gsm8k", "aligned.humaneval"]
    assert found["evaluate"] == [*found["pretrain"], *found["align"]]
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "5")
    with pytest.raises(AirflowFailException, match="6 models and benchmarks are more than the 5 that Airflow maps"):
        graph.benchmarks.function(asked.uri, "evaluate")


def test_benchmarks_of_code_are_refused_at_once_without_a_sandbox(asked, monkeypatch):
    monkeypatch.setattr("evals.sandbox._missing", lambda: "bwrap was not found")
    with pytest.raises(
        AirflowException, match="runs only in a sandbox, and this machine has none: bwrap was not found"
    ):
        graph.benchmarks.function(asked.uri, "align")
    assert graph.benchmarks.function(asked.uri, "corpus") == [], "nothing is asked there"

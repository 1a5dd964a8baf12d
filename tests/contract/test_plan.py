"""Fingerprints: a changed setting changes its stage and everything after it, nothing before; run-time-only fields change none."""

import datetime
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import plan as plans
from contract import recipe as recipes
from contract.digest import split_digest, with_digest
from contract.errors import InputError, RecipeError, StoreError
from contract.facts import FACTS
from contract.identity import Identity, Input
from contract.plan import Run, Task, as_input, open_run, plan
from contract.recipe import Recipe, parse
from contract.scores import ESTABLISHED
from contract.settings.base import Settings
from contract.settings.corpus import LANGUAGE_MODEL, CuratedSource
from contract.settings.examples import ChatSource, RoundOfVotes
from contract.settings.examples import Source as ExampleSource
from contract.settings.training import Benchmark, BenchmarkTask, Phase
from contract.sources import (
    MAX_SEGMENTS,
    Segment,
    Source,
    list_segments,
    list_snapshots,
    segment_size,
    snapshot_date,
)
from contract.stages import ALIGNING, STAGES, downstream, reads_setting, upstream
from contract.store import Store

SEGMENTS = [
    Segment("X-2024-10", index, (Source(f"file:///{index}", f"{index}", index + 1, "a"),)) for index in range(3)
]

# One valid other value for every setting; a new setting without one fails the test below until it is given.
CHANGED: dict[str, Any] = {
    "crawl.blocklists": ("a",), "crawl.strict_words": ("a",), "crawl.hard_words": ("a",),
    "crawl.soft_words": ("a",), "score.mask": ("ip",), "score.bad_words": "a", "score.perplexity_model": "a", "extract.extractor": "resiliparse", "langid.languages": ("de",), "filter.min_words": 7,
    "filter.gopher_repetition.top_ngram_char_fraction": {2: 0.5}, "filter.gopher_repetition.duplicate_ngram_char_fraction": {5: 0.5},
    "dedup_url.keep": "first", "dedup_fuzzy.keep": "newest", "dedup_substring.cut": "all", "decontaminate.benchmarks": {"a": "b"},
    "decontaminate.ngram": 14, "decontaminate.action": "cut", "minhash_sign.method": "simhash", "minhash_sign.quality": "-words", "dedup_fuzzy.scope": "global", "dedup_substring.tokenizer": "a", "filter.gopher_quality.min_mean_word_chars": 4.0, "curate.sources": {"a": CuratedSource(uri="b", correct=True)}, "instructions.data": "a", "preferences.data": "a", "prompts.data": "a", "instructions.sources": {"a": ChatSource(data="b")}, "preferences.sources": {"a": ExampleSource(data="b")}, "preferences.rounds": {"a": RoundOfVotes(votes="b")},
    "instructions.heldout_tasks": ("a",), "preferences.criteria": {"a": 1.0}, "instructions.select.quality_key": "a", "ppo.kl_target": 6.0,
    "export.dtype": "bf16", "reward.objective": "both", "reward.start_from": "a", "reward.pretrain_tasks": ("a",), "export.at_least": {"prompts": 1.0}, "export.at_most": {"prompts": 9.0},
    "ppo.reward": "both", "grpo.reward": "both", "ppo.critic": "head", "ppo.sampler": "vllm", "grpo.sampler": "vllm", "ppo.kl_estimator": "k3", "ppo.answers.phrases": ("a",), "grpo.answers.phrases": ("a",),
    "tokenizer.kind": "unigram", "tokenizer.special_tokens": {"pad": "<pad>"}, "tokenizer.start_from": "a", "tokenizer.reference": "a",
    "tokenizer.expand.model": "a", "tokenizer.expand.languages": ("zh",), "pretrain.start_from": "a", "pretrain.distill.teacher": "a",
    "pretrain.objective": "blank_infilling", "sft.chat_template": "chatml", "sft.start_from": "a", "sft.patience": 3, "sft.lora.targets": ("a",), "ppo.lora.targets": ("a",), "dpo.lora.targets": ("a",), "grpo.lora.targets": ("a",),
    "sample.models": ("sft",), "sample.gold": "a", "sample.temperatures": (0.5,), "sample.last": f"ppo/{'a' * 40}", "sample.judge": f"reward/{'a' * 40}", "sample.principles": "a", "ppo.last": f"ppo/{'a' * 40}", "grpo.last": f"grpo/{'a' * 40}", "evaluate.last": f"ppo/{'a' * 40}",
    "pack.more_seq_lens": (4096,), "pack.packing": "best_fit", "pretrain.mixture.proportions": {"crawl": 1.0},
    "mix.also_held_out": "f" * 40, "probe.reference": "f" * 40, "probe.tasks": {"a": "b"}, "ablate.measured": {"a": {"0": "f" * 40}},
    "benchmark.tasks": {"gsm8k": BenchmarkTask(task="gsm8k", items="/b")}, "benchmark.models": ("sft",), "benchmark.steps": (7,), "benchmark.others": {"a": "/b"}, "abilities.at_least": {"maths": 0.5},
    "pretrain.mixture.epochs": {"crawl": 2.0}, "pretrain.phases": (Phase(share=1.0),),
}  # fmt: skip


def leaves(model: Settings, path: str) -> Iterator[tuple[str, Any, bool]]:
    """(dotted path, value, run-time only) of every setting below a section."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        runtime = isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("runtime_only"))
        if isinstance(value, Settings) and not runtime:
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value, runtime


def other(path: str, value: Any) -> Any:
    if path in CHANGED:
        return CHANGED[path]
    if path.endswith(".dtype"):
        return "bf16"
    if path.endswith(".schedule"):
        return "linear" if value != "linear" else "constant"
    if path.endswith(".optimizer"):
        return "lamb"
    if path.endswith(".betas"):
        return (0.8, 0.9)
    if isinstance(value, bool):
        return not value
    if value is None:
        return 3
    if isinstance(value, float):
        return value * 0.5 + 0.0123
    if isinstance(value, int):
        return value * 2 + 2
    raise AssertionError(f"{path}: give CHANGED another value for {value!r}")


def with_value(recipe: Recipe, path: str, value: Any) -> Recipe:
    """The recipe with one setting replaced; unvalidated, because only the identity matters here."""
    *parents, last = path.split(".")
    models: list[Settings] = [recipe]
    for name in parents:
        models.append(getattr(models[-1], name))
    changed: Any = models[-1].model_copy(update={last: value})
    for model, name in zip(reversed(models[:-1]), reversed(parents), strict=True):
        changed = model.model_copy(update={name: changed})
    assert isinstance(changed, Recipe)
    return changed


BENCHMARKS = Benchmark.model_validate({"tasks": {"mmlu": {"items": "/b"}}})
"""Without one, no task of `benchmark` is in a plan."""

ALL = [leaf for stage in STAGES for leaf in leaves(Recipe().section(stage), stage)]


@pytest.mark.parametrize(("path", "value", "runtime"), ALL, ids=[leaf[0] for leaf in ALL])
def test_a_changed_setting_changes_its_stage_and_what_follows_and_nothing_else(
    path: str, value: Any, runtime: bool
) -> None:
    stage = path.partition(".")[0]
    recipe = Recipe(align=stage if stage in ALIGNING else "ppo", benchmark=BENCHMARKS)
    before = plan(recipe, SEGMENTS)
    after = plan(with_value(recipe, path, "another" if runtime else other(path, value)), SEGMENTS)
    # For example, extraction asks for the languages that langid keeps, and held-out text is not cut.
    readers = [stage for stage in STAGES if reads_setting(stage, path)]
    changed = {key[0] for key in before.keys() | after.keys() if _fingerprint(before, key) != _fingerprint(after, key)}
    section, _, name = path.rpartition(".")
    off = name != "enabled" and getattr(Recipe().at(section), "enabled", True) is False
    assert changed == (set() if runtime or off else {*readers}.union(*map(downstream, readers)))


def _fingerprint(tasks: dict[tuple[str, str], Task], key: tuple[str, str]) -> str | None:
    """None of a task that the other plan alone has."""
    return tasks[key].fingerprint if key in tasks else None


def test_a_threshold_of_a_rule_set_counts_only_while_the_rules_are_on() -> None:
    def fingerprint_of(*overrides: str) -> str:
        return plan(parse("", "here", overrides), SEGMENTS)["filter", SEGMENTS[0].partition].fingerprint

    off, on = fingerprint_of(), fingerprint_of("filter.c4.enabled=true")
    assert fingerprint_of("filter.c4.min_sentences=3") == off
    assert len({off, on, fingerprint_of("filter.c4.enabled=true", "filter.c4.min_sentences=3")}) == 3
    assert fingerprint_of("filter.fineweb.enabled=false") == fingerprint_of(
        "filter.fineweb.enabled=false", "filter.fineweb.max_short_line_fraction=0.1"
    )


def test_a_new_rule_makes_stale_what_uses_it_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLOOM's rules are off: if its perplexity were measured only since yesterday, no other recipe would notice."""

    def fingerprints(*overrides: str) -> list[str]:
        tasks = plan(parse("", "here", overrides), SEGMENTS)
        return [tasks[stage, SEGMENTS[0].partition].fingerprint for stage in ("score", "filter")]

    bloom, quality = "filter.bloom.enabled=true", "minhash_sign.quality=-perplexity"
    model = "score.perplexity_model=/m"
    score, filtered = fingerprints(model)
    assert fingerprints(model, bloom)[0] == fingerprints(model, quality)[0] == score, "every result has its scores"
    monkeypatch.setattr("contract.facts.ESTABLISHED", tuple(name for name in ESTABLISHED if name != "perplexity"))
    assert fingerprints(model) == [score, filtered]
    assert fingerprints(model, bloom)[0] == fingerprints(model, quality)[0] != score


def test_a_default_that_is_written_out_is_no_difference() -> None:
    """A preset, a table with its usual values, or a value in another notation decides nothing new."""
    plain = plan(Recipe(), SEGMENTS)
    for overrides in (
        ["filter.min_words=50", "sft.optim.lr=2e-5"],
        ["filter.gopher_repetition.top_ngram_char_fraction={2: 0.2}"],
        ["minhash_sign.preset=fineweb"],
        ["mix.shards=8"],
    ):
        assert plan(parse("", "here", overrides), SEGMENTS) == plain, overrides


def test_a_fingerprint_is_the_hash_of_the_identity_and_nothing_else_decides_it() -> None:
    known = (
        b'{"crawl_files":[],"facts":{},"inputs":[{"fingerprint":"f","partition":"all","stage":"reward"}],'
        b'"outside":{},"segment":null,"settings":{"gate.confidence":0.9},"stage":"gate","version":3}'
    )
    read = Input(stage="reward", partition="all", fingerprint="f")
    made = Identity(stage="gate", version=3, settings={"gate.confidence": 0.9}, inputs=(read,))
    assert made.fingerprint() == hashlib.sha256(known).hexdigest()[:40]
    task = plan(parse("", "here", ["gate.confidence=0.9"]), SEGMENTS)["gate", "all"]
    assert task.fingerprint == made.model_copy(update={"inputs": task.identity.inputs}).fingerprint()


def test_what_each_kind_of_task_is_known_by() -> None:
    recipe, segment = Recipe(), SEGMENTS[1]
    tasks = plan(recipe, SEGMENTS, {"instructions.data": "d", "instructions.also": "c", "preferences.data": "e"})
    crawl, extract = tasks["crawl", segment.partition], tasks["extract", segment.partition]
    chats = tasks["instructions", "all"]
    assert crawl.identity == Identity(
        stage="crawl", version=STAGES["crawl"].version, segment=segment.partition, crawl_files=("1:2:a",)
    )
    assert extract.identity == Identity(
        stage="extract",
        version=STAGES["extract"].version,
        facts={"language_model": LANGUAGE_MODEL},
        inputs=(as_input(crawl),),
    )
    assert chats.identity.outside == {"instructions.also": "c", "instructions.data": "d"}
    assert chats.identity.inputs == tuple(as_input(tasks[stage, "all"]) for stage in STAGES["instructions"].reads)
    assert tasks["mix", "all"].identity.outside == {}


def test_what_a_stage_reads_of_another_section_is_part_of_its_identity() -> None:
    recipe = parse("", "here", ["langid.languages=[de]", "decontaminate.ngram=14", "langid.min_probability=0.5"])
    tasks = plan(recipe, SEGMENTS, {"decontaminate.benchmarks.a": "d"})
    assert tasks["extract", SEGMENTS[0].partition].identity.settings == {"langid.languages": ["de"]}
    assert tasks["instructions", "all"].identity.settings == {"decontaminate.ngram": 14}
    assert tasks["instructions", "all"].identity.outside == {"decontaminate.benchmarks.a": "d"}
    recipe = parse("", "here", ["mix.heldout_fraction=0.5", "curate.sources={a: {uri: /x, dedup: false}}"])
    tasks = plan(recipe, SEGMENTS, {"curate.sources.a.uri": "d"})
    assert tasks["dedup_substring", "all"].identity.settings == {
        "mix.heldout_fraction": 0.5,
        "curate.not_deduplicated": ["a"],
    }
    assert tasks["dedup_substring", "all"].identity.outside == {}, "it reads names of sources, not the sources"
    assert tasks["curate", "all"].identity.outside == {"curate.sources.a.uri": "d"}
    assert tasks["pack", "all"].identity.settings == {}


def test_a_curated_source_is_known_by_what_its_files_hold_and_by_what_decides_about_them() -> None:
    def made(stage: str, digest: str = "d", **settings: Any) -> str:
        recipe = Recipe.model_validate({"curate": {"sources": {"a": {"uri": "/x", **settings}}}})
        return plan(recipe, SEGMENTS, {"curate.sources.a.uri": digest})[stage, "all"].fingerprint

    plain = made("curate")
    assert made("curate", uri="/moved/x") == plain
    assert made("curate", dedup=False) == made("curate", decontaminate=False) == plain, "later stages ask for these"
    others = [
        made("curate", "another"),
        made("curate", layout="pile"),
        made("curate", languages=["de"]),
        made("curate", rules={}),
        made("curate", rules={"min_words": 3}),
        plan(Recipe(), SEGMENTS)["curate", "all"].fingerprint,
    ]
    assert len({plain, *others}) == 7
    assert made("curate", rules={"min_words": 50}) == made("curate", rules={}), "a default that is written out"
    assert made("dedup_fuzzy", dedup=False) != made("dedup_fuzzy") == made("dedup_fuzzy", decontaminate=False)
    assert made("decontaminate", decontaminate=False) != made("decontaminate")
    assert made("dedup_substring", decontaminate=False) == made("dedup_substring")


def test_a_changed_fact_changes_the_stages_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FACTS:
        before = plan(Recipe(benchmark=BENCHMARKS), SEGMENTS)
        with monkeypatch.context() as patch:
            patch.setitem(FACTS, name, lambda _: "another")
            after = plan(Recipe(benchmark=BENCHMARKS), SEGMENTS)
        users = {stage.name for stage in STAGES.values() if name in stage.facts}
        changed = {key[0] for key in before if before[key].fingerprint != after[key].fingerprint}
        assert changed == users.union(*map(downstream, users)) != set(), name


@pytest.mark.parametrize("stage", STAGES)
def test_a_raised_version_changes_its_stage_and_what_follows_and_nothing_else(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(align=stage if stage in ALIGNING else "ppo", benchmark=BENCHMARKS)
    before = plan(recipe, SEGMENTS)
    monkeypatch.setitem(STAGES, stage, replace(STAGES[stage], version=STAGES[stage].version + 1))
    after = plan(recipe, SEGMENTS)
    changed = {key[0] for key in before if before[key].fingerprint != after[key].fingerprint}
    assert changed == {stage, *downstream(stage)}


@pytest.mark.parametrize(
    ("file", "same"),
    [
        (Source("file:///moved", "0", 1, "a"), True),
        (Source("file:///0", "renamed", 1, "a"), False),
        (Source("file:///0", "0", 2, "a"), False),
        (Source("file:///0", "0", 1, "rewritten"), False),
    ],
)
def test_a_crawl_file_is_known_by_its_name_its_size_and_what_it_holds(file: Source, same: bool) -> None:
    before, after = plan(Recipe(), SEGMENTS), plan(Recipe(), [Segment("X-2024-10", 0, (file,)), *SEGMENTS[1:]])
    for key in (("crawl", "X-2024-10.00000"), ("pack", "all")):
        assert (before[key].fingerprint == after[key].fingerprint) == same


@given(index=st.integers(0, 2), size=st.integers(10, 99))
def test_a_changed_crawl_file_changes_its_segment_and_the_corpus(index: int, size: int) -> None:
    segments = list(SEGMENTS)
    segments[index] = Segment("X-2024-10", index, (Source(f"file:///{index}", f"{index}", size, "a"),))
    before, after = plan(Recipe(), SEGMENTS), plan(Recipe(), segments)
    changed = {key for key in before if before[key].fingerprint != after[key].fingerprint}
    touched = segments[index].partition
    assert changed == {key for key in before if key[1] in (touched, "all") and key[0] != "curate"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.randoms())
def test_the_order_of_keys_in_a_mapping_does_not_matter(random: Any) -> None:
    sources = [("a", {"uri": "x"}), ("b", {"uri": "y"}), ("c", {"uri": "z"})]
    shuffled = sources.copy()
    random.shuffle(shuffled)
    one, two = (Recipe.model_validate({"curate": {"sources": dict(order)}}) for order in (sources, shuffled))
    assert plan(one, SEGMENTS)["curate", "all"].fingerprint == plan(two, SEGMENTS)["curate", "all"].fingerprint


def test_upstream_and_downstream_are_inverse_and_the_table_is_in_order() -> None:
    seen: set[str] = set()
    for name, stage in STAGES.items():
        assert set(stage.reads) <= seen, f"{name} reads a stage that stands after it"
        assert all(name in downstream(other) for other in upstream(name))
        seen.add(name)


def test_a_snapshot_stage_reads_its_own_segment_and_a_corpus_stage_all() -> None:
    tasks = plan(Recipe(), SEGMENTS)
    assert [task.partition for task in tasks["extract", "X-2024-10.00001"].inputs] == ["X-2024-10.00001"]
    assert [task.partition for task in tasks["dedup_fuzzy", "all"].of("minhash_sign")] == [
        one.partition for one in SEGMENTS
    ]


def test_planning_a_whole_crawl_takes_seconds_at_most() -> None:
    import time

    segments = [Segment("X-2024-10", index, (Source(f"s3://{index}", f"{index}", 1, "a"),)) for index in range(9000)]
    began = time.monotonic()
    assert len(plan(Recipe(), segments)) == 6 * 9000 + 25
    assert time.monotonic() - began < 10


def test_a_task_is_patient_and_a_person_is_asked_for_no_patience(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reach` gives up in seconds: who starts a run wants that, a task in the middle of one does not."""
    run = make_run()
    monkeypatch.setattr(Store, "reach", Mock(side_effect=StoreError("no answer in 5 s")))
    assert open_run(run.uri) == run
    with pytest.raises(RecipeError, match="no answer in 5 s"):
        recipes.load(run.uri)


def test_a_run_is_resolved_once_and_opened_from_its_uri_alone(make_run: Callable[..., Run]) -> None:
    run = make_run("filter.min_words=40")
    assert run.recipe.filter.min_words == 40
    assert [segment.partition for segment in run.segments] == ["CRAWL-2024-10.00000", "CRAWL-2024-10.00001"]
    opened = open_run(run.uri)
    assert {key: task.fingerprint for key, task in opened.tasks().items()} == {
        key: task.fingerprint for key, task in run.tasks().items()
    }
    assert make_run("filter.min_words=40").uri == run.uri, "resolving the same again opens it"
    with pytest.raises(RecipeError, match="exists with other content"):
        make_run("filter.min_words=41")


@pytest.mark.parametrize("key", ["pretrain.start_from", "pretrain.distill.teacher", "reward.start_from"])
def test_a_folder_without_a_model_is_refused(make_run: Callable[..., Run], tmp_path: Path, key: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match=rf"{key}: .*model holds no config\.json.*, so no model is there"):
        make_run(f"{key}={folder}")
    (folder / "config.json").write_text("{}")
    assert make_run(f"{key}={folder}").outside.keys() == {key}


def test_an_edited_data_file_changes_its_stage_and_what_follows(make_run: Callable[..., Run], tmp_path: Path) -> None:
    data = tmp_path / "alpaca.jsonl"
    with pytest.raises(InputError, match=r"instructions\.data: .*alpaca\.jsonl does not exist; check the path"):
        make_run(f"instructions.data={data}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"instructions\.data: .*empty holds no readable file; check the path"):
        make_run(f"instructions.data={tmp_path}/empty")
    data.write_text("one")
    before = make_run(f"instructions.data={data}", run="before")
    data.write_text("another")
    after = make_run(f"instructions.data={data}", run="after")
    changed = {key[0] for key, task in before.tasks().items() if after.tasks()[key].fingerprint != task.fingerprint}
    assert changed == {"instructions", *downstream("instructions")} - {"benchmark"}, "the recipe names no benchmarks"
    assert open_run(after.uri).tasks() == after.tasks()


def test_unknown_stages_and_partitions_are_named(make_run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match="stage 'polish' does not exist; there are crawl, extract"):
        make_run().task("polish")
    with pytest.raises(
        RecipeError, match=r"no partition 'CRAWL-2024-10.00009'; there are CRAWL-2024-10.00000, CRAWL-2024-10.00001"
    ):
        make_run().task("crawl", "CRAWL-2024-10.00009")


def test_of_many_partitions_the_first_and_the_last_are_named(make_run: Callable[..., Run]) -> None:
    def told(count: int) -> str:
        segments = tuple(Segment("X-2024-10", index, ()) for index in range(count))
        with pytest.raises(RecipeError) as caught:
            Run("", Recipe(), segments).task("crawl", "Y")
        return str(caught.value).partition("there are ")[2]

    first = ", ".join(f"X-2024-10.0000{index}" for index in range(5))
    assert told(5) == first
    assert told(6) == f"{first}, ... X-2024-10.00005"
    assert told(9) == f"{first}, ... X-2024-10.00008"


def test_a_task_prints_short_and_cannot_be_changed(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = run.task("gate")
    assert repr(task) == f"Task(stage='gate', partition='all', fingerprint='{task.fingerprint}')"
    assert repr(run.task("crawl", run.segments[0].partition)).endswith("')")
    for frozen in (task, run, run.segments[0], run.segments[0].files[0], STAGES["gate"]):
        with pytest.raises(FrozenInstanceError):
            frozen.uri = "other"  # type: ignore[misc, union-attr]


def test_a_resolved_run_is_wholly_in_its_folder(make_run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "alpaca.jsonl").write_text("one")
    run = make_run(f"instructions.data={tmp_path}/alpaca.jsonl", f"store=file://{tmp_path}/store/")
    assert run.recipe.store == f"file://{tmp_path}/store"
    place, digest = split_digest(run.uri)
    assert place == f"{run.recipe.store}/runs/one/recipe.yaml"
    assert digest is not None
    assert run.recipe.snapshots == ("CRAWL-2024-10",)
    assert open_run(run.uri) == open_run(place) == run, (
        "a run that a person names without its digest has it from then on"
    )
    assert list(run.outside) == ["instructions.data"]


def test_a_store_that_cannot_be_written_is_told_before_the_crawl_is_listed(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: Store) -> None:
        raise StoreError(f"{store.uri} is full")

    monkeypatch.setattr(Store, "check", refuse)
    monkeypatch.setattr(plans, "list_segments", None)
    with pytest.raises(StoreError, match="is full"):
        make_run()


def test_snapshots_that_a_caller_names_take_the_place_of_the_recipes(make_run: Callable[..., Run]) -> None:
    run = make_run()
    made = plans.resolve(run.uri, "two", (), ["CRAWL-2024-10"])
    assert made.recipe.snapshots == ("CRAWL-2024-10",)
    with pytest.raises(InputError, match="holds the crawl CRAWL-2024-10, not CRAWL-2024-11"):
        plans.resolve(run.uri, "three", (), ["CRAWL-2024-11"])


def test_a_recipe_that_was_never_resolved_says_how_to(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a")
    with pytest.raises(InputError, match="is not a resolved run; make one with: python -m contract resolve"):
        open_run(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("files", "message"), [((), "it is missing or empty"), (("a.txt", "b.html"), "none of its 2 files ends in .warc")]
)
def test_a_folder_without_crawl_files_is_refused(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        list_snapshots(str(tmp_path))


def test_snapshot_names_carry_their_week() -> None:
    assert snapshot_date("CC-MAIN-2024-10") == datetime.date(2024, 3, 4)
    for bad in ("CC-MAIN-2024", "CC-MAIN-2024-60", "", "2024-10", "../2024-10"):
        with pytest.raises(InputError):
            snapshot_date(bad)


def test_a_mirror_of_common_crawl_is_read_by_its_lists(tmp_path: Path) -> None:
    (tmp_path / "collinfo.json").write_text(
        json.dumps([{"id": "CC-MAIN-2023-50"}, {"id": "CC-MAIN-2024-10"}, {"id": "CC-MAIN-2008-2009"}])
    )
    listing = tmp_path / "crawl-data" / "CC-MAIN-2024-10"
    listing.mkdir(parents=True)
    (listing / "warc.paths.gz").write_bytes(
        gzip.compress(b"crawl-data/CC-MAIN-2024-10/a.warc.gz\ncrawl-data/CC-MAIN-2024-10/b.warc.gz\n")
    )
    assert list_snapshots(str(tmp_path)) == ["CC-MAIN-2024-10", "CC-MAIN-2023-50"]
    recipe = Recipe.model_validate({"crawl": {"source": str(tmp_path), "files_per_segment": 1}})
    segments = list_segments(recipe)
    assert [segment.partition for segment in segments] == ["CC-MAIN-2024-10.00000", "CC-MAIN-2024-10.00001"]
    assert segments[1].files[0].uri == f"{tmp_path}/crawl-data/CC-MAIN-2024-10/b.warc.gz"


def test_a_whole_crawl_is_cut_into_as_many_segments_as_airflow_maps(tmp_path: Path) -> None:
    """Airflow maps 1,024 tasks at once, and a crawl of Common Crawl has about 90,000 files."""
    (tmp_path / "collinfo.json").write_text(json.dumps([{"id": "CC-MAIN-2024-10"}]))
    listing = tmp_path / "crawl-data" / "CC-MAIN-2024-10"
    listing.mkdir(parents=True)
    paths = [f"crawl-data/CC-MAIN-2024-10/{number:05d}.warc.gz" for number in range(90_000)]
    (listing / "warc.paths.gz").write_bytes(gzip.compress("\n".join(paths).encode(), 1))
    whole = list_segments(Recipe.model_validate({"crawl": {"source": str(tmp_path)}}))
    assert (len(whole), len(whole[0].files)) == (563, 160)
    assert [file.name for segment in whole for file in segment.files] == paths
    fixed = list_segments(Recipe.model_validate({"crawl": {"source": str(tmp_path), "files_per_segment": 40}}))
    assert len(fixed) == 2250, "what a recipe fixes is honoured"


def test_segments_keep_their_files_until_a_source_has_grown_a_lot() -> None:
    assert [segment_size([files]) for files in (0, 1, 999, 10_000)] == [10, 10, 10, 10]
    assert [segment_size([files]) for files in (10_001, 20_000, 20_001)] == [20, 20, 40]
    assert segment_size([90_000, 90_000]) == 320, "all crawls of a run count"
    assert segment_size([1] * (MAX_SEGMENTS + 1)) == 10, "no crawl has less than one segment"


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=100))
def test_any_crawls_fit(counts: list[int]) -> None:
    size = segment_size(counts)
    assert sum(-(-count // size) for count in counts) <= MAX_SEGMENTS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("collinfo.json", b"<html>", "is not Common Crawl's list of crawls"),
        ("collinfo.json", b'{"a": 1}', "is not Common Crawl's list of crawls"),
        ("collinfo.json", b"[" * 100_000, "is not Common Crawl's list of crawls"),
        ("warc.paths.gz", b"plain", "is not a gzipped list of paths"),
        ("warc.paths.gz", gzip.compress(b""), "lists no crawl files"),
        ("warc.paths.gz", gzip.compress(b"a" * (65 << 20)), "more than 67,108,864 bytes"),
    ],
)
def test_a_mirror_that_answers_something_else_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / "collinfo.json").write_text(json.dumps([{"id": "CC-MAIN-2024-10"}]))
    listing = tmp_path / "crawl-data" / "CC-MAIN-2024-10"
    listing.mkdir(parents=True)
    ((tmp_path if name == "collinfo.json" else listing) / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list_segments(Recipe.model_validate({"crawl": {"source": str(tmp_path)}}))


def test_a_snapshot_named_twice_is_taken_once(make_run: Callable[..., Run]) -> None:
    assert len(make_run("snapshots=[CRAWL-2024-10, CRAWL-2024-10]").segments) == 2


def test_a_crawl_file_that_changed_or_went_is_noticed_before_work_starts(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = make_run()
    one, other = (run.task("crawl", segment.partition) for segment in run.segments)
    run.check_inputs(one)
    (tmp_path / "crawl" / "part-0.warc.gz").write_bytes(b"WARCWARC")
    with pytest.raises(InputError, match=r"part-0\.warc\.gz: the crawl file changed since the run was resolved"):
        run.check_inputs(one)
    (tmp_path / "crawl" / "part-1.warc.gz").unlink()
    with pytest.raises(InputError, match=r"part-1\.warc\.gz: the crawl file is gone; bring it back"):
        run.check_inputs(other)
    run.check_inputs(run.task("extract", one.partition))  # reads pages, no crawl file
    run.check_outside("crawl")


def crawl_of(folder: Path, *dates: str) -> Path:
    """A folder of crawl files that begin with a record of these dates."""
    folder.mkdir(parents=True)
    for index, date in enumerate(dates):
        head = f"WARC/1.0\r\nWARC-Type: warcinfo\r\nWARC-Date: {date}T01:02:03Z\r\n\r\n".encode()
        (folder / f"{index}.warc.gz").write_bytes(gzip.compress(head) + bytes(200_000))
    return folder


def fingerprints(source: Path | str) -> dict[tuple[str, str], str]:
    recipe = Recipe.model_validate({"crawl": {"source": str(source), "files_per_segment": 1}})
    return {key: task.fingerprint for key, task in plan(recipe, list_segments(recipe)).items()}


def test_a_crawl_that_was_touched_copied_or_moved_is_the_same_crawl(tmp_path: Path) -> None:
    crawl = crawl_of(tmp_path / "here" / "news", "2024-03-04", "2024-03-05")
    before = fingerprints(crawl)
    assert ("crawl", "NEWS-2024-10.00001") in before
    for file in crawl.iterdir():
        os.utime(file, (1, 1))
    assert fingerprints(crawl) == before
    shutil.copytree(crawl, tmp_path / "there" / "news")
    assert fingerprints(tmp_path / "there" / "news") == before
    with (crawl / "1.warc.gz").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    after = fingerprints(crawl)
    assert {key[1] for key in before if before[key] != after[key]} == {"NEWS-2024-10.00001", "all"}


def test_a_snapshot_is_named_after_the_week_of_its_first_record(tmp_path: Path) -> None:
    crawl = crawl_of(tmp_path / "news", "2024-03-04", "2025-01-01")
    assert list_snapshots(str(crawl)) == ["NEWS-2024-10"]
    (crawl / "0.warc.gz").write_bytes(b"damaged")
    assert list_snapshots(str(crawl)) == ["NEWS-2025-01"], "the next file tells"
    for index in range(2):
        (crawl / f"{index}.warc.gz").write_bytes(b"damaged")
        os.utime(crawl / f"{index}.warc.gz", (1_710_000_000 + index * 10**7,) * 2)
    assert list_snapshots(str(crawl)) == ["NEWS-2024-10"], "none tells: the oldest file's time"


def test_a_mirror_is_known_by_its_uris() -> None:
    one, other = (
        [Segment("X-2024-10", 0, (Source(f"https://{host}/a.warc.gz", "a.warc.gz", 0, ""),))] for host in ("a", "b")
    )
    here, there = (plan(Recipe(), segments)["crawl", "X-2024-10.00000"].fingerprint for segments in (one, other))
    assert here != there


def test_a_touched_file_is_no_changed_file(make_run: Callable[..., Run], tmp_path: Path) -> None:
    data = tmp_path / "alpaca.jsonl"
    data.write_text("one")
    run = make_run(f"instructions.data={data}")
    for file in (data, *(tmp_path / "crawl").iterdir()):
        os.utime(file, (1, 1))
    for task in (run.task("instructions"), *(run.task("crawl", segment.partition) for segment in run.segments)):
        run.check_inputs(task)
    (tmp_path / "crawl" / "part-0.warc.gz").write_bytes(b"CRAW")  # of the same length
    with pytest.raises(InputError, match=r"part-0\.warc\.gz: the crawl file changed"):
        run.check_inputs(run.task("crawl", run.segments[0].partition))


def test_a_run_that_an_earlier_version_resolved_is_refused(make_run: Callable[..., Run]) -> None:
    run = make_run()
    inputs = run.store.read_bytes("runs/one/inputs.json")
    run.store.write_bytes("runs/one/inputs.json", inputs.replace(b'"content"', b'"modified"'))
    with pytest.raises(InputError, match="another version of Gristmill resolved this run; resolve its recipe again"):
        open_run(split_digest(run.uri)[0])


def test_a_recipe_that_an_earlier_version_resolved_and_this_one_refuses_says_so(make_run: Callable[..., Run]) -> None:
    run = make_run()
    text = run.store.read_bytes("runs/one/recipe.yaml")
    run.store.write_bytes("runs/one/recipe.yaml", text.replace(b"extract:\n", b"extract:\n  fast: true\n"))
    with pytest.raises(
        RecipeError, match=r"extract\.fast: unknown key; .*; another version of Gristmill resolved this run; resolve"
    ):
        open_run(split_digest(run.uri)[0])


@pytest.mark.parametrize("name", ["recipe.yaml", "inputs.json"])
def test_a_run_that_changed_since_it_was_resolved_is_refused(make_run: Callable[..., Run], name: str) -> None:
    run = make_run()
    text = run.store.read_bytes(f"runs/one/{name}")
    run.store.write_bytes(f"runs/one/{name}", text + b"\n")
    for read in (open_run, recipes.load, lambda uri: plans.resolve(uri, "two", ["filter.min_words=3"])):
        with pytest.raises(
            RecipeError, match=r"/one/recipe\.yaml: it or the inputs\.json beside it changed since the run was resolved"
        ):
            read(run.uri)
    assert open_run(split_digest(run.uri)[0]).uri != run.uri, "a person may still open it, as what it is now"
    run.store.write_bytes(f"runs/one/{name}", text)
    assert open_run(run.uri) == run


def test_a_digest_says_which_file_holds_what() -> None:
    one, other = with_digest("x", b"ab", b"c"), with_digest("x", b"a", b"bc")
    assert one != other
    assert split_digest(one) == ("x", one.removeprefix("x#sha256="))
    for name in ("x", "x#sha256=" + "a" * 63, "x#sha256=" + "A" * 64, one + "\n", "#sha256=/y"):
        assert split_digest(name) == (name, None)


def test_a_data_file_that_changed_is_noticed_before_work_starts(make_run: Callable[..., Run], tmp_path: Path) -> None:
    data = tmp_path / "alpaca.jsonl"
    data.write_text("one")
    run = make_run(f"instructions.data={data}")
    run.check_inputs(run.task("instructions"))
    data.write_text("another")
    with pytest.raises(
        InputError, match=r"instructions\.data: the file changed since the run was resolved; start a new run"
    ):
        run.check_inputs(run.task("instructions"))


def test_a_benchmark_that_changed_is_noticed_by_all_that_search_for_it(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    for name in ("bench", "books"):
        (tmp_path / f"{name}.jsonl").write_text("one")
    named = f"decontaminate.benchmarks={{a: {tmp_path}/bench.jsonl}}"
    alone = make_run(named, run="alone")
    mixed = make_run(named, f"instructions.data={tmp_path}/books.jsonl", run="mixed")
    mixed.check_inputs(mixed.task("instructions"))
    (tmp_path / "bench.jsonl").write_text("another")
    for run, stage in ((alone, "decontaminate"), (mixed, "decontaminate"), (mixed, "instructions")):
        with pytest.raises(InputError, match=r"decontaminate\.benchmarks\.a: the file changed since the run"):
            run.check_inputs(run.task(stage))


def test_more_files_of_the_same_crawl_leave_finished_segments_done(make_run: Callable[..., Run]) -> None:
    few, all_ = make_run("crawl.max_files=1", run="few"), make_run(run="all")
    (segment,) = few.segments
    assert few.task("crawl", segment.partition) == all_.task("crawl", segment.partition)


def test_a_draft_is_the_run_that_resolve_writes_and_writes_nothing(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    recipe = recipes.load(str(tmp_path / "recipe.yaml"), ["ppo.steps=3"])
    drafted = plans.draft(recipe)
    assert not (tmp_path / "store").exists()
    assert drafted.uri == ""
    assert replace(make_run("ppo.steps=3"), uri="") == drafted
    with pytest.raises(InputError, match="holds the crawl CRAWL-2024-10, not CRAWL-2024-11"):
        plans.draft(recipe, ["CRAWL-2024-11"])


def test_a_drafted_variant_is_the_run_that_vary_writes(make_run: Callable[..., Run], tmp_path: Path) -> None:
    base = make_run()
    before = sorted((tmp_path / "store").rglob("*"))
    for change in (["ppo.steps=3"], ["crawl.files_per_segment=2"]):
        drafted = plans.varied(base, change)
        assert sorted((tmp_path / "store").rglob("*")) == before
        assert plans.varied(replace(base, uri=""), change) == drafted
    assert replace(plans.vary(base, "two", change), uri="") == drafted
    assert [len(segment.files) for segment in drafted.segments] == [2]


def test_only_the_stage_that_aligns_is_read() -> None:
    runs = {name: plan(Recipe(align=name), SEGMENTS) for name in ALIGNING}
    for name, tasks in runs.items():
        for reader in ("evaluate", "export"):
            assert [one.stage for one in tasks[reader, "all"].inputs if one.stage in ALIGNING] == [name]
    fingerprints = {name: tasks["evaluate", "all"].fingerprint for name, tasks in runs.items()}
    assert len(set(fingerprints.values())) == 3
    assert all(runs["ppo"][name, "all"] == runs["dpo"][name, "all"] for name in ("sft", "gate", *ALIGNING))


def benchmarks(*overrides: str) -> dict[str, Task]:
    """Partition -> task of `benchmark`, of two benchmarks whose files have digests of their own."""
    outside = {"benchmark.tasks.mmlu.items": "d1", "benchmark.tasks.sums.items": "d2", "benchmark.others.mine": "d3"}
    two = "benchmark.tasks={mmlu: {items: /mmlu}, sums: {task: gsm8k, items: /sums}}"
    tasks = plan(parse("", "here", [two, *overrides]), SEGMENTS, outside)
    return {partition: task for (stage, partition), task in tasks.items() if stage == "benchmark"}


def test_a_recipe_without_benchmarks_has_none_of_their_tasks() -> None:
    tasks = plan(Recipe(), SEGMENTS)
    assert [key for key in tasks if key[0] == "benchmark"] == []
    assert [one.stage for one in tasks["abilities", "all"].inputs] == ["decontaminate", "evaluate"]


def test_a_benchmark_of_a_model_is_known_by_these_two_alone() -> None:
    old = f"ppo/{'a' * 40}"
    tasks = benchmarks("benchmark.steps=[7]", f"benchmark.others={{mine: /m, old: {old}}}", "align=dpo")
    models = ("pretrain-7", "pretrain", "sft", "aligned", "mine", "old")
    assert [*tasks] == [f"{model}.{name}" for model in models for name in ("mmlu", "sums")]
    made = tasks["sft.sums"].identity
    assert made.settings == {"benchmark.tasks": {"sums": {"task": "gsm8k"}}, "benchmark.models": ["sft"]}
    assert made.outside == {"benchmark.tasks.sums.items": "d2"}
    read = {model: [one.stage for one in tasks[f"{model}.mmlu"].identity.inputs] for model in models}
    assert read == {
        "pretrain-7": ["pretrain"],
        "pretrain": ["pretrain"],
        "sft": ["sft"],
        "aligned": ["gate", "dpo"],
        "mine": [],
        "old": ["ppo"],
    }
    assert tasks["pretrain-7.mmlu"].identity.settings["benchmark.steps"] == [7]
    assert tasks["mine.mmlu"].identity.outside == {"benchmark.others.mine": "d3", "benchmark.tasks.mmlu.items": "d1"}
    assert tasks["old.mmlu"].elsewhere == (Input(stage="ppo", partition="all", fingerprint="a" * 40),)


NAMES = st.sampled_from(("arc", "bbh", "mbpp", "mmlu", "other"))
ASKED = st.fixed_dictionaries(
    {"task": st.sampled_from(("mmlu", "gsm8k")), "items": st.just("/x"), "shots": st.just("/y")},
    optional={"limit": st.integers(1, 9), "k": st.integers(0, 5), "max_tokens": st.integers(1, 9)},
)
NAMED = st.fixed_dictionaries(
    {
        "tasks": st.dictionaries(NAMES, ASKED, max_size=4),
        "models": st.lists(st.sampled_from(("pretrain", "sft", "aligned")), unique=True),
        "steps": st.lists(st.integers(1, 9), unique=True, max_size=3),
        "others": st.dictionaries(st.sampled_from(("a", "b")), st.sampled_from(("/a", f"sft/{'b' * 40}"))),
    }
)


@given(NAMED, NAMED)
@settings(max_examples=60, deadline=None)
def test_naming_another_benchmark_or_model_runs_nothing_again(one: dict[str, Any], more: dict[str, Any]) -> None:
    """Whatever is named besides: what stays named keeps its fingerprint, and so does every other stage but the report."""

    def planned(section: dict[str, Any]) -> dict[tuple[str, str], Task]:
        recipe = Recipe.model_validate({"benchmark": section})
        return plan(recipe, SEGMENTS, dict.fromkeys((f"benchmark.{key}" for key in recipe.benchmark.outside()), "d"))

    both = {
        "tasks": {**more["tasks"], **one["tasks"]},
        "models": [*dict.fromkeys((*one["models"], *more["models"]))],
        "steps": [*{*one["steps"], *more["steps"]}],
        "others": {**more["others"], **one["others"]},
    }
    before, after = planned(one), planned(both)
    changed = {key[0] for key, task in before.items() if _fingerprint(after, key) != task.fingerprint}
    assert changed <= {"abilities", "export"}
    asked = {key for key in after if key[0] == "benchmark"}
    assert len(asked) == len(both["tasks"]) * sum(len(both[key]) for key in ("models", "steps", "others"))


def test_a_moved_file_of_a_benchmark_is_the_same_and_a_changed_one_is_another() -> None:
    def made(items: str, digest: str) -> str:
        recipe = parse("", "here", [f"benchmark.tasks={{mmlu: {{items: {items}}}}}"])
        return plan(recipe, SEGMENTS, {"benchmark.tasks.mmlu.items": digest})["benchmark", "sft.mmlu"].fingerprint

    assert made("/moved", "d") == made("/here", "d") != made("/here", "another")


def test_each_dag_maps_the_benchmarks_of_the_models_that_it_makes(make_run: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("{}")
    model = tmp_path / "model"
    model.mkdir()
    named = f"benchmark.tasks={{mmlu: {{items: {tmp_path}/items.jsonl}}}}"
    given = (named, "benchmark.steps=[3]", f"benchmark.others={{mine: {model}}}")
    with pytest.raises(InputError, match=r"benchmark\.others\.mine: .*model holds no readable file"):
        make_run(*given)
    (model / "a.txt").touch()
    with pytest.raises(InputError, match=r"benchmark\.others\.mine: .*model holds no config\.json, so no model is"):
        make_run(*given)
    (model / "config.json").write_text("{}")
    run = make_run(*given)
    found = {dag: run.mapped("benchmark", dag) for dag in ("pretrain", "align", "evaluate", "corpus")}
    assert found == {
        "pretrain": ["pretrain-3.mmlu", "pretrain.mmlu"],
        "align": ["sft.mmlu", "aligned.mmlu"],
        "evaluate": ["pretrain-3.mmlu", "pretrain.mmlu", "sft.mmlu", "aligned.mmlu", "mine.mmlu"],
        "corpus": [],
    }
    assert run.mapped("filter", "corpus") == [segment.partition for segment in run.segments]
    assert run.mapped("mix", "corpus") == []
    run.check_inputs(run.task("benchmark", "sft.mmlu"))
    (model / "config.json").write_text("{ }")
    run.check_inputs(run.task("benchmark", "sft.mmlu"))
    with pytest.raises(InputError, match=r"benchmark\.others\.mine: the file changed"):
        run.check_inputs(run.task("benchmark", "mine.mmlu"))

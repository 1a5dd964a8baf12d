"""The preference pairs: what is held out, what instruction tuning has seen, and a run on the mixture that Spark made."""

import datetime
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import feedback
from contract.conversation import Preference, Turn
from contract.errors import InputError
from contract.feedback import Item, Reply, Round, Vote
from contract.headline import headline
from contract.kinds import Kind
from contract.lineage import trace
from contract.manifest import Manifest, need
from contract.plan import Run
from contract.recipe import StageSettings
from contract.stages import STAGES
from contract.store import Store
from contract.tables import read_batches
from pipelines import preferences
from pipelines.__main__ import main
from pipelines.examples.synthetic import documents, synthetic_preferences
from pipelines.preferences import is_heldout

TEXT = (
    "The {0} stands by the {1}. It was built when {2} ruled here! Who lives there now? Nobody has seen {0} since {2}."
)


def pages(make_document: Any, number: int, offset: int = 0) -> list[dict[str, Any]]:
    return [
        make_document(TEXT.format(f"mill {at}", f"river {at * 7}", f"king {at * 13}"), title=f"Note {at}")
        for at in range(offset, offset + number)
    ]


def hh(*rows: tuple[str, str, str]) -> str:
    return "".join(
        json.dumps({name: f"\n\nHuman: {ask}\n\nAssistant: {reply}" for name, reply in zip(("chosen", "rejected"), replies, strict=True)})
        + "\n"
        for ask, *replies in rows
    )  # fmt: skip


@pytest.fixture
def made(make_corpus: Any, make_document: Any, commit_mixture: Any, run_stage: Any, monkeypatch: Any) -> Any:
    """`made({"preferences.seed": 3})`: a run whose mixture is 40 documents and 10 held out, and the stage's manifest."""
    monkeypatch.setattr("pipelines.spark.job.start_context", lambda *_: pytest.fail("Spark was started"))
    names = map(str, count())

    def make(overrides: dict[str, Any], documents: int = 40, heldout: int = 10) -> tuple[Run, Manifest]:
        run = make_corpus([[pages(make_document, 1)]], overrides, next(names))
        kinds = {"documents": [pages(make_document, documents)], "heldout": [pages(make_document, heldout, 90)]}
        commit_mixture(run, {kind: files for kind, files in kinds.items() if files[0]})
        run_stage(run, "instructions")
        return run, run_stage(run, "preferences")[0]

    return make


def read(run: Run, done: Manifest, kind: Kind) -> list[dict[str, Any]]:
    return [row for file in done.of(kind) for batch in read_batches(run.store, file, 100) for row in batch.to_pylist()]


def sides(run: Run, done: Manifest) -> tuple[list[Preference], list[Preference]]:
    """(training pairs, held-out pairs)."""
    train, heldout = (
        [Preference(tuple(Turn(**turn) for turn in row["prompt"]), row["chosen"], row["rejected"]) for row in read(run, done, kind)]
        for kind in (Kind.PAIRS, Kind.HELDOUT_PAIRS)
    )  # fmt: skip
    return train, heldout


def openings(pairs: list[Preference]) -> set[str]:
    return {pair.prompt[0].text for pair in pairs}


def tuned_on(run: Run) -> set[str]:
    """The prompts that instruction tuning learns from."""
    return {row["turns"][0]["text"] for row in read(run, need(run.store, run.task("instructions")), Kind.CHATS)}


def test_heldout_share_is_the_recipes() -> None:
    held = sum(is_heldout(f"prompt {index}", 0.2) for index in range(10_000))
    assert abs(held - 2000) < 5 * math.sqrt(10_000 * 0.2 * 0.8)


@given(st.text().filter(str.isprintable))
def test_a_prompt_is_held_out_by_its_hash(prompt: str) -> None:
    """The first eight bytes as a fraction of 2^64: the same prompts in every run, and more of them as the share grows."""
    place = int(hashlib.sha256(prompt.encode()).hexdigest()[:16], 16) / 2**64
    assert is_heldout(prompt, place + 1e-9)
    assert not is_heldout(prompt, place - 1e-9)


def test_synthetic_pairs_are_those_of_the_rules_and_of_their_documents(made: Callable[..., Any]) -> None:
    off = {f"{stage}.min_jaccard": None for stage in ("instructions", "preferences")}
    run, done = made({"preferences.max_examples": 50, "preferences.seed": 2, **off})
    train, heldout = sides(run, done)
    (mixture,) = [need(run.store, task) for task in run.task("preferences").of("mix")]
    learned = tuned_on(run)
    expected = [pair for _, pair in synthetic_preferences(documents(run.store, mixture.of(Kind.DOCUMENTS)), 2)]
    unseen = [pair for _, pair in synthetic_preferences(documents(run.store, mixture.of(Kind.HELDOUT)), 2)]
    assert train == expected[:40]
    assert heldout == [pair for pair in unseen if pair.prompt[0].text not in learned | openings(train)][:10]
    assert done.metrics == {
        "data": "synthetic", "training": 40, "heldout": 10, "shapes": {}, "tasks": {"": {"training": 40, "heldout": 10}},
    }  # fmt: skip
    assert headline(done).startswith("40 pairs for training, 10 held out")


def test_pairs_to_judge_by_were_learned_by_no_stage(made: Callable[..., Any]) -> None:
    """Neither their prompts nor their replies' documents, also where the same page is in both parts of the corpus."""
    run, done = made({"preferences.max_examples": 200}, documents=94)
    train, heldout = sides(run, done)
    assert not openings(heldout) & (openings(train) | tuned_on(run))
    assert done.rows.reasons["prompt_learned"] >= 5
    assert done.rows.read == len(train) + len(heldout) + done.rows.dropped
    assert Counter(row["reason"] for row in read(run, done, Kind.DROPS)) == done.rows.reasons


@pytest.mark.parametrize(("limit", "sizes"), [(3, (2, 1)), (7, (6, 1)), (20, (18, 2))])
def test_synthetic_pairs_are_limited_with_one_to_judge_by_at_least(
    made: Callable[..., Any], limit: int, sizes: tuple[int, int]
) -> None:
    run, done = made({"preferences.max_examples": limit, "preferences.heldout_fraction": 0.1})
    assert tuple(map(len, sides(run, done))) == sizes


def test_a_file_is_split_by_its_prompts(made: Callable[..., Any], tmp_path: Path) -> None:
    """At several lengths and with several replies; in the order of the file; a prompt that is tuned on is not held out."""
    rows = [
        (f"question {at}" + f"\n\nAssistant: So?\n\nHuman: again {length}" * length, f"yes {at}", f"no {reply}")
        for at in range(60)
        for length in range(2)
        for reply in range(2)
    ]
    (tmp_path / "pairs.jsonl").write_text(hh(*rows, *rows[:1]) + "{}\nnot json\n")
    tuned = [{"instruction": f"question {at}", "output": f"reply {at}"} for at in range(30)]
    (tmp_path / "chats.json").write_text(json.dumps(tuned))
    files = {"preferences.data": f"{tmp_path}/pairs.jsonl", "instructions.data": f"{tmp_path}/chats.json"}
    run, done = made({**files, "preferences.heldout_fraction": 0.4})
    train, heldout = sides(run, done)
    assert not openings(train) & openings(heldout)
    learned = tuned_on(run)
    assert len(learned) == 28
    expected = {f"question {at}" for at in range(60) if is_heldout(f"question {at}", 0.4)} - learned
    assert openings(heldout) == expected
    assert len(expected) > 5
    assert any(is_heldout(one, 0.4) for one in learned), "the rule should matter here"
    assert len(train) + len(heldout) == 240
    for side in (train, heldout):
        places = [int(pair.prompt[0].text.split()[1]) for pair in side]
        assert places == sorted(places)
    assert done.rows.reasons == {"duplicate": 1, "unknown_shape": 1, "not_json": 1}
    assert done.rows.read == 243
    assert {row["url"] for row in read(run, done, Kind.DROPS)} == {f"pairs.jsonl line {at}" for at in (241, 242, 243)}


def test_contaminated_pairs_are_dropped_whatever_part_repeats_the_benchmark(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    leak = "one two three four five six seven eight nine ten eleven twelve thirteen"
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": leak}))
    clean = [(f"question {at}", f"yes {at}", "no") for at in range(40)]
    (tmp_path / "a.jsonl").write_text(hh(*clean, (leak, "a", "b"), ("x y", leak, "b"), ("z w", "a", leak)))
    run, done = made(
        {
            "preferences.data": f"{tmp_path}/a.jsonl",
            "decontaminate.benchmarks": {"numbers": f"{tmp_path}/set.jsonl"},
            "decontaminate.action": "cut",  # an example is never cut
        }
    )
    assert done.rows.reasons == {"contaminated": 3}
    assert done.rows.kept == 40
    assert {row["url"] for row in read(run, done, Kind.DROPS)} == {f"a.jsonl line {at}" for at in (41, 42, 43)}


def test_an_empty_side_is_refused(made: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(hh(*(("one and only", f"yes {at}", "no") for at in range(9))))
    for share, said, more in (
        (0.001, "9 pairs to learn from and 0 to judge by", "or raise preferences.heldout_fraction from 0.001$"),
        (0.999, "0 pairs to learn from and 9 to judge", "or give it more prompts$"),
    ):
        with pytest.raises(
            InputError, match=f"preferences: .*a.jsonl leaves {said}.*; name a larger file in pref.*{more}"
        ):
            made({"preferences.data": f"{tmp_path}/a.jsonl", "preferences.heldout_fraction": share})
    with pytest.raises(InputError, match=r"synthetic leaves .* and 0 to judge by .*or raise mix.heldout_fraction"):
        made({}, heldout=0)


def test_a_run_is_refused_before_it_starts(resolve_run: Any, tmp_path: Path) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    (tmp_path / "a.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    run = resolve_run(tmp_path / "crawl", {"preferences.data": f"{tmp_path}/a.jsonl"})
    with pytest.raises(
        InputError,
        match=r"^preferences\.data: .*line 1: missing text: outputs\); allowed: .*{a question, chosen, rejected}",
    ):
        preferences.check(StageSettings(run.recipe, "preferences"))


def test_real_comparisons(made: Callable[..., Any], data_dir: Path) -> None:
    """Bai et al.'s helpful-base test set: nearly every row is a pair, and the held-out share is the recipe's."""
    run, done = made({"preferences.data": str(data_dir / "pref" / "hh-rlhf" / "helpful-base")})
    train, heldout = sides(run, done)
    assert len(train) + len(heldout) > 2000
    assert done.rows.dropped < 0.05 * done.rows.read
    assert len(heldout) / done.rows.kept == pytest.approx(0.2, abs=0.03)
    assert not openings(train) & openings(heldout)


def test_on_the_mixture_that_spark_made(
    make_document: Any, make_corpus: Any, commit_documents: Any, run_stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage as a user starts it, after a real `mix`."""
    rows = pages(make_document, 80)
    run = make_corpus(
        [[rows]], {"mix.heldout_fraction": 0.2, "instructions.max_examples": 60, "preferences.max_examples": 60}
    )
    commit_documents(run, STAGES["mix"].reads[0], "all", [rows[:50], rows[50:]])
    run_stage(run, "mix")
    for stage in ("instructions", "preferences"):
        assert main([stage, "--recipe", run.uri]) == 0
    said = capsys.readouterr().out
    for stage, what in (("instructions", "chats"), ("preferences", "pairs")):
        done = need(run.store, run.task(stage))
        assert f"committed {stage} all: {done.metrics['training']} {what} for training, " in said
        assert f"progress {stage} all {done.rows.read} examples" in said
        assert done.rows.kept == done.metrics["training"] + done.metrics["heldout"]
    train, heldout = sides(run, need(run.store, run.task("preferences")))
    assert len(train) > 30
    assert not openings(heldout) & (openings(train) | tuned_on(run))


def test_real_trees(made: Callable[..., Any], data_dir: Path) -> None:
    done = made({"preferences.data": str(data_dir / "pref"), "preferences.min_jaccard": None})[1]
    assert done.metrics["shapes"] == {
        "chosen and rejected dialogues": {"rows": 4644}, "tree of ranked replies": {"rows": 100},
    }  # fmt: skip
    tasks = {task: sum(sides.values()) for task, sides in done.metrics["tasks"].items()}
    assert tasks["oasst"] > 700
    assert sum(tasks.values()) == done.rows.kept
    assert done.rows.kept + done.rows.dropped == done.rows.read == 4642 + 24 + 754


def test_votes_of_people_are_learned_from_and_lineage_leads_from_each_to_the_pairs(
    made: Callable[..., Any], tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "votes"))
    prompts = [(Turn("user", f"question {number} about {number * 7} things"),) for number in range(30)]
    items = [
        Item(f"{number:032x}", 1, prompt, (Reply(f"good {number}", "m", 1.0), Reply(f"poor {number * 3}", "m", 0.5)))
        for number, prompt in enumerate(prompts)
    ]
    now = datetime.datetime.now(datetime.UTC)
    file = feedback.write_items(store, "items.parquet", items)
    opened = feedback.open_round(store, Round(name="first", number=1, run="r", opened=now, files=(file,)))
    votes = [
        Vote(round="first", item=item.id, annotator=name, showing=0, shown=(0, 1), ranks=ranks, when=now)
        for item in items
        for name, ranks in (("ann", (1, 2)), ("bob", (1, 2)), ("cat", (1, 1)))
    ]
    for vote in votes:
        feedback.cast(store, opened, vote)
    frozen = store.full(feedback.freeze(store, opened, feedback.ballots(store, opened).counting))
    settings = {
        "preferences.rounds.one.votes": frozen,
        "preferences.rounds.one.weight": 0.6,
        "preferences.min_jaccard": None,
    }
    run, done = made(settings | {"preferences.heldout_fraction": 0.3})
    train, heldout = sides(run, done)
    assert len(train) + len(heldout) == 30
    assert min(len(train), len(heldout)) > 2
    assert all(pair.chosen.startswith("good") for pair in (*train, *heldout))
    rows = read(run, done, Kind.PAIRS)
    assert {row["weight"] for row in rows} == {0.4}, "two of three prefer it, and the round counts 0.6"
    assert rows[0]["source"].startswith("first item ")
    assert done.metrics["shapes"] == {"votes of first": {"rows": 30}}
    assert done.metrics["data"] == frozen
    assert set(done.sources) == {frozen, *(store.full(f"feedback/first/votes/{vote.name}") for vote in votes)}
    told = trace(run.store, store.full(f"feedback/first/votes/{votes[5].name}"))
    assert f"  made preferences all {done.fingerprint[:12]}" in told[1]
    assert f"  from {frozen}" in trace(run.store, done.path)
    other = made(settings | {"preferences.heldout_fraction": 0.3, "preferences.rounds.one.weight": 1.0})[1]
    assert other.fingerprint != done.fingerprint

"""The chats to tune on: cleaned, told apart, split by prompt; every row that is read is kept or dropped with its reason."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.conversation import Example, Turn
from contract.errors import InputError
from contract.headline import headline
from contract.kinds import Kind
from contract.manifest import Manifest, find, need
from contract.plan import Run
from contract.recipe import StageSettings
from contract.tables import read_batches
from pipelines import instructions
from pipelines.examples.sieve import prompt_key
from pipelines.examples.synthetic import documents, synthetic_instructions
from pipelines.instructions import hold_out

TEXT = (
    "The {0} stands by the {1}. It was built when {2} ruled here! Who lives there now? Nobody has seen {0} since {2}."
)


def keys(prompts: list[str], seed: int = 0) -> Any:
    return np.array([prompt_key(prompt, seed) for prompt in prompts], np.uint64)


@given(st.lists(st.integers(0, 30), max_size=120), st.floats(0, 0.99), st.integers(0, 40), st.integers(0, 9))
def test_no_prompt_is_on_both_sides(prompts: list[int], fraction: float, most: int, seed: int) -> None:
    texts = [f"question {prompt}" for prompt in prompts]
    heldout = hold_out(keys(texts, seed), fraction, most)
    assert len(heldout) == len(prompts)
    sides = {(text, bool(flag)) for text, flag in zip(texts, heldout, strict=True)}
    assert len(sides) == len(set(texts))
    assert heldout.sum() <= min(most, round(len(prompts) * fraction))


def test_as_many_are_held_out_as_the_recipe_says() -> None:
    texts = [f"q{at}" for at in range(6000)]
    for size, wanted in ((9, 0), (10, 0), (11, 1), (29, 1), (31, 2), (5000, 250), (6000, 256)):
        assert hold_out(keys(texts[:size]), 0.05, 256).sum() == wanted
    heldout = hold_out(keys(texts), 0.05, 256)
    assert not (heldout == hold_out(keys(texts, 1), 0.05, 256)).all(), "another seed draws others"
    assert 50 < heldout[:3000].sum() < 206, "by lot"
    more = hold_out(keys([*texts, *(f"p{at}" for at in range(60))]), 0.05, 256)
    assert (more[:6000] & heldout).sum() > 240, "a hundredth more chats change few of them"


def test_an_instruction_that_most_rows_share_is_learned_from() -> None:
    heldout = hold_out(keys(["Translate"] * 95 + [f"q{at}" for at in range(5)]), 0.05, 256)
    assert heldout.tolist() == [False] * 95 + [True] * 5
    assert not hold_out(keys(["Translate"] * 95), 0.05, 256).any()


def pages(make_document: Any, number: int, offset: int = 0) -> list[dict[str, Any]]:
    return [
        make_document(TEXT.format(f"mill {at}", f"river {at * 7}", f"king {at * 13}"), title=f"Note {at}")
        for at in range(offset, offset + number)
    ]


def alpaca(*rows: tuple[str, str]) -> str:
    return "".join(json.dumps({"instruction": ask, "output": reply}) + "\n" for ask, reply in rows)


@pytest.fixture
def made(make_corpus: Any, make_document: Any, commit_mixture: Any, run_stage: Any, monkeypatch: Any) -> Any:
    """`made({"instructions.seed": 3})`: a run whose mixture is 40 documents and 10 held out, and the stage's manifest."""
    monkeypatch.setattr("pipelines.spark.job.start_context", lambda *_: pytest.fail("Spark was started"))

    names = map(str, count())

    def make(overrides: dict[str, Any], documents: int = 40) -> tuple[Run, Manifest]:
        run = make_corpus([[pages(make_document, 1)]], overrides, next(names))
        commit_mixture(run, {"documents": [pages(make_document, documents)], "heldout": [pages(make_document, 10, 90)]})
        return run, run_stage(run, "instructions")[0]

    return make


def read(run: Run, done: Manifest, kind: Kind) -> list[dict[str, Any]]:
    """The rows of a kind, whose checksums are verified."""
    return [row for file in done.of(kind) for batch in read_batches(run.store, file, 100) for row in batch.to_pylist()]


def asked(rows: list[dict[str, Any]]) -> list[str]:
    return [row["turns"][0]["text"] for row in rows]


def test_synthetic_chats_are_those_of_the_rules_and_of_their_documents(made: Callable[..., Any]) -> None:
    run, done = made({"instructions.max_examples": 50, "instructions.max_heldout": 8, "instructions.min_jaccard": None})
    (mixture,) = [need(run.store, task) for task in run.task("instructions").of("mix")]
    for kind, source, limit in ((Kind.CHATS, Kind.DOCUMENTS, 50), (Kind.HELDOUT_CHATS, Kind.HELDOUT, 8)):
        rows = read(run, done, kind)
        expected = list(synthetic_instructions(documents(run.store, mixture.of(source)), 0))[:limit]
        assert [(row["source"], tuple(Turn(**turn) for turn in row["turns"])) for row in rows] == expected
    assert done.metrics == {
        "data": "synthetic", "training": 50, "heldout": 8, "shapes": {},
        "tasks": {"": {"training": 50, "heldout": 8}},
    }  # fmt: skip
    assert done.rows.kept == done.rows.read == 58
    assert headline(done) == "50 chats for training, 8 held out"
    assert not done.of(Kind.DROPS)


def test_another_seed_makes_other_chats(made: Callable[..., Any]) -> None:
    run, done = made({"instructions.seed": 3})
    (mixture,) = [need(run.store, task) for task in run.task("instructions").of("mix")]
    expected = list(synthetic_instructions(documents(run.store, mixture.of(Kind.DOCUMENTS)), 3))
    assert {row["source"] for row in read(run, done, Kind.CHATS)} <= {source for source, _ in expected}
    assert set(asked(read(run, done, Kind.CHATS))) <= {ask.text for _, (ask, _) in expected}


def test_a_file_with_rows_of_every_kind(made: Callable[..., Any], tmp_path: Path) -> None:
    """Known answers: what is kept, what is dropped, why, and from where."""
    words = " ".join(f"word{at}" for at in range(60))
    benchmark = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": benchmark}))
    plain = [(f"What is thing {at}?", f"It is number {at}.") for at in range(40)]
    text = alpaca(
        *plain, ("Tell it.", words), ("tell  it!", f"{words} more"), plain[5], ("Say it.", f"Yes: {benchmark}.")
    )
    (tmp_path / "a.jsonl").write_text(
        text + 'not json\n{"instruction": "What?"}\n{"instruction": "\\ud800", "output": "b"}\n'
    )
    run, done = made(
        {
            "instructions.data": f"{tmp_path}/a.jsonl",
            "decontaminate.benchmarks": {"numbers": f"{tmp_path}/set.jsonl"},
        }
    )
    train, heldout = read(run, done, Kind.CHATS), read(run, done, Kind.HELDOUT_CHATS)
    drops = {row["url"]: row for row in read(run, done, Kind.DROPS)}
    assert {
        place: (row["stage"], row["reason"], row["value"], row["snippet"][:20]) for place, row in drops.items()
    } == {
        "a.jsonl line 42": ("instructions", "near_duplicate", drops["a.jsonl line 42"]["value"], "tell  it!"),
        "a.jsonl line 43": ("instructions", "duplicate", "", "What is thing 5?"),
        "a.jsonl line 44": ("instructions", "contaminated", f"numbers: {benchmark.rpartition(' ')[0]}", "Say it."),
        "a.jsonl line 45": ("instructions", "not_json", "", "not json\n"),
        "a.jsonl line 46": ("instructions", "missing_text", "output", '{"instruction": "Wha'),
        "a.jsonl line 47": ("instructions", "broken_text", "lone surrogate at character 0", '{"instruction": "\\ud'),
    }
    assert float(drops["a.jsonl line 42"]["value"]) >= 0.8
    ids = {row["turns"][0]["text"]: row["id"] for row in [*train, *heldout]}
    assert drops["a.jsonl line 42"]["duplicate_of"] == ids["Tell it."]
    assert drops["a.jsonl line 43"]["duplicate_of"] == drops["a.jsonl line 43"]["id"] == ids["What is thing 5?"]
    assert (len(train), len(heldout)) == (39, 2)
    assert sorted(asked([*train, *heldout])) == sorted([*(ask for ask, _ in plain), "Tell it."])
    places = {"a.jsonl line 8": "What is thing 7?", "a.jsonl line 41": "Tell it."}
    assert places.items() <= {row["source"]: row["turns"][0]["text"] for row in [*train, *heldout]}.items()
    assert done.rows.read == 47 == done.rows.kept + done.rows.dropped
    assert done.rows.reasons == Counter(row["reason"] for row in drops.values())
    assert done.rows.bytes_kept == sum(
        len(turn["text"].encode()) for row in [*train, *heldout] for turn in row["turns"]
    )
    assert headline(done).startswith("39 chats for training, 2 held out; ")
    assert len(ids.values()) == len(set(ids.values()))
    assert [file.path for file in run.store.files(done.prefix) if "scratch" in file.path] == []


def test_the_same_chats_have_the_same_ids_in_another_order(made: Callable[..., Any], tmp_path: Path) -> None:
    rows = [(f"What is thing {at}?", f"It is number {at}.") for at in range(60)]
    found = []
    for number, order in enumerate((rows, rows[::-1])):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(alpaca(*order))
        run, done = made({"instructions.data": str(path)})
        sides = (read(run, done, kind) for kind in (Kind.CHATS, Kind.HELDOUT_CHATS))
        found.append([{row["id"]: row["turns"] for row in side} for side in sides])
    assert found[0] == found[1]


def test_a_heldout_page_whose_prompt_is_learned_is_dropped(made: Callable[..., Any]) -> None:
    run, done = made({"instructions.max_heldout": 100}, documents=100)  # the held-out ones are among them
    assert done.rows.reasons["prompt_learned"] > 10
    learned = set(asked(read(run, done, Kind.CHATS)))
    assert not learned & set(asked(read(run, done, Kind.HELDOUT_CHATS)))
    reasons = Counter(row["reason"] for row in read(run, done, Kind.DROPS))
    assert reasons == done.rows.reasons


def test_reading_stops_at_the_limit(made: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "{}\n" + alpaca(*((f"q{at} {at * 77}", f"a{at}") for at in range(9))) + "broken\n"
    )
    _, done = made({"instructions.data": f"{tmp_path}/a.jsonl", "instructions.max_examples": 5})
    assert (done.rows.read, done.rows.kept, done.rows.reasons) == (6, 5, {"unknown_shape": 1})


@pytest.mark.parametrize(("min_jaccard", "kept"), [(0.8, 1), (1.0, 2), (None, 2)])
def test_near_duplicates_are_dropped_as_the_recipe_says(
    made: Callable[..., Any], tmp_path: Path, min_jaccard: float | None, kept: int
) -> None:
    words = " ".join(f"word{at}" for at in range(60))
    (tmp_path / "a.jsonl").write_text(alpaca(("Tell it.", words), ("Tell it.", f"{words} more"), ("Tell it.", words)))
    _, done = made({"instructions.data": f"{tmp_path}/a.jsonl", "instructions.min_jaccard": min_jaccard})
    assert done.rows.kept == kept
    assert done.rows.reasons["duplicate"] == 1


def test_without_an_example_it_says_what_to_do(made: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"instructions: synthetic leaves no chat to learn from \(none dropped\); name a"
    ):
        made({}, documents=0)
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(
        InputError, match=r"leaves no chat to learn from \(unknown_shape 1\); name a larger file in instru"
    ):
        made({"instructions.data": f"{tmp_path}/a.jsonl"})


def test_a_run_is_refused_before_it_starts(
    resolve_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    path = tmp_path / "a.jsonl"
    path.write_text(alpaca(("a", "b")) + "{}\n")
    run = resolve_run(tmp_path / "crawl", {"instructions.data": str(path)})
    instructions.check(StageSettings(run.recipe, "instructions"))
    assert capsys.readouterr().out == (
        "instructions.data: 1 usable rows (alpaca 1), 1 unusable, the first: a.jsonl line 2: unknown shape: keys \n"
    )
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"^instructions\.data: .*a.jsonl holds no usable row"):
        instructions.check(StageSettings(run.recipe, "instructions"))
    instructions.check(StageSettings(resolve_run(tmp_path / "crawl", {}, "two").recipe, "instructions"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"heldout_tasks": ["b", "sum"]}, r"heldout_tasks: no row is of the task 'sum'; there are a, b"),
        ({"select": {"examples": 1, "quality_key": "x"}}, r"select\.quality_key: no row has a number at 'x'"),
        ({"sources": {}, "heldout_tasks": ["a"]}, r"heldout_tasks: no row is of the task 'a'; the rows name no tasks"),
        ({"sources": {}, "select": {"examples": 9}}, r"select\.examples: chooses among the rows of files; name some"),
        ({"sources": {}, "max_per_task": 9}, r"max_per_task: chooses among the rows of files; name some"),
    ],
)
def test_a_choice_by_what_no_row_has_is_refused(
    resolve_run: Any, made: Callable[..., Any], tmp_path: Path, given: dict[str, Any], why: str
) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    sources = {}
    for task in ("a", "b"):
        (tmp_path / f"{task}.jsonl").write_text(json.dumps({"instruction": task, "output": "c", "reward": 2}) + "\n")
        sources[task] = {"data": f"{tmp_path}/{task}.jsonl"}
    settings = {f"instructions.{key}": value for key, value in ({"sources": sources} | given).items()}
    with pytest.raises(InputError, match=rf"^instructions\.{why}"):
        instructions.check(StageSettings(resolve_run(tmp_path / "crawl", settings).recipe, "instructions"))
    if sources == settings["instructions.sources"]:
        with pytest.raises(InputError, match=rf"^instructions\.{why}"):
            made(settings)


def test_real_instructions(made: Callable[..., Any], data_dir: Path) -> None:
    run, done = made({"instructions.data": str(data_dir / "sft" / "llama-factory" / "alpaca_en_demo.json")})
    train, heldout = read(run, done, Kind.CHATS), read(run, done, Kind.HELDOUT_CHATS)
    assert len(train) + len(heldout) == done.rows.kept > 950
    assert 0.03 < len(heldout) / done.rows.kept < 0.06
    assert not set(asked(train)) & set(asked(heldout))
    assert find(run.store, run.task("instructions")) == done


def test_tasks_are_capped_held_out_and_selected(made: Callable[..., Any], tmp_path: Path) -> None:
    """Known answers: what each rule takes of what the rules before it left."""
    for task, size in (("big", 60), ("small", 10), ("other", 12)):
        rows = [{"instruction": f"{task} question {at}", "output": f"{task} " + "x" * (at + 1)} for at in range(size)]
        if task == "other":
            rows[3]["instruction"] = "small question 3"  # a held-out task asks what a learned one asks
        (tmp_path / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {task: {"data": f"{tmp_path}/{task}.jsonl"} for task in ("big", "small", "other")}
    base = {
        "instructions.sources": sources,
        "instructions.min_jaccard": None,
        "instructions.heldout_fraction": 0,
        "instructions.max_heldout": 8,
        "instructions.heldout_tasks": ["other"],
    }
    run, done = made(base | {"instructions.max_per_task": 20})
    train, heldout = read(run, done, Kind.CHATS), read(run, done, Kind.HELDOUT_CHATS)
    assert Counter(row["task"] for row in train) == {"big": 20, "small": 10}
    assert Counter(row["task"] for row in heldout) == {"other": 8}
    assert done.rows.reasons == {"over_cap": 40, "prompt_learned": 1, "heldout_task": 3}
    assert "small question 3" not in asked(heldout)
    assert done.metrics["tasks"]["other"] == {"training": 0, "heldout": 8}
    assert done.metrics["shapes"] == {"alpaca": {"rows": 82}}
    assert done.metrics["data"] == ", ".join(source["data"] for source in sources.values())
    chosen = {"examples": 5, "min_reply_chars": 10, "max_similarity": 1.0}
    run, done = made(base | {"instructions.select": chosen})
    assert sorted(asked(read(run, done, Kind.CHATS))) == [f"big question {at}" for at in range(55, 60)], "the longest"
    assert done.rows.reasons["not_selected"] == 65


def test_worked_examples_decide_on_no_side() -> None:
    shown = (Turn("user", "p"), Turn("assistant", "r"))
    chat = Example((Turn("system", "s"), *shown, Turn("user", "q"), Turn("assistant", "a")), shots=2)
    assert instructions.asked(chat) == "q"
    assert instructions.asked(Example(shown)) == "p"


def test_a_real_folder_of_several_shapes(made: Callable[..., Any], data_dir: Path) -> None:
    """Each subfolder is a task: one is held out whole, the others are capped, and of these the best are kept."""
    run, done = made(
        {
            "instructions.data": str(data_dir / "sft"),
            "instructions.heldout_tasks": ["self-instruct"],
            "instructions.max_per_task": 600,
            "instructions.select": {"examples": 300, "max_similarity": 0.8},
        }
    )
    train, heldout = read(run, done, Kind.CHATS), read(run, done, Kind.HELDOUT_CHATS)
    assert done.metrics["shapes"] == {
        "sharegpt": {"rows": 500}, "alpaca": {"rows": 6534}, "self-instruct": {"rows": 175},
    }  # fmt: skip
    assert done.rows.read == 7209 == done.rows.kept + done.rows.dropped
    assert len(train) == 300
    assert {row["task"] for row in train} <= {"fastchat", "gpteacher", "llama-factory"}
    sides = Counter(row["task"] for row in heldout)
    assert 140 < sides["self-instruct"] <= 175
    assert not set(asked(train)) & set(asked(heldout))
    lengths = [len(row["turns"][-1]["text"]) for row in train]
    assert min(lengths) > 200, "the longest"

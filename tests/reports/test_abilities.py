"""Figures of models stand beside each other with the intervals that were committed, and replies with the same prompts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.kinds import Kind
from contract.plan import Run
from contract.results import Probe
from reports import abilities as module
from reports.abilities import Abilities, Ability, Row, abilities, beside, replies, sample_rows
from reports.models import Figure
from tests.contract.conftest import make_run  # noqa: F401 - a fixture
from tests.reports.answered import answer, records, tasks
from tests.reports.trained import SAMPLES, commit, dump, train

Make = Callable[..., Run]
OWN = "win rate over the SFT model, by the reward model that PPO optimised"


@pytest.fixture
def run(make_run: Make) -> Run:  # noqa: F811
    made = make_run()
    train(made)
    return made


def said(found: Abilities) -> dict[str, tuple[float, float | None, float | None, str]]:
    return {one.name: (one.figure.value, one.figure.low, one.figure.high, one.items) for one in found.found}


def test_each_model_has_the_figures_that_were_measured_of_it(run: Run) -> None:
    text, prompts = "64 sequences, 16,371 tokens", "32 prompts"
    assert said(abilities(run, "pretrain")) == {
        "bits per byte": (1.88, None, None, text),
        "perplexity": (117.0, None, None, text),
    }
    assert said(abilities(run, "ppo")) == {
        "bits per byte": (2.03, None, None, text),
        "perplexity": (167.0, None, None, text),
        "reward by the reward model of PPO": (0.65, None, None, prompts),
        OWN: (0.78, 0.61, 0.89, prompts),
    }
    assert said(abilities(run, "reward")) == {
        "pairwise accuracy": (0.96, 0.91, 0.98, "110 pairs"),
        "calibration error": (0.03, None, None, "110 pairs"),
    }
    assert abilities(run, "sft").notes == ("sft is worse than pretrain beyond noise: held-out perplexity 117 -> 145",)


def test_what_is_not_measured_yet_is_a_note(make_run: Make) -> None:  # noqa: F811
    run = make_run()
    assert abilities(run, "sft") == Abilities((), ("evaluate of this run is not done",))
    train(run)
    run.store.write_bytes(f"{run.task('evaluate').prefix}/manifest.json", b"{")
    found = abilities(run, "sft")
    assert found.found == ()
    assert "is not a manifest" in found.notes[0]


def test_models_of_other_held_out_text_are_not_compared(run: Run, make_run: Make) -> None:  # noqa: F811
    other = make_run("evaluate.sequences=9", run="two")
    train(other)
    rows = {row.name: row for row in beside([abilities(run, "sft"), abilities(run, "ppo"), abilities(other, "ppo")])}
    assert [one.figure.value if one else None for one in rows["perplexity"].cells] == [145.0, 167.0, 167.0]
    assert not rows["perplexity"].comparable
    assert {row.comparable for row in beside([abilities(run, "sft"), abilities(run, "ppo")])} == {True}
    assert [one is None for one in rows[OWN].cells] == [True, False, False]


@pytest.mark.parametrize(
    ("better", "intervals", "apart"),
    [
        ("higher", [(0.1, 0.2), (0.3, 0.4)], True),
        ("higher", [(0.1, 0.3), (0.3, 0.4)], False),
        ("lower", [(0.1, 0.2), (0.3, 0.4), (0.35, 0.5)], True),
        ("lower", [(0.1, 0.32), (0.3, 0.4)], False),
        ("higher", [(0.1, 0.2)], False),
        ("higher", [(0.1, 0.2), (None, None)], False),
    ],
)
def test_two_models_are_told_apart_where_their_intervals_do_not_meet(better, intervals, apart) -> None:
    cells = [Ability("x", better, Figure("x", 0.0, low, high), "", "same") for low, high in intervals]
    assert Row("x", better, (*cells, None)).told_apart is apart
    other = Ability("x", better, Figure("x", 0.0, -9.0, -8.0), "", "others")
    assert not Row("x", better, (*cells, other)).told_apart


def test_a_probe_has_intervals_from_its_items(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    run = make_run("probe.reference=" + "a" * 40)
    sources = {"crawl": {"documents": 3, "bytes": 300, "bits_per_byte": 1.0}}
    tasks = {"next_sentence": {"items": 263, "accuracy": 81 / 263, "chance": 0.25}}
    made = Probe(documents=3, bytes=300, documents_changed=0, bits_per_byte=1.0, sources=sources, tasks=tasks)
    measured = {
        "ids": ["a", "b", "c"],
        "bytes": [100, 100, 100],
        "nats": [60.0, 70.0, 77.94415416798357],
        "stands_for": 1,
    }
    content = json.dumps({"documents": {"crawl": measured}, "tasks": {}}).encode()
    commit(run, "probe", made, {"measures.json": content}, Kind.MEASURES)
    found = said(abilities(run, "pretrain"))
    bits, right = found["bits per byte of documents"], found["next_sentence: share of right answers"]
    # The mean of three ratios with equal weights: 1 plus and minus 4.3027 standard errors of the mean.
    assert bits == (1.0, pytest.approx(0.6778, abs=1e-4), pytest.approx(1.3222, abs=1e-4), "3 documents")
    # Newcombe 1998, table I: 81 of 263.
    assert right == (
        81 / 263,
        pytest.approx(0.2553, abs=5e-5),
        pytest.approx(0.3662, abs=5e-5),
        "263 items, chance 0.25",
    )
    monkeypatch.setattr(module, "MEASURES_BYTES", 10)
    assert said(abilities(run, "pretrain"))["bits per byte of documents"][:3] == (1.0, None, None)


def test_measures_that_are_no_json_are_a_note(make_run: Make) -> None:  # noqa: F811
    run = make_run("probe.reference=" + "a" * 40)
    made = Probe(documents=3, bytes=300, documents_changed=0, bits_per_byte=1.0, sources={})
    commit(run, "probe", made, {"measures.json": b"[" * 10}, Kind.MEASURES)
    assert "does not hold what its stage writes" in abilities(run, "pretrain").notes[-1]


def test_replies_stand_beside_each_other_at_the_same_prompt(run: Run, make_run: Make) -> None:  # noqa: F811
    other = make_run("evaluate.samples=9", run="two")
    train(
        other,
        [{"prompt": "New?", "before": "yes", "reward_before": 1, "after": None, "reward_after": None}, SAMPLES[1]],
    )
    rows, notes = replies([(run, "sft"), (run, "ppo"), (other, "sft")])
    told = [(row.text, [one and (one.text, one.reward) for one in row.replies]) for row in rows]
    assert told == [
        ("And a set?", [("", 0.0), ("no order", 1.0), ("", 0.0)]),
        ("What is a list?", [("a thing", -1.5), ("a row of things", 0.5), None]),
        ("New?", [None, None, ("yes", 1)]),
    ], "prompts that all were asked come first"
    assert notes == []
    assert replies([(make_run("evaluate.samples=5", run="three"), "ppo")]) == (
        [], ["evaluate of this run is not done, so there are no samples yet"],
    )  # fmt: skip
    closed = make_run("evaluate.samples=4", run="four")
    train(closed, [SAMPLES[0] | {"after": None, "reward_after": None}])
    assert replies([(closed, "ppo")])[1] == [
        "evaluate of this run has no samples of ppo; its gate may have been closed"
    ]


def test_hostile_and_long_texts_are_shown_harmless_and_short(run: Run, make_run: Make, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(module, "REPLY_CHARS", 12)
    other = make_run("evaluate.samples=9", run="two")
    rows = [SAMPLES[0] | {"prompt": f"{at}", "before": "a\u202eb\x1b[2J\u2028c\nd and more"} for at in range(30)]
    train(other, rows)
    shown, _ = replies([(other, "sft")])
    assert len(shown) == module.PROMPTS
    assert shown[0].replies[0].text == "a\\u202eb\\x1b[2J\nc\nd  [...]"


def test_a_file_of_samples_is_read_to_its_last_whole_line() -> None:
    content = dump([{"prompt": "a\u2028b"}, {"prompt": "c"}])
    assert sample_rows(content) == [{"prompt": "a\u2028b"}, {"prompt": "c"}]
    assert sample_rows(content[:-3]) == [{"prompt": "a\u2028b"}]
    assert sample_rows(b"") == []
    assert sample_rows(b"[1]\n{}\n") == [{}]


def test_samples_that_are_no_json_are_a_note(run: Run, make_run: Make) -> None:  # noqa: F811
    path = next(file.path for file in module.find(run.store, run.task("evaluate")).files)
    run.store.write_bytes(path, b"x" * (run.store.size(path) - 1) + b"\n")
    rows, notes = replies([(run, "sft")])
    assert rows == []
    assert "does not hold what its stage writes" in notes[0]


def test_scores_on_benchmarks_are_compared_where_they_were_asked_alike(
    resolve_run: Callable[..., Run], tmp_path: Path
) -> None:
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "a.warc.gz").write_bytes(b"WARC")
    asked = tasks("gsm8k", folder=tmp_path)
    one, other = resolve_run(crawl, asked, "one"), resolve_run(crawl, {**asked, "benchmark.seed": 3}, "two")
    for run in (one, other):
        for model in ("sft", "aligned"):
            answer(run, model, "gsm8k", records("gsm8k", "maths", [1.0, 0.0]))
    found = [abilities(run, stage) for run, stage in ((one, "sft"), (one, "ppo"), (other, "sft"))]
    alike, apart = beside(found[:2]), beside(found[::2])
    assert [(row.name, [cell.figure.value for cell in row.cells if cell]) for row in alike] == [
        ("gsm8k: maths", [0.5, 0.5])
    ]
    assert (alike[0].comparable, apart[0].comparable) == (True, False)
    assert abilities(one, "pretrain").found == ()

"""The lineage of a stage is walked both ways over whole stages, with figures, gaps and the runs that share it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.lineage import Group, Node
from contract.manifest import Attempt, Rows
from contract.plan import Run
from reports import lineage
from reports.lineage import FILES, HEIGHT, WIDTH, Kin, Lineage, Step, drawing, of_stage, step_of
from tests.contract.conftest import make_run  # noqa: F401 - a fixture
from tests.reports.trained import train

Make = Callable[..., Run]


@pytest.fixture(autouse=True)
def forget() -> None:
    lineage._made.cache_clear()


@pytest.fixture
def run(make_run: Make) -> Run:  # noqa: F811
    """Two segments up to `score`, one file of ten bytes each, and every model."""
    made = make_run("extract.min_chars=7")
    for segment in made.segments:
        for stage in ("crawl", "extract", "langid", "score"):
            Attempt(made, made.task(stage, segment.partition)).commit(
                [], Rows(read=5, kept=3, dropped=2, reasons={"language": 2})
            )
    train(made)
    return made


def stages(found: list[tuple[Step, int]]) -> list[str]:
    return [step.stage for step, _ in found]


def test_a_model_leads_back_to_the_crawl_files_and_forward_to_its_export(run: Run) -> None:
    found = of_stage(run, "ppo")
    assert stages(found.results) == ["evaluate", "export", "sample", "abilities"]
    back = stages(found.inputs)
    assert back[:3] == ["sft", "reward", "gate"]
    assert back[-1] == FILES
    assert len(back) == len(set(back)), "each stage once, however many segments it has"
    assert {"crawl", "extract", "filter", "mix", "tokenizer", "pack", "pretrain"} <= {*back}


def test_the_crawl_files_lead_forward_to_every_model(run: Run) -> None:
    found = of_stage(run, FILES)
    assert found.inputs == []
    assert {"crawl", "pretrain", "ppo", "export"} <= set(stages(found.results))
    assert not {"probe", "ablate", "curate"} & set(stages(found.results)), "this run is no ablation"
    files = found.steps[FILES]
    assert (files.count, files.bytes, files.said) == (2, 12, "2 crawl files")


def test_a_step_sums_its_segments_and_says_what_differs(run: Run) -> None:
    steps = {step.stage: step for step in of_stage(run, "sft").steps.values()}
    extract = steps["extract"]
    assert (extract.count, extract.done, extract.rows_read, extract.rows_kept) == (2, 2, 10, 6)
    assert extract.said == "2 of 2 segments done"
    assert extract.settings == (("extract.min_chars", "7"),)
    assert extract.seconds is not None
    assert steps["crawl"].sources == tuple(file.uri for one in run.segments for file in one.files)
    assert steps["sft"].said == "held-out perplexity 296 -> 229"
    assert steps["sft"].bytes == 72
    assert steps["sft"].fingerprint == run.task("sft").fingerprint
    assert (steps["filter"].done, steps["filter"].said) == (0, "0 of 2 segments done")
    assert steps["filter"].missing == tuple(f"{one.partition}: not done yet" for one in run.segments)
    assert (steps["mix"].said, steps["mix"].finished) == ("not done yet", "")


def test_a_damaged_manifest_keeps_its_place_and_says_what_is_wrong(run: Run) -> None:
    first = run.task("extract", run.segments[0].partition)
    run.store.write_bytes(f"{first.prefix}/manifest.json", b"{")
    found = of_stage(run, FILES)
    extract = next(step for step in found.steps.values() if step.stage == "extract")
    assert (extract.done, extract.count, extract.rows_read) == (1, 2, 5)
    assert "is not a manifest; delete it" in extract.missing[0]
    assert "ppo" in stages(found.results)


def test_of_many_segments_the_first_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "SEGMENTS", 1)
    steps = {step.stage: step for step in of_stage(run, "ppo").steps.values()}
    assert (steps["extract"].said, steps["extract"].rows_read) == ("1 of the first 1 of 2 segments done", 5)
    assert (steps["filter"].done, steps["filter"].missing) == (0, (f"{run.segments[0].partition}: not done yet",))


def test_results_of_other_runs_that_the_reader_sees_are_shown(run: Run, make_run: Make, tmp_path: Path) -> None:  # noqa: F811
    other = make_run("extract.min_chars=7", "sft.seed=7", run="two")
    assert [step.run for step in of_stage(run, "pretrain", [Kin.of(other)]).steps.values() if step.stage == "sft"] == [
        0
    ]
    train(other)
    found = of_stage(run, "pretrain", [Kin.of(other), Kin.of(run)])
    tuned = [(step.run, step.fingerprint) for step, _ in found.results if step.stage == "sft"]
    assert tuned == [(0, run.task("sft").fingerprint), (1, other.task("sft").fingerprint)]
    assert [step.run for step, _ in found.results if step.stage == "mix"] == []
    elsewhere = make_run("extract.min_chars=7", "sft.seed=8", f"store={tmp_path}/another", run="two")
    train(elsewhere)
    assert of_stage(run, "pretrain", [Kin.of(elsewhere)]).results == of_stage(run, "pretrain").results


def test_a_manifest_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of_stage(run, "ppo")
    monkeypatch.setattr(lineage, "read", lambda store, prefix: (_ for _ in ()).throw(FileNotFoundError(prefix)))
    again = of_stage(run, "ppo")
    assert again == first


def test_what_pages_name_moves_no_cursor_and_is_short() -> None:
    node = Node(("sft", "0" * 40, "all"), why="\x1b[2J")
    step = step_of("sft-0", Group("sft", (node,)), 0, {node.key})
    assert step.missing == ("all: \\x1b[2J",)
    assert lineage._cut("x" * 300) == "x" * 200 + "..."


def test_a_drawing_puts_every_step_below_what_it_was_made_from(run: Run) -> None:
    found = of_stage(run, "ppo")
    drawn = drawing(found)
    at = {box.step.key: box for box in drawn.boxes}
    assert at.keys() == found.steps.keys()
    for key, inputs in found.back.items():
        assert all(at[one].y < at[key].y for one in inputs)
    places = [(box.x, box.y) for box in drawn.boxes]
    assert len(set(places)) == len(places)
    assert all(
        0 <= box.x <= drawn.width - lineage.WIDTH and 0 <= box.y <= drawn.height - lineage.HEIGHT for box in drawn.boxes
    )


def test_a_source_stands_just_above_what_needs_it_first() -> None:
    steps = {name: Step(name, name, 0, 1) for name in "abcd"}
    back = {"a": (), "b": ("a",), "late": (), "c": ("b", "late")}
    drawn = drawing(
        Lineage(
            "c",
            steps | {"late": Step("late", "late", 0, 1)},
            back | {"d": ()},
            {"late": ("c",), "a": ("b",), "b": ("c",)},
        )
    )
    at = {box.step.key: box.y for box in drawn.boxes}
    assert at["late"] == at["b"]
    assert at["d"] == at["a"] == lineage.DOWN


def test_a_line_that_others_imply_is_left_out() -> None:
    steps = {name: Step(name, name, 0, 1) for name in "abc"}
    back = {"a": (), "b": ("a",), "c": ("a", "b")}
    drawn = drawing(Lineage("c", steps, back, {}))
    assert len(drawn.lines) == 2
    a, b, c = drawn.boxes
    assert (a.y, b.y, c.y) == (32, 106, 180)
    assert drawn.lines[0] == f"M{a.x + 88} 74C{a.x + 88} 90 {b.x + 88} 90 {b.x + 88} 106"
    circle = Lineage("a", {"a": steps["a"], "b": steps["b"]}, {"a": ("b",), "b": ("a",)}, {})
    assert len(drawing(circle).boxes) == 2


def test_no_line_passes_behind_a_box() -> None:
    """As in the graph of PPO: preferences lead past sft and pretrain to reward."""
    back = {
        "mix": (), "tokenizer": ("mix",), "instructions": ("mix",), "pack": ("tokenizer",), "pretrain": ("pack",),
        "preferences": ("instructions",), "sft": ("pretrain", "instructions"), "reward": ("sft", "preferences"),
    }  # fmt: skip
    steps = {name: Step(name, name, 0, 1) for name in back}
    drawn = drawing(Lineage("reward", steps, back, {}))
    assert len(drawn.lines) == sum(map(len, back.values()))
    passed = 0
    for line in drawn.lines:
        points = [tuple(map(int, point)) for point in re.findall(r"(\d+) (\d+)(?=V|C|$)", line)]
        for (x, top), bottom in zip(points[1:], map(int, re.findall(r"V(\d+)", line)), strict=False):
            passed += 1
            assert not [
                box for box in drawn.boxes if box.y < bottom and box.y + HEIGHT > top and box.x <= x <= box.x + WIDTH
            ]
    assert passed >= 3
    assert all(box.x >= 0 and box.x + WIDTH <= drawn.width for box in drawn.boxes)

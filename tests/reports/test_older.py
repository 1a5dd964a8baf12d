"""Results of older versions of the stages are found by the fingerprints that these versions would have given them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from contract import stages
from contract.manifest import Attempt
from contract.plan import Run
from contract.stages import ALIGNING, STAGES
from reports import older as module
from reports.older import Older, notice, older


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are listed anew each time: what is remembered of them goes by the store alone."""
    monkeypatch.setattr(module, "_folders", module._folders.__wrapped__)


@pytest.fixture
def raised(judged: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`raised(stage=version)`: the run `one` as a Gristmill with other versions of stages plans it."""

    def made(**versions: int) -> Run:
        newer = {name: replace(row, version=versions.get(name, row.version)) for name, row in STAGES.items()}
        monkeypatch.setattr(stages, "STAGES", newer)
        for name in ("contract.plan.STAGES", "reports.older.STAGES"):
            monkeypatch.setattr(name, newer)
        return replace(judged)  # its plan is computed anew

    return made


def test_a_run_of_this_version_has_no_older_results(judged: Run) -> None:
    assert older(judged) == {}
    assert notice({}) == ""


def test_results_of_older_versions_and_what_was_made_from_them_are_found(raised: Callable[..., Run]) -> None:
    crawl, extract = STAGES["crawl"].version, STAGES["extract"].version
    run = raised(crawl=crawl + 2)
    found = older(run)
    assert {name: (one.version, one.now) for name, one in found.items()} == {
        "crawl": (crawl, crawl + 2),
        "extract": (extract, extract),
    }
    task = next(task for task in run.tasks().values() if task.stage == "crawl")
    assert found["crawl"].prefix != task.prefix
    assert run.store.exists(f"{found['crawl'].prefix}/manifest.json")
    assert found["crawl"].said == (
        f"a result of version {crawl} is there; this version is {crawl + 2}; run crawl again"
    )
    assert found["extract"].said == "a result is there that was made from results of older versions; run extract again"
    assert notice(found) == (
        f"Results of this run were made by older versions of the stages crawl (version {crawl}, now {crawl + 2}). 1 further "
        "stage used those results. They are in the store, but cannot be read as results of this version. Start the run "
        "again to make them anew."
    )


def test_a_stage_that_this_version_has_begun_is_not_older_but_what_follows_it_is(raised: Callable[..., Run]) -> None:
    run = raised(crawl=STAGES["crawl"].version + 1)
    task = next(task for task in run.tasks().values() if task.stage == "crawl")
    Attempt(run, task).commit([])
    assert [*older(run)] == ["extract"]


def test_an_older_version_of_one_stage_alone(raised: Callable[..., Run]) -> None:
    version = STAGES["extract"].version
    assert older(raised(extract=version + 1)) == {
        "extract": Older("extract", version, version + 1, older(raised(extract=version + 1))["extract"].prefix)
    }


def test_an_attempt_without_a_manifest_is_no_result(raised: Callable[..., Run], judged: Run) -> None:
    partition = judged.segments[0].partition
    for stage in ("crawl", "extract"):
        judged.store.delete(f"{judged.task(stage, partition).prefix}/manifest.json")
    judged.store.write_bytes(f"{judged.task('crawl', partition).prefix}/attempt-aa/pages", b"")
    assert older(raised(crawl=STAGES["crawl"].version + 1)) == {}


def test_other_recipes_results_are_not_taken_for_older_ones(
    judged: Run, resolve_run: Callable[..., Run], tmp_path: Any
) -> None:
    other = resolve_run(tmp_path / "crawl", {"crawl.max_payload_bytes": 4321}, "two")
    assert older(other) == {}


def test_few_segments_are_tried_where_none_is_found(
    judged: Run, resolve_run: Callable[..., Run], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (tmp_path / "crawl" / f"{number}.warc.gz").write_bytes(b"WARC%d" % number)
    other = resolve_run(tmp_path / "crawl", {"crawl.max_payload_bytes": 4321, "crawl.files_per_segment": 1}, "many")
    looked: list[str] = []
    known = module._look
    monkeypatch.setattr(module, "_look", lambda run, task, *more: looked.append(task.stage) or known(run, task, *more))
    assert older(other) == {}
    assert looked.count("crawl") == module.FEW


def test_a_stage_that_was_left_out_does_not_hide_what_follows_it(
    judged: Run, raised: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `evaluate` where the gate was closed: it names a result of `ppo` that was never made."""
    for task in judged.tasks().values():
        if task.stage not in ("crawl", "extract", *ALIGNING):
            Attempt(judged, task).commit([])
    found = older(raised(reward=STAGES["reward"].version + 1))
    assert [*found] == ["reward", "gate", "evaluate", "abilities", "export", "sample"]

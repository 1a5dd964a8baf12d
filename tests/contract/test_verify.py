"""Verification finds what no size and no path tells: swapped bytes, and results that were not made from what they say."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.__main__ import main
from contract.errors import DamagedError, GristmillError, InputError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, find, need
from contract.output import write_file
from contract.plan import Run, Task
from contract.verify import verify

ONE = "CRAWL-2024-10.00000"


def commit(run: Run, task: Task) -> Manifest:
    """Commit a file of the task's own, and, like a stage that only judges, list its inputs' documents."""
    attempt = Attempt(run, task)
    own = write_file(run.store, attempt.path("x"), Kind.DOCUMENTS, f"{task.stage} {task.partition}".encode(), part=0)
    listed = (
        [file for one in task.inputs for file in need(run.store, one).of(Kind.DOCUMENTS)]
        if task.stage == "langid"
        else []
    )
    return attempt.commit([own, *listed])


@pytest.fixture
def made(make_run: Callable[..., Run]) -> Run:
    """A run whose corpus is made, with a few bytes a task."""
    run = make_run("extract.min_chars=40")
    for task in run.tasks().values():
        commit(run, task)
        if task.stage == "mix":
            break
    return run


def edit(run: Run, task: Task, change: Callable[[dict[str, Any]], None]) -> None:
    path = f"{task.prefix}/manifest.json"
    values = json.loads(run.store.read_bytes(path))
    change(values)
    run.store.write_bytes(path, json.dumps(values).encode())


def test_what_was_committed_verifies_from_a_manifest_its_folder_and_a_run(made: Run) -> None:
    mix = made.store.full(made.task("mix").prefix)
    whole = verify(f"{mix}/manifest.json")
    assert (whole.wrong, whole.manifests, whole.files) == ((), 18, 18)
    assert whole.bytes == sum(
        len(f"{task.stage} {task.partition}") for task in made.tasks().values() if find(made.store, task)
    )
    assert verify(mix) == verify(made.uri) == whole
    crawl = verify(made.store.full(made.task("crawl", ONE).prefix))
    assert (crawl.manifests, crawl.files, crawl.wrong) == (1, 1, ())
    extract = verify(made.store.full(made.task("langid", ONE).prefix))
    assert (extract.manifests, extract.files, extract.wrong) == (3, 3, ())


def path_of(run: Run, stage: str) -> Path:
    (file,) = [file for file in need(run.store, run.task(stage, ONE)).files if file.path.startswith(stage)]
    return run.store.local(file.path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, "has 26 bytes, 27 were committed"),
        (swap, "holds other bytes than were committed"),
        (Path.unlink, "is gone"),
    ],
)
def test_a_truncated_a_swapped_and_a_missing_file_are_found_down_the_chain(
    made: Run, damage: Callable[[Path], None], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = path_of(made, "extract")
    damage(path)
    mix = made.store.full(made.task("mix").prefix)
    owners = ", ".join(f"{made.task(stage, ONE).prefix}/manifest.json" for stage in ("langid", "extract"))
    line = f"file://{path}: {why}; listed by {owners}"
    assert verify(mix).wrong == (line,)
    assert main(["verify", mix]) != 0
    printed = capsys.readouterr()
    assert line in printed.out
    assert "18 manifests, 18 files" in printed.err
    assert "faults, named above: 1. Bring damaged files back, or delete the manifests that list them" in printed.err


def test_settings_that_were_edited_no_longer_give_the_fingerprint(made: Run) -> None:
    def change(values: dict[str, Any]) -> None:
        values["identity"]["settings"]["extract.min_chars"] = 50

    task = made.task("extract", ONE)
    assert need(made.store, task).identity.settings == {"extract.min_chars": 40}
    edit(made, task, change)
    (line,) = verify(made.uri).wrong
    place = f"{made.store.full(task.prefix)}/manifest.json"
    assert line.startswith(f"{place}: its fingerprint is not that of the identity that it holds, so it was not written")
    with pytest.raises(DamagedError, match="its fingerprint is not that of the identity"):
        need(made.store, task)


def test_a_missing_manifest_breaks_the_chain_with_a_line(made: Run) -> None:
    task = made.task("score", ONE)
    made.store.delete(f"{task.prefix}/manifest.json")
    verdict = verify(made.store.full(made.task("mix").prefix))
    assert verdict.wrong == (f"{made.store.full(task.prefix)}/manifest.json: is gone; run score again",)
    assert verdict.manifests == 14, "score's own inputs are not reached any more, the other segment's are"


def test_a_manifest_of_another_format_is_named_with_its_format(made: Run) -> None:
    task = made.task("score", ONE)
    edit(made, task, lambda values: values.pop("format") and values.pop("identity"))
    (line,) = verify(made.uri).wrong
    assert "has format 1, and this version of Gristmill reads format 2" in line


def test_a_file_that_two_manifests_list_otherwise_is_told(made: Run) -> None:
    def change(values: dict[str, Any]) -> None:
        values["files"][1]["sha256"] = hashlib.sha256(b"other").hexdigest()

    edit(made, made.task("langid", ONE), change)
    assert any(
        "lists extract/" in line and "with another size or checksum than" in line for line in verify(made.uri).wrong
    )


def test_a_file_of_an_earlier_stage_that_no_input_lists_is_told(made: Run) -> None:
    """The documents of another segment have their own place and checksum, but this result was not made from them."""
    other = need(made.store, made.task("extract", made.segments[1].partition)).files[0]
    task = made.task("langid", ONE)
    edit(made, task, lambda values: values["files"].append(other.model_dump(mode="json")))
    assert verify(made.store.full(task.prefix)).wrong == (
        f"{made.store.full(task.prefix)}/manifest.json: lists {other.path}, which none of its inputs lists",
    )


def test_a_file_without_a_checksum_is_told(made: Run) -> None:
    task = made.task("pack")
    attempt = Attempt(made, task)
    made.store.write_bytes(attempt.path("x"), b"x")
    attempt.commit([File(path=attempt.path("x"), kind=Kind.TOKENS, bytes=1)])
    assert [line.split(": ")[1] for line in verify(made.store.full(task.prefix)).wrong if "attempt" in line] == [
        f"was committed without a checksum; listed by {task.prefix}/manifest.json"
    ]


def test_what_is_no_result_is_refused(made: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no manifest"):
        verify(made.store.full(made.task("sft").prefix))
    (tmp_path / "a.yaml").write_text("name: a")
    with pytest.raises(InputError, match="is not a resolved run"):
        verify(str(tmp_path / "a.yaml"))


def test_only_files_that_an_input_lists_may_be_listed_besides_a_tasks_own(make_run: Callable[..., Run]) -> None:
    run = make_run()
    crawl, extract = (commit(run, run.task(stage, ONE)) for stage in ("crawl", "extract"))
    other = run.task("langid", ONE)
    listed = Attempt(run, other).commit([extract.files[0].model_copy(update={"part": 7})])
    assert find(run.store, other) == listed, "a part may have another number in a later stage"
    for stray in (crawl.files[0], extract.files[0].model_copy(update={"bytes": 1})):
        with pytest.raises(GristmillError, match="and no input lists it; nothing was committed"):
            Attempt(run, run.task("score", ONE)).commit([stray])

"""The prompts for PPO: none without a file, each once, and none that measures a model."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InputError
from contract.headline import headline
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.plan import Run
from contract.recipe import StageSettings
from contract.tables import read_batches
from pipelines import prompts


def rows(run: Run, done: Manifest, kind: Kind) -> list[dict[str, Any]]:
    return [row for file in done.of(kind) for batch in read_batches(run.store, file, 100) for row in batch.to_pylist()]


@pytest.fixture
def made(make_corpus: Any, make_document: Any, commit_mixture: Any, run_stage: Any, tmp_path: Path) -> Any:
    """`made({"prompts.data": ...})`: a run with 60 chats and 60 pairs of files, and the stage's manifest."""
    chats = [{"instruction": f"chat {at}", "output": "b"} for at in range(60)]
    pairs = [{"prompt": f"pair {at}", "chosen": f"yes {at}", "rejected": "no"} for at in range(60)]
    for name, found in (("chats", chats), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))

    def make(overrides: dict[str, Any]) -> tuple[Run, Manifest]:
        files = {"instructions.data": f"{tmp_path}/chats.jsonl", "preferences.data": f"{tmp_path}/pairs.jsonl"}
        run = make_corpus([[[make_document("A page.")]]], {"instructions.heldout_fraction": 0.2} | files | overrides)
        commit_mixture(run, {"documents": [[make_document("A page.")]], "heldout": [[make_document("Another.")]]})
        for stage in ("instructions", "preferences"):
            run_stage(run, stage)
        return run, run_stage(run, "prompts")[0]

    return make


def test_without_a_file_there_are_none(made: Any) -> None:
    run, done = made({})
    assert (rows(run, done, Kind.PROMPTS), done.metrics["training"], done.metrics["data"]) == ([], 0, "none")


def test_no_prompt_measures_a_model(made: Any, tmp_path: Path) -> None:
    asked = [f"chat {at}" for at in range(60)] + [f"pair {at}" for at in range(60)] + ["own", "own", "other"]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": one, "task": "t"}) + "\n" for one in asked) + "3\n")
    run, done = made({"prompts.data": f"{tmp_path}/p.jsonl"})
    measured = {
        row[column][0]["text"]
        for stage, kind, column in (
            ("instructions", Kind.HELDOUT_CHATS, "turns"),
            ("preferences", Kind.HELDOUT_PAIRS, "prompt"),
        )
        for row in rows(run, need(run.store, run.task(stage)), kind)
    }
    assert len(measured) > 15
    found = rows(run, done, Kind.PROMPTS)
    assert [row["prompt"][0]["text"] for row in found] == [
        one for one in asked[:-2] + asked[-1:] if one not in measured
    ]
    assert {row["task"] for row in found} == {"t"}
    assert done.rows.reasons == {"prompt_measured": len(measured), "duplicate": 1, "not_an_object": 1}
    assert done.metrics["tasks"] == {"t": {"training": len(found), "heldout": 0}}
    assert done.metrics["shapes"] == {"prompt": {"rows": 123}}
    assert headline(done).startswith(f"{len(found)} prompts of their own; ")


def test_a_file_without_a_prompt_is_refused(
    resolve_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n3\n')
    run = resolve_run(tmp_path / "crawl", {"prompts.data": str(path)})
    prompts.check(StageSettings(run.recipe, "prompts"))
    assert capsys.readouterr().out == (
        "prompts.data: 1 usable rows (prompt 1), 1 unusable, the first: p.jsonl line 2: not an object\n"
    )
    path.write_text("3\n")
    with pytest.raises(InputError, match=r"^prompts\.data: .*p.jsonl holds no usable row"):
        prompts.check(StageSettings(run.recipe, "prompts"))


def test_real_prompts(made: Any, data_dir: Path) -> None:
    run, done = made({"prompts.data": str(data_dir / "sft")})
    found = rows(run, done, Kind.PROMPTS)
    assert done.rows.read == 7209
    assert len(found) == done.rows.kept > 6500
    assert {row["prompt"][-1]["role"] for row in found} == {"user"}
    assert done.metrics["shapes"] == {"prompt": {"rows": 6709}, "sharegpt": {"rows": 500}}


def test_known_answers_are_kept(made: Any, tmp_path: Path) -> None:
    asked = [
        {"prompt": "One?", "answer": " 1 "},
        {"question": "Two?", "answer": ["2", "two"]},
        {"prompt": "Who knows?"},
        {"prompt": "Three?", "answer": 3},
        {"prompt": "Four?", "answer": ["4", ""]},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    run, done = made({"prompts.data": f"{tmp_path}/p.jsonl"})
    found = {row["prompt"][0]["text"]: row["answers"] for row in rows(run, done, Kind.PROMPTS)}
    assert found == {"One?": ["1"], "Two?": ["2", "two"], "Who knows?": []}
    assert done.rows.reasons == {"not_a_text": 1, "empty_text": 1}

"""Every model of a few runs is found where the plan says, with its figures and its files, and costs one read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contract import manifest as manifests
from contract.errors import DamagedError, InputError, NotReadyError
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.plan import Run
from contract.results import Checkpoint
from contract.stages import STAGES
from contract.store import Store
from reports import models
from reports.models import Figure, Seen, main_figure
from tests.contract.conftest import make_run  # noqa: F401 - a fixture
from tests.reports.trained import MODEL, PPO, PRETRAIN, commit, train

SIZE = sum(map(len, MODEL.values()))


@pytest.fixture(autouse=True)
def forget() -> None:
    models._kept.cache_clear()
    models._table.cache_clear()


@pytest.fixture
def trained(make_run: Callable[..., Run]) -> Run:  # noqa: F811
    run = make_run()
    train(run)
    return run


@pytest.fixture
def seen(trained: Run) -> Seen:
    return Seen.of("align", "one", trained)


def test_the_table_says_what_each_stage_committed(seen: Seen, trained: Run) -> None:
    ppo, reward, sft, pretrain = models.table([seen])
    assert [one.stage for one in (ppo, reward, sft, pretrain)] == ["ppo", "reward", "sft", "pretrain"], "newest first"
    assert [one.parameters for one in (ppo, sft, pretrain)] == [1_315_968] * 3
    assert [one.tokens for one in (ppo, reward, sft, pretrain)] == [None, None, 24_843, 490_467]
    assert ppo.figure == Figure("win rate by its own reward model", 0.78, 0.61, 0.89)
    assert reward.figure == Figure("held-out accuracy", 0.96, 0.91, 0.98)
    assert sft.figure == Figure("held-out perplexity of replies", 229.0)
    assert pretrain.figure == Figure("bits per byte", 1.88)
    assert [one.exported for one in (ppo, reward, sft, pretrain)] == [True, False, False, False]
    assert {one.bytes for one in (ppo, reward, sft, pretrain)} == {SIZE}
    assert pretrain.headline == "held-out perplexity 4,000 -> 117"
    made = manifests.need(trained.store, trained.task("sft"))
    assert (sft.finished, sft.fingerprint, sft.name) == (
        f"{made.finished:%Y-%m-%d %H:%M:%S}", made.fingerprint, "align/one/sft",
    )  # fmt: skip


def test_a_model_that_runs_share_stands_once_with_the_dag_that_trains_it(
    seen: Seen,
    trained: Run,
    make_run: Callable[..., Run],  # noqa: F811
) -> None:
    other = make_run("sft.seed=7", run="two")
    rows = models.table(
        [Seen.of("evaluate", "three", trained), seen, Seen.of("align", "two", other), Seen.of("pretrain", "p", trained)]
    )
    assert [(one.stage, one.dag_id, one.run_id, one.shared) for one in rows] == [
        ("ppo", "align", "one", 3),
        ("reward", "align", "one", 3),
        ("sft", "align", "one", 3),
        ("pretrain", "pretrain", "p", 4),
    ], "the other run has nothing of its own but the same pretraining"


def test_a_manifest_is_read_once_for_the_table_and_again_for_its_own_page(
    seen: Seen, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(models, "read", lambda store, prefix: read.append(prefix) or manifests.read(store, prefix))
    first = models.table([seen])
    assert sorted({one.partition("/")[0] for one in read}) == [
        "evaluate",
        "export",
        "judge",
        "ppo",
        "pretrain",
        "reward",
        "sft",
    ]
    read.clear()
    models._table.cache_clear()
    assert models.table([seen]) == first
    assert {one.partition("/")[0] for one in read} == {"judge"}, "what is not done is asked for again"
    assert models.model(seen, "sft") == first[2]
    assert trained.task("sft").prefix in read


def test_training_that_is_not_done_shows_its_newest_checkpoint(make_run: Callable[..., Run]) -> None:  # noqa: F811
    run = make_run()
    seen = Seen.of("pretrain", "one", run)
    assert models.table([seen]) == ()
    with pytest.raises(NotReadyError, match="pretrain of this run has made nothing yet"):
        models.model(seen, "pretrain")
    for step in (5, 20):
        commit(run, "pretrain", Checkpoint(step=step, processes=1, schedule_steps=99), {"s": b"s" * step}, Kind.CHECKPOINT, f"step-{step:08d}")  # fmt: skip
    models._table.cache_clear()
    [row] = models.table([seen])
    assert (row.stage, row.finished, row.state) == ("pretrain", "", "not finished; its newest checkpoint is of step 20")
    assert [(one.step, one.bytes) for one in models.checkpoints(seen, "pretrain")] == [(20, 20), (5, 5)]
    commit(run, "pretrain", PRETRAIN, MODEL, Kind.MODEL)
    models._table.cache_clear()
    assert models.table([seen])[0].finished, "what was not done is asked for again"


def test_what_is_not_finished_stands_before_what_is(seen: Seen, make_run: Callable[..., Run]) -> None:  # noqa: F811
    other = make_run("sft.seed=7", run="two")
    commit(other, "sft", Checkpoint(step=1, processes=1, schedule_steps=9), {}, Kind.CHECKPOINT, "step-00000001")
    rows = models.table([seen, Seen.of("align", "two", other)])
    assert [(one.run_id, one.stage) for one in rows][:2] == [("two", "sft"), ("one", "ppo")]


def test_a_damaged_manifest_is_a_row_that_says_so(seen: Seen, trained: Run) -> None:
    trained.store.write_bytes(f"{trained.task('sft').prefix}/manifest.json", b"{")
    rows = {one.stage: one for one in models.table([seen])}
    assert "is not a manifest; delete it" in rows["sft"].state
    assert rows["sft"].figure is None
    assert rows["ppo"].figure == Figure("win rate by its own reward model", 0.78, 0.61, 0.89)
    trained.store.write_bytes(f"{trained.task('pretrain').prefix}/step-x/ignored", b"")
    trained.store.write_bytes(f"pretrain/{trained.task('pretrain').fingerprint}/step-00000005/manifest.json", b"{")
    [checkpoint] = models.checkpoints(seen, "pretrain")
    assert (checkpoint.step, checkpoint.bytes) == (5, 0)
    assert "is not a manifest" in checkpoint.state


def test_checkpoints_say_their_loss_and_are_bounded(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    [one] = models.checkpoints(seen, "pretrain")
    assert (one.step, one.heldout_loss, one.bytes) == (5, 4.9, 2)
    monkeypatch.setattr(models, "CHECKPOINTS", 0)
    assert models.checkpoints(seen, "pretrain") == []


def test_without_an_evaluation_ppo_is_known_by_its_reward() -> None:
    kept = models.Kept("", "", PPO.model_dump(), 0, frozenset())
    assert main_figure("ppo", kept) == Figure("reward at the end", 0.5)
    without = models.Kept("", "", {"bits_per_byte": None, "heldout_perplexity_after": 9.0}, 0, frozenset())
    assert main_figure("pretrain", without) == Figure("held-out perplexity", 9.0)
    assert main_figure("sft", replace(without, metrics={"heldout_perplexity_after": True})) is None


def test_a_figure_is_said_with_its_interval_where_there_is_one() -> None:
    assert Figure("x", 0.96363, 0.9102, 0.98577).said == "0.964 (0.91 to 0.986)"
    assert Figure("x", 228.5).said == "228"


def test_only_stages_that_train_make_models(seen: Seen) -> None:
    with pytest.raises(InputError, match="gate trains no model"):
        models.model(seen, "gate")


def test_files_are_offered_by_their_names_in_the_manifest(make_run: Callable[..., Run]) -> None:  # noqa: F811
    run = make_run()
    attempt = Attempt(run, run.task("sft"))
    names = {"model.safetensors": Kind.MODEL, "samples.jsonl": Kind.SAMPLES, "deep/model.json": Kind.MODEL, "b d.json": Kind.MODEL, "metrics.jsonl": Kind.METRICS}  # fmt: skip
    for name in names:
        run.store.write_bytes(attempt.path(name), name.encode())
    made = attempt.commit([File(path=attempt.path(name), kind=kind, bytes=len(name)) for name, kind in names.items()])
    assert {one.name: one.offered for one in models.downloads(made)} == {
        "b d.json": False,
        "deep/model.json": False,
        "metrics.jsonl": True,
        "model.safetensors": True,
        "samples.jsonl": False,
    }
    assert models.chosen(made, "model.safetensors").bytes == len("model.safetensors")
    for name in ("deep/model.json", "../manifest.json", "samples.jsonl", "", made.files[0].path):
        with pytest.raises(InputError, match="offers no file of this name"):
            models.chosen(made, name)


def test_a_file_comes_in_pieces_and_a_damaged_one_not_at_all(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PIECE", 32)
    file = models.chosen(models.committed(trained, "ppo"), "model.safetensors").file
    pieces = list(models.stream(trained.store, file))
    assert [len(one) for one in pieces] == [32, 32, 6]
    assert b"".join(pieces) == MODEL["model.safetensors"]
    trained.store.write_bytes(file.path, b"short")
    with pytest.raises(DamagedError, match="has 5 bytes, 70 bytes were committed"):
        models.stream(trained.store, file)


def test_a_checkpoint_is_fetched_by_its_step(trained: Run) -> None:
    made = models.committed(trained, "pretrain", 5)
    assert [(one.name, one.offered) for one in models.downloads(made)] == [("state.json", True)]
    with pytest.raises(NotReadyError, match="no checkpoint of step 6"):
        models.committed(trained, "pretrain", 6)
    with pytest.raises(NotReadyError, match="gate all is not done"):
        models.committed(trained, "gate")


def test_the_command_to_fetch_quotes_what_a_shell_would_read(trained: Run) -> None:
    made = models.committed(trained, "sft")
    folder = f"{made.prefix}/{made.attempt}"
    target = f"sft-{made.fingerprint[:12]}"
    assert (
        models.fetch_command(Store("s3://bucket/a b"), made)
        == f"aws s3 cp --recursive 's3://bucket/a b/{folder}'/ {target}/"
    )
    assert models.fetch_command(Store("/a;b"), made) == f"cp -r '/a;b/{folder}' {target}"
    step = models.committed(trained, "pretrain", 5)
    assert models.fetch_command(trained.store, step).endswith(f" pretrain-{step.fingerprint[:12]}-step-00000005")
    assert Path(models.fetch_command(trained.store, step).split()[2]).is_dir()


def test_a_table_is_told_again_for_some_seconds(seen: Seen, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(models.time, "monotonic", lambda: now[0])
    first = models.table([seen])
    monkeypatch.setattr(models, "_model", lambda *_: None)
    now[0] += models.FRESH_S - 0.1
    assert models.table([seen]) is first
    now[0] += 0.2
    assert models.table([seen]) == ()


def test_models_of_a_store_on_s3_are_found_and_sent_alike(make_run: Callable[..., Run], s3_store: Store) -> None:  # noqa: F811
    run = make_run(f"store={s3_store.uri}")
    assert models.table([Seen.of("align", "one", run)]) == ()
    train(run)
    models._table.cache_clear()
    rows = models.table([Seen.of("align", "one", run)])
    assert [(one.stage, one.bytes) for one in rows] == [(stage, SIZE) for stage in ("ppo", "reward", "sft", "pretrain")]
    assert [one.step for one in models.checkpoints(Seen.of("align", "one", run), "pretrain")] == [5]
    file = models.chosen(models.committed(run, "ppo"), "model.safetensors").file
    assert b"".join(models.stream(run.store, file)) == MODEL["model.safetensors"]


def test_a_model_of_an_older_version_is_a_row_that_says_so(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    version = STAGES["sft"].version
    newer = {**STAGES, "sft": replace(STAGES["sft"], version=version + 1)}
    for name in ("contract.plan.STAGES", "reports.older.STAGES"):
        monkeypatch.setattr(name, newer)
    seen = Seen.of("runs", "one", replace(trained))
    rows = {one.stage: one.state for one in models.table([seen])}
    assert rows == {
        "pretrain": "",
        "sft": f"a result of version {version} is there; this version is {version + 1}; run sft again",
        "reward": "a result is there that was made from results of older versions; run reward again",
        "ppo": "a result is there that was made from results of older versions; run ppo again",
    }

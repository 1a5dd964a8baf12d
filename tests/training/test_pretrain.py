"""Pretraining learns, stops and goes on: as a user starts it, killed on the way, in one process and in two."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModelForCausalLM

from contract import lineage
from contract.errors import EXIT_INTERRUPTED, InputError, Interrupted, RecipeError
from contract.kinds import Kind
from contract.manifest import Attempt, Manifest, find, need
from contract.metrics import load_points
from contract.plan import Run
from contract.settings.training import Pretrain
from contract.shards import shards_of
from evals.heldout import HeldOut
from training import pretrain, sft
from training.data.batch import Batch
from training.data.drawing import Draws
from training.data.reading import TokenData
from training.engine import checkpoint
from training.engine.engine import Engine
from training.engine.guard import Guard
from training.engine.job import Job
from training.models import lm, positions
from training.models.llama import fetch, load_model

LONG = ("pretrain.steps=30", "pretrain.engine.checkpoint_steps=4")
SECONDS = 240


def wait_for_checkpoint(run: Run, process: subprocess.Popen[str], step: int) -> None:
    """Until the stage has committed the checkpoint of `step` or a later one."""
    folder = f"pretrain/{run.task('pretrain').fingerprint}"
    limit = time.monotonic() + SECONDS
    while time.monotonic() < limit:
        if any(
            int(name[5:]) >= step and run.store.exists(f"{folder}/{name}/manifest.json")
            for name in run.store.folders(folder)
            if name.startswith("step-")
        ):
            return
        if process.poll() is not None:
            pytest.fail(f"ended before step {step}: {process.communicate()[0]}")
        time.sleep(0.02)
    pytest.fail(f"no checkpoint of step {step}")


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == code, output
    return output


def weights(run: Run) -> str:
    """A digest of the committed model's weights."""
    manifest = need(run.store, run.task("pretrain"))
    (file,) = [one for one in manifest.of("model") if one.path.endswith(".safetensors")]
    return hashlib.sha256(run.store.read_bytes(file.path)).hexdigest()


def curve(run: Run, manifest: Manifest, name: str) -> list[tuple[int, float]]:
    (file,) = manifest.of("metrics")
    return [(one.step, one.value) for one in load_points(run.store.read_bytes(file.path)) if one.name == name]


@pytest.fixture(scope="module")
def plain(corpus_store: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A run that nobody stopped, in one process, and what it printed."""
    run = corpus_store(*LONG, name="plain")
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
    done = subprocess.run(
        [sys.executable, "-m", "training", "pretrain", "--recipe", run.uri],
        cwd=Path(__file__).parents[2],
        env={key: value for key, value in os.environ.items() if key not in ranks}
        | {"OMP_NUM_THREADS": "1", "GRISTMILL_SCRATCH": str(tmp_path_factory.mktemp("scratch"))},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return run, done.stdout


def test_it_learns_and_says_how_well(plain: tuple[Run, str], launch: Callable[..., subprocess.Popen[str]]) -> None:
    run, output = plain
    manifest = need(run.store, run.task("pretrain"))
    metrics = manifest.metrics
    assert 250 < metrics["heldout_perplexity_before"] < 400, (
        "near the vocabulary's 320 tokens, as a fresh model guesses"
    )
    assert metrics["heldout_perplexity_after"] < 40
    assert math.log(metrics["heldout_perplexity_after"]) == pytest.approx(metrics["heldout_loss_after"])
    loss = curve(run, manifest, "loss")
    assert [step for step, _ in loss] == list(range(1, 31))
    assert loss[-1][1] < loss[0][1] - 1.5
    assert metrics["tokens"] > 30 * 8 * 60
    assert {os.path.basename(file.path) for file in manifest.files} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }
    assert "progress pretrain all 30/30 steps" in output
    assert "pretrain: attention by sdpa, because FlexAttention is for GPUs\n" in output
    assert metrics["attention"] == "sdpa"
    kept = [name for name in run.store.folders(f"pretrain/{manifest.fingerprint}") if name.startswith("step-")]
    assert kept == ["step-00000030"], "a longer run may go on from it"
    assert finish(launch(run, "pretrain")).startswith("done pretrain all: ")


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_weights(
    plain: tuple[Run, str], make_run: Callable[..., Run], launch: Callable[..., subprocess.Popen[str]]
) -> None:
    whole, broken = plain[0], make_run(*LONG, name="broken")
    first = launch(broken, "pretrain")
    wait_for_checkpoint(broken, first, 4)
    first.send_signal(signal.SIGKILL)
    finish(first, -signal.SIGKILL)
    second = launch(broken, "pretrain")
    wait_for_checkpoint(broken, second, 12)
    second.send_signal(signal.SIGTERM)
    output = finish(second, EXIT_INTERRUPTED)
    assert "resumed pretrain from step" in output
    assert "error: pretrain: stopped after step" in output
    assert "Traceback" not in output
    finish(launch(broken, "pretrain"))

    assert weights(broken) == weights(whole)
    one, two = (need(run.store, run.task("pretrain")) for run in (whole, broken))
    assert curve(broken, two, "loss") == curve(whole, one, "loss")
    for name in ("heldout_perplexity_before", "heldout_perplexity_after", "tokens"):
        assert one.metrics[name] == two.metrics[name]


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_and_agree_with_one(
    plain: tuple[Run, str],
    make_run: Callable[..., Run],
    launch: Callable[..., subprocess.Popen[str]],
    run_two: Callable[..., list[str]],
) -> None:
    """DeepSpeed's launcher starts those that are stopped."""
    two = (*LONG, "pretrain.engine.processes=2", "pretrain.engine.zero_stage=2")
    alone, whole, broken = plain[0], make_run(*two, name="whole"), make_run(*two, name="broken")
    run_two("-m", "training", "pretrain", "--recipe", whole.uri)

    first = launch(broken, "pretrain", processes=2)
    wait_for_checkpoint(broken, first, 4)
    os.killpg(first.pid, signal.SIGTERM)  # launcher and ranks: the ranks finish their step
    first.communicate(timeout=SECONDS)
    assert first.returncode != 0
    assert "resumed pretrain from step" in run_two("-m", "training", "pretrain", "--recipe", broken.uri)[0]
    assert weights(broken) == weights(whole)

    one, both = (need(run.store, run.task("pretrain")) for run in (alone, whole))
    assert one.fingerprint == both.fingerprint, "how many processes is no part of the result's identity"
    for (_, a), (_, b) in zip(curve(alone, one, "loss"), curve(whole, both, "loss"), strict=True):
        assert a == pytest.approx(b, rel=1e-3)


BAD = """
import sys
import torch
from training.__main__ import main
from training.engine.engine import Engine

forward = Engine.__call__

def spoiled(self, *given, **named):
    output = forward(self, *given, **named)
    if self.steps_done == 5 and torch.distributed.get_rank() == 1:
        output.logits = output.logits * torch.nan
    return output

Engine.__call__ = spoiled
code = main(sys.argv[1:])
sys.stdout.flush()
__import__("os")._exit(code)
"""


def test_two_processes_go_on_after_a_batch_that_one_of_them_makes_nan_of(
    make_run: Callable[..., Run], run_two: Callable[..., list[str]]
) -> None:
    run = make_run("pretrain.engine.processes=2", "pretrain.engine.zero_stage=2")
    said = run_two("-c", BAD, "pretrain", "--recipe", run.uri)
    job = Job(run, run.task("pretrain"), Attempt(run, run.task("pretrain")))
    drawn = pretrain._draws(job).rows(5)
    [source], rows = {source for source, _ in drawn}, [row for _, row in drawn]
    assert [line for line in "".join(said).splitlines() if line.startswith("skipped")] == [
        "skipped update of pretrain in step 6: the norm of its gradients is inf, the running median none yet; "
        f"rows of its batch: {' '.join(map(str, (source, *rows)))}"
    ]
    assert "warning: pretrain skipped 1 update(s), in step(s) 6; the curve skipped_row" in said[0]
    manifest = need(run.store, run.task("pretrain"))
    assert (manifest.metrics["skipped_updates"], manifest.metrics["skipped_steps"]) == (1, "6")
    assert curve(run, manifest, "skipped") == [(6, 1)]
    assert curve(run, manifest, f"skipped_row {source}") == [(6, row) for row in rows]
    assert [step for step, _ in curve(run, manifest, "loss")] == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert [step for step, _ in curve(run, manifest, "lr")] == list(range(1, 13))
    assert manifest.metrics["heldout_perplexity_after"] < 0.7 * manifest.metrics["heldout_perplexity_before"]


def test_a_run_that_diverges_stops_and_commits_nothing(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain", "pretrain.optim.warmup_fraction=0")
    settings = job.settings
    wild = settings.model_copy(update={"optim": settings.optim.model_copy(update={"lr": 1e30})})  # past what is allowed
    job.declared.own = wild
    with pytest.raises(InputError, match=r"pretrain: 10 updates in a row were skipped, .*training diverged, lower the"):
        pretrain.run(job)
    assert find(job.store, job.task) is None


def test_an_update_that_ruins_the_weights_is_in_no_checkpoint_and_no_result(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry would resume from it and fail again for ever."""
    whole = Engine.step

    def ruin(self: Engine) -> float:
        norm = whole(self)
        if self.steps_done == 4:  # the step after which a checkpoint is due
            next(self.module.parameters()).data.fill_(math.nan)
        return norm

    monkeypatch.setattr(Engine, "step", ruin)
    job = make_job("pretrain")
    with pytest.raises(InputError, match="weights contain NaN or Inf after step 4; training diverged"):
        pretrain.run(job)
    assert checkpoint.committed(job) == []
    last = make_job("pretrain", "pretrain.steps=4", "pretrain.engine.keep_last=0")
    with pytest.raises(InputError, match="held-out loss is nan at the end; training diverged"):
        pretrain.run(last)
    assert find(last.store, last.task) is None


def test_what_a_step_drew_is_computed_again_only_if_its_update_was_skipped(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, asked, rows, step = make_job("pretrain", "pretrain.steps=3"), [], Draws.rows, Engine.step

    def noted(self: Draws, number: int) -> list[tuple[str, int]]:
        asked.append(number)
        return rows(self, number)

    def skips_the_second(self: Engine) -> float:
        norm = step(self)
        self.skipped = self.steps_done == 2
        return norm

    monkeypatch.setattr(Draws, "rows", noted)
    monkeypatch.setattr(Engine, "step", skips_the_second)
    pretrain.run(job)
    assert sorted(asked) == [0, 1, 1, 2], "the reader asks for each once"


def test_a_stop_in_the_last_step_lets_it_finish(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain", "pretrain.steps=1")
    job.ranks.stopping = lambda: True  # type: ignore[method-assign]
    pretrain.run(job)
    assert find(job.store, job.task) is not None


def test_nothing_held_out_is_said_and_no_error(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job("pretrain", "pretrain.steps=1")
    nothing = SimpleNamespace(sample=lambda count: [], sources={})
    whole = TokenData
    monkeypatch.setattr(pretrain, "TokenData", lambda *given: nothing if "heldout" in given[1] else whole(*given))
    pretrain.run(job)
    metrics = need(job.store, job.task).metrics
    assert (
        metrics["heldout_perplexity_before"] is metrics["heldout_perplexity_after"] is metrics["bits_per_byte"] is None
    )
    assert metrics["heldout_tokens"] == 0


STEADY = ("pretrain.optim.schedule=constant", "pretrain.optim.warmup_steps=2")


def test_a_finished_run_is_extended_from_its_last_checkpoint_as_if_it_had_been_one(
    make_job: Callable[..., Job], tensors: Callable[..., dict[str, torch.Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    short = make_job("pretrain", *STEADY, "pretrain.steps=5")
    pretrain.run(short)
    whole = make_job("pretrain", *STEADY, "pretrain.steps=8", name="other")
    pretrain.run(whole)
    capsys.readouterr()
    longer = make_job("pretrain", *STEADY, "pretrain.steps=8")
    pretrain.run(longer)
    source = f"pretrain/{short.task.fingerprint}/step-00000005"
    assert f"extended pretrain from step 5: {longer.store.full(source)}/manifest.json" in capsys.readouterr().out
    made = need(longer.store, longer.task)
    assert made.fingerprint == need(whole.store, whole.task).fingerprint != short.task.fingerprint
    assert made.metrics["extended_from"] == source
    assert f"extended from {source}" in lineage.trace(longer.store, longer.store.full(made.path))[0]
    assert need(whole.store, whole.task).metrics["extended_from"] is None
    one, two = tensors(longer), tensors(whole)
    assert {name for name in one if not torch.equal(one[name], two[name])} <= {
        "figure/tokens_per_s",
        "figure/reader_share",
    }
    assert find(short.store, short.task) is not None


def test_an_extended_run_measures_where_the_shorter_ended_and_knows_where_its_best_model_is(
    make_job: Callable[..., Job],
    curves: Callable[[Job], dict[str, list[tuple[int, float]]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(losses: list[float], steps: int, *settings: str, name: str = "one") -> tuple[Job, dict[str, Any]]:
        left = iter(losses)
        monkeypatch.setattr(pretrain, "_judge", lambda *_: {"crawl": HeldOut(50 * next(left), tokens=50, bytes=0)})
        job = make_job("pretrain", *STEADY, f"pretrain.steps={steps}", "pretrain.eval_steps=2", *settings, name=name)
        pretrain.run(job)
        assert next(left, None) is None, "measured once in each step that is due"
        return job, need(job.store, job.task).metrics

    short, first = train([9.0, 4.0, 5.0], 4)
    longer, made = train([6.0, 7.0], 8)
    whole, never = train([9.0, 4.0, 5.0, 6.0, 7.0], 8, name="other")
    assert curves(longer)["heldout_loss"] == curves(whole)["heldout_loss"] == [(0, 9.0), (2, 4.0), (4, 5.0), (6, 6.0), (8, 7.0)]  # fmt: skip
    assert made["extended_from"].endswith("/step-00000004")
    assert {one["best_step"] for one in (first, made, never)} == {2}
    assert made["heldout_sources"] == {"crawl": {"loss": 7.0, "bits_per_byte": None, "tokens": 50}}
    assert first["best_checkpoint"] == made["best_checkpoint"] == f"pretrain/{short.task.fingerprint}/step-00000002"
    assert never["best_checkpoint"] == f"pretrain/{whole.task.fingerprint}/step-00000002"
    for job, figures in ((longer, made), (whole, never)):
        assert job.store.exists(f"{figures['best_checkpoint']}/manifest.json")
    _, worse = train([1.0, 4.0], 2, "pretrain.engine.keep_last=0", name="third")
    assert (worse["best_step"], worse["best_checkpoint"]) == (2, None), "before training nothing is saved"


def test_a_run_whose_learning_rate_came_to_rest_is_not_extended(
    make_job: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> None:
    short = make_job("pretrain", "pretrain.steps=3")
    pretrain.run(short)
    longer = make_job("pretrain", "pretrain.steps=4")
    pretrain.run(longer)
    assert (
        f"pretrain: {longer.store.full(short.task.prefix)} differs only in its length, but training cannot go on from "
        "its checkpoints, because their learning rates are not those of this run; starting over. A run with "
        "optim.schedule=constant and optim.warmup_steps can be extended\n"
    ) in capsys.readouterr().out
    assert need(longer.store, longer.task).metrics["extended_from"] is None
    other = make_job("pretrain", *STEADY, "pretrain.steps=4")
    pretrain.run(other)
    said = capsys.readouterr().out
    assert "extended" not in said
    assert "differs only in its length" not in said


def test_held_out_loss_is_measured_on_the_way_and_the_best_model_stays(
    make_job: Callable[..., Job],
    curves: Callable[[Job], dict[str, list[tuple[int, float]]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter([6.0, 5.0, 4.0, 4.5, 4.2])
    judged = lambda *_: {  # noqa: E731
        "crawl": HeldOut(nll=0.0, tokens=50, bytes=100),
        "code": HeldOut(nll=100 * next(losses), tokens=50, bytes=300),
    }
    monkeypatch.setattr(pretrain, "_judge", judged)
    job = make_job("pretrain", "pretrain.steps=8", "pretrain.eval_steps=2", "pretrain.engine.checkpoint_steps=7")
    pretrain.run(job)
    assert curves(job)["heldout_loss"] == [(0, 6.0), (2, 5.0), (4, 4.0), (6, 4.5), (8, 4.2)]
    assert curves(job)["heldout_loss/code"] == [(0, 12.0), (2, 10.0), (4, 8.0), (6, 9.0), (8, 8.4)]
    metrics = need(job.store, job.task).metrics
    assert metrics["heldout_sources"] == {
        "crawl": {"loss": 0.0, "bits_per_byte": 0.0, "tokens": 50.0},
        "code": {"loss": 8.4, "bits_per_byte": pytest.approx(420 / math.log(2) / 300), "tokens": 50.0},
    }
    assert (metrics["best_step"], metrics["best_heldout_loss"], metrics["heldout_loss_after"]) == (4, 4.0, 4.2)
    kept = [(one.metrics["step"], one.metrics.get("heldout_loss")) for one in checkpoint.committed(job)]
    assert kept == [(8, None), (4, 4.0)]


def test_the_figures_of_many_steps_are_read_from_the_device_at_once(
    make_job: Callable[..., Job],
    curves: Callable[[Job], dict[str, list[tuple[int, float]]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted are those of the loop. The guard on the gradients' norm has its own, and transformers' masks in `learn`."""
    reads, inside = [], [False]

    def counting(name: str) -> None:
        real = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *given: object) -> object:
            if inside[0]:
                reads.append(name)
            return real(self, *given)

        monkeypatch.setattr(torch.Tensor, name, read)

    for name in ("item", "tolist", "__float__", "__int__", "__bool__"):
        counting(name)
    learn, step, save = pretrain.learn, Engine.step, checkpoint.save_when_due

    def learning(*given: object) -> object:
        nll = learn(*given)  # type: ignore[arg-type]
        inside[0] = True
        return nll

    def stepping(self: Engine) -> float:
        inside[0] = False
        norm = step(self)
        inside[0] = True
        return norm

    def saving(*given: object) -> None:
        save(*given)  # type: ignore[arg-type]
        inside[0] = False

    monkeypatch.setattr(pretrain, "learn", learning)
    monkeypatch.setattr(Engine, "step", stepping)
    monkeypatch.setattr(checkpoint, "save_when_due", saving)
    job = make_job("pretrain", "pretrain.steps=8", "pretrain.engine.log_steps=4", "pretrain.engine.checkpoint_steps=99")
    pretrain.run(job)
    assert reads == ["tolist", "tolist"], "after steps 4 and 8"
    found = curves(job)
    assert [step for step, _ in found["loss"]] == list(range(1, 9))
    assert [step for step, _ in found["tokens_per_s"]] == [4, 8]
    assert found["tokens"][-1] == (8, need(job.store, job.task).metrics["tokens"])
    rows = sum(shard.rows[64].rows for shard in shards_of(job.manifest("pack"), Kind.TOKENS))
    assert found["epochs/crawl"][-1] == (8, 8 * 8 / rows)
    assert found["memory_bytes"][-1][1] > 1e8


PHASES = (
    "pretrain.steps=8",
    "pretrain.engine.checkpoint_steps=100",
    "pretrain.phases=[{share: 0.5, mixture: {proportions: {crawl: 0.75, code: 0.25}}}, {share: 0.5, mixture: {epochs: {code: 1}}}]",
)


def draw_two_sources(job: Job, patch: pytest.MonkeyPatch, stop_in: int | None = None) -> list[list[tuple[str, int]]]:
    """Run a pretraining whose second half of the shards is of the source `code`; the draws of each step."""
    whole = Job.manifest

    def manifest(self: Job, stage: str) -> Manifest:
        found = whole(self, stage)
        if stage != "pack":
            return found
        last = found.of(Kind.TOKENS)[-1].path
        files = [file.model_copy(update={"source": "code"}) if file.path == last else file for file in found.files]
        return found.model_copy(update={"files": tuple(files)})

    steps: list[list[tuple[str, int]]] = []
    read = TokenData.batch

    def batch(self: TokenData, draws: list[tuple[str, int]], rank: int = 0, world: int = 1) -> Batch:
        steps.append(draws)
        return read(self, draws, rank, world)

    patch.setattr(Job, "manifest", manifest)
    patch.setattr(TokenData, "batch", batch)
    if stop_in:
        answers = iter([False] * (stop_in - 1) + [True])
        job.ranks.stopping = lambda: next(answers)  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            pretrain.run(job)
    else:
        pretrain.run(job)
    patch.undo()
    return steps


def test_two_phases_draw_what_their_mixtures_say_also_after_a_stop(
    make_job: Callable[..., Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "code.txt").write_text("print()")
    phases = (*PHASES, f"curate.sources.code.uri={tmp_path}/code.txt")
    patch, job = pytest.MonkeyPatch(), make_job("pretrain", *phases, name="whole")
    drawn = draw_two_sources(job, patch)
    rows = [shard.rows[64].rows for shard in shards_of(job.manifest("pack"), Kind.TOKENS)]
    first, second = (Counter(draw for step in half for draw in step) for half in (drawn[:4], drawn[4:]))
    assert Counter(source for source, _ in first.elements()) == {"crawl": 24, "code": 8}
    assert Counter(source for source, _ in second.elements()) == {"code": 32}
    code = first + second
    times = [code["code", row] for row in range(rows[1])]
    assert sum(times) == 40
    assert max(times) - min(times) <= 1, "the second phase goes on where the first ended"

    manifest = need(job.store, job.task)
    assert manifest.metrics["sources"] == {
        "crawl": {"sequences": 24, "tokens": 24 * 64, "epochs": pytest.approx(24 / rows[0])},
        "code": {"sequences": 40, "tokens": 40 * 64, "epochs": pytest.approx(40 / rows[1])},
    }
    assert manifest.metrics["phases"] == {
        "steps 0 to 4": {"crawl": pytest.approx(24 / rows[0]), "code": pytest.approx(8 / rows[1])},
        "steps 4 to 8": {"code": pytest.approx(32 / rows[1])},
    }
    said = capsys.readouterr().out
    assert (
        f"mixture: phase 1, steps 0 to 4: crawl 75.0% of the sequences, {24 / rows[0]:.3g} epochs over {rows[0]:,}"
        in said
    )
    assert (
        f"mixture: phase 2, steps 4 to 8: code 100.0% of the sequences, {32 / rows[1]:.3g} epochs over {rows[1]:,}"
        in said
    )

    broken = draw_two_sources(make_job("pretrain", *phases, name="broken"), patch, stop_in=6)
    again = make_job("pretrain", *phases, name="broken")
    assert broken[:6] == drawn[:6], "what follows was read ahead"
    assert draw_two_sources(again, patch) == drawn[6:]
    assert need(again.store, again.task).metrics["sources"] == manifest.metrics["sources"]


@pytest.mark.parametrize(("step", "phase", "forgets"), [(0, 0, False), (3, 0, False), (4, 1, True), (5, 1, False)])
def test_the_guard_begins_anew_with_the_first_step_of_a_phase_and_with_no_other(
    monkeypatch: pytest.MonkeyPatch, step: int, phase: int, forgets: bool
) -> None:
    """Also where a run resumes: at the first step of a phase it forgets what the whole run forgot, and later nothing."""
    monkeypatch.setattr(positions, "turn", Mock())
    settings = Pretrain(phases=[{"share": 0.5}, {"share": 0.5}], batch=8)
    job, engine, plan = Mock(settings=settings, setting=lambda _: 64), Mock(), Mock(number=lambda at: int(at >= 4))
    engine.guard = Guard(10.0, 1.0, norms=[1.0] * 30)
    start = positions.Positions(64, {"rope_type": "default", "rope_theta": 10_000.0})
    assert pretrain._enter(job, engine, start, plan, step) == phase
    assert engine.guard.norms == ([] if forgets else [1.0] * 30)


def test_a_source_that_the_corpus_lacks_is_named(make_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "code.txt").write_text("print()")
    code = f"curate.sources.code.uri={tmp_path}/code.txt"
    job = make_job("pretrain", "pretrain.mixture={epochs: {crawl: 1, code: 2}}", code)
    with pytest.raises(
        InputError, match=r"a mixture names code, of which there is no row; the corpus has crawl \([0-9]+ rows\)"
    ):
        pretrain.run(job)


LONGER = (
    "pack.more_seq_lens=[128]",
    "pretrain.steps=6",
    "pretrain.engine.checkpoint_steps=100",
    "pretrain.phases=[{share: 0.5}, {share: 0.5, seq_len: 128, rope: {type: yarn}}]",
)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_phase_of_longer_sequences_resumes_exactly_and_is_saved(
    make_job: Callable[..., Job], tensors: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    given = (*LONGER, f"pretrain.engine.dtype={dtype}")
    seen: list[tuple[tuple[int, ...], float, dict[str, Any]]] = []
    part = lm.next_logits

    def next_logits(engine: Any, batch: Batch, *rest: Any) -> torch.Tensor:
        if isinstance(engine, Engine):
            rotary = engine.module.model.rotary_emb
            seen.append((tuple(batch.tokens.shape), rotary.attention_scaling, engine.module.config.rope_parameters))
        return part(engine, batch, *rest)

    monkeypatch.setattr(lm, "next_logits", next_logits)
    job = make_job("pretrain", *given, name="whole")
    pretrain.run(job)
    assert [shape for shape, _, _ in seen] == [(4, 65)] * 6 + [(2, 129)] * 6, "as many tokens in every step and part"
    assert [round(scaling, 4) for _, scaling, _ in seen] == [1] * 6 + [round(0.1 * math.log(2) + 1, 4)] * 6
    whole = tensors(job)
    assert need(job.store, job.task).metrics["sources"]["crawl"]["tokens"] == 6 * 8 * 64

    for stop_in in (2, 5):
        broken = make_job("pretrain", *given, name=f"broken-{stop_in}")
        answers = iter([False] * (stop_in - 1) + [True])
        broken.ranks.stopping = lambda answers=answers: next(answers)  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            pretrain.run(broken)
        again = make_job("pretrain", *given, name=f"broken-{stop_in}")
        pretrain.run(again)
        found = tensors(again)
        for name, tensor in whole.items():
            if "per_s" not in name and "reader_share" not in name:
                assert torch.equal(tensor, found[name]), (stop_in, name)

    theirs = AutoModelForCausalLM.from_pretrained(fetch(job, need(job.store, job.task)), dtype=torch.float32)
    assert theirs.config.max_position_embeddings == 128
    assert theirs.config.rope_parameters == {
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "original_max_position_embeddings": 64,
    }  # fmt: skip
    tokens = torch.arange(120)[None]
    ours = load_model(job, need(job.store, job.task))
    assert torch.equal(theirs(input_ids=tokens).logits, ours(input_ids=tokens).logits)


def test_phases_whose_rows_do_not_fit_are_refused(make_run: Callable[..., Run]) -> None:
    with pytest.raises(
        RecipeError, match=r"pretrain.phases.1.seq_len 128 is not packed, only 64; add 128 to pack.more"
    ):
        make_run(LONGER[3])
    phases = "pretrain.phases=[{share: 1, seq_len: 96}]"
    with pytest.raises(
        RecipeError, match=r"phases.0.seq_len 96 does not divide the 512 tokens of a step, batch 8 x pack"
    ):
        make_run("pack.more_seq_lens=[96]", phases)


BLANKS = ("pretrain.objective=blank_infilling", "pretrain.steps=12", "pretrain.optim.lr=1.0e-2")


def test_a_model_that_fills_blanks_learns_resumes_and_is_tuned_as_any_other(
    make_job: Callable[..., Job],
    make_run: Callable[..., Run],
    run_two: Callable[..., list[str]],
    tensors: Callable[..., dict[str, torch.Tensor]],
) -> None:
    """Also in two processes that begin in shards, with the curve of one."""
    job = make_job("pretrain", *BLANKS, name="whole")
    pretrain.run(job)
    whole, done = tensors(job), need(job.store, job.task)
    figures = done.metrics
    assert figures["objective"] == "blank_infilling"
    assert figures["bits_per_byte"] is None, "the nats of spans say nothing of the bits that a text takes"
    assert 250 < figures["heldout_perplexity_before"] < 400
    assert figures["heldout_loss_after"] < math.log(figures["heldout_perplexity_before"]) - 1
    assert 12 * 8 * 10 < figures["tokens"] < 12 * 8 * 20, "tokens of spans and their ends"
    assert whole["span_places.safetensors/span_places.weight"].shape == (40 + 3, 32)
    assert not whole["span_places.safetensors/span_places.weight"][0].any()

    broken = make_job("pretrain", *BLANKS, name="broken")
    answers = iter([False] * 4 + [True])
    broken.ranks.stopping = lambda: next(answers)  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        pretrain.run(broken)
    pretrain.run(again := make_job("pretrain", *BLANKS, name="broken"))
    found = tensors(again)
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        measured = any(what in name for what in ("per_s", "reader_share", "memory_bytes"))
        assert measured or torch.equal(tensor, found[name]), name

    tuned = make_job("sft", *BLANKS, name="whole")
    assert type(load_model(tuned, done)).__name__ == "LlamaForCausalLM"
    sft.run(tuned)
    learnt = need(tuned.store, tuned.task).metrics
    assert learnt["heldout_loss_after"] < learnt["heldout_loss_before"] - 0.1

    run = make_run(*BLANKS, "pretrain.engine.processes=2", "pretrain.engine.zero_stage=3", name="two")
    run_two("-m", "training", "pretrain", "--recipe", run.uri)
    both = need(run.store, run.task("pretrain"))
    for (_, a), (_, b) in zip(curve(job.attempt.run, done, "loss"), curve(run, both, "loss"), strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    assert both.metrics["heldout_loss_after"] == pytest.approx(figures["heldout_loss_after"], rel=1e-3)

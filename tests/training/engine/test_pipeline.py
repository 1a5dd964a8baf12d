"""Two processes that share one model, in every way, against one process that has it alone; and the order of a pipeline."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from contract.errors import RecipeError
from contract.manifest import Attempt, need
from contract.plan import Run
from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Model, Optim
from training import pretrain, sft
from training.chat.template import open_chat
from training.engine import checkpoint, pipeline, zero
from training.engine.engine import Engine, deepspeed_config
from training.engine.job import Job
from training.engine.ranks import Ranks
from training.models import llama
from training.models.causal import class_of


@pytest.mark.parametrize(("stages", "parts"), [(2, 1), (2, 4), (3, 2), (4, 8), (1, 3)])
def test_stages_take_turns_without_waiting_for_each_other_forever(stages: int, parts: int) -> None:
    waiting = {stage: list(pipeline.turns(stage, stages, parts)) for stage in range(stages)}
    for stage, order in waiting.items():
        assert sorted(order) == [(turn, part) for turn in ("backward", "forward") for part in range(parts)]
        held = most = 0
        for turn, _ in order:
            held += 1 if turn == "forward" else -1
            most = max(most, held)
        assert most == min(stages - stage, parts), "activations of no more micro-batches are held"
    done: set[tuple[str, int, int]] = set()
    sent: dict[int, list[tuple[str, int, int]]] = {stage: [] for stage in waiting}  # by whose turn it is received

    def may_send(stage: int) -> bool:
        """Whether what was sent so many transfers ago has been received."""
        return len(sent[stage]) < pipeline.HELD * stages or sent[stage][-pipeline.HELD * stages] in done

    while any(waiting.values()):
        ready = [
            stage
            for stage, order in waiting.items()
            if order
            and (order[0][0] == "backward" or stage == 0 or ("forward", order[0][1], stage - 1) in done)
            and (order[0][0] == "forward" or stage == stages - 1 or ("backward", order[0][1], stage + 1) in done)
            and may_send(stage)
        ]
        assert ready, waiting
        for stage in ready:
            turn, part = waiting[stage].pop(0)
            done.add((turn, part, stage))
            receiver = stage + (1 if turn == "forward" else -1)
            if receiver in waiting:
                sent[stage].append((turn, part, receiver))


def test_a_stage_holds_what_it_sent_only_until_it_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    numbers = iter(range(100))

    def isend(tensor: torch.Tensor, to: int, group: object) -> object:
        number = next(numbers)
        return SimpleNamespace(wait=lambda: waited.append(number))

    monkeypatch.setattr(torch.distributed, "isend", isend)
    groups: Any = None
    line = pipeline.Pipeline(Ranks(rank=0, world=3, group=3), 4, torch.float32, False, groups, None, None)
    for _ in range(20):
        line.send(torch.zeros(2, 3, 4))
    assert (len(line._sent), waited) == (6, list(range(14))), "at most two for each stage"
    line.settle()
    assert (line._sent, waited) == ([], list(range(20)))


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "pad_token_id": 0,
}


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(pipeline.PLAIN))
def test_stages_one_after_the_other_make_the_logits_of_the_whole_model(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Groups", lambda ranks: None)
    monkeypatch.setattr(torch.distributed, "new_group", lambda: None)
    config = AutoConfig.for_model(kind, **SHAPE, num_key_value_heads=2)
    torch.manual_seed(3)
    whole = class_of(config)(config).eval()
    tokens = torch.arange(24).reshape(2, 12)
    found: Any = {"input_ids": tokens}
    for stage in range(2):
        module = copy.deepcopy(whole)
        pipeline.cut(module, Ranks(rank=stage, world=2, group=2), torch.float32)
        found = {"inputs_embeds": module(**found, use_cache=False).logits}
    torch.testing.assert_close(found["inputs_embeds"], whole(tokens).logits)
    assert found["inputs_embeds"].std() > 0.01


@pytest.mark.parametrize("kind", ["granite", "cohere", "gemma2"])
def test_a_model_that_does_more_than_its_stages_would_is_refused(kind: str, make_job: Callable[..., Job]) -> None:
    """Each has what a stage needs by name, and scales or caps what stands between the stages or after them."""
    config = AutoConfig.for_model(kind, **SHAPE, num_key_value_heads=4)
    module = class_of(config)(config)
    assert all(hasattr(module.base_model, name) for name in ("embed_tokens", "layers", "norm"))
    job = make_job("sft")
    job.ranks.group = 2
    with pytest.raises(RecipeError, match=r"pipeline_stages: .* is not built of stages; use sft.engine.zero_stage 3"):
        Engine(job, module, Optim(), EngineSettings(processes=2, pipeline_stages=2), 8, 4)


def test_layers_are_cut_into_stages_of_about_one_size() -> None:
    assert [list(pipeline.layers_of(stage, 3, 7)) for stage in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [len(pipeline.layers_of(stage, 4, 32)) for stage in range(4)] == [8, 8, 8, 8]


def test_processes_that_share_a_model_read_the_same_rows_and_count_once() -> None:
    ranks = [Ranks(rank=rank, world=6, group=2) for rank in range(6)]
    assert [(one.replica, one.place, one.speaks) for one in ranks] == [
        (0, 0, False), (0, 1, True), (1, 0, False), (1, 1, True), (2, 0, False), (2, 1, True),
    ]  # fmt: skip
    assert {one.replicas for one in ranks} == {3}
    said: list[tuple[float, ...]] = []
    for one in ranks[:2]:
        one.sum = lambda *values: said.append(values) or list(values)  # type: ignore[method-assign, func-returns-value]
        one.sum_rows(2.0, 3.0)
    assert said == [(0.0, 0.0), (2.0, 3.0)]
    with pytest.raises(RecipeError, match=r"3 process\(es\) run, and 2 share one copy of the model"):
        Ranks(world=3).share_model(2)


def test_deepspeed_cuts_matrices_and_leaves_the_logits_whole() -> None:
    cut = EngineSettings(processes=2, tensor_parallel=2)
    assert deepspeed_config(cut, 1.0, 4, 2)["tensor_parallel"] == {"autotp_size": 2, "vocab_parallel_lm_head": False}
    assert "tensor_parallel" not in deepspeed_config(EngineSettings(), 1.0, 4, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tensor_parallel": 2}, "tensor_parallel 2 does not divide the model's 3 heads"),
        ({"pipeline_stages": 2}, "pipeline_stages 2 is more than the model's 1 layers"),
    ],
)
def test_a_model_that_was_loaded_may_not_be_shareable(
    make_job: Callable[..., Job], settings: dict[str, int], said: str
) -> None:
    module = llama.build(Model(layers=1, d_model=24, heads=3, kv_heads=1, d_ff=32), 50, 16, seed=0)
    job = make_job("sft")
    job.ranks.group = 2
    with pytest.raises(RecipeError, match=f"^sft.engine.{said}$"):
        Engine(job, module, Optim(), EngineSettings(processes=2, **settings), 8, 4)


@pytest.mark.parametrize(
    ("kind", "own"), [("mixtral", {"num_local_experts": 4, "num_key_value_heads": 2}), ("gpt2", {})]
)
@pytest.mark.parametrize("way", ["tensor_parallel", "pipeline_stages"])
def test_processes_refuse_to_share_a_type_that_nobody_can_cut(
    kind: str, own: dict[str, int], way: str, make_job: Callable[..., Job]
) -> None:
    config = AutoConfig.for_model(kind, **SHAPE, **own)
    job = make_job("sft")
    job.ranks.group = 2
    with pytest.raises(RecipeError, match=f"^sft.engine.{way}: .*; use sft.engine.zero_stage 3$"):
        Engine(job, class_of(config)(config), Optim(), EngineSettings(processes=2, **{way: 2}), 8, 4)


SIZES = {"layers": 2, "d_model": 32, "heads": 4, "kv_heads": 2, "d_ff": 64}
SHARED = (
    "pretrain.steps=6",
    "pretrain.optim.clip=0.5",
    "pretrain.engine.micro_batch=2",
    "pretrain.engine.checkpoint_steps=3",
    "pretrain.engine.keep_every=3",
)
RECIPES = {
    "tied": (),
    "untied": ("pretrain.model.tie_embeddings=false",),
    "bf16": ("pretrain.engine.dtype=bf16",),
    "brought": ("pretrain.start_from={folder}",),
}
TUNED = "sft.engine={micro_batch: 2, processes: 2, pipeline_stages: 2}"
WAYS = {  # name: settings of the engine, the recipe, and whether it goes on from one process's step 3
    "zero 1": ({"zero_stage": 1}, "tied", False),
    "zero 2": ({"zero_stage": 2}, "tied", True),
    "zero 3": ({"zero_stage": 3}, "tied", False),
    "tensor": ({"tensor_parallel": 2}, "tied", True),
    "tensor, zero 1": ({"tensor_parallel": 2, "zero_stage": 1}, "untied", False),
    "pipeline": ({"pipeline_stages": 2}, "tied", True),
    "pipeline, zero 2": ({"pipeline_stages": 2, "zero_stage": 2}, "tied", False),
    "pipeline, zero 1": ({"pipeline_stages": 2, "zero_stage": 1}, "untied", False),
    "pipeline, bf16": ({"pipeline_stages": 2}, "bf16", False),
    "tensor, bf16": ({"tensor_parallel": 2}, "bf16", False),
    "pipeline, brought": ({"pipeline_stages": 2}, "brought", False),
}
CLOSE = {"bf16": 0.02}
"""Relative; else 1e-5. The parts of a sum are rounded to bf16 in another order."""

ONE_AFTER_THE_OTHER = """
import importlib, os, sys
from deepspeed.utils import groups
from contract.manifest import Attempt
from contract.plan import open_run
from training.engine.job import Job
from training.engine.ranks import join

ranks = join()
for stage, uri in zip(sys.argv[1::2], sys.argv[2::2]):
    groups.mpu = None  # as in a process that has not run the one before
    run = open_run(uri)
    task = run.task(stage)
    ranks.share_model(run.recipe.section(stage).engine.group)
    attempt = Attempt(run, task)
    attempt.id = ranks.share(attempt.id)
    job = Job(run, task, attempt, ranks)
    with job.leading(attempt), job.scratch.held():
        importlib.import_module(f"training.{stage}").run(job)
        ranks.barrier()
ranks.leave()
sys.stdout.flush()
os._exit(0)
"""


def job_of(run: Run, stage: str = "pretrain") -> Job:
    return Job(run, run.task(stage), Attempt(run, run.task(stage)))


def checkpointed(run: Run, step: int) -> Path:
    return run.store.local(f"pretrain/{run.task('pretrain').fingerprint}/step-{step:08d}")


@pytest.fixture(scope="module")
def recipes(corpus_store: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each of RECIPES sets."""
    folder, chat = tmp_path_factory.mktemp("brought"), open_chat(job_of(corpus_store(name="alone-tied")))
    llama.save(llama.build(Model(**SIZES), chat.vocab_size, 64, seed=7), folder, chat)
    return {name: [*SHARED, *(one.format(folder=folder) for one in own)] for name, own in RECIPES.items()}


@pytest.fixture(scope="module")
def alone(
    recipes: dict[str, list[str]], corpus_store: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Job]:
    """Finished jobs of one process, by their recipes; "tuned" is the chat model of the first."""
    from tests.training.conftest import join_alone

    join_alone()
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRISTMILL_SCRATCH", str(tmp_path_factory.mktemp("alone")))
        for name, overrides in recipes.items():
            found[name] = job_of(corpus_store(*overrides, name=f"alone-{name}"))
            pretrain.run(found[name])
        found["tuned"] = job_of(found["tied"].attempt.run, "sft")
        sft.run(found["tuned"])
    return found


@pytest.fixture(scope="module")
def shared(
    recipes: dict[str, list[str]],
    alone: dict[str, Job],
    corpus_store: Callable[..., Run],
    run_two: Callable[..., list[str]],
) -> tuple[dict[str, Run], str]:
    """The runs of all ways, which two processes made one after the other, and what the first process said.

    After the last pretraining, the model of "pipeline" is tuned, too.
    """
    runs = {}
    for name, (settings, recipe, resumes) in WAYS.items():
        given = [f"pretrain.engine.{key}={value}" for key, value in settings.items()]
        runs[name] = run = corpus_store(
            *recipes[recipe], "pretrain.engine.processes=2", *given, TUNED, name=name.replace(",", "")
        )
        if resumes:
            shutil.copytree(checkpointed(alone[recipe].attempt.run, 3), checkpointed(run, 3))
    stages = [*(("pretrain", run.uri) for run in runs.values()), ("sft", runs["pipeline"].uri)]
    said = run_two("-c", ONE_AFTER_THE_OTHER, *(one for stage in stages for one in stage))
    return runs, said[0]


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_that_share_a_model_reach_the_curves_of_one(
    way: str,
    alone: dict[str, Job],
    shared: tuple[dict[str, Run], str],
    curves: Callable[..., dict[str, list[tuple[int, float]]]],
) -> None:
    run, (settings, recipe, resumes) = shared[0][way], WAYS[way]
    one, two = curves(alone[recipe]), curves(job_of(run))
    assert run.task("pretrain").fingerprint == alone[recipe].task.fingerprint
    assert ("resumed pretrain from step 3: " + run.store.full("pretrain") in shared[1]) == resumes
    assert min(value for _, value in one["grad_norm"]) > 0.5, "every update is clipped"
    for name in ("loss", "grad_norm", "heldout_loss", "lr"):
        assert [step for step, _ in two[name]] == [step for step, _ in one[name]]
        assert [value for _, value in two[name]] == pytest.approx(
            [value for _, value in one[name]], rel=CLOSE.get(recipe, 1e-5)
        )
    before, after = (need(job.store, job.task).metrics for job in (alone[recipe], job_of(run)))
    for name in ("tokens", "parameters", "heldout_tokens"):
        assert before[name] == after[name]
    assert after["zero_stage"] == settings.get("zero_stage", 2 if recipe == "bf16" else 0)


def test_a_chat_model_is_tuned_in_stages_as_alone(
    alone: dict[str, Job],
    shared: tuple[dict[str, Run], str],
    curves: Callable[..., dict[str, list[tuple[int, float]]]],
) -> None:
    tuned = job_of(shared[0]["pipeline"], "sft")
    assert tuned.task.fingerprint == alone["tuned"].task.fingerprint
    one, two = curves(alone["tuned"]), curves(tuned)
    assert len(one["loss"]) > 3
    for name in ("loss", "grad_norm", "heldout_loss"):
        assert two[name] == [(step, pytest.approx(value, rel=1e-4)) for step, value in one[name]], name


@pytest.mark.parametrize("way", ["zero 3", "tensor, zero 1", "pipeline", "pipeline, zero 2"])
def test_a_checkpoint_of_two_processes_fits_one(
    way: str, alone: dict[str, Job], shared: tuple[dict[str, Run], str], tensors: Callable[..., dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("GRISTMILL_SCRATCH", str(tmp_path))
    run, job = shared[0][way], alone[WAYS[way][1]]
    states = []
    for one in (job.attempt.run, run):
        own = job_of(one)
        module = llama.load_model(own, need(one.store, own.task))
        torch.nn.init.zeros_(module.lm_head.weight)
        engine = Engine(own, module, one.recipe.pretrain.optim, EngineSettings(micro_batch=8), 8, 6)
        assert checkpoint.restore(own, {"model": engine})[0] == 6
        committed = {
            name.partition("/")[2]: value for name, value in tensors(own).items() if "model.safetensors/" in name
        }
        assert all(torch.equal(value, committed[name]) for name, value in engine.weights().items())
        states.append(
            {f"{name}/{key}": value for name, found in zero.read(engine.deepspeed) for key, value in found.items()}
        )
    before, after = states
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.shape == after[name].shape
        if not name.endswith("/weight"):
            assert torch.allclose(value, after[name], rtol=1e-3, atol=1e-6), name

"""What `estimate` says, against the models that are built, DeepSpeed's settings, and known answers."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from contract import recipe as recipes
from contract.accelerators import ACCELERATORS
from contract.errors import InputError
from contract.plan import Run
from contract.recipe import Recipe
from contract.settings.examples import MAX_SYNTHETIC
from contract.settings.training import Engine, Model
from contract.sizes import Memory, idle_parameters, parameters, reward_parameters
from contract.stages import STAGES
from training import __main__ as training
from training import estimate, rates

H100 = ACCELERATORS["h100"]
SHAPES = [
    Model(layers=layers, d_model=64, heads=heads, kv_heads=kv_heads, d_ff=d_ff, tie_embeddings=tied)
    for layers, (heads, kv_heads), d_ff, tied in product((1, 3), ((8, 8), (8, 2), (4, 1)), (96, 160), (True, False))
]
SHAPES += [Model(layers=2, d_model=64, heads=8, kv_heads=2, d_ff=96, experts=experts) for experts in (2, 5)]


def base(*overrides: str) -> Recipe:
    return recipes.load("base", overrides)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parameters_are_those_of_the_models_that_are_built(shape: Model) -> None:
    from training.models import llama
    from training.reward import RewardModel

    built = llama.build(shape, 500, 32, seed=0)
    assert parameters(shape, 500) == llama.parameters(built)
    assert reward_parameters(shape, 500) == llama.parameters(RewardModel(built.model, seed=0))


@pytest.mark.parametrize(
    ("dtype", "stage", "offload"), list(product(("fp32", "bf16", "fp16"), (0, 1, 2, 3), (False, True)))
)
def test_the_zero_stage_is_the_one_that_deepspeed_gets(dtype: str, stage: int, offload: bool) -> None:
    from training.engine.engine import deepspeed_config

    engine = Engine(dtype=dtype, zero_stage=stage, offload_optimizer=offload)
    assert engine.stage_in_force == deepspeed_config(engine, 1.0, 1, 1)["zero_optimization"]["stage"]


def test_a_model_that_answers_holds_its_weights_and_what_it_has_read() -> None:
    """`training.answering` says how many tokens these are."""
    from training.answering import Asked

    recipe = base("benchmark.tasks={mmlu: {items: /x}}", "benchmark.engine.dtype=bf16")
    found = estimate.benchmark(recipe)
    shape = recipe.pretrain.model
    read = 2 * 2 * shape.layers * shape.d_model // shape.heads * shape.kv_heads * Asked().most
    assert found.memory.cache == read
    assert found.memory.weights == pytest.approx(2 * found.parameters)
    said = "\n".join(estimate.report(recipe, H100, 0.4))
    assert re.search(r"^benchmark +[\d,]+ +\d+ +not known$", said, re.MULTILINE)
    assert "benchmark fits" in said
    assert "benchmark" not in "\n".join(estimate.report(base(), H100, 0.4))


def test_every_spark_stage_has_a_rate_in_the_order_of_the_stages() -> None:
    spark = [stage.name for stage in STAGES.values() if stage.plane == "spark" and stage.name != "curate"]
    assert [name for name in spark if name not in rates.SAMPLES] == list(rates.RATES)
    assert set(rates.SAMPLES) == set(spark) - set(rates.RATES)
    kept = [1.0, *(rate.kept for rate in rates.RATES.values())]
    assert kept == sorted(kept, reverse=True)


def test_pretraining_of_base() -> None:
    one = estimate.pretrain(base())
    assert (one.parameters, one.steps, one.tokens) == (109_529_856, 10_000, 10_000 * 256 * 2048)
    assert one.flops == pytest.approx(one.tokens * (6 * 109_529_856 + 12 * 12 * 768 * 2048))
    assert one.hours(H100, 0.4) == pytest.approx(one.flops / (8 * 989e12 * 0.4) / 3600)
    parts, gradients = 10 * 32_000 * ((1 << 28) // 32_000), 4 * 32_000 * 768 + 2 * 16 * 2048 * 768
    assert one.memory.logits == parts + gradients
    assert one.memory.gradients == 4 * 109_529_856  # two micro-batches an update


def test_tuning_counts_examples() -> None:
    one = estimate.sft(base("instructions.max_examples=6400", "sft.epochs=3"))
    assert (one.steps, one.tokens) == (6400 * 3 // 64, 300 * 64 * 1024)
    assert estimate.sft(base()).steps == 100_000 * 2 // 64


def test_pairs_are_two_rows_and_some_are_held_out() -> None:
    one = estimate.reward(base("preferences.max_examples=1000", "judge.share=0"))
    assert (one.parameters, one.steps, one.tokens) == (109_530_625, 25, 2 * 25 * 32 * 512)
    assert one.memory.logits == 0


def test_the_judge_learns_from_its_share_of_the_pairs() -> None:
    recipe = base("preferences.max_examples=1000", "judge.share=0.25")
    first, second = estimate.reward(recipe), estimate.judge(recipe)
    assert (first.steps, second.steps) == (math.ceil(600 / 32), math.ceil(200 / 32))
    assert first.memory == second.memory
    told = "\n".join(estimate.report(recipe, H100, 0.4))
    assert "judge fits" in told
    alone = base("preferences.max_examples=1000", "judge.share=0")
    assert "judge" not in "\n".join(estimate.report(alone, H100, 0.4))


def test_a_file_of_examples_is_not_counted_before_it_is_read(tmp_path: Path) -> None:
    recipe = base(f"instructions.data={tmp_path}", f"preferences.data={tmp_path}")
    assert (estimate.sft(recipe).steps, estimate.reward(recipe).steps) == (None, None)
    assert "not known" in "\n".join(estimate.report(recipe, H100, 0.4))


def test_ppo_holds_four_models_and_the_cache_of_all_replies() -> None:
    one = estimate.ppo(base("ppo.rollout_batch=16384"), H100)
    policy, critic = 109_529_856, 109_530_625
    assert one.memory.weights == 2 * 2 * (policy + critic)
    assert one.memory.optimizer == pytest.approx(12 * (policy + critic) / 8)
    assert one.memory.cache == 2 * 2 * 12 * 768 * (16384 // 8) * (256 + 128)
    assert one.generation == pytest.approx(1000 * 128 * (2 * policy + one.memory.cache / 2) / 3.35e12)


def test_a_round_of_feedback_is_sampled_by_one_model_at_a_time() -> None:
    recipe = base(
        "sample.prompts=1000", "sample.replies=4", "sample.engine={micro_batch: 64, processes: 2, dtype: bf16}"
    )
    one, count = estimate.sample(recipe, H100), 109_529_856
    assert (one.parameters, one.steps, one.tokens) == (count, None, 1000 * 4 * (256 + 128))
    assert one.memory == Memory(weights=2 * count, cache=2 * 2 * 12 * 768 * 64 * (256 + 128))
    each = 128 * (2 * count + one.memory.cache / 2) / 3.35e12
    assert one.generation == pytest.approx(4 * 8 * each), "1000 prompts are 8 micro-batches of 2 processes"
    assert one.flops == pytest.approx(one.tokens * (2 * count + 4 * 12 * 768 * 384))
    few = estimate.sample(base("sample.prompts=10", "sample.engine={micro_batch: 64, dtype: bf16}"), H100)
    assert few.memory.cache == 2 * 2 * 12 * 768 * 10 * (256 + 128)
    same = "prompts: 1000, replies: 4, engine: {micro_batch: 64, processes: 2, dtype: bf16}"
    for given, asked in (("judge: sft", 2), ("judge: sft, principles: /rules.txt", 6)):
        judged = estimate.sample(base(f"sample={{{given}, {same}}}"), H100)
        assert judged.generation == pytest.approx((4 + asked) * 8 * each)
        assert judged.tokens == 1000 * (4 * 384 + asked * (384 + 2 * 128))
    told = "\n".join(estimate.report(recipe, H100, 0.4))
    assert "sample fits" in told
    assert re.search(r"^sample: \d+\.\d\d of its hours are sampling", told, re.MULTILINE)


def test_ptx_adds_text_to_every_update() -> None:
    without, with_text = (estimate.ppo(base(f"ppo.ptx_coef={coef}", "ppo.ptx_sequences=8"), H100) for coef in (0, 1))
    assert with_text.tokens - without.tokens == 1000 * 2 * 2 * 8 * 2048


def test_a_whole_crawl() -> None:
    made = estimate.corpus(base(), *estimate.crawl_size(base("crawl.max_files=null")))
    assert (made.files, made.pages) == (90_000, pytest.approx(3e9, rel=1e-4))
    stages = {one.stage: one for one in made.stages}
    assert stages["extract"].documents == pytest.approx(0.9776 * made.pages)
    assert stages["extract"].core_hours == pytest.approx(0.9776 * made.pages / rates.RATES["extract"].per_core / 3600)
    assert stages["mix"].written == pytest.approx(0.1167 * made.pages * rates.RATES["mix"].written)
    assert made.tokens == pytest.approx(0.1167 * 0.95 * made.pages * 620)


def test_several_crawls_and_heads_of_files() -> None:
    assert estimate.crawl_size(base("snapshots=[CC-MAIN-2024-10, CC-MAIN-2024-18]"))[0] == 2000
    assert estimate.crawl_size(base("crawl.max_bytes_per_file=1000")) == (1000, 1_000_000)


def test_a_folder_has_the_files_that_lie_there(tmp_path: Path) -> None:
    for name, size in (("a", 10), ("b", 5000)):
        (tmp_path / f"{name}.warc.gz").write_bytes(b"x" * size)
    source = f"crawl.source={tmp_path}"
    assert estimate.crawl_size(base(source)) == (2, 5010)
    assert estimate.crawl_size(base(source, "crawl.max_bytes_per_file=100")) == (2, 110)


def test_epochs_are_known_where_the_crawl_is_all_there_is(tmp_path: Path) -> None:
    made = estimate.corpus(base(), 1000, 1000 * rates.FILE_BYTES)
    sources = estimate.sources_of(base(), made)
    assert sources == {"crawl": int(made.tokens / 2048)}
    assert estimate.epochs(base(), sources) == {"crawl": pytest.approx(10_000 * 256 * 2048 / made.tokens, rel=1e-4)}
    more = base(f"curate.sources.wiki.uri={tmp_path}")
    assert estimate.sources_of(more, made) is None
    assert estimate.epochs(more, None) == {"crawl": None, "wiki": None}


def test_sources_that_are_packed_have_their_own_epochs(tmp_path: Path) -> None:
    recipe = base(f"curate.sources.wiki.uri={tmp_path}", "pretrain.mixture.proportions={crawl: 0.75, wiki: 0.25}")
    found = estimate.epochs(recipe, {"crawl": 1_920_000, "wiki": 320_000})
    assert found == {"crawl": pytest.approx(1), "wiki": pytest.approx(2)}


def test_a_mixture_by_epochs_gives_the_steps_once_the_rows_are_known() -> None:
    recipe = base("pretrain.mixture.epochs={crawl: 2}")
    assert estimate.pretrain(recipe, {"crawl": 2560}).steps == 20
    assert estimate.pretrain(recipe).steps is None


def test_a_phase_of_long_context_has_its_own_memory_and_flops() -> None:
    long = base("pack.more_seq_lens=[16384]", "pretrain.phases=[{share: 0.5}, {share: 0.5, seq_len: 16384}]")
    plain, phased = estimate.pretrain(base()), estimate.pretrain(long)
    assert phased.tokens == plain.tokens
    assert phased.flops - plain.flops == pytest.approx(plain.tokens / 2 * 12 * 12 * 768 * (16384 - 2048))
    assert phased.memory.activations == plain.memory.activations, "as many tokens at once, and no mask of T x T"
    few = base("pack.more_seq_lens=[65536]", "pretrain.phases=[{share: 0.5}, {share: 0.5, seq_len: 65536}]")
    assert estimate.pretrain(few).memory.activations == 2 * plain.memory.activations, "a row is the least"


def test_a_model_that_fills_blanks_has_places_and_a_mask() -> None:
    open_rows = base("pretrain.boundaries=false")
    blanks = base("pretrain.boundaries=false", "pretrain.objective=blank_infilling")
    plain, filling = estimate.pretrain(open_rows), estimate.pretrain(blanks)
    assert filling.parameters - plain.parameters == 43 * blanks.pretrain.model.d_model
    assert filling.memory.activations > plain.memory.activations
    assert (
        estimate.pretrain(base("pretrain.objective=blank_infilling")).memory.activations == filling.memory.activations
    )


def test_a_model_to_go_on_from_has_its_own_shape(tmp_path: Path) -> None:
    recipe = base(f"pretrain.start_from={tmp_path}", f"tokenizer.start_from={tmp_path}", "tokenizer.expand.tokens=1000")
    with pytest.raises(InputError, match=r"pretrain.start_from: .* has no config.json of a causal model"):
        estimate.with_started(recipe)
    shape = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "intermediate_size": 11008}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **shape, "vocab_size": 32_000}))
    assert estimate.pretrain(estimate.with_started(recipe)).parameters == 6_738_415_616 + 2 * 1000 * 4096


@pytest.mark.parametrize(
    ("described", "shape", "count", "active"),
    [
        (
            {"model_type": "bloom", "hidden_size": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250_880},
            (24, 1024, 16, 16, 0),
            559_214_592,  # bloom-560m
            559_214_592,
        ),
        (
            {"model_type": "mixtral", "hidden_size": 4096, "vocab_size": 32_000},  # its other defaults are 8x7B's
            (32, 4096, 32, 8, 8),
            46_702_792_704,
            12_879_925_248,
        ),
    ],
)
def test_a_model_of_another_type_has_as_many_parameters(
    described: dict[str, Any], shape: tuple[int, ...], count: int, active: int, tmp_path: Path
) -> None:
    recipe = base(f"pretrain.start_from={tmp_path}", f"tokenizer.start_from={tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps(described))
    found = estimate.with_started(recipe)
    model, size = found.pretrain.model, described["vocab_size"]
    assert (model.layers, model.d_model, model.heads, model.kv_heads, model.experts) == shape
    assert parameters(model, size) == pytest.approx(count, rel=2e-4)
    assert parameters(model, size) - idle_parameters(model) == pytest.approx(active, rel=2e-4)
    trained = estimate.pretrain(found)
    each = 6 * (parameters(model, size) - idle_parameters(model)) + 12 * shape[0] * shape[1] * 2048
    assert trained.flops == trained.tokens * each, "what a token does not go through computes nothing"


@pytest.mark.parametrize(("kind", "whole"), [("qwen2", False), ("gemma", True), ("mixtral", False)])
def test_a_head_that_only_the_model_applies_makes_all_logits_at_once(kind: str, whole: bool, tmp_path: Path) -> None:
    recipe = base(
        f"pretrain.start_from={tmp_path}", f"tokenizer.start_from={tmp_path}", "ppo.ptx_coef=1", "ppo.ptx_sequences=256"
    )
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **heads, **shape, "vocab_size": 50_000}))
    recipe = estimate.with_started(recipe)
    # PPO's replies always have whole logits: four rows of 128 tokens and one before, beside the text.
    learnt = {"pretrain": 16 * 2048, "sft": 8 * 1024, "ppo": 32 * 2048 + 4 * 129}
    for one in (estimate.pretrain(recipe), estimate.sft(recipe), estimate.ppo(recipe, H100)):
        assert (one.memory.logits == 16 * 50_000 * learnt[one.stage]) == whole, one.stage
    measured = estimate.evaluate(recipe).memory.logits
    assert measured == 10 * 50_000 * (16 * 2048 if whole else (1 << 28) // 50_000)


@pytest.mark.parametrize(("way", "whole"), [("tensor_parallel", True), ("pipeline_stages", False)])
def test_a_head_that_tensor_parallelism_cuts_makes_all_logits_at_once(way: str, whole: bool) -> None:
    recipe = base(*(f"{stage}.engine.{key}=2" for stage in ("pretrain", "sft") for key in ("processes", way)))
    for one, tokens in ((estimate.pretrain(recipe), 16 * 2048), (estimate.sft(recipe), 8 * 1024)):
        assert (one.memory.logits == 16 * 32_000 * tokens) == whole, one.stage


def test_a_teacher_makes_all_logits_at_once(tmp_path: Path) -> None:
    taught = estimate.pretrain(base(f"pretrain.distill.teacher={tmp_path}"))
    assert taught.memory.logits == 16 * 32_000 * 16 * 2048
    assert estimate.most(taught.memory) == "logits"


def test_adapters_leave_room_for_a_larger_model() -> None:
    on = "{enabled: true, rank: 16}"
    for stage, settings in (("ppo", ("ppo.lora=" + on,)), ("grpo", ("grpo.lora=" + on,)), ("dpo", ("dpo.lora=" + on,))):
        plain, lean = base(f"align={stage}"), base(f"align={stage}", *settings)
        one, other = (estimate.aligned(recipe, H100).memory for recipe in (plain, lean))
        assert other.total < one.total, stage
        count = parameters(plain.pretrain.model, 32_000)
        assert one.optimizer - other.optimizer > 11 * count / 8, "the moments of the policy, over eight processes"
        smaller, larger = (estimate.largest(recipe, H100) for recipe in (plain, lean))
        assert smaller is not None
        assert larger is not None
        assert larger.parameters > smaller.parameters
    whole, few = (estimate.sft(one).memory for one in (base(), base("sft.lora=" + on)))
    assert few.optimizer + few.gradients < 0.1 * (whole.optimizer + whole.gradients)


def test_the_largest_model_fits_and_the_next_one_does_not() -> None:
    recipe = base()
    found = estimate.largest(recipe, H100)
    assert found is not None

    def memory(depth: int) -> float:
        shape = Model(depth=depth)
        return estimate.aligned(
            recipe.model_copy(update={"pretrain": recipe.pretrain.model_copy(update={"model": shape})}), H100
        ).memory.total

    [depth] = [depth for depth in range(1, 200) if parameters(Model(depth=depth), 32_000) == found.parameters]
    assert memory(depth) == found.memory.total <= H100.memory < memory(depth + 1)
    spared = estimate.largest(base("ppo.critic=head", "ppo.offload_frozen=true"), H100)
    assert spared is not None
    assert spared.parameters > found.parameters
    assert estimate.largest(recipe, replace(H100, memory=1e6)) is None
    assert "ppo: no model fits" in "\n".join(estimate.report(recipe, replace(H100, memory=1e6), 0.4))


def test_what_takes_most_is_named_with_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert estimate.most(Memory(weights=1, logits=3, host=9)) == "logits"
    assert training.main(["estimate", "--recipe", "base", "--gpus", "8", "--gpu", "a100-40gb"]) == 0
    assert "pretrain fits: 44% of the memory, most of it activations" in capsys.readouterr().out
    wide = ("--set", "pretrain.batch=2048", "--set", "pretrain.engine.micro_batch=256")
    training.main(["estimate", "--recipe", "base", "--gpus", "8", "--gpu", "h200-nvl", *wide[2:], *wide[:2]])
    assert "does not fit: activations take most; lower pretrain.engine.micro_batch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "part", "said"),
    [
        ({}, "weights", "raise ppo.engine.zero_stage to 3, or set ppo.engine.offload_parameters"),
        ({"zero_stage": 3}, "weights", "set ppo.engine.offload_parameters, or take more GPUs, or a smaller model"),
        ({"zero_stage": 3, "offload_parameters": True}, "weights", "take more GPUs, or a smaller model"),
        ({"zero_stage": 2}, "gradients", "take more GPUs, or a smaller model"),
        ({"zero_stage": 1, "offload_optimizer": True}, "optimizer", "take more GPUs, or a smaller model"),
        (
            {"micro_batch": 1},
            "activations",
            "set ppo.engine.activation_checkpointing, or set ppo.engine.offload_activations",
        ),
        ({"micro_batch": 1}, "logits", "lower tokenizer.vocab_size"),
    ],
)
def test_nothing_is_advised_that_is_set_already(given: dict[str, Any], part: str, said: str) -> None:
    assert estimate.advice("ppo", Engine(**given), part) == said


def test_an_evaluation_has_whole_weights_whatever_its_zero_stage() -> None:
    said = "these are whole on each GPU: take GPUs with more memory, or a smaller model"
    assert estimate.advice("evaluate", Engine(), "weights") == said


def test_a_reader_that_ends_early_ends_the_estimate_quietly() -> None:
    command = f"{sys.executable} -m training estimate --recipe tiny | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_size_of_a_checkpoint_and_the_memory_of_its_copy_are_said() -> None:
    """12 bytes a parameter: 80.9 GB, of which each of 8 processes holds an eighth until it is uploaded."""
    recipe = recipes.load("large")
    lines = estimate.report(recipe, H100, 0.4)
    assert "pretrain: a checkpoint takes 80.9 GB; at 1 GB/s to the store, a stop needs 81 s to save it" in lines
    count = estimate.pretrain(recipe).parameters
    assert recipe.pretrain.engine.processes == 8, "those of one node: Airflow starts no others"
    assert estimate.pretrain(recipe).memory.host == estimate.sft(recipe).memory.host == 12 * count / 8
    critic = estimate.reward(recipe).parameters
    assert estimate.ppo(recipe, H100).memory.host == 12 * (count + critic) / 8
    assert estimate.evaluate(recipe).memory.host == 0


def test_a_batch_that_cannot_be_split_is_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["estimate", "--recipe", "base", "--gpus", "7"]) == 78
    error = capsys.readouterr().err
    assert error.startswith("error: recipe ")
    assert "pretrain.batch 256 is not a multiple of engine.processes x engine.micro_batch = 7 x 16" in error
    assert error.count("\n") == 1


def test_a_resolved_run_is_estimated_too(make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["estimate", "--recipe", make_run().uri]) == 0
    said = capsys.readouterr().out
    assert "Corpus, of 1 crawl files" in said
    assert "host: main memory of one process" in said
    assert "epochs over each source: crawl" in said


@pytest.mark.parametrize(("count", "said"), [(950, "950"), (5.243e9, "5.24 billion"), (3e12, "3 trillion")])
def test_large_numbers_are_said_in_words(count: float, said: str) -> None:
    assert estimate.short(count) == said


def numbers(recipe: str) -> set[str]:
    """The numbers in a recipe's comments, without those of settings that a comment shows."""
    lines = Path(f"recipes/{recipe}.yaml").read_text().splitlines()
    comments = "\n".join(line.partition("#")[2] for line in lines)
    prose = re.sub(r"\S+\.md|\S+://\S+|: \{.*|: \[.*", "", comments)
    return set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", prose))


def test_every_number_in_the_comments_of_base_is_what_is_estimated() -> None:
    recipe = base()
    made, one = estimate.corpus(recipe, *estimate.crawl_size(recipe)), estimate.pretrain(recipe)
    read = estimate.epochs(recipe, estimate.sources_of(recipe, made))["crawl"]
    ratio = one.tokens / one.parameters
    assert numbers("base") == {
        f"{one.parameters / 1e6:.1f}",
        f"{rates.CRAWL_FILES:,}",
        f"{made.pages / 1e6:.1f}",
        f"{made.tokens / 1e9:.2f}",
        f"{MAX_SYNTHETIC:,}",
        f"{one.steps:,}",
        f"{one.tokens // one.steps:,}",
        f"{one.tokens / 1e9:.2f}",
        f"{read:.2f}",
        f"{ratio:.0f}",
        f"{ratio / 20:.1f}",
        "20",
        f"{one.memory.total / 2**30:.1f}",
    }


def test_every_number_in_the_comments_of_large_is_what_is_estimated() -> None:
    recipe = recipes.load("large")
    one = estimate.pretrain(recipe)
    read = estimate.epochs(recipe, estimate.sources_of(recipe, estimate.corpus(recipe, *estimate.crawl_size(recipe))))
    assert numbers("large") == {
        f"{one.parameters / 1e9:.2f}",
        f"{one.tokens / 1e9:.0f}",
        f"{one.tokens / one.parameters:.0f}",
        f"{read['crawl']:.2f}",
        f"{recipe.pretrain.batch * recipe.pack.seq_len:,}",
    }


@pytest.mark.parametrize("recipe", ["base", "large"])
def test_every_stage_of_the_recipes_for_gpus_fits_one(recipe: str) -> None:
    assert "does not fit" not in "\n".join(estimate.report(recipes.load(recipe), H100, 0.4))

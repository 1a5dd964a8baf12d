"""The partitions of the stage benchmark, and what a recipe that names benchmarks must not say."""

import pytest

from contract.benchmarks import KNOWN, Measured, measured, of_step, step_of
from contract.errors import RecipeError
from contract.recipe import parse
from contract.settings.training import Benchmark


def test_a_partition_names_a_model_and_a_benchmark() -> None:
    one = Measured("pretrain-1000", "mmlu")
    assert (one.partition, Measured.of("pretrain-1000.mmlu")) == ("pretrain-1000.mmlu", one)
    assert (of_step(1000), step_of("pretrain-1000")) == ("pretrain-1000", 1000)
    assert [step_of(name) for name in ("pretrain", "pretrain-x", "sft", "pretrain-1-")] == [None] * 4


@pytest.mark.parametrize(
    ("model", "dag", "reads"),
    [
        ("pretrain", "pretrain", ("pretrain",)),
        ("pretrain-7", "pretrain", ("pretrain",)),
        ("sft", "align", ("sft",)),
        ("aligned", "align", ("gate", "ppo", "dpo", "grpo")),
        ("mine", "evaluate", ()),
    ],
)
def test_each_model_has_its_dag_and_its_inputs(model: str, dag: str, reads: tuple[str, ...]) -> None:
    one = Measured(model, "mmlu")
    assert (one.dag, one.reads) == (dag, reads)


def test_a_judge_of_answers_is_read_beside_the_model_but_not_by_models_that_are_older() -> None:
    given = {"tasks": {"gsm8k": {"items": "/x", "samples": 4, "temperature": 1.0, "by_reward": True}}, "steps": [3]}
    judge = ("sft", "reward", "tokenizer")
    assert {
        one.model: one.reads for one in measured(Benchmark.model_validate({**given, "others": {"mine": "/m"}}))
    } == {
        "pretrain-3": ("pretrain",),
        "pretrain": ("pretrain",),
        "sft": judge,
        "aligned": ("gate", "ppo", "dpo", "grpo", *judge),
        "mine": judge,
    }
    assert Measured("mine", "gsm8k", by_reward=True).dag == "evaluate"


def test_models_come_in_the_order_in_which_they_are_made() -> None:
    tasks = {name: {"items": "/x"} for name in ("mmlu", "arc")}
    given = {"tasks": tasks, "models": ["aligned", "pretrain"], "steps": [20, 3, 20], "others": {"mine": "/m"}}
    made = measured(Benchmark.model_validate(given))
    assert list(dict.fromkeys(one.model for one in made)) == [
        "pretrain-3", "pretrain-20", "pretrain", "aligned", "mine",
    ]  # fmt: skip
    assert [one.benchmark for one in made] == ["mmlu", "arc"] * 5
    assert measured(Benchmark()) == []


def test_a_section_of_one_partition_holds_nothing_of_the_others() -> None:
    given = {"tasks": {"mmlu": {"items": "/x"}, "arc": {"items": "/y"}}, "steps": [3, 4], "others": {"mine": "/m"}}
    section = Benchmark.model_validate(given)
    only = section.of_partition("pretrain-4.arc")
    assert ([*only.tasks], only.models, only.steps, dict(only.others)) == (["arc"], (), (4,), {})
    assert dict(section.of_partition("mine.mmlu").others) == {"mine": "/m"}
    assert section.of_partition("sft.mmlu").models == ("sft",)
    assert section.of_partition("all") == section
    assert [*section.uris()] == [("tasks.mmlu.items", "/x"), ("tasks.arc.items", "/y"), ("others.mine", "/m")]


def test_a_benchmark_is_of_the_kind_that_its_name_says_unless_it_says_another() -> None:
    found = parse("benchmark: {tasks: {mmlu: {items: /x}, law: {task: mmlu, items: /y}}}", "here").benchmark
    assert [one.task for one in found.tasks.values()] == ["mmlu", "mmlu"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("tasks: {mmul: {items: /x}}", r"benchmark: tasks\.mmul\.task: there is no task 'mmul'; there are arc, bbh"),
        ("tasks: {a: {task: mmlu, items: /x, style: blank}}", "task mmlu has no style 'blank'; it has letter, cloze"),
        ("tasks: {mmlu: {}}", r"benchmark\.tasks\.mmlu\.items: .*(required|missing)"),
        ("tasks: {mmlu: {items: /x, shot: 3}}", r"benchmark\.tasks\.mmlu\.shot: unknown key"),
        ("tasks: {a.b: {task: mmlu, items: /x}}", r"benchmark\.tasks"),
        ("tasks: {mmlu: {items: /x, samples: 4}}", "4 samples at temperature 0 would all be the same"),
        ("tasks: {realtoxicityprompts: {items: /x}}", r"tasks\.realtoxicityprompts\.words: .* name its file"),
        ("models: [ppo]", r"benchmark\.models"),
        ("tasks: {gsm8k: {items: /x, by_reward: true}}", r"tasks\.gsm8k: .*among one output; raise samples"),
        ("others: {sft: /m}", r"others\.sft: that is the name of a model of the run"),
        ("others: {pretrain-7: /m}", r"others\.pretrain-7: that is the name of a model"),
        ("engine: {tensor_parallel: 2, processes: 2}", r"benchmark\.engine: tensor_parallel"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(section: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(f"benchmark: {{{section}}}", "here")


def test_every_known_kind_has_an_ability_and_a_way_to_ask() -> None:
    assert all(one.styles for one in KNOWN.values())
    assert list(KNOWN) == sorted(KNOWN)

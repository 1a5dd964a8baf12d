"""The size of a task follows from its recipe, its files, or the documents that enter it."""

import pytest

from contract.plan import plan
from contract.recipe import parse
from contract.sizes import parameters
from contract.sources import Segment, Source
from reports.workload import FILE_BYTES, place, work

FILES = (Source("file:///a", "a", 700, "x"), Source("https://b", "b", 0, ""))


def task(recipe, stage):
    segment = Segment("X-2024-10", 0, FILES)
    return next(one for (name, _), one in plan(recipe, [segment]).items() if name == stage)


def of(text, stage, documents=None):
    recipe = parse(text, "here")
    return work(recipe, task(recipe, stage), documents)


def test_a_crawl_has_its_files_bytes_and_a_common_size_where_no_list_says_it():
    assert of("", "crawl") == 700 + FILE_BYTES
    assert of("crawl: {max_bytes_per_file: 500}", "crawl") == 1000


@pytest.mark.parametrize("stage", ["extract", "filter", "dedup_fuzzy", "mix", "pack", "tokenizer"])
def test_stages_over_documents_have_those_that_enter(stage):
    assert of("", stage, 40.0) == 40.0
    assert of("", stage) is None


def test_sources_beside_the_crawl_have_no_known_size():
    assert of("", "curate") == 1.0
    assert of("curate: {sources: {books: {uri: /books}}}", "curate") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 100_000), ("instructions: {max_examples: 7}", 7), ("instructions: {data: /a}", None),
     ("instructions: {data: /a, max_examples: 9}", 9)],
)  # fmt: skip
def test_examples_have_a_number_unless_only_their_file_says_it(text, expected):
    assert of(text, "instructions") == expected


SMALL = """
tokenizer: {vocab_size: 600}
pack: {seq_len: 96}
pretrain: {model: {layers: 1, d_model: 32, heads: 2, kv_heads: 2, d_ff: 64}, steps: 10, batch: 8}
instructions: {max_examples: 16}
preferences: {max_examples: 20}
sft: {epochs: 3, max_tokens: 48, batch: 8}
reward: {epochs: 2, max_tokens: 48, batch: 8}
ppo: {steps: 2, rollout_batch: 64, minibatch: 64, max_prompt_tokens: 48, max_response_tokens: 16}
evaluate: {sequences: 5, prompts: 4, max_response_tokens: 10}
probe: {documents: 3, max_chars: 1000}
"""


@pytest.mark.parametrize(
    ("stage", "units"),
    [("pretrain", 10 * 8 * 96), ("sft", 16 * 3), ("reward", 20 * 2 * 0.7), ("judge", 20 * 2 * 0.3), ("ppo", 2 * 64 * 64),
     ("evaluate", 5 * 96 + 4 * (48 + 10)), ("export", 1), ("probe", 3 * 1000)],
)  # fmt: skip
def test_training_has_parameters_times_what_they_see(stage, units):
    recipe = parse(SMALL, "here")
    count = parameters(recipe.pretrain.model, 600)
    assert work(recipe, task(recipe, stage), None) == pytest.approx(count * units)
    brought = parse(SMALL.replace("pretrain: {", "pretrain: {start_from: /models/a, "), "here")
    assert work(brought, task(brought, stage), None) is None


def test_pretraining_by_epochs_has_no_known_size():
    text = SMALL.replace("steps: 10", "mixture: {epochs: {crawl: 1}}")
    assert of(text, "pretrain") is None
    assert of(text, "gate") == of(text, "ablate") == 1.0


def test_times_are_compared_on_the_same_machines_only():
    here, there = parse("", "here"), parse("spark: {master: 'spark://a:7077'}", "here")
    assert place(here, "filter") != place(there, "filter")
    assert place(here, "pretrain") == place(there, "pretrain")
    assert place(here, "gate") == ()
    faster = parse("pretrain: {engine: {processes: 8, dtype: bf16, micro_batch: 4}}", "here")
    assert place(here, "pretrain") != place(faster, "pretrain")
    assert place(here, "sft") == place(faster, "sft")

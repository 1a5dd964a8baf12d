"""A recipe holds differences, overrides apply in order, and every mistake names its key and what is allowed."""

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contract import mixture, recipe
from contract.errors import InputError, RecipeError
from contract.mistakes import Mistake
from contract.recipe import MOST_MISTAKES, Recipe, StageSettings, dump, find_mistakes, load, load_run, parse
from contract.settings.base import Settings
from contract.stages import STAGES

RECIPES = Path(__file__).parents[2] / "recipes"


def test_an_empty_recipe_is_the_defaults() -> None:
    assert parse("", "here") == Recipe()


def test_overrides_apply_in_order_and_know_yaml() -> None:
    made = parse(
        "filter: {min_words: 10}",
        "here",
        [
            "filter.min_words=40",
            "filter.min_words=41",
            "langid.languages=[de, fr]",
            "pretrain.optim.lr=1e-3",
            "ppo.kl_target=null",
        ],
    )
    assert made.filter.min_words == 41
    assert made.langid.languages == ("de", "fr")
    assert made.pretrain.optim.lr == 0.001
    assert made.pretrain.optim.betas == (0.9, 0.95), "keys beside the overridden one keep their defaults"
    assert made.ppo.kl_target is None


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_survives_being_resolved(path: Path) -> None:
    made = load(str(path))
    assert parse(dump(made), "resolved") == made


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "filter: {min_word: 3}",
            [],
            "filter.min_word: unknown key; did you mean min_words? allowed here: bloom, c4, fineweb,",
        ),
        (
            "curate: {sources: {books: {uri: /tmp, rules: {min_word: 3}}}}",
            [],
            "curate.sources.books.rules.min_word: unknown key; did you mean min_words?",
        ),
        (
            "pretrain: {phases: [{share: 1.0, rope: {typ: x}}]}",
            [],
            "pretrain.phases.0.rope.typ: unknown key; did you mean type?",
        ),
        (
            "filtr: {}",
            [],
            "filtr: unknown key; did you mean filter? allowed here: abilities, ablate, align, benchmark, crawl,",
        ),
        ("filter: {min_words: many}", [], "filter.min_words: Input should be a valid integer"),
        ("filter: {min_words: -1}", [], "filter.min_words: Input should be greater than or equal to 0, got -1"),
        ("filter: {min_words: 9, max_words: 3}", [], "filter: min_words 9 is above max_words 3"),
        (
            "minhash_sign: {quality: +words}",
            [],
            "minhash_sign.quality: '+words' is not measured; there are language_probability, duplicate_lines,",
        ),
        (
            "minhash_sign: {quality: -perplexity}",
            [],
            "minhash_sign.quality: perplexity is measured only where score.perplexity_model is set",
        ),
        (
            "minhash_sign: {quality: bad_word_fraction}",
            [],
            "minhash_sign.quality: bad_word_fraction is measured only where score.bad_words is set",
        ),
        (
            "extract: {extractor: soup}",
            [],
            "extract.extractor: Input should be 'trafilatura', 'resiliparse' or 'justext', got 'soup'",
        ),
        (
            "curate: {sources: {wiki: {url: a}}}",
            [],
            "curate.sources.wiki.url: unknown key; did you mean uri? allowed here: correct, decontaminate, dedup,",
        ),
        ("curate: {sources: {crawl: {uri: a}}}", [], "curate.sources: `crawl` is the crawl's own name"),
        ("curate: {sources: {a.b: {uri: a}}}", [], "curate.sources.a.b"),
        ("curate: {sources: {a: {uri: a, layout: piles}}}", [], "curate.sources.a.layout: Input should be 'pile'"),
        ("pretrain: {batch: 10, engine: {micro_batch: 8}}", [], "pretrain.batch 10 is not a multiple"),
        ("pretrain: {model: {heads: 5}}", [], "pretrain.model: heads 5 must divide d_model 768"),
        ("pretrain: {steps: 5, tokens: 100}", [], "pretrain: steps and tokens both say how long to train"),
        (
            "pretrain: {steps: 5, optim: {warmup_steps: 6}}",
            [],
            "pretrain: with optim.warmup_steps 6 no step of 5 reaches optim.lr; lower it",
        ),
        (
            "pretrain: {mixture: {proportions: {crawl: 0.5}}}",
            [],
            "pretrain.mixture: proportions add up to 0.5; they should",
        ),
        (
            "pretrain: {mixture: {proportions: {a: 1, b: 0.0201}}}",
            [],
            "pretrain.mixture: proportions add up to 1.0201; they should",
        ),
        (
            "pretrain: {mixture: {preset: gpt3, epochs: {crawl: 1}}}",
            [],
            "pretrain.mixture: epochs and preset contradict each other; say one of them",
        ),
        (
            "curate: {sources: {books: {uri: a}}}\npretrain: {mixture: {epochs: {crawl: 1, books: 2, code: 1, wiki: 0}}}",
            [],
            "pretrain.mixture.epochs names code, wiki, which curate.sources does not name; the sources are books, crawl",
        ),
        (
            "pretrain: {phases: [{share: 0.5}, {share: 0.5, mixture: {proportions: {code: 1}}}]}",
            [],
            "pretrain.phases.1.mixture.proportions names code, which curate.sources does not name; the sources are crawl",
        ),
        (
            "pretrain: {mixture: {preset: llama}}",
            [],
            "pretrain.mixture.preset names arxiv, books, c4, github, stackexchange, wikipedia, which curate.sources does not name",
        ),
        ("pretrain: {mixture: {epochs: {crawl: 0}}}", [], "pretrain.mixture: epochs are all 0; give at least one"),
        ("pretrain: {mixture: {preset: gpt4}}", [], "pretrain.mixture.preset: Input should be 'gpt3' or 'llama'"),
        ("pretrain: {phases: [{share: 0.5}, {share: 0.4}]}", [], "pretrain: the shares of the phases add up to 0.9;"),
        (
            "pretrain: {steps: 10, phases: [{share: 0.999}, {share: 0.001}]}",
            [],
            "pretrain.phases.1.share is less than one of the 10 steps; raise it or the steps",
        ),
        (
            "pack: {seq_len: 4096, more_seq_lens: [32768]}\n"
            "pretrain: {batch: 512, engine: {processes: 128, micro_batch: 4},"
            " phases: [{share: 0.95}, {share: 0.05, seq_len: 32768}]}",
            [],
            "pretrain.phases.1.seq_len 32768 leaves 64 rows in a step, which pretrain.engine.processes 128 does not divide",
        ),
        (
            "pack: {seq_len: 4096, more_seq_lens: [32768]}\n"
            "pretrain: {batch: 512, engine: {processes: 256, tensor_parallel: 2, micro_batch: 4},"
            " phases: [{share: 0.95}, {share: 0.05, seq_len: 32768}]}",
            [],
            "leaves 64 rows in a step, which pretrain.engine.processes 256 / 2 does not divide",
        ),
        (
            "pretrain: {batch: 24, engine: {processes: 8, tensor_parallel: 2, micro_batch: 8}}",
            [],
            "pretrain.batch 24 is not a multiple of engine.processes / 2 x engine.micro_batch = 4 x 8",
        ),
        (
            "pretrain: {engine: {processes: 6, tensor_parallel: 4}}",
            [],
            "pretrain.engine: processes 6 is not a multiple of tensor_parallel 4; change one of them",
        ),
        (
            "sft: {engine: {processes: 4, tensor_parallel: 2, pipeline_stages: 2}}",
            [],
            "sft.engine: tensor_parallel 2, pipeline_stages 2 cannot be combined; set one of them to 1",
        ),
        (
            "pretrain: {engine: {processes: 4, pipeline_stages: 2, zero_stage: 3}}",
            [],
            "pretrain.engine: pipeline_stages 2 already shares out the weights, zero_stage 3 would cut them again;",
        ),
        (
            "pretrain: {engine: {processes: 4, pipeline_stages: 2, dtype: fp16}}",
            [],
            "pretrain.engine: pipeline_stages 2 runs in fp32 or bf16",
        ),
        (
            "pretrain: {engine: {processes: 4, tensor_parallel: 2, deepspeed: {tensor_parallel: {autotp_size: 2}}}}",
            [],
            "tensor_parallel.autotp_size would contradict the recipe: set engine.tensor_parallel instead",
        ),
        (
            "pretrain: {engine: {processes: 8, tensor_parallel: 8}}",
            [],
            "pretrain.engine.tensor_parallel 8 does not divide the model's 12 heads",
        ),
        (
            "pretrain: {model: {kv_heads: 3}}\nsft: {engine: {processes: 2, tensor_parallel: 2}}",
            [],
            "sft.engine.tensor_parallel 2 does not divide the model's 3 key and value heads",
        ),
        (
            "pretrain: {model: {experts: 4}}\nsft: {engine: {processes: 2, tensor_parallel: 2}}",
            [],
            "pretrain.model.experts needs the whole model in each process of sft; set sft.engine.tensor_parallel and",
        ),
        (
            "pretrain: {engine: {offload_activations: true}}",
            [],
            "pretrain.engine: offload_activations is about what activation_checkpointing keeps; set that, too",
        ),
        (
            "pretrain: {model: {layers: 3}, engine: {processes: 4, pipeline_stages: 4}}",
            [],
            "pretrain.engine.pipeline_stages 4 is more than the model's 3 layers",
        ),
        (
            "reward: {engine: {processes: 2, tensor_parallel: 2}}",
            [],
            "reward.engine: tensor_parallel and pipeline_stages are for pretrain and sft; set them to 1,",
        ),
        (
            "pretrain: {optim: {optimizer: muon}, engine: {processes: 2, tensor_parallel: 2}}",
            [],
            "pretrain: optim.optimizer muon looks at whole matrices, and engine.tensor_parallel 2 cuts them;",
        ),
        (
            "pretrain: {start_from: /tmp, new_rows_first: 3, engine: {processes: 2, tensor_parallel: 2}}",
            [],
            "pretrain: new_rows_first needs the embeddings whole on each process;",
        ),
        (
            "pack: {seq_len: 64}",
            [],
            "pack.seq_len 64 is shorter than a chat may be: lower sft.max_tokens 1024, reward.max_tokens 512, ppo",
        ),
        (
            "pack: {more_seq_lens: [4096, 2048]}",
            [],
            "pack.more_seq_lens: should be lengths that differ from each other and",
        ),
        ("pack: {more_seq_lens: [8192, 8192]}", [], "from seq_len, got [8192, 8192]"),
        (
            "benchmark: {tasks: {gsm8k: {items: a}}, models: [pretrain, aligned]}\nabilities: {max_drop: 0.1}",
            [],
            "abilities.max_drop needs the answers of sft and aligned; add sft to benchmark.models",
        ),
        (
            "benchmark: {tasks: {gsm8k: {items: a}}, models: [sft]}\nabilities: {at_least: {maths: 0.2}}",
            [],
            "abilities.at_least.maths needs the answers of aligned; add aligned to benchmark.models",
        ),
        (
            "benchmark: {tasks: {mmlu: {items: a, k: 5}}}",
            [],
            "benchmark.tasks.mmlu: k: 5 examples need a file of them; name it in shots, or set k to 0",
        ),
        ("abilities: {max_drop: 0.1}", [], "abilities.max_drop needs benchmarks; name some in benchmark.tasks"),
        ("abilities: {at_least: {maths: 0.2}}", [], "abilities.at_least.maths needs benchmarks; name some in"),
        (
            "benchmark: {tasks: {gsm8k: {items: a}}}\nabilities: {at_least: {maths: 0.2, code: 0.1}}",
            [],
            "abilities.at_least.code: no benchmark measures it; benchmark.tasks are of maths",
        ),
        ("[1, 2]", [], "must hold keys and values, not a list"),
        ("a: [", [], "is not valid YAML"),
        ("filter: {min_words: 1, min_words: 2}", [], "key 'min_words' stands twice"),
        ("", ["filter.min_words"], "override 'filter.min_words': write it as key.path=value"),
        ("", ["store.a.b=1"], "store: Input should be a valid string"),
        ("store: x", ["store.a=1"], "override 'store.a=1': store is a value and has no keys below it"),
        ("", ["filter.min_words=[1"], "is not a YAML value"),
        ("filter: {min_words: true}", [], "filter.min_words: Input should be a valid integer"),
        ("filter: {gopher_quality: {max_hash_ratio: .nan}}", [], "max_hash_ratio: Input should be a finite number"),
        ("pretrain: {optim: {lr: .inf}}", [], "pretrain.optim.lr: Input should be a finite number"),
        ("filter: {gopher_quality: {min_mean_word_chars: 20}}", [], "is above max_mean_word_chars 10"),
        ("", ["filter.gopher_repetition.top_ngram_char_fraction.0=0.1"], "top_ngram_char_fraction"),
        ("{[a]: 1}", [], "is not valid YAML"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_key_and_what_is_allowed(
    text: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, "here", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("recipe here: ", "override "))


def test_a_phase_of_longer_sequences_may_have_a_micro_batch_of_its_own():
    text = (
        "pack: {seq_len: 2048, more_seq_lens: [6144]}\n"
        "pretrain: {batch: 48, engine: {micro_batch: 16}, phases: [{share: 0.9}, {share: 0.1, seq_len: 6144}]}"
    )
    made = parse(text, "here")
    assert mixture.micro_batches(made.pretrain, made.pack.seq_len) == [16, 4], "5 would not divide 16 rows"


FITS = "pack: {seq_len: 64}\nsft: {max_tokens: 64}\nreward: {max_tokens: 64}\nppo: {max_prompt_tokens: 40, max_response_tokens: 24}"


@pytest.mark.parametrize("longer", ["sft.max_tokens", "reward.max_tokens", "ppo.max_response_tokens"])
def test_the_longest_chat_fills_a_sequence_and_no_longer_one_is_taken(longer: str) -> None:
    assert parse(FITS, "here").pack.seq_len == 64
    value = 25 if longer.startswith("ppo") else 65
    with pytest.raises(RecipeError, match=r"pack\.seq_len 64 is shorter .* lower .* 65$"):
        parse(FITS, "here", [f"{longer}={value}"])


@pytest.mark.parametrize(
    ("stage", "batch"), [("pretrain", "batch"), ("sft", "batch"), ("reward", "batch"), ("ppo", "minibatch")]
)
def test_a_batch_is_shared_evenly_among_processes(stage: str, batch: str) -> None:
    engine = [f"{stage}.engine.processes=3", f"{stage}.engine.micro_batch=2", "ppo.rollout_batch=96"]
    parse("", "here", [*engine, f"{stage}.{batch}=12"])
    with pytest.raises(RecipeError, match=rf"{stage}\.{batch} 16 is not a multiple .* = 3 x 2"):
        parse("", "here", [*engine, f"{stage}.{batch}=16"])


def test_the_judges_engine_is_that_of_reward_unless_the_recipe_says_another() -> None:
    made = parse("reward: {batch: 12, engine: {micro_batch: 6}}", "here", ["reward.engine.processes=2"])
    assert made.judge.engine == made.reward.engine
    own = parse("", "here", ["reward.engine.processes=2", "judge.engine.micro_batch=4", "judge.share=0.5"])
    assert (own.judge.engine.processes, own.judge.engine.micro_batch, own.judge.share) == (2, 4, 0.5)
    assert own.reward.engine.micro_batch == 8
    assert parse("judge: {seed: 3}", "here").judge.engine == parse("", "here").reward.engine
    odd = r"reward\.batch 32 is not a multiple of judge\.engine\.processes x engine\.micro_batch = 1 x 5"
    with pytest.raises(RecipeError, match=odd):
        parse("", "here", ["judge.engine.micro_batch=5"])
    parse("", "here", ["judge.engine.micro_batch=5", "judge.share=0"])
    with pytest.raises(RecipeError, match=r"optim\.optimizer muon looks at whole matrices"):
        parse("", "here", ["reward.optim.optimizer=muon", "judge.engine.zero_stage=2"])
    for broken in ("judge: 3", "reward: 3", "judge: null", "judge: {engine: 3}", "reward: {engine: 3}"):
        with pytest.raises(RecipeError, match=r"judge|reward"):
            parse(broken, "here")


def test_rollouts_are_whole_minibatches_and_each_process_has_its_share_of_text() -> None:
    with pytest.raises(RecipeError, match=r"ppo\.rollout_batch 48 is not a multiple of ppo\.minibatch 32"):
        parse("", "here", ["ppo.rollout_batch=48"])
    parse("", "here", ["ppo.rollout_batch=96"])
    two = ["ppo.engine.processes=2", "ppo.ptx_sequences=3"]
    with pytest.raises(RecipeError, match=r"ppo\.ptx_sequences 3 is not a multiple of ppo\.engine\.processes 2"):
        parse("", "here", [*two, "ppo.ptx_coef=0.5"])
    parse("", "here", two)
    parse("", "here", [two[0], "ppo.ptx_sequences=4", "ppo.ptx_coef=0.5"])


def test_quality_may_be_a_score_that_is_measured() -> None:
    made = parse("minhash_sign: {quality: -perplexity}\nscore: {perplexity_model: /m}", "here")
    assert made.minhash_sign.quality_column == "perplexity"


def test_the_identity_holds_what_differs_from_the_defaults_and_what_is_declared_of_other_sections() -> None:
    made = parse("langid: {languages: [fr, de]}\nmix: {heldout_fraction: 0.25}", "here")
    assert made.identity("extract") == {"langid.languages": ["fr", "de"]}
    assert made.identity("dedup_substring") == {"mix.heldout_fraction": 0.25}
    assert made.identity("mix") == {"mix.heldout_fraction": 0.25}
    assert made.identity("crawl") == {}
    assert parse("name: big", "here").identity("export") == {"name": "big"}


def test_a_stage_gets_what_it_declares_and_nothing_else() -> None:
    made = StageSettings(parse("langid: {languages: [fr]}", "here"), "extract")
    assert made.own.extractor == "trafilatura"
    assert made.of("langid.languages") == ("fr",)
    for key in ("langid.min_probability", "langid", "mix.seed"):
        with pytest.raises(
            KeyError, match=rf"extract reads {key}, which its row in contract/stages.py does not declare"
        ):
            made.of(key)


def test_the_resolved_recipe_is_written_in_the_order_of_the_stages_and_in_its_own_letters() -> None:
    text = dump(parse("name: größe", "here"))
    assert text.startswith("name: größe\nstore: ")
    assert re.findall(r"^(\w+):", text, re.MULTILINE) == list(Recipe.model_fields)


@pytest.mark.parametrize("content", [b"name: \xff", None])
def test_a_recipe_that_cannot_be_read_says_why(content: bytes | None, tmp_path: Path) -> None:
    place = tmp_path / "mine.yaml"
    place.write_bytes(content) if content else place.mkdir()
    with pytest.raises(RecipeError, match=r"^recipe .*/mine\.yaml: (is not UTF-8 text|cannot be read)"):
        load(str(place))


def test_a_recipe_elsewhere_is_not_compared_with_those_here(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(f"file://{tmp_path}/none.yaml")
    assert str(caught.value) == f"recipe file://{tmp_path}/none.yaml: no such file"


def test_naming_one_ngram_keeps_the_thresholds_of_the_others() -> None:
    made = parse("", "here", ["filter.gopher_repetition.top_ngram_char_fraction.2=0.3"])
    assert made.filter.gopher_repetition.top_ngram_char_fraction == {2: 0.3, 3: 0.18, 4: 0.16}


def test_relative_paths_mean_the_same_to_whoever_reads_the_resolved_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = parse(
        "instructions: {data: a.jsonl}\ndecontaminate: {benchmarks: {b: b.jsonl}}\nstore: s3://bucket/x", "here"
    )
    assert (made.instructions.data, made.preferences.data, made.store) == (
        f"{tmp_path}/a.jsonl",
        "synthetic",
        "s3://bucket/x",
    )
    assert made.decontaminate.benchmarks == {"b": f"{tmp_path}/b.jsonl"}


def test_a_missing_recipe_names_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "big.yaml").touch()
    monkeypatch.chdir(tmp_path)
    there = r"no such file; there are recipes/base\.yaml, recipes/big\.yaml, recipes/large\.yaml, recipes/sample\.yaml, recipes/tiny\.yaml$"
    for name in ("recipes/bog.yaml", "bog", "other/tiny.yaml"):
        with pytest.raises(RecipeError, match=rf"recipe {name}: {there}"):
            load(name)


def test_a_recipe_is_found_by_its_name_and_the_one_here_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("tiny") == load("recipes/tiny.yaml") == load(str(RECIPES / "tiny.yaml"))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text("name: here")
    assert load("tiny").name == load("recipes/tiny.yaml").name == "here"
    (tmp_path / "tiny").write_text("name: a file of that name")
    assert load("tiny").name == "a file of that name"
    with pytest.raises(InputError, match=r"recipes/sample\.yaml is not a resolved run"):
        load_run("sample")


def test_a_yaml_tag_cannot_run_code() -> None:
    with pytest.raises(RecipeError, match="is not valid YAML"):
        parse("name: !!python/object/apply:os.system ['true']", "here")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_yaml_value_but_an_empty_section_is_refused_by_name(value: object) -> None:
    text = yaml.safe_dump({"filter": value})
    if value == {}:
        assert parse(text, "here") == Recipe()
    else:
        with pytest.raises(RecipeError, match="filter"):
            parse(text, "here")


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0x1 << 20_000, 0.5, -0.5, 1e300, 5e-324, 1e-300, float("nan"), float("inf"), -float("inf"),
    "", " ", "x", "1", "-1", "1e400", "²", "nan", "0x10", "a\x00b", "\x1b[31mred", "line\nline", "~", "~\x00", "..", "../../etc", "%s{}", "s3://", "file://x/y",
    "http://me:geheim@[bad/?x=y", "x" * 10_000, "lots", "999t", "en\n", "minhash", "\ud800", "\u202e", b"\xff", datetime.date(2024, 3, 5), datetime.datetime(2024, 3, 5, 1, tzinfo=datetime.UTC),
    [], [1, 2], [None], [[]], ["a", {}], [float("nan")], ["a\x00"], list(range(1000)), {}, {1: 2}, {None: None}, {"": ""}, {"a": {"b": []}}, {"a": "b"},
    {"uri": "a"}, {"a\x00": {"uri": "b"}}, {True: 1}, {2: 0.5}, {"2": 0.5}, {"²": 0.5}, {(1, 2): 3}, {"a", "b"}, (1, 2), (1.0, 1.0),
]  # fmt: skip


def leaves(model: type[Settings], path: str = "") -> Iterator[tuple[str, tuple[type[Settings], str]]]:
    """The path of every setting and of every section, which may be given a value too; and what defines it."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}", (model, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from leaves(field.annotation, f"{path}{name}.")


def dealt() -> dict[str, list[Any]]:
    """Path -> odd values; a setting that several sections share, as those of engines, is given each value in one of them."""
    found = list(leaves(Recipe))
    shares: dict[tuple[type[Settings], str], list[str]] = {}
    for path, defined in found:
        shares.setdefault(defined, []).append(path)
    return {path: ODD[shares[defined].index(path) :: len(shares[defined])] for path, defined in found}


DEALT = dealt()


@pytest.mark.parametrize("path", DEALT)
def test_any_value_of_any_setting_is_accepted_or_refused_by_name(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is accepted has an identity, and is the same once it was resolved."""
    *parents, last = path.split(".")
    for odd in DEALT[path]:
        values: dict[str, Any] = {}
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = odd
        monkeypatch.setattr(recipe.yaml, "load", lambda *_, given=values, **__: given)
        refused = ""
        try:
            made = parse("", "here")
        except RecipeError as error:
            refused = str(error)
        if refused:
            assert refused.startswith("recipe here: ")
            assert last in refused
            assert "YAML" not in refused
            assert len(refused.encode()) < 3000
            assert re.search(r"[\x00-\x1f]|geheim", refused) is None
            continue
        monkeypatch.undo()
        section = yaml.safe_dump({path.split(".")[0]: made.model_dump(mode="json")[path.split(".")[0]]})
        assert parse(section, "resolved") == made
        json.dumps([made.identity(stage) for stage in STAGES], allow_nan=False)


@pytest.mark.parametrize(
    "text",
    ["2024-13-45", "!!int x", "!!bool x", "!!timestamp x", "!!float x", "9" * 5000, "0x" + "f" * 20_000, "[" * 5000, "!!binary '?'", "{? [a] : b}", "&a [*a]", "\x00", "=", "<<: 3"],
    ids=lambda text: text[:14],
)  # fmt: skip
def test_text_that_is_no_value_is_refused(text: str) -> None:
    """However YAML stumbles over it; in an override and in a file."""
    for arguments in (("", [f"filter.min_words={text}"]), (f"filter: {{min_words: {text}}}", []), (text, [])):
        with pytest.raises(RecipeError):
            parse(arguments[0], "here", arguments[1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("minhash_sign.bands=1000000000", "minhash_sign.bands: Input should be less than or equal to 4096"),
        ("minhash_sign={bands: 4096, rows: 256}", "minhash_sign: bands 4096 x rows 256 are more than 65,536 hashes"),
        ("minhash_sign.preset=[1,2]", "minhash_sign.preset: Input should be 'fineweb', 'refinedweb' or 'slimpajama', got [1, 2]"),
        ("extract.seconds_per_page=1.0e+300", "extract.seconds_per_page: Input should be less than or equal to 3600"),
        ("extract.seconds_per_page=1.0e-300", "extract.seconds_per_page: Input should be greater than or equal to 0.001"),
        ("pretrain.optim.betas=[0.9, 1.0]", "pretrain.optim.betas.1: Input should be less than 1"),
        ("pretrain.model.rope_theta=-1", "pretrain.model.rope_theta: Input should be greater than 1"),
        ("langid.min_probability=true", "langid.min_probability: should be a number, not true"),
        ("spark.driver_memory=lots", "spark.driver_memory: should be a whole number and k, m, g or t, as in 4g, got 'lots'"),
        ("spark.driver_memory=999t", "spark.driver_memory: should be between 512m and 64t, got 999t"),
        ("spark.executor_memory=100m", "spark.executor_memory: should be between 512m and 64t, got 100m"),
        ("spark.master=bogus", "spark.master: should be local[*], local[N], spark://host:port, k8s://"),
        ("spark.master='local[0]'", "spark.master: should be local[*]"),
        ("spark.master='local[5000]'", "spark.master: should name at most 1024 cores"),
        ('store="a\\0b"', "store: should hold no control characters"),
    ],
)  # fmt: skip
def test_a_value_that_could_only_break_a_worker_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse("", "here", [override])
    assert str(caught.value).startswith(f"recipe here: {message}")


@pytest.mark.parametrize(
    "master",
    ["local", "local[*]", "local[2]", "local[2,3]", "local-cluster[2,1,1024]", "spark://a:7077", "spark://a:7077,b.c:7078", "k8s://https://host:6443", "k8s://host:6443", "yarn"],
)  # fmt: skip
def test_where_spark_may_run(master: str) -> None:
    assert parse("", "here", [f"spark.master='{master}'"]).spark.master == master


@pytest.mark.parametrize("text", ["512m", "2G", "64t", "1048576k"])
def test_amounts_of_memory(text: str) -> None:
    assert parse("", "here", [f"spark.driver_memory={text}"]).spark.driver_memory == text


def test_every_stage_has_a_section_and_every_section_a_stage() -> None:
    sections = {
        name
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    assert sections - {"spark", "feedback"} == set(STAGES)


def test_settings_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipe.Recipe().filter.min_words = 3  # type: ignore[misc]


MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MERGED, "an alias is not read here; write the value out"),  # 9^11 values
        ("spark: &a {conf: *a}", "an alias is not read here"),
        ("name: " + "[" * 21 + "]" * 21, "nested more than 20 deep"),
        ("[" * 100_000, "nested more than 20 deep"),
        ("- " * 100_000 + "a", "nested more than 20 deep"),
        ("name: " + "x" * (1 << 20), "has 1,048,582 characters; a recipe has at most 1,048,576"),
        ("pack: {seq_len: " + "9" * 5000 + "}", "a number of more than 4,300 characters at line 1"),
        ("pack: {seq_len: " + ":".join(["1"] * 5000) + "}", "a number of more than 4,300 characters at line 1"),
        ("pack: {seq_len: " + ":".join(["1"] * 200) + ".0}", "is not valid YAML"),
        ('pack: {seq_len: !!int ""}', "is not valid YAML"),
    ],
)
def test_yaml_that_stands_for_more_than_a_recipe_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        parse(text, "a.yaml")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    with pytest.raises(RecipeError, match="override"):
        parse("", "a.yaml", [f"curate.sources={text}"])


def test_a_file_that_is_too_large_for_a_recipe_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as sink:
        sink.truncate(1 << 40)
    with pytest.raises(RecipeError, match=r"large\.yaml: has 1,099,511,627,776 bytes; a recipe has at most 1,048,576"):
        load(str(file))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sft.data=a.jsonl", "instructions.data"),
        ("sft.max_examples=9", "instructions.max_examples"),
        ("reward.data=a.jsonl", "preferences.data"),
        ("reward.max_examples=9", "preferences.max_examples"),
        ("reward.heldout_fraction=0.1", "preferences.heldout_fraction"),
    ],
)
def test_a_key_that_moved_is_refused_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(RecipeError, match=rf"{re.escape(old.split('=')[0])}: unknown key; it is now {re.escape(new)}$"):
        parse("", "here", [old])
    value = parse("", "here", [f"{new}={old.split('=')[1]}"]).at(new)
    assert str(value).endswith(old.split("=")[1])


def test_a_mixture_may_be_as_rounded_as_a_published_table() -> None:
    curated = ", ".join(f"{name}: {{uri: {name}}}" for name in ("webtext2", "books1", "books2", "wikipedia"))
    mixture = "pretrain: {mixture: {preset: gpt3}, phases: [{share: 0.333}, {share: 0.333}, {share: 0.333}]}"
    made = parse(f"curate: {{sources: {{{curated}}}}}\n{mixture}", "here")
    assert sum((made.pretrain.mixture.named() or {}).values()) == pytest.approx(1.01)
    assert len(made.pretrain.phases) == 3


def test_the_mixture_of_pretraining_is_part_of_what_ppo_was_made_from() -> None:
    made = parse("pretrain: {mixture: {epochs: {crawl: 2}}, steps: 5}", "here")
    assert made.identity("ppo") == {"pretrain.mixture.epochs": {"crawl": 2.0}}
    assert made.identity("pretrain") == {"pretrain.mixture.epochs": {"crawl": 2.0}, "pretrain.steps": 5}


def test_sizes_that_no_machine_holds_are_refused_when_the_recipe_is_read() -> None:
    """In seconds, by arithmetic, and at the key; not hours later by a rank whose memory is full."""
    with pytest.raises(RecipeError, match=r"pretrain\.model: its 40,\d+,\d+,\d+ parameters take [0-9,]+ GB"):
        parse("pretrain: {model: {layers: 200, d_model: 4096, heads: 32, kv_heads: 32, d_ff: 11008}}", "test")
    with pytest.raises(RecipeError, match=r"pretrain\.engine\.micro_batch: 16,384 sequences"):
        parse("pretrain: {batch: 16384, engine: {micro_batch: 16384}}", "test")
    with pytest.raises(RecipeError, match=r"instructions\.max_examples: .*16777216"):
        parse("instructions: {max_examples: 20000000}", "test")


def test_a_model_to_go_on_from_is_not_judged_by_the_settings_that_it_replaces() -> None:
    model = "model: {layers: 200, d_model: 4096, heads: 32, kv_heads: 32, d_ff: 11008}"
    assert parse(f"pretrain: {{start_from: /models/llama, {model}}}", "test").pretrain.start_from == "/models/llama"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("objective: blank_infilling, start_from: /a", "objective blank_infilling begins with a fresh model"),
        ("objective: blank_infilling, distill: {teacher: /a}", "distill.teacher says how likely each next token is"),
        ("objective: masked", r"pretrain\.objective: .*next_token"),
        ("blanks: {share: 0.6}", r"pretrain\.blanks\.share"),
        ("blanks: {mean_span: 0}", r"pretrain\.blanks\.mean_span"),
        ("distill: {weight: 0}", r"pretrain\.distill\.weight"),
        ("distill: {temperature: 0}", r"pretrain\.distill\.temperature"),
    ],
)
def test_objectives_that_contradict_each_other_are_refused(given: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse(f"pretrain: {{{given}}}", "test")


def test_a_teacher_and_an_objective_are_part_of_what_decides_a_model() -> None:
    made = parse("pretrain: {distill: {teacher: /a, weight: 1}}", "test")
    assert made.pretrain.outside() == {"distill.teacher": "/a"}
    assert made.identity("pretrain")["pretrain.distill.weight"] == 1
    assert parse("pretrain: {objective: blank_infilling}", "test").identity("pretrain") == {
        "pretrain.objective": "blank_infilling"
    }
    assert parse("{}", "test").identity("pretrain") == {}


def told_of(found: list[Mistake]) -> list[tuple[int | None, str, str]]:
    return [(one.line, one.key, one.message) for one in found]


def test_bounds_on_abilities_that_are_measured_are_taken() -> None:
    asked = "benchmark: {tasks: {sums: {task: gsm8k, items: a}}, models: [sft, aligned]}"
    made = parse(f"{asked}\nabilities: {{max_drop: 0.1, at_least: {{maths: 0.2}}}}", "here")
    assert (made.abilities.max_drop, made.abilities.at_least) == (0.1, {"maths": 0.2})
    assert parse("benchmark: {models: [pretrain]}", "here").abilities.max_drop is None


def test_every_mistake_is_found_at_its_line_and_key() -> None:
    lines = ["filter.min_words=many", "ppo.steps=2", "nonsense", "filter.min_word=3", "ppo.gamma=[", "snapshots=[1, 2]"]
    recipe, found = find_mistakes("tiny", lines)
    assert recipe is None
    assert [(line, key) for line, key, _ in told_of(found)] == [
        (2, "nonsense"), (4, "ppo.gamma"), (5, "snapshots.0"), (5, "snapshots.1"),
        (0, "filter.min_words"), (3, "filter.min_word"),
    ]  # fmt: skip
    said = {key: message for _, key, message in told_of(found)}
    assert said["nonsense"] == ("override 'nonsense': write it as key.path=value, for example filter.min_words=40")
    assert said["filter.min_words"] == "Input should be a valid integer, got 'many'"
    assert said["filter.min_word"].startswith("unknown key; did you mean min_words? allowed here: ")


@pytest.mark.parametrize(
    ("lines", "line", "key"),
    [
        (["ppo.steps=2", "pretrain.engine.micro_batch=3"], 1, ""),  # the message names the key
        (["pretrain.batch=9", "pretrain.steps=3"], 0, ""),
        (["pretrain.seed=1", "pretrain.tokens=40", "ppo.steps=2"], 1, "pretrain"),  # steps are the file's
        (["ppo={steps: 0}"], 0, "ppo.steps"),  # the whole section is set
        (["ppo.steps=0", "ppo.steps=0"], 1, "ppo.steps"),  # the last one counts
        (["sft.optim={lr: 2}", "sft.optim.lr=3"], 1, "sft.optim.lr"),
    ],
)
def test_a_mistake_about_several_keys_is_told_at_a_line_that_set_one(lines: list[str], line: int, key: str) -> None:
    [mistake] = find_mistakes("tiny", lines)[1]
    assert (mistake.line, mistake.key) == (line, key)


def test_a_mistake_of_the_file_is_at_no_line(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("filter: {min_words: many}")
    [mistake] = find_mistakes(str(file), ["ppo.steps=2"])[1]
    assert (mistake.line, str(mistake)) == (None, "filter.min_words: Input should be a valid integer, got 'many'")


def test_without_a_mistake_the_recipe_is_that_of_load() -> None:
    lines = ["filter.min_words=7", "ppo.steps=2"]
    assert find_mistakes("tiny", lines) == (load("tiny", lines), [])
    with pytest.raises(RecipeError, match="no such file"):
        find_mistakes("recipes/none.yaml")


def test_many_mistakes_are_cut_and_deep_keys_refused() -> None:
    found = find_mistakes("tiny", [f"x{number}=1" for number in range(300)])[1]
    assert len(found) == MOST_MISTAKES
    [deep] = find_mistakes("tiny", ["pretrain.engine.deepspeed." + "a." * 5000 + "a=1"])[1]
    assert (deep.line, deep.message.endswith("has 5,004 names; a key has at most 20")) == (0, True)
    with pytest.raises(RecipeError, match="a key has at most 20"):
        parse("", "here", ["a." * 20 + "a=1"])


def test_what_the_deployment_refuses_is_told_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "prose.yaml").write_text(f"crawl: {{source: {tmp_path}/crawl}}")
    file = tmp_path / "deployment.yaml"
    file.write_text(f"store: {tmp_path}/store\nrecipes: {tmp_path}/recipes\nroots: ['{tmp_path}/crawl']\n")
    file.chmod(0o600)
    monkeypatch.setenv("GRISTMILL_DEPLOYMENT", str(file))
    prose = str(tmp_path / "recipes" / "prose.yaml")
    [mistake] = find_mistakes(prose, ["ppo.steps=3", "crawl.source=/etc"])[1]
    assert mistake.line == 1
    assert "crawl.source: /etc lies below none of the roots" in mistake.message
    with pytest.raises(RecipeError, match="neither a recipe in"):
        find_mistakes("/etc/passwd")

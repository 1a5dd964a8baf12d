"""A recipe holds differences, overrides apply in order, and every mistake names its key and what is allowed."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import recipe
from contract.errors import RecipeError
from contract.recipe import Recipe, dump, load, parse
from contract.settings import Settings
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
        ("filtr: {}", [], "filtr: unknown key; did you mean filter? allowed here: crawl, decontaminate,"),
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
            "mix: {sources: {wiki: {url: a}}}",
            [],
            "mix.sources.wiki.url: unknown key; did you mean uri? allowed here: epochs, uri",
        ),
        ("mix: {sources: {crawl: {uri: a}}}", [], "mix.sources: `crawl` is the crawl's own name"),
        ("pretrain: {batch: 10, engine: {micro_batch: 8}}", [], "pretrain.batch 10 is no multiple"),
        ("pretrain: {model: {heads: 5}}", [], "pretrain.model: heads 5 must divide d_model 768"),
        ("pack: {seq_len: 64}", [], "pack.seq_len 64 is shorter than the longest chat"),
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


FITS = "pack: {seq_len: 64}\nsft: {max_tokens: 64}\nreward: {max_tokens: 64}\nppo: {max_prompt_tokens: 40, max_response_tokens: 24}"


@pytest.mark.parametrize("longer", ["sft.max_tokens", "reward.max_tokens", "ppo.max_response_tokens"])
def test_the_longest_chat_fills_a_sequence_and_no_longer_one_is_taken(longer: str) -> None:
    assert parse(FITS, "here").pack.seq_len == 64
    value = 25 if longer.startswith("ppo") else 65
    with pytest.raises(RecipeError, match=r"pack\.seq_len 64 is shorter .*\(65 tokens\)"):
        parse(FITS, "here", [f"{longer}={value}"])


@pytest.mark.parametrize(
    ("stage", "batch"), [("pretrain", "batch"), ("sft", "batch"), ("reward", "batch"), ("ppo", "minibatch")]
)
def test_a_batch_is_shared_evenly_among_processes(stage: str, batch: str) -> None:
    engine = [f"{stage}.engine.processes=3", f"{stage}.engine.micro_batch=2", "ppo.rollout_batch=96"]
    parse("", "here", [*engine, f"{stage}.{batch}=12"])
    with pytest.raises(RecipeError, match=rf"{stage}\.{batch} 16 is no multiple .* = 3 x 2"):
        parse("", "here", [*engine, f"{stage}.{batch}=16"])


def test_rollouts_are_whole_minibatches_and_each_process_has_its_share_of_text() -> None:
    with pytest.raises(RecipeError, match=r"ppo\.rollout_batch 48 is no multiple of ppo\.minibatch 32"):
        parse("", "here", ["ppo.rollout_batch=48"])
    parse("", "here", ["ppo.rollout_batch=96"])
    two = ["ppo.engine.processes=2", "ppo.ptx_sequences=3"]
    with pytest.raises(RecipeError, match=r"ppo\.ptx_sequences 3 is no multiple of ppo\.engine\.processes 2"):
        parse("", "here", [*two, "ppo.ptx_coef=0.5"])
    parse("", "here", two)
    parse("", "here", [two[0], "ppo.ptx_sequences=4", "ppo.ptx_coef=0.5"])


def test_quality_may_be_a_score_that_is_measured() -> None:
    made = parse("minhash_sign: {quality: -perplexity}\nscore: {perplexity_model: /m}", "here")
    assert made.minhash_sign.quality_column == "perplexity"


def test_what_a_stage_reads_of_other_sections_is_part_of_its_identity() -> None:
    made = parse("langid: {languages: [fr, de]}\nmix: {heldout_fraction: 0.25}", "here")
    assert made.stage_identity("extract")["languages"] == ["de", "fr"]
    assert made.stage_identity("dedup_substring")["heldout_fraction"] == 0.25
    assert made.stage_identity("crawl") == made.crawl.identity()
    for off in ("extract.prefilter_probability=0", "langid.languages=[]"):
        assert "languages" not in parse("", "here", [off]).stage_identity("extract")


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
    made = parse("sft: {data: a.jsonl}\ndecontaminate: {benchmarks: {b: b.jsonl}}\nstore: s3://bucket/x", "here")
    assert (made.sft.data, made.reward.data, made.store) == (f"{tmp_path}/a.jsonl", "synthetic", "s3://bucket/x")
    assert made.decontaminate.benchmarks == {"b": f"{tmp_path}/b.jsonl"}


def test_a_missing_recipe_names_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "big.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"recipe recipes/bog\.yaml: no such file; there are recipes/big\.yaml"):
        load("recipes/bog.yaml")


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
    import yaml

    text = yaml.safe_dump({"filter": value})
    if value == {}:
        assert parse(text, "here") == Recipe()
    else:
        with pytest.raises(RecipeError, match="filter"):
            parse(text, "here")


def test_every_stage_has_a_section_and_every_section_a_stage() -> None:
    sections = {
        name
        for name, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    assert sections - {"spark"} == set(STAGES)


def test_settings_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipe.Recipe().filter.min_words = 3  # type: ignore[misc]

"""Every default, bound and pattern of a recipe against the committed ones, so that none changes unseen.

After a change that is meant: .venv/bin/python -m docs.generate
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.errors import RecipeError
from contract.recipe import DEFAULTS, Recipe, parse
from contract.settings.base import Settings
from contract.settings.corpus import (
    Crawl,
    Decontaminate,
    DedupSubstring,
    MinhashSign,
    Score,
)
from contract.settings.examples import ChatSource, Instructions, Template
from contract.settings.filter import DropsIf, Filter, GopherQuality, GopherRepetition, RuleSet
from contract.settings.spark import memory_bytes
from contract.settings.training import Dpo, Engine, Grpo, Model, Ppo, Sample, Sft

SCHEMA = Path(__file__).with_name("recipe_schema.json")


def recipe_of(sections: dict[str, Any]) -> Recipe:
    return parse(json.dumps({"name": "a", "store": "/tmp/a", "crawl": {"source": "/tmp/b"}, **sections}), "r.yaml")


def schema() -> str:
    """The JSON schema of a recipe, without texts that only explain, and without the thresholds of `filter`.

    docs/filters.md holds the thresholds, and tests/contract/settings/test_filter.py bounds them.
    """
    whole = _bare(Recipe.model_json_schema())
    for section in (Filter, *(type(value) for _, value in Filter() if isinstance(value, RuleSet))):
        properties = whole["$defs"][section.__name__]["properties"]
        for name, field in section.model_fields.items():
            if any(isinstance(one, DropsIf) for one in field.metadata):
                del properties[name]
            elif name != "enabled":
                del properties[name]["default"]  # a rule set with its thresholds
    del whole["properties"]["filter"]["default"]
    return json.dumps(whole, indent=1) + "\n"


def _bare(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _bare(value)
            for key, value in node.items()
            if key not in ("title", "description") or not isinstance(value, str)
        }
    return [_bare(one) for one in node] if isinstance(node, list) else node


def whole_numbers(model: Settings, path: str = "") -> Iterator[tuple[str, int]]:
    """Every (dotted path, default) of a recipe that is a whole number."""
    for name, value in model:
        if isinstance(value, Settings):
            yield from whole_numbers(value, f"{path}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{path}{name}", value


def test_defaults_bounds_and_patterns_are_the_committed_ones() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(schema())


def test_a_digit_for_an_ngram_is_its_number() -> None:
    given = Filter.model_validate({"gopher_repetition": {"duplicate_ngram_char_fraction": {"6": 0.5}}})
    assert given.gopher_repetition.duplicate_ngram_char_fraction == {
        5: 0.15, 6: 0.5, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "equal", "above"),
    [
        (Filter, {"min_words": 9, "max_words": 9}, {"min_words": 10, "max_words": 9}),
        (
            GopherQuality,
            {"min_mean_word_chars": 4, "max_mean_word_chars": 4},
            {"min_mean_word_chars": 5, "max_mean_word_chars": 4},
        ),
        (Decontaminate, {"min_words": 9, "ngram": 9}, {"min_words": 10, "ngram": 9}),
    ],
)
def test_a_least_value_may_equal_the_most_and_no_more(settings: Any, equal: Any, above: Any) -> None:
    settings(**equal)
    with pytest.raises(ValidationError, match="is above"):
        settings(**above)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "fits"), [(12, 12, True), (12, 4, True), (5, 5, False), (12, 5, False), (12, 24, False)]
)
def test_heads_divide_the_width_and_are_divided_by_those_they_share(heads: int, kv_heads: int, fits: bool) -> None:
    if fits:
        assert Model(heads=heads, kv_heads=kv_heads).kv_heads == kv_heads
    else:
        with pytest.raises(ValidationError, match="must divide"):
            Model(heads=heads, kv_heads=kv_heads)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gradient_clipping": 2.0}, "gradient_clipping would contradict the recipe: set optim.clip instead"),
        ({"optimizer": {}}, "optimizer would contradict the recipe: set optim.optimizer instead"),
        ({"optimizer": {"type": "Adam"}}, "optimizer.type would contradict the recipe: set optim.optimizer instead"),
        ({"zero_optimization": {"stage": 2}}, "zero_optimization.stage would contradict .*: set engine.zero_stage"),
        ({"fp16": {"hysteresis": 1, "enabled": True}}, "fp16.enabled would contradict .*: set engine.dtype"),
        ({"zero_optimization": {"offload_param": {"device": "nvme"}}}, "zero_optimization.offload_param.device .* engine.offload_parameters"),
        ({"train_batch_size": 4}, "train_batch_size would contradict the recipe: set the batch of the stage"),
        ({"bf16": None}, "bf16 would contradict the recipe: set engine.dtype instead"),
        ({"bf16": {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}}, "bf16.bf16_master_weights_and_grads would contradict"),
        ({"bf16": {"immediate_grad_update": True}}, "bf16.immediate_grad_update would contradict"),
        ({"fp16": None}, "fp16 should hold options by name, got None"),
        ({"fp16": {"loss_scale": 8}}, "fp16.loss_scale would contradict the recipe: the scale follows the gradients"),
        ({"fp16": {"fp16_master_weights_and_grads": True}}, "fp16.fp16_master_weights_and_grads would contradict"),
        ({"fp16": {"auto_cast": True}}, "fp16.auto_cast would contradict"),
        ({"communication_data_type": "bf16"}, "communication_data_type would contradict .*: gradients are summed in float32"),
        ({"zero_optimization": None}, "zero_optimization should hold options by name, got None"),
        ({"zero_optimization": 3}, "zero_optimization should hold options by name, got 3"),
        ({"zero_optimization": True}, "zero_optimization should hold options by name, got True"),
        ({"zero_optimization": []}, r"zero_optimization should hold options by name, got \[\]"),
        ({"zero_optimization": {}}, r"zero_optimization should hold options by name, got \{\}"),
        ({"zero_optimization": {"offload_optimizer": None}}, "zero_optimization.offload_optimizer should hold options by name"),
        ({"zero_optimization": {"offload_param": {}}}, "zero_optimization.offload_param should hold options by name"),
        ({"zero_optimization": {"cpu_offload": True}}, "zero_optimization.cpu_offload would .*: set engine.offload_optimizer"),
        ({"zero_optimization": {"cpu_offload_param": True}}, "zero_optimization.cpu_offload_param would .*: set engine.offload_param"),
        ({"zero_optimization": {"zero_quantized_gradients": True}}, "zero_optimization.zero_quantized_gradients would contradict"),
        ({"zero_optimization": {"zero_quantized_weights": True}}, "zero_optimization.zero_quantized_weights is none of the options"),
        ({"zero_optimization": {"reduce_bucket_size": None}}, "zero_optimization.reduce_bucket_size should have a value, got None"),
        ({"zero_optimization": {"reduce_bucket_size": {}}}, "zero_optimization.reduce_bucket_size should have a value"),
        ({"zero_optimization": {"reduce_bucket_size": {"a": 1}}}, "zero_optimization.reduce_bucket_size.a is none of the options"),
        ({"zero_optimization.reduce_bucket_size": 1}, "zero_optimization.reduce_bucket_size is none of the options"),
        ({"activation_checkpointing": {"cpu_checkpointing": True}}, "activation_checkpointing.cpu_checkpointing would .*: set engine.activation_"),
        ({"prescale_gradients": True}, "prescale_gradients is none of the options that change only speed, memory or what is logged"),
        ({"train_batch_sizes": 1}, "train_batch_sizes is none of the options"),
    ],
)  # fmt: skip
def test_options_of_deepspeed_that_contradict_the_recipe_are_refused_at_the_key(given: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=rf"sft\.engine\.deepspeed: {said}"):
        recipe_of({"sft": {"engine": {"deepspeed": given}}})


def test_other_options_of_deepspeed_pass() -> None:
    given = {
        "zero_optimization": {"reduce_bucket_size": 1000, "offload_param": {"pin_memory": True}},
        "fp16": {"initial_scale_power": 8},
        "comms_logger": {"enabled": True, "prof_ops": ["all_reduce"]},
        "wall_clock_breakdown": True,
    }
    assert Engine(deepspeed=given).deepspeed == given


def test_the_zero_stage_in_force() -> None:
    stages = {
        0: [{}, {"dtype": "fp32"}],
        1: [{"zero_stage": 1, "dtype": "bf16"}, {"zero_stage": 1, "offload_optimizer": True}],
        2: [{"dtype": "bf16"}, {"dtype": "fp16"}, {"offload_optimizer": True}, {"zero_stage": 2}],
        3: [{"zero_stage": 3, "dtype": "bf16"}],
    }
    assert {stage: [Engine(**one).stage_in_force for one in some] for stage, some in stages.items()} == {
        stage: [stage] * len(some) for stage, some in stages.items()
    }


def test_weights_are_offloaded_where_they_are_sharded() -> None:
    assert Engine(zero_stage=3, offload_parameters=True).offload_parameters
    with pytest.raises(ValidationError, match="offload_parameters needs zero_stage 3, not 2"):
        Engine(zero_stage=2, offload_parameters=True)


@pytest.mark.parametrize(
    ("section", "engine", "said"),
    [
        ("pretrain", {"zero_stage": 2}, "pretrain: optim.optimizer {} looks at whole matrices, and ZeRO 2 cuts them; use"),
        ("sft", {"dtype": "bf16"}, "sft: optim.optimizer {} looks at whole matrices, and ZeRO 2, which bf16 needs, cuts them"),
        ("reward", {"offload_optimizer": True}, "reward: optim.optimizer {} .* ZeRO 2, which offload_optimizer needs, cuts"),
        ("ppo", {"zero_stage": 1, "dtype": "fp16"}, "ppo: value_optim.optimizer {} looks at whole matrices, and ZeRO 1 cuts"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("optimizer", ["lamb", "muon"])
def test_an_optimizer_of_whole_matrices_is_refused_where_zero_cuts_them(
    section: str, engine: Any, said: str, optimizer: str
) -> None:
    optim = "value_optim" if section == "ppo" else "optim"
    with pytest.raises(RecipeError, match=said.format(optimizer)):
        recipe_of({section: {optim: {"optimizer": optimizer}, "engine": engine}})
    recipe_of({section: {optim: {"optimizer": optimizer}}})
    recipe_of({section: {optim: {"optimizer": "adamw"}, "engine": engine}})


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [(None, (5, 14, 8)), ("fineweb", (5, 14, 8)), ("refinedweb", (5, 450, 20)), ("slimpajama", (13, 9, 13))],
)
def test_a_preset_sets_the_sizes_of_its_paper(preset: Any, sizes: tuple[int, ...]) -> None:
    made = MinhashSign(preset=preset)
    assert (made.ngram, made.bands, made.rows) == sizes
    assert MinhashSign(preset=preset, ngram=sizes[0], bands=sizes[1]) == made, "saying the same again is fine"


def test_what_contradicts_a_preset_is_refused() -> None:
    with pytest.raises(ValidationError, match="bands 20 contradicts preset fineweb, which has 14"):
        MinhashSign(preset="fineweb", bands=20)
    with pytest.raises(ValidationError, match="preset fineweb is MinHash's"):
        MinhashSign(preset="fineweb", method="simhash")
    assert MinhashSign(method="simhash", ngram=6).ngram == 6


def test_files_beside_the_crawl_are_named_by_their_settings() -> None:
    assert Score().outside() == DedupSubstring().outside() == {}
    assert Score(bad_words="/a", perplexity_model="/b").outside() == {"bad_words": "/a", "perplexity_model": "/b"}
    assert Score(perplexity_model="/b").outside() == {"perplexity_model": "/b"}
    assert DedupSubstring(tokenizer="/t").outside() == {"tokenizer": "/t"}
    recipe = Recipe.model_validate(
        {
            "crawl": {"blocklists": ["/x", "/y"]},
            "decontaminate": {"benchmarks": {"a": "/b"}},
            "curate": {"sources": {"wiki": {"uri": "/w"}}},
            "instructions": {"data": "/s"},
            "preferences": {"sources": {"a": {"data": "/p"}}, "rounds": {"one": {"votes": "/v"}}},
        }
    )
    outside = {
        stage: recipe.section(stage).outside()
        for stage in ("crawl", "curate", "decontaminate", "instructions", "preferences", "prompts")
    }
    assert outside == {
        "crawl": {"blocklists.0": "/x", "blocklists.1": "/y"},
        "decontaminate": {"benchmarks.a": "/b"},
        "curate": {"sources.wiki.uri": "/w"},
        "instructions": {"data": "/s"},
        "preferences": {"sources.a.data": "/p", "rounds.one.votes": "/v"},
        "prompts": {},
    }


def test_a_default_is_checked_like_what_is_given() -> None:
    assert Recipe().store == str(Path("home/store").absolute())


@pytest.mark.parametrize(
    "source",
    ["http://bob:geheim@h/x", "HTTPS://geheim@h", "http://b:ge/h?eim@h", "http://h/x?sig=geheim", "http://h/#geheim"],
)
def test_a_source_holds_no_secret(source: str) -> None:
    with pytest.raises(RecipeError, match=r"crawl\.source: should be a plain address, .*~/\.netrc") as error:
        parse(f"crawl: {{source: '{source}'}}", "here")
    assert "geheim" not in str(error.value)


def test_how_often_it_is_measured_decides_a_result_that_waits_for_it() -> None:
    usual = Sft()
    assert dict(Sft(eval_steps=7).differences(usual, "sft.")) == {}
    assert dict(Sft(eval_steps=7, patience=2).differences(usual, "sft.")) == {"sft.patience": 2, "sft.eval_steps": 7}
    assert dict(Sft(patience=2).differences(usual, "sft.")) == {"sft.patience": 2}


@pytest.mark.parametrize("source", ["https://h:8443/x/", "s3://bucket/a@b?c", "/data/a@b#c?"])
def test_other_sources_may_hold_any_sign(source: str) -> None:
    assert parse(f"crawl: {{source: '{source}'}}", "here").crawl.source == source


def test_identity_leaves_out_the_run_time_only_settings_and_no_other() -> None:
    changed = Crawl(
        source="/elsewhere", files_per_segment=7, max_files=7, retries=7, split_bytes=7000, connections_per_host=7,
        max_bytes_per_file=7, max_payload_bytes=7, blocklists=("/b",), strict_words=("s",), hard_words=("h",),
        soft_words=("o",), skip_curated_hosts=False,
    )  # fmt: skip
    assert dict(changed.differences(Crawl(), "crawl.")) == {
        "crawl.max_bytes_per_file": 7,
        "crawl.max_payload_bytes": 7,
        "crawl.blocklists": ["/b"],
        "crawl.strict_words": ["s"],
        "crawl.hard_words": ["h"],
        "crawl.soft_words": ["o"],
        "crawl.skip_curated_hosts": False,
    }


def test_a_section_keeps_its_own_defaults_of_an_inner_section() -> None:
    """`sft.optim` has no weight decay and PPO's rates are constant: that stays so if a recipe sets another rate."""
    recipe = parse("", "here", ["sft.optim.lr=1e-4", "ppo.policy_optim={lr: 1e-5, clip: 2}"])
    assert recipe.sft.optim == DEFAULTS.sft.optim.model_copy(update={"lr": 1e-4})
    assert (recipe.sft.optim.weight_decay, recipe.pretrain.optim.weight_decay) == (0.0, 0.1)
    assert recipe.ppo.policy_optim == DEFAULTS.ppo.policy_optim.model_copy(update={"lr": 1e-5, "clip": 2.0})
    assert recipe.ppo.policy_optim.schedule == "constant"
    assert parse("", "here", ["sft.optim.lr=2e-5"]) == DEFAULTS
    assert parse("", "here", ["sft.optim.weight_decay=0.1"]).identity("sft") == {"sft.optim.weight_decay": 0.1}


def test_as_many_hashes_as_a_page_may_cost() -> None:
    assert MinhashSign(bands=4096, rows=16).bands == 4096
    with pytest.raises(ValidationError, match="bands 4096 x rows 17 are more than 65,536 hashes"):
        MinhashSign(bands=4096, rows=17)


@pytest.mark.parametrize("name", ["ngram", "bands", "rows", "distance", "seed"])
def test_true_is_no_number(name: str) -> None:
    with pytest.raises(ValidationError, match="should be a valid integer"):
        MinhashSign(**{name: True})


@pytest.mark.parametrize(("path", "value"), list(whole_numbers(Recipe())))
def test_a_whole_number_in_quotation_marks_is_refused(path: str, value: int) -> None:
    with pytest.raises(RecipeError, match=rf"{re.escape(path)}.*valid integer"):
        parse("", "here", [f"{path}='{value}'"])


@pytest.mark.parametrize(
    ("name", "fits", "beyond"),
    [("top_ngram_char_fraction", (2, 4), (1, 5)), ("duplicate_ngram_char_fraction", (5, 10), (4, 11))],
)
def test_ngrams_that_gopher_measures(name: str, fits: tuple[int, int], beyond: tuple[int, int]) -> None:
    for n in fits:
        assert getattr(GopherRepetition.model_validate({name: {n: 0.5}}), name)[n] == 0.5
    for n in beyond:
        with pytest.raises(ValidationError, match=name):
            GopherRepetition.model_validate({name: {n: 0.5}})


def test_memory_from_what_spark_wants_to_what_a_machine_has() -> None:
    assert (memory_bytes("512m"), memory_bytes("64t")) == (1 << 29, 1 << 46)
    for text in ("511m", "65t", "524287k"):
        with pytest.raises(ValueError, match=text):
            memory_bytes(text)


@pytest.mark.parametrize(
    "key",
    [
        "spark.authenticate.secret",
        "spark.hadoop.fs.s3a.access.key",
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.session.token",
        "spark.ssl.keyPassword",
        "spark.io.ACCESSKEY",
        "spark.kubernetes.driverEnv.TOKEN",
        "spark.hadoop.fs.azure.account.key.a.test",
        "spark.ssl.keyStorePasswd",
    ],
)
def test_a_secret_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"spark\.conf: {re.escape(key)} would be stored .*spark-defaults\.conf"
    ) as error:
        parse(f"spark: {{conf: {{'{key}': 'geheim'}}}}", "here")
    assert "geheim" not in str(error.value)


def test_a_secret_within_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"spark\.driver\.extraJavaOptions would be stored") as error:
        parse(
            "spark: {conf: {spark.driver.extraJavaOptions: '-Xmx1g -Djavax.net.ssl.keyStorePassword=geheim'}}", "here"
        )
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spark.kubernetes.driver.secretKeyRef.AWS_SECRET_ACCESS_KEY", "store:secret"),
        ("spark.kubernetes.executor.secrets.store", "/etc/store"),
        ("spark.kubernetes.authenticate.oauthTokenFile", "/var/run/token"),
        ("spark.security.credentials.hive.enabled", "false"),
        ("spark.yarn.tokens.enabled", "false"),
        ("spark.authenticate", "true"),
    ],
)
def test_a_property_that_only_names_a_secret_is_fine(key: str, value: str) -> None:
    assert parse(f"spark: {{conf: {{'{key}': '{value}'}}}}", "here").spark.conf == {key: value}


def test_an_error_quotes_the_first_80_characters() -> None:
    with pytest.raises(ValueError, match=f"got '{'x' * 80}'$"):
        memory_bytes("x" * 100)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "d_ff"),
    [(1, 128, 1, 512), (12, 768, 6, 2048), (20, 1280, 10, 3584), (21, 1408, 11, 3840), (32, 2048, 16, 5632)],
)
def test_one_number_makes_a_whole_shape(depth: int, width: int, heads: int, d_ff: int) -> None:
    """64 x depth in whole heads of 128; 8/3 of it in multiples of 256: 64 x 21 = 1344 is 10.5 heads."""
    made = Model(depth=depth)
    assert (made.layers, made.d_model, made.heads, made.kv_heads, made.d_ff) == (depth, width, heads, heads, d_ff)
    assert Model(depth=depth, layers=depth, d_model=width, experts=4).experts == 4, "the same sizes may be said too"


@pytest.mark.parametrize(("name", "value", "made"), [("layers", 13, 12), ("d_ff", 3072, 2048), ("kv_heads", 2, 6)])
def test_a_size_that_contradicts_the_depth_is_refused(name: str, value: int, made: int) -> None:
    with pytest.raises(ValidationError, match=f"depth 12 makes {name} {made}, not {value}; say depth or {name}"):
        Model.model_validate({"depth": 12, name: value})


@pytest.mark.parametrize("depth", ["12", 0, 2000, True, 1.5])
def test_a_depth_that_is_no_number_of_layers_is_refused(depth: Any) -> None:
    with pytest.raises(ValidationError, match="depth"):
        Model.model_validate({"depth": depth})


def test_the_depth_is_only_another_way_to_say_the_sizes() -> None:
    by_depth, by_sizes = Model(depth=20), Model(layers=20, d_model=1280, heads=10, kv_heads=10, d_ff=3584)
    assert dict(by_depth.differences(Model())) == dict(by_sizes.differences(Model()))
    assert Model.model_validate(by_depth.model_dump()) == by_depth, "as a resolved recipe is read again"
    assert dict(Model().differences(Model())) == {}


def test_a_token_goes_through_no_more_experts_than_there_are() -> None:
    assert (Model().experts, Model(experts=2).experts_per_token, Model(experts=8).balance_coef) == (0, 2, 0.01)
    with pytest.raises(ValidationError, match="experts_per_token 2 must be at most experts 1"):
        Model(experts=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": {"zero_stage": 3}}, "lora: the adapters are merged into whole matrices.*use engine.zero_stage 0, 1 or 2"),
        ({"engine": {"tensor_parallel": 2, "processes": 2}}, "lora: the adapters are merged into whole matrices"),
        ({"lora": {"quantised": True}, "engine": {"dtype": "bf16"}}, "lora.quantised: .*leave engine.dtype at fp32"),
        ({"optim": {"optimizer": "muon"}}, "lora: Muon makes updates of full rank"),
    ],
)  # fmt: skip
def test_what_cannot_carry_adapters_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sft.model_validate(given | {"lora": {"enabled": True, **given.get("lora", {})}})
    given.pop("lora", None)
    Sft.model_validate(given)


@pytest.mark.parametrize("kind", [Ppo, Dpo, Grpo])
def test_stages_that_align_carry_adapters_where_sft_does_and_none_of_4_bits(kind: type[Settings]) -> None:
    on: dict[str, Any] = {"enabled": True}
    kind.model_validate({"lora": on, "engine": {"zero_stage": 2}})
    with pytest.raises(ValidationError, match="lora: the adapters are merged into whole matrices"):
        kind.model_validate({"lora": on, "engine": {"zero_stage": 3}})
    with pytest.raises(ValidationError, match=r"lora.quantised is for sft"):
        kind.model_validate({"lora": on | {"quantised": True}})
    optim = "policy_optim" if kind is Ppo else "optim"
    with pytest.raises(ValidationError, match="lora: Muon makes updates of full rank"):
        kind.model_validate({"lora": on, optim: {"optimizer": "muon"}})
    if kind is not Dpo:
        with pytest.raises(ValidationError, match="sampler vllm takes the policy's matrices"):
            kind.model_validate({"lora": on, "sampler": "vllm"})


def test_the_rows_of_text_leave_one_for_chats() -> None:
    rows = [
        Sft(batch=batch, text_share=share).text_rows
        for batch, share in ((64, 0.1), (64, 0), (8, 0.25), (4, 0.99), (1, 0.5))
    ]
    assert rows == [6, 0, 2, 3, 0]


def test_files_that_sft_names() -> None:
    assert Sft().outside() == Sft(chat_template="chatml").outside() == {}
    named = Sft(chat_template="/t.jinja", start_from="/m").outside()
    assert named == {"chat_template": "/t.jinja", "start_from": "/m"}


def test_examples_come_from_one_place_and_templates_take_something() -> None:
    with pytest.raises(ValidationError, match="data and sources both name files"):
        Instructions.model_validate({"data": "/a", "sources": {"b": {"data": "/b"}}})
    for template, said in (
        ({"prompt": "no key", "reply": "{a}"}, "should name a key of the row in braces"),
        ({"prompt": "{a}\x1b", "reply": "{a}"}, "should hold no control characters but line ends and tabs"),
    ):
        with pytest.raises(ValidationError, match=said):
            Template.model_validate(template)
    with pytest.raises(ValidationError, match="shots should name a number at least"):
        ChatSource.model_validate({"data": "/a", "shots": []})


def test_what_judges_a_round_and_by_what() -> None:
    reward, one, two = f"reward/{'a' * 40}", f"ppo/{'a' * 40}", f"ppo/{'b' * 40}"
    for judge, chats in ((reward, False), (f"judge/{'a' * 40}", False), (one, True), ("aligned", True), (None, False)):
        assert Sample(judge=judge).chats == chats
    assert [Sample(judge=judge).questions for judge in (None, reward, "sft")] == [0, 0, 2]
    full = Sample(judge="sft", principles="/rules.txt")
    assert (full.questions, full.outside(), full.beside()) == (6, {"principles": "/rules.txt"}, {})
    assert Sample(last=one, judge=two).beside() == {"ppo": ("a" * 40, "b" * 40)}
    assert Sample(last=one, judge=one).beside() == {"ppo": ("a" * 40,)}
    assert Sample(last=one, judge=reward).beside() == {"ppo": ("a" * 40,), "reward": ("a" * 40,)}
    for given in ({}, {"judge": reward}):
        with pytest.raises(ValidationError, match="principles needs a chat model that revises by them"):
            Sample.model_validate({**given, "principles": "/rules.txt"})
    with pytest.raises(ValidationError):
        Sample.model_validate({"judge": "export"})
    both = {"sample": {"judge": "sft", "principles": "/a"}, "feedback": {"judge": {"model": "m", "principles": "/a"}}}
    with pytest.raises(ValidationError, match=r"sample\.principles and feedback\.judge\.principles both revise"):
        Recipe.model_validate(both)

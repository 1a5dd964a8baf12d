"""The model card says of a model what its manifests and its report say, its limits among it."""

import datetime
from dataclasses import replace
from typing import Any

import yaml

from contract import results
from contract.contamination import Searched
from contract.identity import Identity
from contract.manifest import Manifest, Rows
from evals.ability_report import Report, put_together
from evals.records import Record
from training.models.card import Card, index, text_of

NOW = datetime.datetime(2026, 5, 4, 3, 2, tzinfo=datetime.UTC)


def manifest(stage: str, rows: Rows | None = None, result: results.Result | None = None, **settings: Any) -> Manifest:
    identity = Identity(stage=stage, version=1, settings=settings)
    return Manifest(
        stage=stage, fingerprint=identity.fingerprint(), partition="all", attempt="attempt-0", identity=identity,
        files=(), rows=rows or Rows(), metrics=result.model_dump(exclude_unset=True) if result else {}, run="r",
        code="c", started=NOW, finished=NOW, sources=("s3://who:secret@bucket/a.warc.gz",) if stage == "crawl" else (),
    )  # fmt: skip


PRETRAINED = results.Pretrain.model_construct(
    tokens=1234567, sources={"web|x": {"tokens": 1000, "sequences": 5, "epochs": 1.5}}
)


def rows(scores: list[float], name: str, ability: str, found: bool = True) -> list[Record]:
    return [
        Record(name, ability, str(at), f"s{at}", 0, "", "", "", "x" if found else None, one)
        for at, one in enumerate(scores)
    ]


def report() -> Report:
    good = [1.0] * 50
    models = {
        "sft": {"gsm8k": rows(good, "gsm8k", "maths"), "mbpp": rows(good, "mbpp", "code")},
        "aligned": {
            "gsm8k": rows([0.0] * 20 + [1.0] * 30, "gsm8k", "maths"), "mbpp": rows(good, "mbpp", "code", found=False),
        },
    }  # fmt: skip
    searched = {"gsm8k": {str(at): Searched("leaked" if at < 9 else "clean", at < 4) for at in range(50)}}
    return put_together(models, ["sft", "aligned"], searched)


def card(**more: Any) -> Card:
    pretrain = manifest("pretrain")
    made = [
        manifest("crawl", Rows(read=10, kept=8, reasons={"url": 2})),
        manifest("filter", Rows(read=8, kept=5, reasons={"few_words": 2, "bad": 1}), **{
            "filter.min_words": 40, "decontaminate.benchmarks": {"a": "s3://who:secret@b/x"},
        }),
        pretrain.model_copy(update={"metrics": {**needed(results.Pretrain), **PRETRAINED.model_dump(include={"tokens", "sources"})}}),
    ]  # fmt: skip
    source = manifest("ppo", result=results.Export(stage="x", parameters=1, dtype="fp32"))
    return replace(Card("demo", "uri", "f" * 40, ["CC-1"], source, made, None, "", 2048), **{"report": report()} | more)


def needed(kind: type[results.Result]) -> dict[str, Any]:
    """A value for each required figure of a result."""
    return {name: 1 for name, field in kind.model_fields.items() if field.is_required()}


def test_the_front_matter_is_yaml_that_the_hub_reads() -> None:
    _, front, _ = text_of(card()).split("---\n", 2)
    read = yaml.safe_load(front)
    assert (read["library_name"], read["pipeline_tag"]) == ("transformers", "text-generation")
    (model,) = read["model-index"]
    assert model["name"] == "demo"
    found = {one["dataset"]["name"]: one["metrics"][0]["value"] for one in model["results"]}
    assert found == {"gsm8k": 0.6, "mbpp": 1.0}, "of the exported model"
    assert index(card(report=None)) == []
    tuned = card(source=manifest("sft"))
    assert '"value": 1.0' in index(tuned)[3]


def test_data_and_filters_are_told_without_secrets() -> None:
    text = text_of(card())
    assert "| filter (documents) | 8 | 5 | few\\_words 2, bad 1 |" in text
    assert "Pretrained on 1,234,567 tokens." in text
    assert "| web\\|x | 1,000 | 1.5 |" in text
    assert "- `filter.min_words`: 40" in text
    assert "secret" not in text


def test_the_evaluation_and_the_limits_are_those_of_the_exported_model() -> None:
    text = text_of(card(kept_back=""))
    evaluation, limits = text.partition("## Evaluation")[2], text.partition("## Limits")[2].partition("## ")[0]
    assert "This model is `aligned`." in evaluation
    assert "Alignment tax, sft to aligned: maths 60.0 % after 100.0 %" in evaluation
    assert limits.strip().split("\n") == [
        "- What it writes may be wrong, and nothing checks it.",
        "- It sees at most 2,048 tokens at once.",
        "- Not measured: language, knowledge en, knowledge zh, reasoning, dialogue, harmlessness.",
        "- Worse than `sft` beyond noise: maths.",
        "- mbpp: an answer was found in only 0.0 % of its outputs.",
        "- gsm8k: 4 items still stand in the training corpus.",
        "- It may have read the items of mbpp: the corpus was not searched for them.",
    ]
    other = text_of(card(source=manifest("sft"))).partition("## Limits")[2].partition("## ")[0]
    assert "Worse than" not in other
    assert "an answer was found" not in other


def test_without_benchmarks_the_card_says_that_nothing_was_measured() -> None:
    text = text_of(card(report=None, longest=None, kept_back="code was lost"))
    assert "No benchmark was asked." in text
    assert "None of its abilities was measured" in text
    assert "It sees at most" not in text
    assert "PPO's model is kept back: code was lost." in text
    assert "\n\n\n" not in text

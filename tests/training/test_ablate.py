"""An ablation as a whole: two variants with two seeds each, trained, measured on one text, and compared."""

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from contract import ablation, lineage, verify
from contract.errors import DamagedError, RecipeError
from contract.headline import headline
from contract.manifest import Attempt, Manifest, need
from contract.plan import Run, open_run, resolve
from evals.ablation import Measure
from evals.verdicts import compare, mean_and_spread
from tests.declared import only_declared
from tests.training.conftest import RECIPE, commit_corpus, join_alone, texts, train_tokenizer
from training import ablate, pretrain, probe
from training.chat.template import open_chat
from training.data.passages import read_documents
from training.engine.engine import Engine
from training.engine.job import Job
from training.models.llama import load_model

VARIANTS = (
    "ablate.variants={high: [], low: [pretrain.optim.lr=1.0e-6], hot: [pretrain.optim.lr=1.0]}",
    "ablate.seeds=[3, 4]",
    "ablate.tokens=6144",
)


def execute(run: Run, stage: str) -> Manifest:
    job = Job(only_declared(run, stage), run.task(stage), Attempt(run, run.task(stage)))
    {"pretrain": pretrain, "probe": probe, "ablate": ablate}[stage].run(job)
    return need(run.store, run.task(stage))


@pytest.fixture(scope="module")
def done(
    corpus_store: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, ablation.Ablation, Manifest, str]:
    """(The base, its ablation, the comparison's manifest, all that was printed)."""
    join_alone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRISTMILL_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        base = corpus_store(*VARIANTS, name="ablation")
        made = ablation.resolve(base)
        with redirect_stdout(io.StringIO()) as said:
            for run, task in made.tasks():
                if task.stage in ("pretrain", "probe", "ablate"):
                    with pytest.MonkeyPatch.context() as spoiled:
                        if run.recipe.pretrain.optim.lr == 1:
                            backward = Engine.backward
                            spoiled.setattr(Engine, "backward", lambda self, loss: backward(self, loss * torch.nan))  # noqa: B023 - called at once
                        execute(run, task.stage)
    return base, made, need(base.store, made.comparison.task("ablate")), said.getvalue()


def test_the_better_learning_rate_is_found(done: tuple[Any, ...]) -> None:
    base, _, manifest, said = done
    figures = manifest.metrics
    assert figures["best"] == "high"
    said_first, _, said_last = headline(manifest).partition("; ")
    assert said_first.startswith("high is better than low: a difference of ")
    assert said_last == "worse is what diverged: hot (seed 3, 4)"
    assert (figures["models"], figures["tokens"] > 5000) == (6, True)
    assert figures["diverged"] == {"hot": {"models": 2}}
    high, low = (figures["bits_per_byte"][name] for name in ("high", "low"))
    assert high["mean"] < low["mean"] - 0.3
    assert (high["models"], low["models"]) == (2, 2)
    assert "hot" not in figures["bits_per_byte"]
    assert "| hot     | 2 diverged |" in said
    assert "| high    | 2 " in said
    assert "high is better" in said
    report, page = manifest.of("comparison")
    told = json.loads(base.store.read_bytes(report.path))
    assert told["diverged"] == {"hot": [3, 4]}
    assert told["verdicts"][0]["better"] == "high"
    assert told["verdicts"][0]["difference"] == pytest.approx(high["mean"] - low["mean"])
    assert base.store.read_bytes(page.path).decode().splitlines()[2].startswith("**high is better than low")
    assert {file.rpartition(".")[2] for file in (report.path, page.path)} == {"json", "md"}


def test_models_are_measured_on_what_the_base_holds_out(done: tuple[Any, ...]) -> None:
    base, made, manifest, _ = done
    shown = "\n".join(lineage.trace(base.store, manifest.path))
    assert shown.count("from probe all") == 6
    assert shown.count("from pretrain all") == 6
    assert shown.count("from mix all") == 1
    wrong = verify.verify(base.store.full(manifest.path)).wrong
    assert not [line for line in wrong if "/ablate/" in line or "/probe/" in line]
    for run in made.runs.values():
        found = need(run.store, run.task("probe"))
        assert base.task("mix").fingerprint in [one.fingerprint for one in found.inputs]
        assert found.metrics["documents"] == 40
        assert found.metrics["tasks"]["next_sentence"]["items"] == 40
        assert found.metrics["tasks"]["next_sentence"]["chance"] == 0.25


def test_every_model_is_trained_on_as_many_tokens_with_its_seed(done: tuple[Any, ...]) -> None:
    _, made, _, _ = done
    assert {name: (run.recipe.pretrain.tokens, run.recipe.pretrain.seed) for name, run in made.runs.items()} == {
        (variant, seed): (6144, seed) for variant in ("high", "low", "hot") for seed in (3, 4)
    }


def accented(count: int, seed: int) -> list[str]:
    """Documents whose characters take one to three bytes."""
    return [text.replace("river", "größer Fluß").replace("mill", "磨坊") for text in texts(count, seed)]


def test_tokenizers_and_filters_are_compared_on_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One variant has tokens that span words, so that a token straddles the end of what is given; one has other pages."""
    join_alone()
    monkeypatch.setenv("GRISTMILL_SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "part.warc.gz").write_bytes(b"WARC")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + f"crawl: {{source: {tmp_path}/crawl}}\n")
    variants = "ablate.variants={words: [], phrases: [tokenizer.vocab_size=450], strict: [filter.min_words=9]}"
    settings = ["ablate.seeds=[0]", "ablate.tokens=2048", "probe.documents=12"]
    base = resolve(str(recipe), "same", [f"store={tmp_path}/store", variants, *settings])
    made = ablation.resolve(base)
    words, phrases, strict = (made.runs[name, 0] for name in ("words", "phrases", "strict"))
    assert base.task("mix").fingerprint == phrases.task("mix").fingerprint != strict.task("mix").fingerprint
    commit_corpus(words, write=accented)
    commit_corpus(phrases, train_tokenizer(450, across_words=True), accented)
    commit_corpus(strict, write=texts)
    found = {}
    for name, run in (("words", words), ("phrases", phrases), ("strict", strict)):
        execute(run, "pretrain")
        (file,) = execute(run, "probe").of("measures")
        found[name] = {0: json.loads(run.store.read_bytes(file.path))}
    crawl = found["phrases"][0]["documents"]["crawl"]
    assert [one.total for one in ablate.measures(found)] == pytest.approx([sum(crawl["bytes"]) * 40 / 12, 12])

    job = Job(only_declared(phrases, "probe"), phrases.task("probe"), Attempt(phrases, phrases.task("probe")))
    chat, module = open_chat(job), load_model(job, job.manifest("pretrain")).eval()
    documents = read_documents(job.store, job.manifest("mix"), job.settings)["crawl"]
    assert [one.text for one in documents.passages] == accented(40, 2)[:12]
    straddled = 0
    for passage, nats, size in zip(documents.passages, crawl["nats"], crawl["bytes"], strict=True):
        ids, ends = chat.ends(passage.text)
        first = next(at for at, end in enumerate(ends) if end > passage.given)
        straddled += first > 0 and ends[first - 1] < passage.given
        assert size == len(passage.text.encode()) - len(passage.text[: passage.given].encode())
        with torch.no_grad():
            each = torch.log_softmax(module(input_ids=torch.tensor([ids])).logits[0, :-1], -1)
        expected = -each.gather(1, torch.tensor(ids)[1:, None])[first - 1 :].sum()
        if len(ids) <= 65:
            assert nats == pytest.approx(float(expected), rel=1e-4), "a token across the cut counts as a whole"
        assert nats == pytest.approx(float(expected), rel=0.1)
    assert straddled > 6
    assert any(size > len(one.text) - one.given for one, size in zip(documents.passages, crawl["bytes"], strict=True))


def test_a_run_that_names_no_models_says_which_command_does(make_job: Callable[..., Job]) -> None:
    with pytest.raises(RecipeError, match="python -m contract commands --recipe RUN"):
        ablate.run(make_job("ablate"))


def model(nats: list[float], right: list[int], **others: Any) -> dict[str, Any]:
    size = len(nats)
    books = {"ids": [f"b{at}" for at in range(size)], "bytes": [8] * size, "nats": nats, "stands_for": 1.0}
    tasks = {"quiz": {"items": [f"{at}" for at in range(len(right))], "right": right}}
    return {"documents": {"books": books, **others}, "tasks": tasks}


def test_a_thinly_sampled_source_weighs_as_much_as_it_stands_for() -> None:
    crawl = {"ids": ["c"], "bytes": [16], "nats": [16 * 0.6931471805599453], "stands_for": 10.0}
    found = {"a": {0: model([0.0, 0.0], [1, 1, 0], crawl=crawl)}, "b": {0: model([1.0, 1.0], [0, 0, 0], crawl=crawl)}}
    bits, books, web, quiz = ablate.measures(found)
    assert bits.figure("a", 0) == pytest.approx(160 / 176)
    assert (books.figure("a", 0), web.figure("a", 0)) == (0, pytest.approx(1))
    assert (quiz.figure("a", 0), quiz.lower_is_better) == (pytest.approx(2 / 3), False)
    assert [one.name for one in (bits, books, web, quiz)] == [
        "bits per byte", "bits per byte, books", "bits per byte, crawl", "quiz",
    ]  # fmt: skip


def test_models_that_were_measured_on_other_text_are_not_compared() -> None:
    found = {"a": {0: model([1.0, 2.0], [1])}, "b": {7: model([1.0], [1])}}
    with pytest.raises(DamagedError, match="b with seed 7 was measured on other text"):
        ablate.measures(found)


def test_one_seed_tells_nothing() -> None:
    found = {"a": {0: model([1.0, 2.0], [1])}, "b": {0: model([9.0, 8.0], [0])}}
    comparison = compare(ablate.measures(found), 0.95)
    assert comparison.verdict == "a and b: no difference can be told with fewer than two seeds"
    assert ablate.as_json(comparison)["verdicts"][0]["interval"] is None


@pytest.mark.slow
def test_the_printed_commands_do_all_of_it(make_run: Callable[..., Run], tmp_path: Path) -> None:
    base = make_run("ablate.variants={a: [], b: [pretrain.optim.lr=1.0e-6]}", "ablate.seeds=[0, 1]")
    command = [sys.executable, "-m", "contract", "commands", "--recipe", base.uri]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    lines = [line for line in printed.splitlines() if " pipelines " not in line]
    for line in lines:
        subprocess.run(shlex.split(line), check=True, timeout=300)
    comparison = open_run(shlex.split(lines[-1])[-1])
    assert need(base.store, comparison.task("ablate")).metrics["best"] == "a"


BITS = Measure("bits per byte", {"a": {0: [1.0, 1.1], 1: [1.2, 1.1]}, "b": {0: [2.0, 2.1], 1: [2.2, 2.1]}}, [1.0, 1.0])
QUIZ = Measure("quiz", {"a": {0: [1, 0], 1: [1, 0]}, "b": {0: [1, 0], 1: [0, 0]}}, [1.0, 1.0], lower_is_better=False)


def test_tables_hold_the_figures() -> None:
    found = compare([BITS, QUIZ], 0.95)
    assert ablate.figures_table(found) == [
        "| variant | models | bits per byte | spread | quiz   |",
        "| ------- | ------ | ------------- | ------ | ------ |",
        "| a       | 2      | 1.1000        | 0.0707 | 0.5000 |",
        "| b       | 2      | 2.1000        | 0.0707 | 0.2500 |",
    ]
    assert mean_and_spread(BITS, "a")[2] == 2
    row = ablate.verdicts_table(found.main)[2]
    assert "| a - b | -1.0000" in row
    assert row.endswith("| a is better |")
    one_seed = compare([Measure("x", {"a": {0: [1.0, 2.0]}, "b": {0: [1.0, 2.0]}}, [1.0, 1.0])], 0.95)
    assert "| +0.0000    | -  " in ablate.verdicts_table(one_seed.main)[2]


def test_the_report_names_what_each_variant_changes() -> None:
    text = ablate.render(compare([BITS, QUIZ], 0.95), ["A fact."], {"a": (), "b": ("x.y=1", "x.z=2")})
    assert "- a: the recipe itself\n- b: `x.y=1`, `x.z=2`\n" in text
    assert "bits per byte: lower is better.\nquiz: higher is better.\n" in text
    assert text.index("A fact.") < text.index("## Figures") < text.index("## Verdicts") < text.index("## By source")
    assert "## By source" not in ablate.render(compare([BITS], 0.95), [], {})


def test_what_diverged_stands_below_the_figures() -> None:
    found = compare([Measure(BITS.name, {"a": BITS.values["a"]}, [1.0, 1.0])], 0.95, {"hot": [3, 4]})
    assert ablate.figures_table(found) == [
        "| variant | models     | bits per byte | spread |",
        "| ------- | ---------- | ------------- | ------ |",
        "| a       | 2          | 1.1000        | 0.0707 |",
        "| hot     | 2 diverged | -             | -      |",
    ]
    text = ablate.render(found, [], {"a": (), "hot": ("pretrain.optim.lr=9",)})
    assert "**a is better than every other variant: training diverged for hot (seed 3, 4)**" in text
    assert "## Verdicts" not in text
    assert "training diverged for a (seed 0)" in ablate.render(compare([], 0.95, {"a": [0]}), ["A fact."], {})

"""What the demo says at the end of a run."""

from contract.contamination import Benchmark, Report
from contract.kinds import Kind
from contract.manifest import Attempt, File
from contract.plan import resolve
from contract.results import result_of
from demo import summary


def test_benchmarks_follow_the_funnel(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    (tmp_path / "recipe.yaml").write_text(f"{{store: {tmp_path}/store, crawl: {{source: {tmp_path}/crawl}}}}")
    run = resolve(str(tmp_path / "recipe.yaml"), "one")
    assert "benchmarks" not in summary.render(run)
    counts = {"items": 7, "sought": 6, "leaked": 2, "overlapping": 1, "ngrams": 50, "ngrams_found": 9}
    found = Benchmark(name="mmlu", documents_leaking=3, documents_overlapping=4, common=(), **counts)
    attempt = Attempt(run, run.task("decontaminate"))
    path = attempt.path(f"{Kind.CONTAMINATION}.json")
    run.store.write_bytes(path, Report(benchmarks=(found,)).model_dump_json().encode())
    attempt.commit([File(path=path, kind=Kind.CONTAMINATION, bytes=run.store.size(path))])
    table, training = summary.render(run).split("\n\nPretraining")
    assert table.splitlines()[-1].split() == ["mmlu", "7", "6", "2", "1", "3", "4", "9", "of", "50"]
    assert "did not run" in training


def test_what_got_worse_and_why_ppo_did_not_run_are_shown(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc").write_bytes(b"WARC")
    (tmp_path / "recipe.yaml").write_text(f"{{store: {tmp_path}/store, crawl: {{source: {tmp_path}/crawl}}}}")
    run = resolve(str(tmp_path / "recipe.yaml"), "one")
    for stage, metrics in {
        "pretrain": {"heldout_perplexity_before": 4138.2, "heldout_perplexity_after": 455.4},
        "gate": {"open": False, "accuracy": 0.6, "low": 0.502, "high": 0.691, "threshold": 0.55},
        "evaluate": {"perplexity_pretrain": 455.4, "perplexity_sft": 514.2, "worse_sft": True},
    }.items():
        Attempt(run, run.task(stage)).commit([], result=result_of(stage).model_construct(**metrics))
    closed = "closed: held-out accuracy 0.6, confidence interval 0.502 to 0.691, whose lower end is under 0.55"
    assert summary.render(run).splitlines()[-8:] == [
        "Pretraining    held-out perplexity 4,138 -> 455",
        "Chat tuning    did not run",
        "Reward model   did not run",
        f"Gate           {closed}",
        f"PPO            PPO is left out, because the gate is {closed}",
        "Judge          did not run",
        "Evaluation     held-out perplexity 455 (pretrain) -> 514 (sft)",
        "Warning        sft is worse than pretrain beyond noise: held-out perplexity 455 -> 514",
    ]

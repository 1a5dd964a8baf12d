"""What the demo says at the end of a run."""

from contract.contamination import KIND, Benchmark, Report
from contract.manifest import Attempt, File
from contract.plan import resolve
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
    path = attempt.path(f"{KIND}.json")
    run.store.write_bytes(path, Report(benchmarks=(found,)).model_dump_json().encode())
    attempt.commit([File(path=path, kind=KIND, bytes=1)])
    table, training = summary.render(run).split("\n\nPretraining")
    assert table.splitlines()[-1].split() == ["mmlu", "7", "6", "2", "1", "3", "4", "9", "of", "50"]
    assert "did not run" in training

"""Runs whose models have answered benchmarks: records and a report as the stages commit them, without asking any model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.contamination import Searched
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest
from contract.plan import Run
from contract.results import Abilities, Benchmark
from evals.ability_report import dumped, markdown, put_together
from evals.records import Record, write_records

HOSTILE = '<script>window.hit=1</script><img src=x onerror="hit=1">"\'{{7*7}}\u202e\x1b[2J'


def records(benchmark: str, ability: str, scores: Sequence[float], samples: int = 1) -> list[Record]:
    """A record for each sample of each item; the item of score 0 has no answer in its first sample."""
    return [
        Record(
            benchmark, ability, f"{benchmark}/{at}", f"subject {at // 4}", sample, f"Example.\n\nQuestion {at}?",
            f"output {at} {HOSTILE if at == 0 else ''}", f"right {at}", None if score == 0 else f"found {at}",
            float(score), None, f"{benchmark}.jsonl:{at + 1}",
        )
        for at, score in enumerate(scores)
        for sample in range(samples)
    ]  # fmt: skip


def answer(run: Run, model: str, benchmark: str, made: Sequence[Record], left_out: str = "") -> Manifest:
    """Commit a model's answers as the stage benchmark does; none if it was left out."""
    attempt = Attempt(run, run.task("benchmark", f"{model}.{benchmark}"))
    known = {"task": "gsm8k", "ability": "maths", "model": model, "made_by": "x"}
    if left_out:
        return attempt.commit([], result=Benchmark(**known, left_out=left_out))
    path = Path(run.store.local(attempt.path("records.parquet")))
    path.parent.mkdir(parents=True)
    write_records(path, made)
    listed = File(path=attempt.path(path.name), kind=Kind.RECORDS, bytes=path.stat().st_size, rows=len(made))
    return attempt.commit([listed], result=Benchmark(**known, score=0.5, low=0.4, high=0.6, n=len(made)))


def tell(run: Run, results: Mapping[str, Mapping[str, Sequence[Record]]]) -> Manifest:
    """Commit the report on these answers as the stage abilities does. Of gsm8k, the first ten items leaked."""
    searched = {"gsm8k": {f"gsm8k/{at}": Searched("leaked" if at < 10 else "clean", at < 2) for at in range(100)}}
    known = {name: some for name, some in searched.items() if all(name in asked for asked in results.values())}
    report = put_together(results, [*results], known, max_drop=0.1, shots={"gsm8k": 5})
    attempt = Attempt(run, run.task("abilities"))
    files = []
    for name, text in (("report.md", markdown(report, "the run")), ("report.json", dumped(report))):
        run.store.write_bytes(attempt.path(name), text.encode())
        files.append(File(path=attempt.path(name), kind=Kind.REPORT, bytes=len(text.encode())))
    return attempt.commit(files, result=Abilities(models=len(results)))


def tasks(*names: str, folder: Path) -> dict[str, object]:
    """The overrides of a recipe that asks these benchmarks, of a file that there is."""
    items = folder / "items.jsonl"
    items.write_text("{}\n")
    return {"benchmark.tasks": {name: {"items": str(items)} for name in names}}


def complete(run: Run) -> dict[str, dict[str, list[Record]]]:
    """Commit everything of a run with gsm8k and mbpp; the aligned model has lost some code."""
    good, worse = [1.0] * 100, [0.0] * 30 + [1.0] * 70
    results = {
        model: {
            "gsm8k": records("gsm8k", "maths", [0.0, 0.5, *good[2:]], samples=2),
            "mbpp": records("mbpp", "code", worse if model == "aligned" else good),
        }
        for model in ("pretrain", "sft", "aligned")
    }
    for model, asked in results.items():
        for benchmark, made in asked.items():
            answer(run, model, benchmark, made)
    tell(run, results)
    return results

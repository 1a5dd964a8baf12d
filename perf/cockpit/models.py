"""The rest of a synthetic run: what `mix` to `export` commit, with curves as long as wanted and models of a few bytes."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from contract import results
from contract.kinds import Kind
from contract.manifest import Attempt, File, Rows, find
from contract.metrics import Point, dump_points
from contract.output import write_file
from contract.plan import Run
from contract.results import Result
from contract.thinning import dump_curves, thin
from evals.calibration import reliability

BEGAN_S = 1_772_500_000
EVERY = 10  # steps between two rows of throughput and memory
CHECKPOINTS = 4
PROMPTS = 32
PPO = (
    "reward", "objective", "kl", "kl_coef", "response_length", "eot_fraction", "explained_variance", "policy_loss",
    "value_loss", "entropy", "clip_fraction", "ptx_loss",
)  # fmt: skip


def write(run: Run, corpus: Rows, steps: int, seed: int = 0, last: str = "export", hostile: Sequence[str] = ()) -> None:
    """Commit the stages from `mix` to `last` that are not done. corpus: what `decontaminate` counted.

    steps: of pretraining; the other stages have fewer. An odd seed's gate stays closed, so that it has no PPO. hostile:
    texts that become names of curves, prompts and replies.
    """
    random = np.random.default_rng(seed)
    makers: dict[str, Callable[[], None]] = {
        "mix": lambda: _mix(run, corpus),
        "instructions": lambda: _examples(run, "instructions"),
        "preferences": lambda: _examples(run, "preferences"),
        "tokenizer": lambda: _tokenizer(run),
        "pack": lambda: _commit(run, "pack", [], _packed(corpus)),
        "pretrain": lambda: _pretrain(run, steps, random, hostile),
        "sft": lambda: _sft(run, max(20, steps // 100), random),
        "reward": lambda: _reward(run, max(20, steps // 100), random, hostile),
        "gate": lambda: _commit(run, "gate", [], _gate(seed)),
        "ppo": lambda: _ppo(run, max(10, steps // 1000), random),
        "evaluate": lambda: _evaluate(run, random, hostile),
        "export": lambda: _commit(
            run, "export", [], results.Export(stage="ppo", parameters=1_300_000, dtype="float32")
        ),
    }
    for stage, make in makers.items():
        closed = seed % 2 and stage in ("ppo", "evaluate", "export")
        if not closed and find(run.store, run.task(stage)) is None:
            make()
        if stage == last:
            return


def _commit(run: Run, stage: str, files: Iterable[tuple[str, Kind, bytes, int]], result: Result | None) -> None:
    attempt = Attempt(run, run.task(stage))
    _write(attempt, files, None, result)


def _write(
    attempt: Attempt, files: Iterable[tuple[str, Kind, bytes, int]], rows: Rows | None, result: Result | None
) -> None:
    """Commit an attempt with these files: name, kind, content, rows."""
    written: list[File] = [
        write_file(attempt.store, attempt.path(name), kind, data, count) for name, kind, data, count in files
    ]
    attempt.commit(written, rows, result)


def _model() -> list[tuple[str, Kind, bytes, int]]:
    """The files of a model, small ones."""
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_hidden_layers": 4, "vocab_size": 4096}
    return [
        ("config.json", Kind.MODEL, json.dumps(config).encode(), 0),
        ("model.safetensors", Kind.MODEL, b"\0" * 4096, 0),
        ("tokenizer.json", Kind.MODEL, b"{}", 0),
    ]


def _mix(run: Run, corpus: Rows) -> None:
    rows = Rows(read=corpus.kept, kept=corpus.kept, bytes_read=corpus.bytes_kept, bytes_kept=corpus.bytes_kept)
    heldout = corpus.kept // 100
    result = results.Mix(training_documents=corpus.kept - heldout, heldout_documents=heldout)
    _write(Attempt(run, run.task("mix")), [], rows, result)


def _examples(run: Run, stage: str) -> None:
    counts = Rows(read=100_000, kept=98_000, dropped=2_000, reasons={"duplicate": 1_500, "contaminated": 500})
    result = results.Examples(data="synthetic", training=96_000, heldout=2_000)
    _write(Attempt(run, run.task(stage)), [], counts, result)


def _tokenizer(run: Run) -> None:
    figures = results.Tokenizer(
        vocab_size=4096, sample_bytes=1 << 28, sample_documents=300_000, heldout_bytes_per_token=3.9
    )
    _commit(run, "tokenizer", [("tokenizer.json", Kind.TOKENIZER, b"{}", 0)], figures)


def _packed(corpus: Rows) -> results.Pack:
    tokens = corpus.bytes_kept // 4
    return results.Pack(
        tokens=tokens, sequences=tokens // 256, documents=corpus.kept, heldout_tokens=tokens // 100,
        heldout_sequences=tokens // 25_600, heldout_documents=corpus.kept // 100, bytes=corpus.bytes_kept,
        bytes_per_token=4.0, token_bytes=2, padding=0.001,
    )  # fmt: skip


def curve(steps: int, first: float, last: float, random: np.random.Generator) -> list[float]:
    """A value for each step that falls from `first` to `last` as a power of the step, with noise and some spikes."""
    falling = last + (first - last) / np.sqrt(1 + np.arange(steps) / 20)
    noisy = falling * (1 + 0.03 * random.standard_normal(steps))
    noisy[random.random(steps) < 2e-5] *= 3
    return [round(one, 5) for one in noisy.tolist()]


def pretraining(steps: int, random: np.random.Generator) -> Iterator[Point]:
    """The points of pretraining in the order in which they are written: 3.4 for each step."""
    losses, norms = curve(steps, 8.3, 2.9, random), curve(steps, 4.0, 0.4, random)
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1):
        time = BEGAN_S + step * 0.5
        yield Point(step, "loss", loss, time)
        yield Point(step, "lr", round(2e-3 * (1 - step / (steps + 1)), 8), time)
        yield Point(step, "grad_norm", norm, time)
        if step % EVERY == 0:
            yield Point(step, "tokens_per_s", 41_000.0 + step % 97, time)
            yield Point(step, "tokens", float(step * 2048), time)
            yield Point(step, "memory_bytes", 2.1e9, time)
            yield Point(step, "epochs/crawl", round(step / steps, 6), time)
        if step % max(1, steps // 200) == 0:
            yield Point(step, "heldout_loss", loss + 0.05, time)


def _points(name_values: dict[str, list[float]]) -> list[Point]:
    return [
        Point(step, name, value, BEGAN_S + step)
        for name, values in name_values.items()
        for step, value in enumerate(values, 1)
    ]


def _metrics(points: Sequence[Point]) -> list[tuple[str, Kind, bytes, int]]:
    """The curves as training commits them: whole, and thinned for pages."""
    return [
        ("metrics.jsonl", Kind.METRICS, dump_points(points), len(points)),
        ("curves.json", Kind.CURVES, dump_curves(thin(points)), 0),
    ]


def _pretrain(run: Run, steps: int, random: np.random.Generator, hostile: Sequence[str]) -> None:
    points = list(pretraining(steps, random))
    points += [Point(step, name, float(step), BEGAN_S + step) for name in hostile for step in (1, 2)]
    loss = next(one.value for one in reversed(points) if one.name == "heldout_loss")
    for number in range(1, CHECKPOINTS + 1):
        step = steps * number // CHECKPOINTS
        attempt = Attempt(run, run.task("pretrain"), f"step-{step:08d}")
        state = results.Checkpoint(step=step, processes=1, schedule_steps=steps, upload_s=0.1)
        _write(attempt, [("state.json", Kind.CHECKPOINT, b"{}", 0)], None, state)
    figures = results.Pretrain(
        heldout_perplexity_before=4068.9, heldout_perplexity_after=float(np.exp(loss)), heldout_loss_after=loss,
        bits_per_byte=loss / 2.77, heldout_tokens=16_371, parameters=1_300_000, tokens=steps * 2048,
        seconds=steps * 0.5, reader_share=0.01, tokens_per_s=41_000.0, best_step=steps, best_heldout_loss=loss,
    )  # fmt: skip
    _commit(run, "pretrain", [*_model(), *_metrics(points)], figures)


def _sft(run: Run, steps: int, random: np.random.Generator) -> None:
    losses = curve(steps, 4.0, 2.0, random)
    points = _points({"loss": losses, "lr": [1e-3] * steps, "grad_norm": curve(steps, 2.0, 0.5, random)})
    figures = results.Sft(
        examples=96_000, heldout_examples=2_000, heldout_loss_before=4.1, heldout_loss_after=losses[-1],
        heldout_perplexity_before=60.3, heldout_perplexity_after=float(np.exp(losses[-1])), response_tokens=4_000_000,
        seconds=600.0,
    )  # fmt: skip
    _commit(run, "sft", [*_model(), *_metrics(points)], figures)


def _reward(run: Run, steps: int, random: np.random.Generator, hostile: Sequence[str]) -> None:
    losses = curve(steps, 0.69, 0.2, random)
    points = _points({"loss": losses, "accuracy": [min(1.0, 1 - one / 2) for one in losses]})
    figures = results.Reward(
        pairs=96_000, accuracy=0.91, accuracy_low=0.89, accuracy_high=0.93, heldout_correct=1820.0, heldout_pairs=2000,
        heldout_loss=0.21, ece=0.03, reward_mean=1.2, reward_std=1.0,
    )  # fmt: skip
    calibration = ("calibration.json", Kind.CALIBRATION, json.dumps(_calibration(random, hostile)).encode(), 0)
    _commit(run, "reward", [*_model(), *_metrics(points), calibration], figures)


def _calibration(random: np.random.Generator, hostile: Sequence[str]) -> dict[str, list[dict[str, object]]]:
    """As `training.reward.calibration` makes it; the worst pairs are texts of the web."""
    bins = [vars(one) for one in reliability(random.normal(1.5, 1.2, 2000).tolist())]
    texts = [*hostile, *(f"Question {number}?" for number in range(50))][:50]
    worst = [
        {"row": row, "margin": -1 - row / 50, "reward_chosen": 0.0, "reward_rejected": 1 + row / 50}
        | dict.fromkeys(("prompt", "chosen", "rejected"), text)
        for row, text in enumerate(texts)
    ]
    return {"bins": bins, "worst": worst[::-1]}


def _gate(seed: int) -> results.Gate:
    accuracy = 0.5 if seed % 2 else 0.91
    return results.Gate(open=not seed % 2, accuracy=accuracy, low=accuracy - 0.02, high=accuracy + 0.02, threshold=0.55)


def _ppo(run: Run, steps: int, random: np.random.Generator) -> None:
    curves = {name: curve(steps, 1.0, 0.5, random) for name in PPO}
    ends = {f"{name}_{end}": curves[name][at] for name in PPO for end, at in (("first", 0), ("last", -1))}
    _commit(run, "ppo", [*_model(), *_metrics(_points(curves))], results.Ppo.model_validate(ends))


def _evaluate(run: Run, random: np.random.Generator, hostile: Sequence[str]) -> None:
    samples = [
        {
            "prompt": f"Question {number}?", "before": "An answer. " * 8, "reward_before": round(random.normal(), 3),
            "after": "A better answer. " * 8, "reward_after": round(1 + random.normal(), 3),
        }
        for number in range(PROMPTS)
    ]  # fmt: skip
    samples += [
        dict.fromkeys(("prompt", "before", "after"), one) | {"reward_before": 0.0, "reward_after": 1.0}
        for one in hostile
    ]
    lines = "".join(json.dumps(one) + "\n" for one in samples).encode()
    figures = results.Evaluate(
        heldout_sequences=64, heldout_tokens=16_371, prompts=PROMPTS, perplexity_pretrain=20.0, perplexity_sft=22.0,
        perplexity_ppo=23.0, bits_per_byte_pretrain=1.1, bits_per_byte_sft=1.2, bits_per_byte_ppo=1.25,
        reward_sft=0.1, reward_ppo=1.1, win_rate=0.78, win_rate_low=0.61, win_rate_high=0.89, worse_sft=False,
        worse_ppo=False,
    )  # fmt: skip
    files = [("samples.jsonl", Kind.SAMPLES, lines, 0), ("metrics.jsonl", Kind.METRICS, b"", 0)]
    _commit(run, "evaluate", files, figures)

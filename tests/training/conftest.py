"""A run whose corpus is already committed: a real tokenizer, token shards of made-up text, and examples, ready for the GPU plane."""

import hashlib
import importlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from contract.chat import END_OF_TEXT, SPECIAL_TOKENS, dump_special_tokens
from contract.errors import Interrupted
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, find, need
from contract.metrics import load_points
from contract.plan import WHOLE, Run, resolve
from contract.results import result_of
from perf.packed import write_shard
from pipelines.spark import job as spark_job
from tests.declared import only_declared
from tests.forked import Forks
from training.engine.job import Job

if TYPE_CHECKING:
    import torch

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

THINGS = ("river", "mill", "baker", "lantern", "harbour", "garden", "winter", "letter", "stone", "bridge")
RECIPE = """
name: test
pack: {seq_len: 64}
mix: {heldout_fraction: 0.2}
instructions: {max_examples: 64}
pretrain:
  model: {layers: 2, d_model: 32, heads: 4, kv_heads: 2, d_ff: 64}
  optim: {lr: 5.0e-3, warmup_fraction: 0.1}
  engine: {micro_batch: 4, checkpoint_steps: 4}
  steps: 12
  batch: 8
  eval_sequences: 16
sft:
  optim: {lr: 2.0e-3, weight_decay: 0.0}
  engine: {micro_batch: 4, checkpoint_steps: 4}
  epochs: 1
  batch: 8
  max_tokens: 48
reward: {max_tokens: 64}
ppo: {max_prompt_tokens: 24, max_response_tokens: 24}
"""


def texts(count: int, seed: int = 0) -> list[str]:
    """Little documents of a few regular sentences, so that a small model has something to learn."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        one, two, three = rng.sample(THINGS, 3)
        made.append(
            f"The {one} stands near the old {two}. Every day the {two} meets the {three} by the {one}. "
            f"Nobody ever saw the {three} without the {one}! Then the {one} was quiet again."
        )
    return made


def train_tokenizer(vocab_size: int = 384, across_words: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not across_words)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(50), trainer)
    return tokenizer


def commit(run: Run, stage: str, files: dict[str, tuple[str, bytes, int]], **metrics: float | None) -> Manifest:
    """Commit a stage's result as if it had run: file name -> (kind, bytes, rows)."""
    attempt = Attempt(run, run.task(stage))
    listed = []
    for name, (kind, data, rows) in files.items():
        run.store.write_bytes(attempt.path(name), data)
        digest = hashlib.sha256(data).hexdigest()
        listed.append(File(path=attempt.path(name), kind=kind, bytes=len(data), rows=rows, sha256=digest))
    return attempt.commit(listed, result=result_of(stage).model_construct(**metrics))


def table(documents: Sequence[str], prefix: str) -> bytes:
    rows = [
        {"id": f"{prefix}{index:030x}", "title": f"Note {index}", "text": text} for index, text in enumerate(documents)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def commit_corpus(run: Run, tokenizer: Tokenizer | None = None, write: Callable[[int, int], list[str]] = texts) -> None:
    """What is not there yet of a run's mix, tokenizer and pack, of 160 training and 40 held-out documents."""
    tokenizer = tokenizer or train_tokenizer()
    end = tokenizer.token_to_id(END_OF_TEXT)
    lengths = [run.recipe.pack.seq_len, *run.recipe.pack.more_seq_lens]
    attempt = Attempt(run, run.task("pack"))
    mixed: dict[str, tuple[str, bytes, int]] = {}
    packed: list[File] = []
    for kind, tokens, documents in (
        ("documents", Kind.TOKENS, write(160, 1)),
        ("heldout", Kind.HELDOUT_TOKENS, write(40, 2)),
    ):
        mixed[f"{kind}.parquet"] = (kind, table(documents, kind[0].replace("h", "b")), len(documents))
        for at in range(2):
            ids = [[*tokenizer.encode(text).ids, end] for text in documents[at::2]]
            part = at + 2 * (kind == "heldout")
            packed += write_shard(run.store, attempt.path(f"{tokens}-{at}"), part, tokens, ids, lengths)
    if find(run.store, run.task("mix")) is None:
        commit(run, "mix", mixed)
    special = ("special_tokens", dump_special_tokens(SPECIAL_TOKENS), 0)
    commit(
        run,
        "tokenizer",
        {"tokenizer.json": ("tokenizer", tokenizer.to_str().encode(), 0), "special_tokens.json": special},
        vocab_size=tokenizer.get_vocab_size(), sample_bytes=0, sample_documents=0, heldout_bytes_per_token=None,
    )  # fmt: skip
    attempt.commit(packed, result=result_of("pack").model_construct())


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A published SentencePiece model, as a folder of transformers."""
    from transformers import LlamaTokenizer

    where = tmp_path_factory.mktemp("sentencepiece")
    shutil.copy(data_dir / "tokenizers/llama2.c/tokenizer.model", where)
    LlamaTokenizer.from_pretrained(where, local_files_only=True).save_pretrained(where / "model")
    return where / "model"


@pytest.fixture(scope="session")
def corpus_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """`corpus_store("pretrain.steps=3", name="a")`: a run, on one of the session's stores, whose corpus is committed."""
    folder = tmp_path_factory.mktemp("training")
    crawl = folder / "crawl"
    crawl.mkdir()
    (crawl / "part.warc.gz").write_bytes(b"WARC")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE + f"crawl: {{source: {crawl}}}\n")

    def make(*overrides: str, name: str = "one") -> Run:
        given = [f"store={folder}/{name}", *overrides]
        run = resolve(str(recipe), f"run-{zlib.crc32(repr(given).encode()):08x}", given)
        if not run.store.exists(f"{run.task('pack').prefix}/manifest.json"):
            commit_corpus(run)
        for stage in ("instructions", "preferences", "prompts"):
            task = run.task(stage)
            if find(run.store, task) is None:
                made = spark_job.Job(only_declared(run, stage), task, Attempt(run, task))
                with redirect_stdout(io.StringIO()):  # tests read what their own stage prints
                    importlib.import_module(f"pipelines.{stage}").run(made)
        return run

    return make


@pytest.fixture
def make_run(corpus_store: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """As `corpus_store`, with a store of the test's own."""
    return lambda *overrides, name="one": corpus_store(*overrides, name=f"{tmp_path.name}-{name}")


@pytest.fixture
def make_job(make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """`make_job("pretrain", "pretrain.steps=3")`: a job of this very process, with DeepSpeed joined."""
    monkeypatch.setenv("GRISTMILL_SCRATCH", str(tmp_path / "scratch"))
    join_alone()

    def make(stage: str, *overrides: str, name: str = "one") -> Job:
        run = make_run(*overrides, name=name)
        return Job(only_declared(run, stage), run.task(stage), Attempt(run, run.task(stage)))

    return make


def join_alone() -> None:
    """Make the test process the only process of a DeepSpeed group, once."""
    import torch

    torch.set_num_threads(1)  # the models are so small that a second thread only waits
    if not torch.distributed.is_initialized():
        from training.engine.ranks import join

        join()


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`launch(run, "pretrain", processes=2)`: a stage as a user starts it, output in a pipe. What is left at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(
        run: Run, stage: str, processes: int = 1, partition: str = WHOLE, **environment: str
    ) -> subprocess.Popen[str]:
        scripts = Path(sys.executable).parent
        command = [sys.executable, "-m", "training"]
        if processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            command = [
                str(scripts / "deepspeed"), "--num_accelerators", str(processes), "--master_port", str(port), "--module", "training",
            ]  # fmt: skip
        clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")}  # fmt: skip
        process = subprocess.Popen(
            [*command, stage, "--recipe", run.uri, "--partition", partition],
            cwd=Path(__file__).parents[2],
            env={
                **clean,
                "PATH": f"{scripts}:{os.environ['PATH']}",
                "DS_ACCELERATOR": "cpu",
                "OMP_NUM_THREADS": "1",
                "GRISTMILL_SCRATCH": str(tmp_path / "scratch"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0)


@pytest.fixture(scope="session")
def run_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[str]]]:
    """`run_two("-m", "training", "sft", "--recipe", URI)`: what each of two ranks prints, which both end well.

    They do what `python -m training sft ...` does, but as forks that need not import anything first.
    """
    forks = Forks()

    def run(*arguments: str, scratch: Path | None = None) -> list[str]:
        folder = scratch or tmp_path_factory.mktemp("ranks")
        code, said = forks.run(arguments, {"GRISTMILL_SCRATCH": str(folder)}, processes=2, timeout=300)
        assert code == 0, "\n".join(said)
        return said

    yield run
    forks.close()


ALIGN = (
    "pretrain.steps=60",
    "reward.engine.micro_batch=8",
    "reward.batch=16",
    "reward.optim.lr=3.0e-3",
    "reward.epochs=3",
    "reward.engine.checkpoint_steps=100",
    "gate.min_accuracy=0.5",
    "ppo.steps=4",
    "ppo.rollout_batch=16",
    "ppo.minibatch=8",
    "ppo.policy_optim={lr: 2.0e-3, weight_decay: 0.0, schedule: constant}",
    "ppo.value_optim={lr: 2.0e-3, weight_decay: 0.0, schedule: constant}",
    "ppo.engine={micro_batch: 4, checkpoint_steps: 2}",
    "evaluate.max_response_tokens=24",
)


@pytest.fixture(scope="session")
def align(corpus_store: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Job]:
    """`align("ppo", "ppo.steps=2")`: a job whose inputs are committed, run for it where they were not; one store for the session."""
    scratch = tmp_path_factory.mktemp("scratch")
    join_alone()

    def make(stage: str, *overrides: str, partition: str = WHOLE) -> Job:
        os.environ["GRISTMILL_SCRATCH"] = str(scratch)
        run = corpus_store(*ALIGN, *overrides, name="align")
        own = run.task(stage, partition)
        for task in own.inputs:
            if find(run.store, task) is None:
                if task.stage == "decontaminate":  # of a corpus that was committed as it is
                    commit(run, "decontaminate", {}, benchmark_ngrams=0)
                else:
                    importlib.import_module(f"training.{task.stage}").run(
                        make(task.stage, *overrides, partition=task.partition)
                    )
        return Job(only_declared(run, stage), own, Attempt(run, own))

    return make


@pytest.fixture
def final_tensors(
    align: Callable[..., Job], capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, "torch.Tensor"]]:
    """`final_tensors("reward", 3)`: every tensor that a stage commits when it is stopped in step 3 and started again; None: not stopped.

    The curves and the figures, all but times, are among them as `curve/NAME` and `figure/NAME`. That the second start went on from
    step 3 is asserted. The result is deleted afterwards, so that the same task can run once more.
    """

    def run(stage: str, stop_in: int | None, *overrides: str) -> dict[str, "torch.Tensor"]:
        module = importlib.import_module(f"training.{stage}")
        if stop_in is not None:
            job = align(stage, *overrides)
            answers = iter([False] * (stop_in - 1) + [True])
            job.ranks.stopping = lambda: next(answers)  # type: ignore[method-assign]
            with pytest.raises(Interrupted, match=f"stopped after step {stop_in} of"):
                module.run(job)
        job = align(stage, *overrides)
        capsys.readouterr()
        module.run(job)
        said = capsys.readouterr().out.splitlines()
        last = [line for line in said if line.startswith(f"progress {stage} all ")][-1]
        assert len({*last.split()[3].split("/")}) == 1, f"{last}: what was done before the stop counts as done"
        resumed = [line for line in said if line.startswith("resumed")]
        assert [line.split(":")[0] for line in resumed] == [f"resumed {stage} from step {stop_in}"] * bool(stop_in)
        manifest = find(job.store, job.task)
        assert manifest is not None
        found = committed_tensors(job)
        job.store.delete(manifest.path)
        return found

    return run


OF_MACHINE = ("step_s", "memory_bytes", "sampled_tokens_per_s", "learned_tokens_per_s", "sampling_share")
"""Curves that no second run repeats."""


def read_curves(job: Job) -> dict[str, list[tuple[int, float]]]:
    """The (step, value) rows of every curve that a finished job committed."""
    (file,) = need(job.store, job.task).of("metrics")
    found: dict[str, list[tuple[int, float]]] = {}
    for point in load_points(job.store.read_bytes(file.path)):
        found.setdefault(point.name, []).append((point.step, point.value))
    return found


def committed_tensors(job: Job) -> dict[str, "torch.Tensor"]:
    """All that a finished job committed and that a second run must repeat bit for bit."""
    import torch
    from safetensors.torch import load_file

    manifest = need(job.store, job.task)
    files = [job.scratch.download(file) for file in manifest.files if file.path.endswith(".safetensors")]
    found = {f"{path.name}/{name}": tensor for path in files for name, tensor in load_file(path).items()}
    rows_of = {name: rows for name, rows in read_curves(job).items() if name not in (*OF_MACHINE, "resumed")}
    found |= {f"curve/{name}": torch.tensor(rows, dtype=torch.float64) for name, rows in rows_of.items()}
    for name, value in manifest.metrics.items():
        if isinstance(value, int | float) and name != "seconds":
            found[f"figure/{name}"] = torch.tensor(value, dtype=torch.float64)
    rows = manifest.rows
    found["rows"] = torch.tensor(
        [rows.read, rows.kept, rows.dropped, *(count for _, count in sorted(rows.reasons.items()))]
    )
    return found


@pytest.fixture(scope="session")
def curves() -> Callable[[Job], dict[str, list[tuple[int, float]]]]:
    return read_curves


@pytest.fixture(scope="session")
def tensors() -> Callable[[Job], dict[str, "torch.Tensor"]]:
    return committed_tensors

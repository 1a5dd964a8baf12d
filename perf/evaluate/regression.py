"""Is a lost ability found, and only that one: `python -m perf.evaluate --only regression`.

A small decoder learns made-up facts in four abilities: of English and of Chinese questions, of choices between two ways to go on, and of
numbers that it has to write. Then one ability is spoilt: it goes on learning all facts, every fifth of this ability wrong. Both models
are asked by the stage `benchmark`, and the stage `abilities` compares them. A seed counts if that ability is flagged and no other.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contract.kinds import Kind
from contract.manifest import Attempt, need
from contract.plan import Run
from contract.results import Decontaminate, Evaluate, result_of
from evals.abilities import told
from evals.ability_report import Report, parsed
from evals.asking import Asking, Files, read_asking
from evals.tasks.prompts import joined
from perf.align.hh import bpe
from perf.align.rewarded import job_of, make_run
from perf.bars import Bars
from training.engine.job import Job

SEEDS = (0, 1, 2)
FACTS = 60  # of each ability
SPOILT = 5  # every so many-th fact of the ability
STEPS, SPOILING_STEPS = 500, 200
BATCH = 60
RATE = 2e-3
EVALUATE = Evaluate(heldout_sequences=1, heldout_tokens=1, prompts=1, reward_sft=0.0, worse_sft=False)
RECIPE = """
name: regression
pack: {{seq_len: 128}}
pretrain: {{model: {{layers: 2, d_model: 128, heads: 4, kv_heads: 4, d_ff: 256}}}}
sft: {{max_tokens: 128}}
reward: {{max_tokens: 128}}
ppo: {{max_prompt_tokens: 64, max_response_tokens: 48}}
benchmark:
  models: [pretrain, sft]
  tasks: {tasks}
"""
COLOURS, FARBEN = ("red", "blue", "green", "white"), ("红", "蓝", "绿", "白")
WAYS = ("turn the key to the left", "push the bar to the right")


@dataclass(frozen=True)
class Set:
    """One benchmark. rows: its published rows for the answer to each fact; choices: how many answers there are."""

    task: str
    ability: str
    style: str
    choices: int
    row: Callable[[int, int], Mapping[str, Any]]


SETS = (
    Set("gsm8k", "maths", "steps", 9, lambda at, right: {
        "question": f"How many lamps stand in house {at}?", "answer": f"As the book says.\n#### {right + 1}",
    }),
    Set("piqa", "reasoning", "cloze", 2, lambda at, right: {
        "goal": f"To open gate {at} of the park,", "sol1": WAYS[0], "sol2": WAYS[1], "label": right,
    }),
    Set("mmlu", "knowledge en", "cloze", 4, lambda at, right: {
        "question": f"The colour of boat {at} is", "choices": COLOURS, "answer": right, "subject": f"boat{at}",
    }),
    Set("ceval", "knowledge zh", "cloze", 4, lambda at, right: {
        "id": at, "question": f"第{at}号石头的颜色是", **dict(zip("ABCD", FARBEN, strict=True)), "answer": "ABCD"[right],
        "subject": f"stone{at}",
    }),
)  # fmt: skip


def answers(seed: int) -> dict[str, list[int]]:
    """The right answer to each fact of each set."""
    drawn = random.Random(seed)
    return {one.task: [drawn.randrange(one.choices) for _ in range(FACTS)] for one in SETS}


def spoilt(right: Mapping[str, Sequence[int]], one: Set) -> dict[str, list[int]]:
    """The same with some answers of one set wrong."""
    wrong = [(right + (at % SPOILT == 0)) % one.choices for at, right in enumerate(right[one.task])]
    return {task: wrong if task == one.task else [*known] for task, known in right.items()}


def write(folder: Path, right: Mapping[str, Sequence[int]]) -> dict[str, Path]:
    """The sets' files, in their published shape."""
    folder.mkdir()
    paths = {one.task: folder / f"{one.task}.jsonl" for one in SETS}
    for one in SETS:
        rows = [json.dumps(one.row(at, answer), ensure_ascii=False) for at, answer in enumerate(right[one.task])]
        paths[one.task].write_text("\n".join(rows) + "\n")
    return paths


def asked(paths: Mapping[str, Path]) -> list[Asking]:
    return [read_asking(one.task, Files(paths[one.task]), style=one.style) for one in SETS]


def texts(paths: Mapping[str, Path]) -> list[tuple[str, str]]:
    """What a model learns: each question as it will be asked, and its right answer."""
    found: list[tuple[str, str]] = []
    for asking in asked(paths):
        for item in asking.items:
            made = asking.prompt(item)
            found.append(
                made.pairs[item.right] if made.pairs else (made.text, joined(made.text, f"#### {item.answers[0]}"))
            )
    return found


def learn(module: Any, rows: Sequence[tuple[list[int], list[int]]], steps: int, seed: int) -> None:
    """Adam on the answers' tokens. rows: the ids of a question and those of its answer."""
    import torch

    drawn = random.Random(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20) * (1 - step / steps))
    width = max(len(question) + len(answer) for question, answer in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for at, (question, answer) in enumerate(rows):
        ids[at, : len(question) + len(answer)] = torch.tensor(question + answer)
        labels[at, len(question) : len(question) + len(answer)] = torch.tensor(answer)
    module.train()
    for _ in range(steps):
        some = drawn.sample(range(len(rows)), BATCH)
        loss = module(input_ids=ids[some], labels=labels[some]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"  learned {len(rows)} facts in {steps} steps, loss {loss.item():.4f}", flush=True)


def commit_models(made: Run, paths: Mapping[str, Path], wrong: Mapping[str, Path], seed: int) -> None:
    """Train the model and then its spoilt successor, and commit them as what pretraining and tuning made."""
    from training.chat.template import open_chat
    from training.models import llama as model

    job = job_of(made, "pretrain")
    chat = open_chat(job)
    shape = made.recipe.pretrain.model
    module = model.build(shape, chat.vocab_size, 128, seed=seed, end_of_text=chat.end_of_text, pad=chat.pad)
    for stage, known, steps in (("pretrain", paths, STEPS), ("sft", wrong, SPOILING_STEPS)):
        rows = [
            ([chat.end_of_document, *chat.text(question)], [*chat.text(answer), chat.end_of_document])
            for question, answer in texts(known)
        ]
        learn(module, rows, steps, seed)
        job = job_of(made, stage)
        folder = job.scratch.fresh("model")
        model.save(module, folder, chat)
        job.commit(folder, result_of(stage).model_construct())


def measured(made: Run) -> Report:
    """What the stages `benchmark` and `abilities` find."""
    from training import abilities, benchmark

    Attempt(made, made.task("decontaminate")).commit([], result=Decontaminate(benchmark_ngrams=0))
    Attempt(made, made.task("evaluate")).commit([], result=EVALUATE)
    for task in made.task("abilities").of("benchmark"):
        benchmark.run(Job(made, task, Attempt(made, task)))
    abilities.run(job_of(made, "abilities"))
    (file,) = [one for one in need(made.store, made.task("abilities")).of(Kind.REPORT) if one.path.endswith(".json")]
    return parsed(made.store.read_bytes(file.path), file.path)


def found(seed: int, one: Set) -> bool:
    """Whether the spoilt ability is flagged, and no other."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        right = answers(seed)
        paths, wrong = write(folder / "items", right), write(folder / "wrong", spoilt(right, one))
        tasks = {
            each.task: {"items": str(paths[each.task]), "style": each.style, "max_tokens": 16, "k": 0} for each in SETS
        }
        documents = [question + answer for question, answer in texts(paths)]
        made = make_run(
            folder, RECIPE.format(tasks=json.dumps(tasks)), bpe(documents), lambda count, _: documents[:count]
        )
        commit_models(made, paths, wrong, seed)
        report = measured(made)
        flagged = [change for change in report.changes if change.verdict == "worse"]
        print(f"seed {seed}, {one.ability} spoilt; flagged: {'; '.join(map(told, flagged)) or 'nothing'}", flush=True)
        return [change.ability for change in flagged] == [one.ability]


def run(bars: Bars, data: Path) -> None:
    """`data` is not needed."""
    bars.exactly("regression_found", sum(found(seed, SETS[seed]) for seed in SEEDS), len(SEEDS))

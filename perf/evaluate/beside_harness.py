"""Our answers beside those of lm-evaluation-harness, in an environment of its own: `python -m perf.evaluate --only beside_harness`.

`verdicts_equal_harness`: the share of items of which our prompt and our verdict are those of the harness with its own task files and its
backend for transformers. `items_a_second_vs_harness`: items a second of our scoring and writing over those of that backend at the batch size at
which it is fastest, for each kind of request by itself; the same model, prompts, threads and machine, in float32. Both are timed from texts to
numbers and texts; reading files, writing prompts and grading are not. Each counts with its fastest turn.

The model has 8 million parameters and was trained a minute on such texts, so that its answers end, and are at times right. Sets of which there
are files are real; of the others the real questions of MMLU are written in their form.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from evals.grading import grade
from evals.tasks import bbh
from evals.tasks.published import read_items, read_names
from evals.tasks.table import task_named
from evals.tasks.task import Item
from perf.align.beside_trl import alone
from perf.bars import Bars
from perf.evaluate.golden import (
    END,
    Case,
    commonsense_cases,
    mmlu,
    same_text,
    science,
    write_tokenizer,
)

HARNESS = ("lm-eval==0.4.13", "torch==2.13.0", "transformers==5.23.0", "accelerate", "datasets")
WHERE = Path(".bench")
THREADS = 1  # each: a model this small gains little by a second one, and on a busy machine waits for it
BATCH_SIZES, TURNS, OUR_TURNS = (1, 4, 16), 1, 1
SUBJECTS, OF_SUBJECT, CHOICES, SUMS, MAX_TOKENS = 4, 8, 20, 24, 96
BBH_TASKS = ("boolean_expressions", "date_understanding", "navigate", "object_counting")
WIDTH, VOCABULARY = 256, 8192
"""Of the model."""
STEPS, ROWS, LENGTH = 100, 2, 384
"""Of its training."""


def run(bars: Bars, data: Path) -> None:
    peer = peer_python()
    with TemporaryDirectory() as where:
        folder = Path(where)
        made = cases(data / "evals")
        model = trained(WHERE / "harness", data / "evals", made)
        found = heard(peer, made, model, folder, BATCH_SIZES, TURNS)
        ours = alone(lambda: answered(made, model, folder))
    equal, count = compared(made, ours["samples"], found["samples"])
    bars.exactly("verdicts_equal_harness", equal / count, 1)
    bars.at_least("items_a_second_vs_harness", faster(made, ours["seconds"], found["seconds"]), 1.5)


def cases(evals: Path) -> list[Case]:
    """Some subjects of each exam with five examples, problems with chains of thought, and choices that are continued."""
    made = []
    for name, archive, yaml in (
        ("mmlu", "mmlu_dev_val_only.zip", "mmlu/default/mmlu_{}.yaml"),
        ("ceval", "ceval_dev_val_only.zip", "ceval/ceval-valid_{}.yaml"),
        ("cmmlu", "cmmlu_dev_val_only.zip", "cmmlu/cmmlu_{}.yaml"),
    ):
        names = read_names(evals / name / "mapping.json") if name != "mmlu" else {}
        made += exams(name, evals / name / archive, yaml, names)
    rows = [json.loads(line) for line in (evals / "gsm8k" / "train.jsonl").read_text().splitlines()]
    made.append(
        Case(
            "gsm8k",
            task_named("gsm8k"),
            "gsm8k/gsm8k.yaml",
            rows[5 : 5 + SUMS],
            rows[:5],
            5,
            ("strict-match", "exact_match"),
            MAX_TOKENS,
        )
    )
    return [*made, *chains(evals), *choices(made)]


def exams(name: str, archive: Path, yaml: str, names: Mapping[str, str]) -> list[Case]:
    """Some subjects of a set, spread over it. Of CMMLU only examples are at hand: the last of them are asked."""
    task, dev = task_named(name), by_subject(read_items(task_named(name), archive, "dev"))
    val = {} if name == "cmmlu" else by_subject(read_items(task, archive, "val"))
    made = []
    for subject in sorted(dev)[:: max(1, len(dev) // SUBJECTS)][:SUBJECTS]:
        examples = rows_of(name, dev[subject], subject)
        rows = rows_of(name, val[subject], subject) if val else examples[3:]
        k = 5 if val else 3
        named = ((subject, names[subject]),) if subject in names else ()
        made.append(
            Case(f"{name}_{subject}", task, yaml.format(subject), rows[:OF_SUBJECT], examples[:k], k, names=named)
        )
    return made


def by_subject(items: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for one in items:
        found.setdefault(one.subject, []).append(one)
    return found


def rows_of(name: str, items: Sequence[Item], subject: str) -> list[dict[str, Any]]:
    """Items as the Hub shows their rows, which the harness reads."""
    if name == "mmlu":
        return mmlu([(one.question, [*one.choices], one.right) for one in items], subject)
    question, answer = ("Question", "Answer") if name == "cmmlu" else ("question", "answer")
    return [
        {
            question: one.question,
            **dict(zip("ABCD", one.choices, strict=True)),
            answer: one.answers[0],
            "subject": subject,
        }
        for one in items
    ]


def chains(evals: Path) -> list[Case]:
    """Tasks of BIG-Bench Hard behind the published examples, which the harness has in files of its own."""
    import tarfile

    made = []
    with TemporaryDirectory() as where:
        with tarfile.open(evals / "bbh" / "bbh_tasks_and_cot_prompts.tar.xz") as archive:
            archive.extractall(where, filter="data")
        folder = next(Path(where).rglob("cot-prompts")).parent
        pool = tuple(bbh.read_shots(folder / "cot-prompts"))
        for name in BBH_TASKS:
            rows = json.loads((folder / "bbh" / f"{name}.json").read_text())["examples"][: SUMS // 4]
            yaml, metric = f"bbh/cot_fewshot/{name}.yaml", ("get-answer", "exact_match")
            made.append(Case(name, task_named("bbh"), yaml, rows, (), 3, metric, MAX_TOKENS, pool=pool))
    return made


def choices(made: Sequence[Case]) -> list[Case]:
    """The questions of MMLU that are asked here, in the rows of benchmarks whose choices are continued."""
    rows = [row for case in made if case.task.name == "mmlu" for row in case.rows]
    asked = [(row["question"], row["choices"], row["answer"]) for row in rows][:CHOICES]
    return [
        Case("arc", task_named("arc"), "arc/arc_easy.yaml", science(asked)),
        Case("openbookqa", task_named("openbookqa"), "openbookqa/openbookqa.yaml", science(asked, "question_stem")),
        *commonsense_cases(asked),
    ]


def trained(where: Path, evals: Path, made: Sequence[Case]) -> Path:
    """A small LLaMA that has read half of the problems that are asked, others, and examples; kept for the next time."""
    rows = [json.loads(line) for line in (evals / "gsm8k" / "train.jsonl").read_text().splitlines()]
    texts = [f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in rows[:400]]
    known = texts[5 : 5 + SUMS // 2] * 12
    with TemporaryDirectory() as folder:
        for case in made:
            case.written(Path(folder))
        asked = [one.text for case in made for one in case.asked(Path(folder))[1][:1]]
    read = [*texts[5 + SUMS :], *known, *asked]
    digest = hashlib.sha256(
        json.dumps([read, WIDTH, VOCABULARY, STEPS, ROWS, LENGTH, torch.__version__]).encode()
    ).hexdigest()[:12]
    target = where / f"model-{digest}"
    if not (target / "config.json").exists():
        write_tokenizer(read, VOCABULARY, target)
        print(alone(lambda: fit(target, read)), flush=True)  # threads of this process would stop those of later ones
    return target.absolute()


def fit(target: Path, texts: Sequence[str]) -> str:
    """Train a model and write it beside its tokenizer; returns what to tell."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(16)
    tokenizer = AutoTokenizer.from_pretrained(target)
    module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=43 * WIDTH // 16, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=4096, bos_token_id=0, eos_token_id=0, pad_token_id=1,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.0)
    drawn = random.Random(16)
    order = drawn.sample([*texts], len(texts))
    ids = torch.tensor([token for text in order for token in tokenizer(text + END)["input_ids"]])
    for step in range(STEPS):
        rate = min(1.0, (step + 1) / 20) * (1 - step / STEPS)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate
        begins = [drawn.randrange(len(ids) - LENGTH) for _ in range(ROWS)]
        rows = torch.stack([ids[at : at + LENGTH] for at in begins])
        loss = module(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    module.save_pretrained(target)
    return f"a model of {module.num_parameters():,} parameters: loss {loss.item():.2f} after {STEPS} steps"


def heard(
    peer: Path, made: Sequence[Case], model: Path, folder: Path, batch_sizes: Sequence[int], turns: int
) -> dict[str, Any]:
    """What perf/peers/harness_answers.py returns."""
    request = {
        "model": str(model), "threads": THREADS, "batch_sizes": list(batch_sizes), "turns": turns,
        "tasks": [case.written(folder) for case in made],
    }  # fmt: skip
    (folder / "request.json").write_text(json.dumps(request))
    script = Path(__file__).parents[1] / "peers" / "harness_answers.py"
    command = [peer, script, folder / "request.json", folder / "result.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads((folder / "result.json").read_text()))


def answered(made: Sequence[Case], model: Path, folder: Path, turns: int = OUR_TURNS) -> dict[str, Any]:
    """The same of our own code."""
    from training.answering import Asked, answer
    from training.chat.wording import of_folder

    torch.set_num_threads(THREADS)
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    wording = of_folder(model)
    asking = {case.name: case.asked(folder) for case in made}
    samples: dict[str, Any] = {}
    seconds = {}
    for kind, scores in (("loglikelihood", True), ("generate_until", False)):
        some = [case for case in made if bool(asking[case.name][1][0].pairs) is scores]
        prompts = [one for case in some for one in asking[case.name][1]]
        most = max((case.max_tokens for case in some), default=1)
        seconds[kind] = float("inf")
        for _ in range(turns):
            start = time.perf_counter()
            found = iter(answer(module, wording, prompts, Asked(max_tokens=most)))
            seconds[kind] = min(seconds[kind], time.perf_counter() - start)
        for case in some:
            items, prompts_of = asking[case.name]
            outputs = {item.id: next(found) for item in items}
            shown = dict(zip((item.id for item in items), prompts_of, strict=True))
            records = grade(case.task, items, outputs, lambda item, shown=shown: shown[item.id])  # type: ignore[misc]
            samples[case.name] = [
                {
                    "prompts": [list(pair) for pair in one.pairs] or [[one.text]],
                    "stop": one.stop,
                    "answers": list(output.logprobs or [output.text]),
                    "score": record.score,
                }
                for one, (output,), record in zip(prompts_of, outputs.values(), records, strict=True)
            ]
    return {"samples": samples, "seconds": seconds}


def compared(made: Sequence[Case], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[int, int]:
    """(Items with the same prompt and verdict, all items). What differs is printed, and what the answers show."""
    equal = count = right = texts = same_texts = 0
    off = 0.0
    for case in made:
        for number, (one, two) in enumerate(zip(ours[case.name], theirs[case.name], strict=True)):
            verdict = float(two["metrics"][case.metric[0]][case.metric[1]])
            count, right = count + 1, right + int(verdict)
            if one["prompts"] == two["prompts"] and one["score"] == verdict:
                equal += 1
            else:
                what = "verdict" if one["prompts"] == two["prompts"] else "prompt"
                print(
                    f"{what} of {case.name}/{number}: {json.dumps([one, two], ensure_ascii=False)[-1500:]}", flush=True
                )
            if not two["until"]:
                off = max([off, *(abs(a - b[0]) for a, b in zip(one["answers"], two["answers"], strict=True))])
            else:
                texts += 1
                same_texts += same_text(one["answers"][0], two["answers"][0], one["stop"], two["until"])
    print(
        f"{equal} of {count} items have the same prompt and verdict, {right} are right; log-likelihoods are {off:.2g} off at most; "
        f"{same_texts} of {texts} texts are the same",
        flush=True,
    )
    return equal, count


def faster(made: Sequence[Case], ours: Mapping[str, float], theirs: Mapping[str, Mapping[str, float]]) -> float:
    """Our items a second over theirs, over both kinds of requests."""
    for kind, each in theirs.items():
        size, least = min(each.items(), key=lambda one: one[1])
        print(
            f"{kind}: ours {ours[kind]:.2f} s, harness {least:.2f} s at batch size {size} "
            f"({', '.join(f'{one}: {value:.2f}' for one, value in each.items())}), {least / ours[kind]:.2f} x; {THREADS} threads each",
            flush=True,
        )
    items = sum(len(case.rows) for case in made)
    best = sum(min(each.values()) for each in theirs.values())
    print(f"{items} items: ours {items / sum(ours.values()):.1f} a second, harness {items / best:.1f}", flush=True)
    return best / sum(ours.values())


def peer_python(where: Path = WHERE) -> Path:
    """The harness's own environment, made on first use."""
    python, ready = where / "harness" / "bin" / "python", where / "harness" / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", where / "harness"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *HARNESS], check=True)
        ready.touch()
    return python.absolute()

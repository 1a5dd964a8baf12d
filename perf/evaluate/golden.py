"""What lm-evaluation-harness says of a tiny model whose weights are known, on items written for this: `python -m perf.evaluate.golden`.

It writes tests/training/harness_golden.json, to which a test holds our prompts, numbers and verdicts, so that tests need no harness.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evals.tasks.prompts import Prompt, prompt, shots_for
from evals.tasks.published import read_items, with_names
from evals.tasks.table import task_named
from evals.tasks.task import Item, Task, cut_stop

GOLDEN = Path(__file__).parents[2] / "tests/training/harness_golden.json"
MAX_TOKENS = 24
END, PAD = "<|endoftext|>", "<|pad|>"
DESCRIPTION = "Evaluate the result of a random Boolean expression."
"""What the harness's file of that task of BIG-Bench Hard opens with."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One benchmark as both ask it. yaml: the harness's file. metric: (filter, metric) that is its verdict."""

    name: str
    task: Task
    yaml: str
    rows: Sequence[Row]
    shots: Sequence[Row] = ()
    k: int = 0
    metric: tuple[str, str] = ("none", "acc")
    max_tokens: int = MAX_TOKENS
    names: tuple[tuple[str, str], ...] = ()
    pool: tuple[Item, ...] = ()
    """Examples that are no rows: those of BIG-Bench Hard, which the harness has in its own files."""

    def written(self, folder: Path) -> dict[str, Any]:
        """Its rows as files, and what perf/peers/harness_answers.py must know."""
        files = {}
        for kind, rows in (("rows", self.rows), ("shots", self.shots)):
            files[kind] = str(folder / f"{self.name}.{kind}.jsonl") if rows else None
            if rows:
                Path(files[kind] or "").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return {"name": self.name, "yaml": self.yaml, "k": self.k, "max_tokens": self.max_tokens, **files}

    def asked(self, folder: Path) -> tuple[list[Item], list[Prompt]]:
        """The items and prompts as our code reads and writes them, from the files of `written`."""
        items, pool = self._read(folder, "rows"), [*self.pool] or self._read(folder, "shots")
        made = [prompt(self.task, item, shots_for(item, pool, self.k) if pool else []) for item in items]
        return items, made

    def _read(self, folder: Path, kind: str) -> list[Item]:
        path = folder / f"{self.name}.{kind}.jsonl"
        if not path.exists():
            return []
        items = with_names(read_items(self.task, path), dict(self.names))
        if self.task.name != "bbh":
            return items
        own = [replace(one, subject=self.name) for one in items]
        return [
            replace(one, fields={"chain": one.answers[0], "description": DESCRIPTION}) if kind == "shots" else one
            for one in own
        ]


def questions(count: int = 6) -> list[tuple[str, list[str], int]]:
    """Questions with four choices and the right one, in words of our own."""
    things = ("river", "mill", "baker", "lantern", "harbour", "garden", "winter", "letter")
    made = []
    for at in range(count):
        choices = [things[(at + step) % 8] for step in (0, 3, 5, 6)]
        made.append(
            (
                f"What stands near the old {things[(at + 1) % 8]}, {at + 2} steps from the {things[at % 8]}?",
                choices,
                at % 4,
            )
        )
    return made


def exam(rows: list[tuple[str, list[str], int]], subject: str, capital: bool = False) -> list[Row]:
    """C-Eval's rows, or CMMLU's, which begin with capitals."""
    question, answer = ("Question", "Answer") if capital else ("question", "answer")
    return [
        {
            question: f"问题{at}：{text}",
            **dict(zip("ABCD", choices, strict=True)),
            answer: "ABCD"[right],
            "subject": subject,
        }
        for at, (text, choices, right) in enumerate(rows)
    ]


def mmlu(rows: list[tuple[str, list[str], int]], subject: str) -> list[Row]:
    return [
        {"question": text, "choices": choices, "answer": right, "subject": subject} for text, choices, right in rows
    ]


def science(rows: list[tuple[str, list[str], int]], stem: str = "question") -> list[Row]:
    """ARC's rows, or OpenBookQA's."""
    return [
        {"id": f"q{at}", stem: text, "choices": {"text": choices, "label": [*"ABCD"]}, "answerKey": "ABCD"[right]}
        for at, (text, choices, right) in enumerate(rows)
    ]


def commonsense(rows: list[tuple[str, list[str], int]]) -> dict[str, list[Row]]:
    """The same questions in the rows of every other benchmark with choices."""
    made: dict[str, list[Row]] = {name: [] for name in ("hellaswag", "piqa", "siqa", "boolq", "winogrande")}
    for at, (text, choices, right) in enumerate(rows):
        endings = [f"[step] it is the {one} [title] The end" for one in choices]
        made["hellaswag"].append(
            {
                "ind": at,
                "activity_label": "Walking",
                "ctx_a": f"{text} [header]",
                "ctx_b": "the answer is",
                "endings": endings,
                "label": str(right),
            }
        )
        made["piqa"].append(
            {"goal": text, "sol1": f"the {choices[0]} alone", "sol2": f"a {choices[1]}", "label": right % 2}
        )
        named = {f"answer{letter}": f"the {one}" for letter, one in zip("ABC", choices, strict=False)}
        made["siqa"].append({"context": text, "question": "What is right?", **named, "label": str(right % 3 + 1)})
        made["boolq"].append(
            {"passage": f"{text} It is the {choices[0]}.", "question": "is it the mill", "label": right % 2}
        )
        sentence = f"Between the {choices[0]} and the {choices[1]}, only _ was near, as {text[:20]} says ."
        made["winogrande"].append(
            {
                "qID": f"w{at}-1",
                "sentence": sentence,
                "option1": choices[0],
                "option2": choices[1],
                "answer": str(right % 2 + 1),
            }
        )
    return made


def sums(count: int) -> list[Row]:
    made = []
    for sacks, days in ((at + 41, at + 87) for at in range(count)):  # so that no random number is right
        answer = f"It grinds {sacks} times {days} sacks.\n#### {sacks * days}"
        made.append({"question": f"A mill grinds {sacks} sacks a day. How many in {days} days?", "answer": answer})
    return made


def riddles(count: int) -> list[Row]:
    return [
        {"question": f"who found the {at + 2} old keys", "answer": [f"the miller {at}", "a miller"]}
        for at in range(count)
    ]


def truths(count: int) -> list[Row]:
    made = []
    for at in range(count):
        said = f"We see {at % 2 == 0} and {at} nots. So the answer is {at % 2 == 1}."
        made.append({"input": f"{'not ' * at}( {at % 2 == 0} ) and True is", "target": said})
    return made


def cases() -> list[Case]:
    """Every benchmark whose prompts are the harness's, on items of our own."""
    rows = questions()
    own, shots = rows[:4], rows[4:]
    rule = [replace_target(row) for row in truths(6)[:4]]
    made = [
        Case("mmlu_anatomy", task_named("mmlu"), "mmlu/default/mmlu_anatomy.yaml", mmlu(own, "anatomy"), mmlu(shots, "anatomy"), 2),
        Case("ceval_law", task_named("ceval"), "ceval/ceval-valid_law.yaml", exam(own, "law"), exam(shots, "law"), 2, names=(("law", "法学"),)),
        Case(
            "cmmlu_arts", task_named("cmmlu"), "cmmlu/cmmlu_arts.yaml", exam(own, "arts", True), exam(shots, "arts", True), 2,
            names=(("arts", "艺术学"),),
        ),
        Case("gsm8k", task_named("gsm8k"), "gsm8k/gsm8k.yaml", sums(6)[:4], sums(6)[4:], 2, ("strict-match", "exact_match")),
        Case(
            "boolean_expressions", task_named("bbh"), "bbh/cot_fewshot/boolean_expressions.yaml", rule, truths(6)[4:], 2,
            ("get-answer", "exact_match"),
        ),
        Case(
            "naturalquestions", task_named("naturalquestions"), "nq_open/nq_open.yaml", riddles(6)[:4], riddles(6)[4:], 2,
            ("remove_whitespace", "exact_match"),
        ),
        Case("arc", task_named("arc"), "arc/arc_easy.yaml", science(own)),
        Case("openbookqa", task_named("openbookqa"), "openbookqa/openbookqa.yaml", science(own, "question_stem")),
    ]  # fmt: skip
    return made + commonsense_cases(own)


def commonsense_cases(rows: list[tuple[str, list[str], int]]) -> list[Case]:
    yamls = {
        "hellaswag": "hellaswag/hellaswag.yaml", "piqa": "piqa/piqa.yaml", "siqa": "siqa/siqa.yaml",
        "boolq": "super_glue/boolq/default.yaml", "winogrande": "winogrande/default.yaml",
    }  # fmt: skip
    return [Case(name, task_named(name), yamls[name], made) for name, made in commonsense(rows).items()]


def replace_target(row: Row) -> Row:
    """An item of BIG-Bench Hard has the answer alone where an example has the chain."""
    return {**row, "target": row["target"].rpartition(" ")[2].rstrip(".")}


def same_text(ours: str, theirs: str, stop: Sequence[str], until: Sequence[str]) -> bool:
    """Whether two answers are the same up to the first stop text of either side, but for white space around them."""
    one, two = (cut_stop(text, [*stop, *until]).strip() for text in (ours, theirs))
    return one == two


def tiny_model(folder: Path) -> Path:
    """A LLaMA of two layers with its tokenizer, as transformers reads them: the same on every machine."""
    text = " ".join(
        [one for text, choices, _ in questions(8) for one in (text, *choices)] + [row["answer"] for row in sums(9)]
    )
    write_tokenizer([text], 400, folder)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    module = LlamaForCausalLM(config)
    drawn = np.random.default_rng(16)
    with torch.no_grad():
        for one in module.parameters():
            if one.dim() > 1:
                one.copy_(torch.from_numpy(drawn.standard_normal(one.shape).astype(np.float32) * 0.3))
    module.save_pretrained(folder)
    return folder


def write_tokenizer(texts: Sequence[str], size: int, folder: Path) -> None:
    """A byte-level tokenizer of these texts, as transformers reads it. Token 0 ends a text, token 1 is padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, padding_side="left")
    fast.save_pretrained(folder)


def main() -> int:
    from perf.evaluate.beside_harness import heard, peer_python  # which need the harness

    with TemporaryDirectory() as where:
        folder = Path(where)
        found = heard(peer_python(), cases(), tiny_model(folder / "model"), folder, [4], 1)
    GOLDEN.write_text(json.dumps(found["samples"], ensure_ascii=False, indent=1) + "\n")
    print(f"{sum(map(len, found['samples'].values()))} items of {len(found['samples'])} tasks in {GOLDEN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

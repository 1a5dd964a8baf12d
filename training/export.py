"""Export the final model for `transformers`: weights, configuration, tokenizer with chat template, and model card."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerFast

from contract import results
from contract.approval import beyond, without_ppo
from contract.kinds import Kind
from contract.manifest import Manifest, find
from contract.plan import Task
from contract.printable import printable
from contract.settings.training import Export
from training.chat.template import Chat, open_chat
from training.engine.engine import DTYPES
from training.engine.job import Job
from training.models import llama as model


def write_tokenizer(chat: Chat, folder: Path, max_tokens: int | None) -> None:
    """Write tokenizer.json, and tokenizer_config.json with the chat template."""
    named = {"end_of_text", "pad"}
    PreTrainedTokenizerFast(
        tokenizer_file=str(chat.path),
        eos_token=chat.special["end_of_text"],
        pad_token=chat.special["pad"],
        additional_special_tokens=[token for role, token in chat.special.items() if role not in named],
        chat_template=chat.jinja,
        model_max_length=max_tokens,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def ancestors(task: Task) -> list[Task]:
    """All direct and indirect inputs of a task, each once, and each after its own inputs."""
    ordered: dict[tuple[str, str], Task] = {}

    def visit(reader: Task) -> None:
        for before in reader.inputs:
            if (before.stage, before.partition) not in ordered:
                visit(before)
                ordered[before.stage, before.partition] = before

    visit(task)
    return list(ordered.values())


def model_card(job: Job, source: Manifest, made: list[Manifest], kept_back: str = "") -> str:
    """The model card. `made` holds the manifests of the task's ancestors; `source` is the one of the weights.

    kept_back: why it is not PPO's model though there is one.
    """
    crawls = ", ".join(job.snapshots) or "a crawl"
    crawl_files = [uri for one in made for uri in one.sources]
    measured = "\n".join(
        f"| {name} | {_shown(value)} |" for name, value in source.metrics.items() if not isinstance(value, dict)
    )
    lineage = "\n".join(
        f"| {one.stage} | {one.partition} | `{one.fingerprint}` | {one.finished:%Y-%m-%d %H:%M} UTC | {one.code} |"
        for one in made
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {job.setting("name")}

A language model made by Gristmill from {crawls}. The weights are those of the stage
`{source.stage}`, fingerprint `{source.fingerprint}`.{kept_back and f" PPO's model is kept back: {kept_back}."}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
chat = [{{"role": "user", "content": "What is a hash table?"}}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))
```

## Measured in `{source.stage}`

| figure | value |
|---|---|
{measured}

{_judged(made)}## Lineage

Export `{job.task.fingerprint}`, recipe {job.run_uri}.

| stage | partition | fingerprint | finished | code |
|---|---|---|---|---|
{lineage}

Made from {len(crawl_files)} crawl files, which `sources.txt` lists.
"""


def _judged(made: list[Manifest]) -> str:
    """PPO's win rates over the SFT model by both reward models, for the card; empty without PPO."""
    found = next((one.metrics for one in made if one.stage == "evaluate"), {})
    rows = [
        f"| {whose} | {_shown(found[name])} | {_shown(found[f'{name}_low'])} to {_shown(found[f'{name}_high'])} |"
        for name, whose in (
            ("win_rate", "the reward model that PPO optimised"),
            ("judge_win_rate", "the judge, a second reward model that PPO never saw"),
        )
        if found.get(name) is not None
    ]
    if not rows:
        return ""
    head = "## PPO's win rate over the SFT model\n\n| by | win rate | 95 % interval |\n|---|---|---|\n"
    return f"{head}{chr(10).join(rows)}\n\n"


def chosen(job: Job) -> tuple[Manifest, str]:
    """(The model to export, why it is not the aligned one though there is one). Without one it is the SFT model."""
    settings: Export = job.settings
    aligned: str = job.setting("align")
    if without_ppo(job.store, job.manifest("gate"), *job.task.read(aligned)):
        return job.manifest("sft"), ""
    measured = results.Evaluate.of(job.manifest("evaluate"))
    said = "; ".join(beyond(measured, settings.at_least, settings.at_most))
    return job.manifest("sft" if said else aligned), said


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(job: Job) -> None:
    settings: Export = job.settings
    source, kept_back = chosen(job)
    chat = open_chat(job)
    module: Any = model.load_model(job, source)
    module.to(DTYPES[settings.dtype])
    module.config.use_cache = True
    module.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        bos_token_id=chat.end_of_text,
        eos_token_id=chat.end_of_text,
        pad_token_id=chat.pad,
    )
    folder = job.scratch.fresh("export")
    module.save_pretrained(folder)
    write_tokenizer(chat, folder, getattr(module.config, "max_position_embeddings", None))
    made = [one for one in (find(job.store, task) for task in ancestors(job.task)) if one is not None]
    (folder / "README.md").write_text(model_card(job, source, made, kept_back))
    (folder / "sources.txt").write_text("".join(f"{printable(uri)}\n" for one in made for uri in one.sources))
    count = model.parameters(module)
    result = results.Export(stage=source.stage, kept_back=kept_back, parameters=count, dtype=settings.dtype)
    job.commit(folder, result, {path.name: Kind.EXPORT for path in folder.iterdir()})

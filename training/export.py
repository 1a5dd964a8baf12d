"""Export the final model for `transformers`: weights, configuration, tokenizer with chat template, and model card."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerFast

from contract import results
from contract.approval import without_ppo
from contract.chat import jinja_template
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
        chat_template=jinja_template(chat.special),
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


def model_card(job: Job, source: Manifest, made: list[Manifest]) -> str:
    """The model card. `made` holds the manifests of the task's ancestors; `source` is the one of the weights."""
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
`{source.stage}`, fingerprint `{source.fingerprint}`.

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

## Lineage

Export `{job.task.fingerprint}`, recipe {job.run_uri}.

| stage | partition | fingerprint | finished | code |
|---|---|---|---|---|
{lineage}

Made from {len(crawl_files)} crawl files, which `sources.txt` lists.
"""


def _shown(value: float | int | str | bool | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(job: Job) -> None:
    settings: Export = job.settings
    aligned: str = job.setting("align")
    tuned_is_last = without_ppo(job.store, job.manifest("gate"), *job.task.read(aligned))
    source = job.manifest("sft" if tuned_is_last else aligned)
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
    (folder / "README.md").write_text(model_card(job, source, made))
    (folder / "sources.txt").write_text("".join(f"{printable(uri)}\n" for one in made for uri in one.sources))
    result = results.Export(stage=source.stage, parameters=model.parameters(module), dtype=settings.dtype)
    job.commit(folder, result, {path.name: Kind.EXPORT for path in folder.iterdir()})

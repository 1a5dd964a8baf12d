"""Export the final model for `transformers`: weights, configuration, tokenizer with chat template, and model card."""

from collections.abc import Sequence
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
from evals.ability_report import Report, parsed
from training.chat.template import Chat, open_chat
from training.engine.engine import DTYPES
from training.engine.job import Job
from training.models import llama as model
from training.models.card import Card, text_of


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


def chosen(job: Job) -> tuple[Manifest, str]:
    """(The model to export, why it is not the aligned one though there is one). Without one it is the SFT model."""
    settings: Export = job.settings
    aligned: str = job.setting("align")
    if without_ppo(job.store, job.manifest("gate"), *job.task.read(aligned)):
        return job.manifest("sft"), ""
    measured = results.Evaluate.of(job.manifest("evaluate"))
    lost = results.Abilities.of(job.manifest("abilities")).closed
    said = "; ".join([*beyond(measured, settings.at_least, settings.at_most), *([lost] if lost else [])])
    return job.manifest("sft" if said else aligned), said


def abilities(job: Job, made: Sequence[Manifest]) -> Report | None:
    """What the models of the run can do; None if no benchmark was asked. made: the manifests of all ancestors."""
    reports = [file for one in made if one.stage == "abilities" for file in one.of(Kind.REPORT)]
    file = next((one for one in reports if one.path.endswith(".json")), None)
    return None if file is None else parsed(job.scratch.download(file).read_bytes(), job.store.full(file.path))


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
    longest = getattr(module.config, "max_position_embeddings", None)
    write_tokenizer(chat, folder, longest)
    made = [one for one in (find(job.store, task) for task in ancestors(job.task)) if one is not None]
    told = Card(
        job.setting("name"), job.run_uri, job.task.fingerprint, job.snapshots, source, made, abilities(job, made),
        kept_back, longest,
    )  # fmt: skip
    (folder / "README.md").write_text(text_of(told))
    (folder / "sources.txt").write_text("".join(f"{printable(uri)}\n" for one in made for uri in one.sources))
    count = model.parameters(module)
    result = results.Export(stage=source.stage, kept_back=kept_back, parameters=count, dtype=settings.dtype)
    job.commit(folder, result, {path.name: Kind.EXPORT for path in folder.iterdir()})

"""The model card that goes with an export: README.md in Hugging Face's format, written from manifests alone."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contract import results
from contract.benchmarks import ABILITIES, LEAST_EXTRACTED
from contract.manifest import Manifest
from contract.masking import masked
from contract.printable import printable
from contract.stages import STAGES
from evals.ability_report import ALIGNED, TUNED, Report, ability_table, cell, changes_table, contamination_table

REASONS = 3  # most frequent ones of a stage
VALUE_CHARS = 200  # of a setting
USE = """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
chat = [{"role": "user", "content": "What is a hash table?"}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))
```
"""


@dataclass(frozen=True)
class Card:
    """What the card tells. source: the manifest of the weights; made: those of all that the export was made from.

    report: what the models can do; None where no benchmark was asked. kept_back: why it is not the aligned model though
    there is one. longest: the tokens that it sees at once, None where that has no bound.
    """

    name: str
    run: str
    fingerprint: str
    crawls: Sequence[str]
    source: Manifest
    made: Sequence[Manifest]
    report: Report | None
    kept_back: str
    longest: int | None

    @property
    def model(self) -> str:
        """What the exported model is called among those that were asked."""
        return TUNED if self.source.stage == "sft" else ALIGNED


def text_of(card: Card) -> str:
    """The whole card."""
    crawls = ", ".join(card.crawls) or "a crawl"
    kept_back = f" PPO's model is kept back: {card.kept_back}." if card.kept_back else ""
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation", *index(card), "---"]
    opening = f"""
# {card.name}

A language model made by Gristmill from {crawls}. The weights are those of the stage
`{card.source.stage}`, fingerprint `{card.source.fingerprint}`.{kept_back}
{USE}"""
    sections = {
        "Data and filters": data(card.made),
        "Evaluation": evaluation(card),
        f"Measured in `{card.source.stage}`": _figures(card.source),
        "PPO's win rate over the SFT model": _judged(card.made),
        "Limits": limits(card),
        "Lineage": _lineage(card),
    }
    told = ["\n".join([f"## {title}", "", *map(printable, lines), ""]) for title, lines in sections.items() if lines]
    return "\n".join([*head, opening, *told])


def index(card: Card) -> list[str]:
    """The scores of the exported model as `model-index`, which the Hub shows beside the card; YAML as JSON lines."""
    scores = [
        (row.benchmark, one)
        for row in (card.report.rows if card.report else ())
        if row.benchmark is not None and (one := row.scores.get(card.model))
    ]
    if not scores:
        return []
    found: list[dict[str, Any]] = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": name, "type": name},
            "metrics": [{"type": "score", "value": round(one.mean, 4), "name": f"{one.low:.4f} to {one.high:.4f}"}],
        }
        for name, one in scores
    ]
    return [
        "model-index:",
        f"- name: {json.dumps(card.name)}",
        "  results:",
        *(f"  - {json.dumps(one)}" for one in found),
    ]


def data(made: Sequence[Manifest]) -> list[str]:
    """What was read and kept stage by stage, the sources of pretraining, and settings that are not the defaults."""
    lines = ["| stage | read | kept | most were dropped as |", "|---|--:|--:|---|"]
    for stage in (one for one in STAGES.values() if one.drops):
        parts = [one.rows for one in made if one.stage == stage.name]
        read, kept = sum(one.read for one in parts), sum(one.kept for one in parts)
        reasons: Counter[str] = sum((Counter(one.reasons) for one in parts), Counter())
        said = ", ".join(f"{cell(reason)} {count:,}" for reason, count in reasons.most_common(REASONS))
        if read:
            lines.append(f"| {stage.name} ({stage.counts}) | {read:,} | {kept:,} | {said} |")
    for one in (one for one in made if one.stage == "pretrain"):
        lines += ["", *_read(results.Pretrain.of(one))]
    settings = [*dict.fromkeys(_settings(made))]
    return [*lines, *(["", "Settings that are not Gristmill's defaults:", "", *settings] if settings else [])]


def _read(pretrained: results.Pretrain) -> list[str]:
    lines = [f"Pretrained on {pretrained.tokens:,} tokens."]
    if pretrained.sources:
        lines += ["", "| source | tokens | epochs |", "|---|--:|--:|"]
        lines += [
            f"| {cell(name)} | {one.get('tokens', 0):,} | {one.get('epochs', 0):.3g} |"
            for name, one in pretrained.sources.items()
        ]
    return lines


def _settings(made: Sequence[Manifest]) -> Iterator[str]:
    """The settings of the stages that drop documents or examples, without secrets."""
    for one in made:
        if STAGES[one.stage].drops:
            for key, value in one.identity.settings.items():
                said = masked(json.dumps(value, ensure_ascii=False))
                yield f"- `{key}`: {cell(said if len(said) <= VALUE_CHARS else f'{said[:VALUE_CHARS]} [...]')}"


def evaluation(card: Card) -> list[str]:
    """Abilities with their intervals, what was lost, and contamination."""
    if card.report is None:
        return ["No benchmark was asked."]
    said = [one for one in (card.report.alignment_tax, *card.report.judged) if one]
    lines = [f"This model is `{card.model}`.", "", *ability_table(card.report), ""]
    if card.report.changes:
        lines += [*changes_table(card.report), ""]
    lines += [line for one in said for line in (cell(one), "")]
    return [*lines, "Items that stand in the training corpus:", "", *contamination_table(card.report)]


def _figures(source: Manifest) -> list[str]:
    rows = [f"| {name} | {_shown(value)} |" for name, value in source.metrics.items() if not isinstance(value, dict)]
    return ["| figure | value |", "|---|---|", *rows]


def _judged(made: Sequence[Manifest]) -> list[str]:
    """PPO's win rates over the SFT model by both reward models; empty without PPO."""
    found: Mapping[str, Any] = next((one.metrics for one in made if one.stage == "evaluate"), {})
    rows = [
        f"| {whose} | {_shown(found[name])} | {_shown(found[f'{name}_low'])} to {_shown(found[f'{name}_high'])} |"
        for name, whose in (
            ("win_rate", "the reward model that PPO optimised"),
            ("judge_win_rate", "the judge, a second reward model that PPO never saw"),
        )
        if found.get(name) is not None
    ]
    return ["| by | win rate | 95 % interval |", "|---|---|---|", *rows] if rows else []


def limits(card: Card) -> list[str]:
    """What a reader should not expect of the model, as far as its own figures say."""
    lines = ["- What it writes may be wrong, and nothing checks it."]
    if card.longest is not None:
        lines.append(f"- It sees at most {card.longest:,} tokens at once.")
    if card.report is None:
        return [*lines, "- None of its abilities was measured on a published benchmark."]
    known = {row.ability for row in card.report.rows if row.scores.get(card.model)}
    if unknown := [one for one in ABILITIES if one not in known]:
        lines.append(f"- Not measured: {', '.join(unknown)}.")
    worse = [one for one in card.report.changes if one.model == card.model and one.verdict == "worse"]
    lines += [f"- Worse than `{cell(one.against)}` beyond noise: {one.ability}." for one in worse]
    lines += [
        f"- {cell(name)}: an answer was found in only {100 * rates[card.model]:.1f} % of its outputs."
        for name, rates in card.report.extraction.items()
        if rates.get(card.model, 1.0) < LEAST_EXTRACTED
    ]
    lines += [
        f"- {cell(one.benchmark)}: {one.stays:,} items still stand in the training corpus."
        for one in card.report.contamination
        if one.stays
    ]
    unsearched = [cell(one.benchmark) for one in card.report.contamination if not one.items]
    said = f"- It may have read the items of {', '.join(unsearched)}: the corpus was not searched for them."
    return [*lines, said] if unsearched else lines


def _lineage(card: Card) -> list[str]:
    files = sum(len(one.sources) for one in card.made)
    rows = [
        f"| {one.stage} | {one.partition} | `{one.fingerprint}` | {one.finished:%Y-%m-%d %H:%M} UTC | {one.code} |"
        for one in card.made
    ]
    return [
        f"Export `{card.fingerprint}`, recipe {card.run}.", "",
        "| stage | partition | fingerprint | finished | code |", "|---|---|---|---|---|", *rows, "",
        f"Made from {files:,} crawl files, which `sources.txt` lists.",
    ]  # fmt: skip


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

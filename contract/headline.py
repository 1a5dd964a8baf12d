"""Sums up a finished task in one sentence, from its manifest alone, for logs, for XCom and for the demo's screen."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise

from contract.benchmarks import LEAST_EXTRACTED, too_few_extracted
from contract.errors import DamagedError
from contract.manifest import Manifest
from contract.printable import printable
from contract.recipe import Recipe
from contract.stages import ALIGNING

REASONS = 3  # of dropped documents, the most frequent first
MODELS = ("pretrain", "sft", "ppo")  # each is trained from the one before

EMPTY = {
    "filter": ("the stages after it get none", "docs/filters.md names the setting of each reason"),
    "curate": ("the crawl alone is left", "the rules of a source stand in curate.sources"),
}
"""What follows where a stage drops everything, and where to look."""

WIN_RATES = {"win_rate": "the reward model", "judge_win_rate": "the judge"}
"""PPO's win rate over the SFT model, by the reward model that it optimised, and by the one that it never saw."""
LAST_WIN_RATES = {"last_win_rate": "the reward model", "judge_last_win_rate": "the judge"}
"""The newest model's win rate over the model of the last round of feedback, by the same two."""

NOTHING_HELD_OUT = "nothing was held out to measure on"


def headline(manifest: Manifest) -> str:
    """The figures that a person asks for first: `393 of 456 documents kept; language 60, language_unsure 3`."""
    if manifest.partition.startswith("step-"):
        return f"checkpoint of step {_n(manifest, 'step')}"
    return printable(SENTENCES.get(manifest.stage, documents)(manifest))


def warnings(manifest: Manifest) -> list[str]:
    """Warnings of a task that succeeded: nothing is left, or a model is worse than the one that it was trained from.

    Raises DamagedError if a text stands where the manifest should have a figure.
    """
    rows = manifest.rows
    empty = rows.read and not rows.kept
    what, why = EMPTY.get(manifest.stage, ("the stages after it get none", "see its settings"))
    said = [f"{manifest.stage} dropped all {rows.read:,}, so {what}; {why}"] if empty else []
    if skipped := manifest.metrics.get("skipped_updates"):
        if not isinstance(skipped, int | float):
            raise DamagedError(
                f"{manifest.path}: the manifest is damaged: skipped_updates is {str(skipped)[:40]!r} and no number; "
                f"delete it and run {manifest.stage} again"
            )
        steps = manifest.metrics.get("skipped_steps")
        said.append(
            f"{manifest.stage} skipped {skipped:,} update(s), in step(s) {steps}; "
            "the curve skipped_row in its metrics.jsonl has the rows of their batches"
        )
    found = manifest.metrics.get("extraction_rate")
    if isinstance(found, int | float) and found < LEAST_EXTRACTED:
        said.append(too_few_extracted(manifest.partition, found))
    return said + [
        f"{_named(manifest, late)} is worse than {early} beyond noise: {_fall(manifest, early, late)}"
        for early, late in pairwise(MODELS)
        if manifest.metrics.get(f"worse_{late}")
    ]


def left_out(gate: Manifest) -> str:
    """Why PPO did not run."""
    return f"PPO is left out, because the gate is {headline(gate)}"


def omitted(recipe: Recipe, stage: str, gate_open: bool | None) -> str:
    """Why a run leaves a stage out; empty if it does not. gate_open: None as long as the gate has not been judged."""
    if stage == "probe" and not recipe.probe.reference:
        return "this run is no variant of an ablation"
    if stage == "ablate" and not recipe.ablate.measured:
        return "this run compares no variants"
    if stage == "benchmark" and not recipe.benchmark.tasks:
        return "the recipe names no benchmarks"
    if stage in ALIGNING and stage != recipe.align:
        return f"the recipe aligns by {recipe.align}"
    return "the gate is closed" if stage in ALIGNING and gate_open is False else ""


def number(value: object) -> str:
    """Three significant digits, or a whole number from 1000 on; a dash if the figure is missing."""
    if not isinstance(value, int | float):
        return "-"
    short = f"{value:.3g}"
    return f"{Decimal(short):f}" if abs(float(short)) < 1000 else f"{value:,.0f}"  # without an exponent


def documents(manifest: Manifest) -> str:
    """How many documents were kept, and why the others were dropped."""
    rows = manifest.rows
    said = f"{rows.kept:,} of {rows.read:,} documents kept"
    return "; ".join(filter(None, (said, _reasons(manifest))))


def _reasons(manifest: Manifest) -> str:
    """The most frequent reasons of drops; empty if nothing was dropped."""
    dropped = Counter(manifest.rows.reasons)
    shown = [f"{reason} {count:,}" for reason, count in dropped.most_common(REASONS)]
    if rest := dropped.total() - sum(count for _, count in dropped.most_common(REASONS)):
        shown.append(f"other reasons {rest:,}")
    return ", ".join(shown)


def _crawl(manifest: Manifest) -> str:
    return f"{documents(manifest)}; crawl files {_n(manifest, 'files')}"


def _minhash_sign(manifest: Manifest) -> str:
    return f"{_n(manifest, 'documents')} documents signed"


def _curate(manifest: Manifest) -> str:
    return documents(manifest) if manifest.metrics.get("sources") else "no sources beside the crawl"


def _dedup_substring(manifest: Manifest) -> str:
    cuts = f"tokens cut {_n(manifest, 'tokens_cut')}, documents cut {_n(manifest, 'documents_cut')}"
    return f"{documents(manifest)}; {cuts}"


def _mix(manifest: Manifest) -> str:
    parts = f"{_n(manifest, 'training_documents')} for training, {_n(manifest, 'heldout_documents')} held out"
    return f"{documents(manifest)}; {parts}"


def _instructions(manifest: Manifest) -> str:
    return _examples(manifest, "chats")


def _preferences(manifest: Manifest) -> str:
    return _examples(manifest, "pairs")


def _prompts(manifest: Manifest) -> str:
    return "; ".join(filter(None, (f"{_n(manifest, 'training')} prompts of their own", _reasons(manifest))))


def _examples(manifest: Manifest, what: str) -> str:
    said = f"{_n(manifest, 'training')} {what} for training, {_n(manifest, 'heldout')} held out"
    return "; ".join(filter(None, (said, _reasons(manifest))))


def _tokenizer(manifest: Manifest) -> str:
    said = f"{_n(manifest, 'vocab_size')} tokens, {_n(manifest, 'heldout_bytes_per_token')} bytes each on held-out text"
    if manifest.metrics.get("reference_bytes_per_token") is None:
        return said
    return f"{said}, {_n(manifest, 'reference_bytes_per_token')} with the reference"


def _pack(manifest: Manifest) -> str:
    train = f"{_n(manifest, 'tokens')} tokens in {_n(manifest, 'sequences')} sequences"
    return f"{train}; {_n(manifest, 'heldout_tokens')} tokens held out"


def _perplexity(manifest: Manifest) -> str:
    before, after = (_n(manifest, f"heldout_perplexity_{when}") for when in ("before", "after"))
    if manifest.metrics.get("heldout_perplexity_after") is None:
        return NOTHING_HELD_OUT
    return f"held-out perplexity {before} -> {after}"


def _sft(manifest: Manifest) -> str:
    if manifest.metrics.get("text_perplexity_after") is None:
        return _perplexity(manifest)
    before, after = (_n(manifest, f"text_perplexity_{when}") for when in ("before", "after"))
    return f"{_perplexity(manifest)} on replies, {before} -> {after} on pretraining text"


def _reward(manifest: Manifest) -> str:
    said = f"held-out accuracy {_n(manifest, 'accuracy')}, {_interval(manifest, 'accuracy_low', 'accuracy_high')}"
    if manifest.metrics.get("shorter_accuracy") is None:
        return said
    return f"{said}; {_n(manifest, 'shorter_accuracy')} where the better reply is shorter"


def _judge(manifest: Manifest) -> str:
    if not manifest.metrics.get("pairs"):
        return "no second reward model: judge.share is 0"
    return _reward(manifest)


def _gate(manifest: Manifest) -> str:
    state, end = ("open", "reaches") if manifest.metrics.get("open") else ("closed", "is under")
    accuracy = f"held-out accuracy {_n(manifest, 'accuracy')}, {_interval(manifest, 'low', 'high')}"
    if state == "closed" and not _under(manifest, "low", "threshold"):
        state = f"{state}, because of the pairs whose better reply is shorter"
        end = "reaches"
    said = f"{state}: {accuracy}, whose lower end {end} {_n(manifest, 'threshold')}"
    if manifest.metrics.get("shorter_threshold") is None:
        return said
    end = "is under" if _under(manifest, "shorter_low", "shorter_threshold") else "reaches"
    shorter = f"{_n(manifest, 'shorter_accuracy')} where the better reply is shorter"
    return (
        f"{said}; {shorter}, {_n(manifest, 'shorter_low')} at the lower end {end} {_n(manifest, 'shorter_threshold')}"
    )


def _under(manifest: Manifest, low: str, threshold: str) -> bool:
    """Whether a figure is under its threshold. What is missing is under any threshold above 0."""
    least = manifest.metrics.get(threshold)
    found = manifest.metrics.get(low)
    return isinstance(least, int | float) and (found if isinstance(found, int | float) else 0.0) < least


def _ppo(manifest: Manifest) -> str:
    first, last, kl, kl_last = (_n(manifest, name) for name in ("reward_first", "reward_last", "kl_first", "kl_last"))
    return f"reward {first} -> {last}, KL {kl} -> {kl_last}"


def _dpo(manifest: Manifest) -> str:
    said = f"held-out accuracy {_n(manifest, 'accuracy')}, {_interval(manifest, 'accuracy_low', 'accuracy_high')}"
    return f"{said}; rewards {_n(manifest, 'reward_chosen')} and {_n(manifest, 'reward_rejected')}"


def _evaluate(manifest: Manifest) -> str:
    measured = [
        f"{_n(manifest, f'perplexity_{one}')} ({_named(manifest, one)})"
        for one in MODELS
        if f"perplexity_{one}" in manifest.metrics
    ]
    said = [f"held-out perplexity {' -> '.join(measured)}"] if measured else []
    for name, judge in WIN_RATES.items():
        if manifest.metrics.get(name) is not None:
            said.append(_win_rate(manifest, name, judge))
    for name, judge in LAST_WIN_RATES.items():
        if manifest.metrics.get(name) is not None:
            interval = _interval(manifest, f"{name}_low", f"{name}_high")
            said.append(f"win rate against the last round by {judge} {_n(manifest, name)}, {interval}")
    return "; ".join(said) or NOTHING_HELD_OUT


def _benchmark(manifest: Manifest) -> str:
    if manifest.metrics.get("left_out"):
        return f"nothing asked: {manifest.metrics['left_out']}"
    said = f"score {_n(manifest, 'score')} on {_n(manifest, 'n')} items, {_interval(manifest, 'low', 'high')}"
    several = manifest.metrics.get("several")
    more = several.items() if isinstance(several, dict) else ()
    return "; ".join([said, *(f"{name} {number(one.get('score'))}" for name, one in more)])


def _abilities(manifest: Manifest) -> str:
    if not manifest.metrics.get("benchmarks"):
        return "the recipe names no benchmarks"
    said = f"{_n(manifest, 'models')} models, {_n(manifest, 'benchmarks')} benchmarks"
    worse = manifest.metrics.get("worse")
    lost = [f"{model} lost {', '.join(one)}" for model, one in worse.items()] if isinstance(worse, dict) else []
    closed = manifest.metrics.get("closed")
    kept_back = [f"kept back: {closed}"] if closed else []
    untold = manifest.metrics.get("untold")
    return "; ".join([said, *lost, *kept_back, *([f"too few sources for max_drop: {untold}"] if untold else [])])


def _export(manifest: Manifest) -> str:
    metrics = manifest.metrics
    said = f"the {metrics.get('stage')} model, {_n(manifest, 'parameters')} parameters in {metrics.get('dtype')}"
    return f"{said}; PPO's is kept back: {metrics['kept_back']}" if metrics.get("kept_back") else said


def _sample(manifest: Manifest) -> str:
    said = f"round {_n(manifest, 'round')}: {_n(manifest, 'items')} items with {_n(manifest, 'replies')} replies"
    said += f", of {_n(manifest, 'prompts')} prompts"
    if not manifest.metrics.get("judge"):
        return said
    return f"{said}; the judge ranked nothing in {_n(manifest, 'unread')} of {_n(manifest, 'asked')} answers"


def _probe(manifest: Manifest) -> str:
    if manifest.metrics.get("bits_per_byte") is None:
        return "the model diverged: its bits per byte are no number"
    return f"{_n(manifest, 'bits_per_byte')} bits per byte of {_n(manifest, 'documents')} held-out documents"


def _ablate(manifest: Manifest) -> str:
    return str(manifest.metrics.get("verdict"))


def _fall(manifest: Manifest, early: str, late: str) -> str:
    """How much worse a model is: for PPO by its win rate if that is below one half, otherwise by perplexity."""
    for name, judge in WIN_RATES.items() if late == "ppo" else ():
        high = manifest.metrics.get(f"{name}_high")
        if isinstance(high, int | float) and high < 0.5:
            return _win_rate(manifest, name, judge)
    return f"held-out perplexity {_n(manifest, f'perplexity_{early}')} -> {_n(manifest, f'perplexity_{late}')}"


def _named(manifest: Manifest, model: str) -> str:
    """The stage that made a model of `evaluate`, whose figures call the aligned one `ppo` whichever made it."""
    return str(manifest.metrics.get("aligned_by", model)) if model == "ppo" else model


def _win_rate(manifest: Manifest, name: str, judge: str) -> str:
    interval = _interval(manifest, f"{name}_low", f"{name}_high")
    return f"{_named(manifest, 'ppo').upper()}'s win rate by {judge} {_n(manifest, name)}, {interval}"


def _interval(manifest: Manifest, low: str, high: str) -> str:
    return f"confidence interval {_n(manifest, low)} to {_n(manifest, high)}"


def _n(manifest: Manifest, name: str) -> str:
    return number(manifest.metrics.get(name))


SENTENCES: dict[str, Callable[[Manifest], str]] = {
    "crawl": _crawl,
    "minhash_sign": _minhash_sign,
    "curate": _curate,
    "dedup_substring": _dedup_substring,
    "mix": _mix,
    "instructions": _instructions,
    "preferences": _preferences,
    "prompts": _prompts,
    "tokenizer": _tokenizer,
    "pack": _pack,
    "pretrain": _perplexity,
    "sft": _sft,
    "reward": _reward,
    "judge": _judge,
    "gate": _gate,
    "ppo": _ppo,
    "dpo": _dpo,
    "grpo": _ppo,
    "evaluate": _evaluate,
    "benchmark": _benchmark,
    "abilities": _abilities,
    "export": _export,
    "sample": _sample,
    "probe": _probe,
    "ablate": _ablate,
}
"""The stages that show other or more figures than documents kept and dropped."""

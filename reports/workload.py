"""How much a task has to do, as one number by which the times of two tasks of the same stage can be compared.

It follows from the recipe and, for stages over documents, from how many enter. The unit is the stage's own: bytes,
documents, or products such as parameters x tokens.
"""

from collections.abc import Callable, Mapping

from contract.mixture import known_steps
from contract.plan import Task
from contract.recipe import Recipe
from contract.settings.examples import MAX_SYNTHETIC, Examples
from contract.settings.training import Engine, Rollouts
from contract.sizes import parameters
from contract.stages import STAGES
from reports.done import Done

FILE_BYTES = 1.08e9
"""Of a WARC file whose size the crawl's list does not say: Common Crawl's mean."""
ENTERED = {
    "minhash_sign": ("documents",),
    "tokenizer": ("sample_documents",),
    "pack": ("documents", "heldout_documents"),
}
"""The figures in the manifests of stages that count no rows, of which the sum is the documents that entered."""


def crawl_bytes(recipe: Recipe, task: Task) -> float:
    """The packed bytes of a segment's files that are read."""
    most = recipe.crawl.max_bytes_per_file or float("inf")
    files = task.segment.files if task.segment else ()
    return sum(min(file.size or FILE_BYTES, most) for file in files)


def entered(found: Done) -> float:
    """How many documents a finished task read."""
    figures = (found.figures.get(name) for name in ENTERED.get(found.stage, ()))
    return sum(one for one in figures if isinstance(one, int | float)) or float(found.rows.read)


def work(recipe: Recipe, task: Task, documents: float | None) -> float | None:
    """What a task has to do; None if nothing known beforehand says so. `documents`: those that enter, if known."""
    if task.stage == "crawl":
        return crawl_bytes(recipe, task)
    if task.stage == "curate":
        return None if recipe.curate.sources else 1.0
    if task.stage == "prompts":
        return None if recipe.prompts.data else 1.0
    if task.stage in ("instructions", "preferences"):
        return _examples(recipe.section(task.stage))
    if task.stage in _OF_RECIPE:
        return _OF_RECIPE[task.stage](recipe)
    return documents


def place(recipe: Recipe, stage: str) -> tuple[object, ...]:
    """What must be equal of two tasks of a stage besides their work, or their times say nothing of each other."""
    if STAGES[stage].plane == "spark":
        return (recipe.spark.master,)
    engine: Engine | None = getattr(recipe.section(stage), "engine", None)
    return (engine.dtype, engine.processes, engine.compile) if engine else ()


def _examples(settings: object) -> float | None:
    """Examples that a stage reads; None if only the file can say."""
    assert isinstance(settings, Examples)
    if settings.max_examples is None and not settings.synthetic:
        return None
    return float(settings.max_examples or MAX_SYNTHETIC)


def _parameters(recipe: Recipe) -> float | None:
    """Of the model; None if it is brought, so that the recipe does not say its shape."""
    if recipe.pretrain.start_from is not None:
        return None
    return float(parameters(recipe.pretrain.model, recipe.tokenizer.vocab_size))


def _pretrain(recipe: Recipe) -> float | None:
    steps = known_steps(recipe.pretrain, recipe.pack.seq_len)
    return _times(_parameters(recipe), steps, recipe.pretrain.batch * recipe.pack.seq_len)


def _replies(recipe: Recipe, settings: Rollouts) -> float | None:
    tokens = settings.max_prompt_tokens + settings.max_response_tokens
    return _times(_parameters(recipe), settings.steps * settings.rollout_batch, tokens)


def _evaluate(recipe: Recipe) -> float | None:
    settings = recipe.evaluate
    replies = settings.prompts * (recipe.ppo.max_prompt_tokens + settings.max_response_tokens)
    return _times(_parameters(recipe), settings.sequences * recipe.pack.seq_len + replies)


def _sample(recipe: Recipe) -> float | None:
    settings = recipe.sample
    replies = settings.prompts * (settings.replies + settings.questions)
    return _times(_parameters(recipe), replies, recipe.ppo.max_prompt_tokens + settings.max_response_tokens)


def _rewarding(recipe: Recipe, share: float) -> float | None:
    """Of a reward model that learns from a share of the pairs."""
    return _times(_parameters(recipe), _examples(recipe.preferences), recipe.reward.epochs, share)


def _times(*factors: float | None) -> float | None:
    product = 1.0
    for factor in factors:
        if factor is None:
            return None
        product *= factor
    return product


_OF_RECIPE: Mapping[str, Callable[[Recipe], float | None]] = {
    "pretrain": _pretrain,
    "sft": lambda recipe: _times(_parameters(recipe), _examples(recipe.instructions), recipe.sft.epochs),
    "reward": lambda recipe: _rewarding(recipe, 1 - recipe.judge.share),
    "judge": lambda recipe: _rewarding(recipe, recipe.judge.share),
    "gate": lambda _: 1.0,
    "ppo": lambda recipe: _replies(recipe, recipe.ppo),
    "dpo": lambda recipe: _times(_parameters(recipe), _examples(recipe.preferences), recipe.dpo.epochs),
    "grpo": lambda recipe: _replies(recipe, recipe.grpo),
    "evaluate": _evaluate,
    "abilities": lambda _: 1.0,
    "export": _parameters,
    "sample": _sample,
    "probe": lambda recipe: _times(_parameters(recipe), recipe.probe.documents * recipe.probe.max_chars),
    "ablate": lambda _: 1.0,
}

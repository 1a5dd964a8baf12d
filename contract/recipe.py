"""The recipe: one YAML file that holds differences from the defaults, read into one frozen tree.

`load` reads a file and applies overrides, strings such as `key.path=value` from the command line or the trigger form.
Every mistake raises a RecipeError that names the key's path and what is allowed there.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError, model_validator

from contract import deployment, mistakes, mixture, plainyaml, sizes
from contract.benchmarks import KNOWN
from contract.digest import split_digest, verify, with_digest
from contract.errors import InputError, RecipeError, StoreError
from contract.mistakes import Mistake
from contract.scores import NEEDED
from contract.settings.base import Settings
from contract.settings.corpus import CRAWL
from contract.settings.training import Dpo, Engine, Grpo, Ppo, Rollouts, TrainingSections
from contract.shipped import shipped
from contract.stages import ALIGNING, STAGES, WHOLE
from contract.store import split_uri

MAX_BYTES = 1 << 20  # of a recipe; parsing as much YAML takes seconds
NAMED = re.compile(r"([\w-]+)|recipes/([\w-]+)\.yaml")
PLAIN: TypeAdapter[Any] = TypeAdapter(Any)
TOLD = 10  # at most so many mistakes in one error message
MOST_MISTAKES = 100  # at most so many are found at once
MAX_KEYS = 20  # names in one dotted key; a recipe needs five


class Recipe(TrainingSections):
    """All settings of a run, with one section per stage: those of the run, of the corpus and of the models."""

    @model_validator(mode="before")
    @classmethod
    def _judges_as_it_rewards(cls, given: Any) -> Any:
        """What the recipe does not say of the engine of `judge` is as in `reward`: the models are of one size."""
        reward, judge = (given.get(name, {}) if isinstance(given, dict) else None for name in ("reward", "judge"))
        if not isinstance(reward, dict) or not isinstance(judge, dict):
            return given
        own, theirs = judge.get("engine", {}), reward.get("engine")
        if not isinstance(own, dict) or not isinstance(theirs, dict):
            return given
        return {**given, "judge": {**judge, "engine": theirs | own}}

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        chats = {
            "sft.max_tokens": self.sft.max_tokens,
            "reward.max_tokens": self.reward.max_tokens,
            **self._chats_of_alignment(),
        }
        longer = [f"{key} {tokens}" for key, tokens in chats.items() if tokens > self.pack.seq_len]
        if longer:
            raise ValueError(
                f"pack.seq_len {self.pack.seq_len} is shorter than a chat may be: lower {', '.join(longer)}"
            )
        for name, batch in (
            ("pretrain", self.pretrain.batch),
            ("sft", self.sft.batch),
            ("reward", self.reward.batch),
            ("judge", self.reward.batch if self.judge.share else 0),
            (self.align, self._aligning.batch if isinstance(self._aligning, Dpo) else self._aligning.minibatch),
        ):
            engine: Engine = getattr(self, name).engine
            share = engine.replicas * engine.micro_batch
            if batch % share:
                short = "minibatch" if isinstance(getattr(self, name), Rollouts) else "batch"
                key = "reward.batch" if name == "judge" else f"{name}.{short}"
                owner = "judge." if name == "judge" else ""
                shared = f" / {engine.group}" if engine.group > 1 else ""
                raise ValueError(
                    f"{key} {batch} is not a multiple of {owner}engine.processes{shared} x engine.micro_batch = "
                    f"{engine.replicas} x {engine.micro_batch}"
                )
        self.judge.check_optim(self.reward.optim)
        own = self._aligning
        if isinstance(own, Rollouts) and own.reward != "model" and self.prompts.data is None:
            raise ValueError(
                f"{self.align}.reward {own.reward} needs prompts whose answers are known; "
                "name their file in prompts.data"
            )
        if isinstance(own, Rollouts) and own.rollout_batch % own.minibatch:
            raise ValueError(
                f"{self.align}.rollout_batch {own.rollout_batch} is not a multiple of "
                f"{self.align}.minibatch {own.minibatch}"
            )
        if self.ppo.ptx_coef and self.ppo.ptx_sequences % self.ppo.engine.processes:
            raise ValueError(
                f"ppo.ptx_sequences {self.ppo.ptx_sequences} is not a multiple of "
                f"ppo.engine.processes {self.ppo.engine.processes}"
            )
        return self

    @property
    def _aligning(self) -> Ppo | Dpo | Grpo:
        """The section of the stage that aligns."""
        found: Ppo | Dpo | Grpo = getattr(self, self.align)
        return found

    def _chats_of_alignment(self) -> dict[str, int]:
        """How many tokens the chats of that stage may have, by the keys that say so; evaluation prompts as PPO does."""
        own = {f"{self.align}.max_tokens": self.dpo.max_tokens} if self.align == "dpo" else {}
        replying = {"ppo": self.ppo, "grpo": self.grpo} if self.align == "grpo" else {"ppo": self.ppo}
        return own | {
            f"{name}.max_prompt_tokens + {name}.max_response_tokens": one.max_prompt_tokens + one.max_response_tokens
            for name, one in replying.items()
        }

    @model_validator(mode="after")
    def _shares_what_can_be_shared(self) -> "Recipe":
        for name in ("reward", "judge", *ALIGNING, "evaluate", "benchmark"):
            if getattr(self, name).engine.group > 1:
                raise ValueError(
                    f"{name}.engine: tensor_parallel and pipeline_stages are for pretrain and sft; set them to 1, "
                    "and zero_stage 3 where the models are too large for one process"
                )
        shape = self.pretrain.model
        for name in ("pretrain", "sft"):
            why = getattr(self, name).engine.misfit(shape.layers, shape.heads, shape.kv_heads)
            if self.pretrain.start_from is not None:
                continue  # `pretrain.model` says nothing
            if why:
                raise ValueError(f"{name}.engine.{why}")
            if shape.experts and getattr(self, name).engine.group > 1:
                raise ValueError(
                    f"pretrain.model.experts needs the whole model in each process of {name}; "
                    f"set {name}.engine.tensor_parallel and .pipeline_stages to 1"
                )
        return self

    @model_validator(mode="after")
    def _fits_an_accelerator(self) -> "Recipe":
        if self.pretrain.start_from is None:  # else `pretrain.model` says nothing
            for stage in ("pretrain", "sft", "reward", self.align):
                own = getattr(self, stage)
                seq_len = self.pack.seq_len if stage == "pretrain" else 0
                sizes.refuse_absurd(stage, own, self.pretrain.model, self.tokenizer.vocab_size, own.engine, seq_len)
        return self

    @model_validator(mode="after")
    def _phases_have_rows_and_steps(self) -> "Recipe":
        packed = (self.pack.seq_len, *self.pack.more_seq_lens)
        for number, phase in enumerate(self.pretrain.phases):
            if phase.seq_len and phase.seq_len not in packed:
                there = ", ".join(map(str, packed))
                raise ValueError(
                    f"pretrain.phases.{number}.seq_len {phase.seq_len} is not packed, only {there}; "
                    f"add {phase.seq_len} to pack.more_seq_lens"
                )
        mixture.micro_batches(self.pretrain, self.pack.seq_len)
        steps = mixture.known_steps(self.pretrain, self.pack.seq_len)
        if self.pretrain.phases and steps is not None:
            each = mixture.split_steps([phase.share for phase in self.pretrain.phases], steps)
            if 0 in each:
                short = f"pretrain.phases.{each.index(0)}"
                raise ValueError(f"{short}.share is less than one of the {steps:,} steps; raise it or the steps")
        return self

    @model_validator(mode="after")
    def _mixes_known_sources(self) -> "Recipe":
        known = {CRAWL, *self.curate.sources}
        mixtures = {"mixture": self.pretrain.mixture}
        mixtures |= {f"phases.{at}.mixture": one.mixture for at, one in enumerate(self.pretrain.phases) if one.mixture}
        for key, one in mixtures.items():
            unknown = sorted((one.named() or {}).keys() - known)
            if unknown:
                raise ValueError(
                    f"pretrain.{key}.{one.said()[0]} names {', '.join(unknown)}, which curate.sources does not name; "
                    f"the sources are {', '.join(sorted(known))}"
                )
        return self

    @model_validator(mode="after")
    def _revises_once(self) -> "Recipe":
        if self.sample.principles and self.feedback.judge.principles:
            raise ValueError("sample.principles and feedback.judge.principles both revise the replies; set one of them")
        return self

    @model_validator(mode="after")
    def _measures_quality(self) -> "Recipe":
        name = self.minhash_sign.quality_column
        needed = NEEDED.get(name)
        if needed and getattr(self.score, needed) is None:
            raise ValueError(f"minhash_sign.quality: {name} is measured only where score.{needed} is set")
        return self

    @model_validator(mode="after")
    def _bounds_what_is_measured(self) -> "Recipe":
        """A bound on what nobody measures would never keep a model back."""
        asked, bounds = self.benchmark.models, self.abilities
        needed: dict[str, tuple[str, ...]] = {f"abilities.at_least.{one}": ("aligned",) for one in bounds.at_least}
        if bounds.max_drop is not None:
            needed["abilities.max_drop"] = ("sft", "aligned")
        for key, models in needed.items():
            if missing := [one for one in models if one not in asked]:
                raise ValueError(
                    f"{key} needs the answers of {' and '.join(models)}; add {', '.join(missing)} to benchmark.models"
                )
        known = {KNOWN[one.task].ability for one in self.benchmark.tasks.values()}
        if needed and not known:
            raise ValueError(f"{next(iter(needed))} needs benchmarks; name some in benchmark.tasks")
        for ability in bounds.at_least:
            if ability not in known:
                there = ", ".join(sorted(known))
                key = f"abilities.at_least.{ability}"
                raise ValueError(f"{key}: no benchmark measures it; benchmark.tasks are of {there}")
        return self

    def section(self, stage: str) -> Settings:
        """The settings of one stage."""
        section: Settings = getattr(self, stage)
        return section

    def identity(self, stage: str, partition: str = WHOLE) -> dict[str, Any]:
        """The settings that decide a task's output and differ from the defaults: dotted key -> JSON value.

        They are what the stage's own section says of the partition, and what the stage table declares of other
        sections.
        """
        decides: dict[str, Any] = {}
        for key in (stage, *STAGES[stage].settings):
            usual = DEFAULTS.at(key)
            value = self.section(stage).of_partition(partition) if key == stage else self.at(key)
            if isinstance(value, Settings):
                decides |= value.differences(usual, f"{key}.")
            elif value != usual:
                decides[key] = PLAIN.dump_python(value, mode="json")
        return decides

    def at(self, key: str) -> Any:
        """The value at a dotted key, for example `langid.languages`."""
        value: Any = self
        for name in key.split("."):
            value = getattr(value, name)
        return value


class StageSettings:
    """What one task may read of a recipe: what its own section says of its partition, and what the stage table declares
    of other sections."""

    def __init__(self, recipe: Recipe, stage: str, partition: str = WHOLE) -> None:
        self.own: Any = recipe.section(stage).of_partition(partition)
        self._stage = stage
        self._declared = {key: recipe.at(key) for key in STAGES[stage].settings}

    def of(self, key: str) -> Any:
        """A declared setting of another section. Raises KeyError otherwise, for it would not be in the fingerprint."""
        if key not in self._declared:
            raise KeyError(f"{self._stage} reads {key}, which its row in contract/stages.py does not declare")
        return self._declared[key]


DEFAULTS = Recipe()


def load(uri: str, overrides: Sequence[str] = (), patient: bool = False) -> Recipe:
    """Read a recipe from a local path, `file://` or `s3://` URI and apply overrides such as `filter.min_words=40`.

    Tasks set `patient`: they retry a store for a minute. Without it, an unreachable store is an error within seconds,
    for the person who starts a run. Raises RecipeError for an invalid recipe, and if the URI of a resolved run ends in
    a digest that does not match the run's files.
    """
    place, digest = _place(uri)
    data = _read(place, digest, patient)
    if digest:
        verify(place, digest, data, _inputs(place, digest))
    return _parse_file(data, place, overrides)


def load_run(uri: str) -> tuple[Recipe, bytes, str]:
    """Return (the recipe of a resolved run, its inputs.json, its URI with the digest of both files).

    Raises InputError if the URI is not a resolved run's.
    """
    place, digest = _place(uri)
    data, inputs = _read(place, digest, patient=True), _inputs(place, digest)
    if digest:
        verify(place, digest, data, inputs)
    return _parse_file(data, place), inputs, with_digest(place, data, inputs)


def _place(uri: str) -> tuple[str, str | None]:
    """(place of the recipe, digest if the URI ends in one). A name without a folder is that of a recipe in `recipes/`.

    A recipe in the working folder goes before the one of the same name that ships with Gristmill.
    """
    place, digest = split_digest(uri)
    named = NAMED.fullmatch(place)
    if not named or Path(place).exists():
        return place, digest
    found = [folder / f"{named[1] or named[2]}.yaml" for folder in (Path("recipes"), shipped("recipes"))]
    return next((str(file) for file in found if file.exists()), place), digest


def _read(place: str, digest: str | None, patient: bool) -> bytes:
    if fixed := deployment.current():
        fixed.check_recipe(place, digest)
    store, name = split_uri(place)
    try:
        if not patient:
            store.reach()
        if (size := store.size(name)) > MAX_BYTES:
            raise RecipeError(f"recipe {place}: has {size:,} bytes; a recipe has at most {MAX_BYTES:,}")
        return store.read_bytes(name)
    except FileNotFoundError:
        raise RecipeError(f"recipe {place}: no such file{_near_recipes(place)}") from None
    except StoreError as error:  # a local path may be a folder, which no retry helps; a failure of S3 may pass
        kind = StoreError if store.is_s3 else RecipeError
        raise kind(f"recipe {place}: cannot be read: {error}") from error


def _inputs(place: str, digest: str | None) -> bytes:
    """The content of the inputs.json beside a resolved recipe."""
    store = split_uri(place)[0]
    try:
        return store.read_bytes("inputs.json")
    except FileNotFoundError:
        if digest:
            raise RecipeError(
                f"{store.full('inputs.json')}: is gone since the run was resolved; resolve its recipe as a new run"
            ) from None
        raise InputError(
            f"{place} is not a resolved run; make one with: python -m contract resolve --recipe {place}"
        ) from None


def _parse_file(data: bytes, place: str, overrides: Sequence[str] = ()) -> Recipe:
    try:
        recipe = _validated(data.decode(), place, overrides)
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {place}: is not UTF-8 text ({error})") from error
    except RecipeError as error:
        store, _ = split_uri(place)
        if overrides or not store.exists("inputs.json"):  # inputs.json lies beside a resolved recipe
            raise
        raise RecipeError(
            f"{error}; another version of Gristmill resolved this run; resolve its recipe again"
        ) from None
    return _imposed(recipe, place)


def parse(text: str, origin: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from YAML text; error messages call it `origin`. The deployment, if there is one, sets what it fixes."""
    return _imposed(_validated(text, origin, overrides), origin)


def change(recipe: Recipe, origin: str, overrides: Sequence[str]) -> Recipe:
    """The recipe with overrides; error messages call it `origin`. Raises RecipeError."""
    return parse(dump(recipe), origin, overrides)


def _imposed(recipe: Recipe, origin: str) -> Recipe:
    fixed = deployment.current()
    return fixed.impose(recipe, origin) if fixed else recipe


def find_mistakes(uri: str, overrides: Sequence[str] = ()) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe that `load` would return, or None and every mistake, each with the override that made it.

    Raises RecipeError if the recipe's file cannot be read. Settings that name files are not looked up.
    """
    place, digest = _place(uri)
    data = _read(place, digest, patient=False)
    if digest:
        verify(place, digest, data, _inputs(place, digest))
    try:
        values = _values(data.decode(), place)
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {place}: is not UTF-8 text ({error})") from error
    keys = [item.partition("=")[0].strip() for item in overrides]
    found: list[Mistake] = []
    for line, item in enumerate(overrides):
        try:
            _apply(values, item)
        except RecipeError as error:
            found.append(Mistake(keys[line], str(error), line))
    try:
        recipe = Recipe.model_validate(values)
        return (None, found) if found else (_imposed(recipe, place), [])
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)[:MOST_MISTAKES]
        found += [mistakes.at_line(mistakes.explain(detail, Recipe), keys) for detail in details]
    except RecipeError as error:  # the deployment's
        found.append(mistakes.at_line(Mistake("", str(error)), keys))
    return None, found


def _values(text: str, origin: str) -> dict[str, Any]:
    """The keys and values of a recipe's text. Raises RecipeError."""
    if len(text) > MAX_BYTES:
        raise RecipeError(f"recipe {origin}: has {len(text):,} characters; a recipe has at most {MAX_BYTES:,}")
    try:
        values = plainyaml.load(text)
    except plainyaml.ERRORS as error:
        raise RecipeError(f"recipe {origin}: is not valid YAML: {mistakes.where(error)}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {origin}: must hold keys and values, not a {type(values).__name__}")
    return values


def _validated(text: str, origin: str, overrides: Iterable[str]) -> Recipe:
    values = _values(text, origin)
    for item in overrides:
        _apply(values, item)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        texts = [str(mistakes.explain(detail, Recipe)) for detail in error.errors()[:TOLD]]
        more = [f"and {error.error_count() - TOLD} more"] if error.error_count() > TOLD else []
        raise RecipeError(f"recipe {origin}: " + "; ".join(texts + more)) from None


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML with every value written out.

    If a deployment is in force, Spark's master and conf are left out: the deployment fixes them and may change them.
    """
    fixed = {"spark": {"master", "conf"}} if deployment.current() else None
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude=fixed), sort_keys=False, allow_unicode=True)


def _apply(values: dict[str, Any], item: str) -> None:
    path, equals, text = item.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            f"override {mistakes.shown(item)}: write it as key.path=value, for example filter.min_words=40"
        )
    if len(keys) > MAX_KEYS:
        raise RecipeError(f"override {mistakes.shown(path)}: has {len(keys):,} names; a key has at most {MAX_KEYS}")
    if len(text) > MAX_BYTES:
        raise RecipeError(f"override {path}: has {len(text):,} characters; a value has at most {MAX_BYTES:,}")
    try:
        value = plainyaml.load(text)
    except plainyaml.ERRORS:
        raise RecipeError(
            f"override {mistakes.shown(item)}: {mistakes.shown(text)} is not a YAML value; quote it if it is a string"
        ) from None
    node = values
    for depth, key in enumerate(keys[:-1]):
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise RecipeError(
                f"override {mistakes.shown(item)}: {'.'.join(keys[: depth + 1])} is a value and has no keys below it"
            )
        node = child
    node[keys[-1]] = value


def _near_recipes(uri: str) -> str:
    known = {file.name for folder in (Path("recipes"), shipped("recipes")) for file in folder.glob("*.yaml")}
    return "" if "://" in uri else f"; there are {', '.join(f'recipes/{name}' for name in sorted(known))}"

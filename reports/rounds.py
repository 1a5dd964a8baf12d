"""The rounds of feedback: open one over what `sample` made, see whether it has its votes, and add it to the recipe.

A round ends in a new run. Its recipe is that of the run before, with the frozen votes among `preferences.rounds`, so
its preferences, reward model and aligned model are new, and with the next number in `sample.round`, so the next round
samples from it.
"""

import datetime
import hashlib
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract import feedback
from contract.approval import without_ppo
from contract.assignment import people_of
from contract.digest import split_digest
from contract.errors import InputError
from contract.feedback import FOLDER, Purpose, Round
from contract.kinds import Kind
from contract.manifest import File, Manifest, need
from contract.plan import Run, open_run, vary
from contract.printable import printable
from contract.recipe import Recipe
from contract.settings.examples import Preferences
from contract.settings.feedback import Feedback
from contract.settings.training import Rollouts
from contract.store import Entry, Store
from contract.tables import read_rows
from evals import judging
from pipelines.examples.gold import read_gold
from reports import rating

log = logging.getLogger(__name__)

DROPPED = f"{FOLDER}/dropped"
"""A folder of the store: its files of labelled pairs, or of a production log, are learned from with the next round."""
MOST_BYTES = 1 << 28  # of one of these files, which is read whole
SETTLED_S = 60.0  # since a file changed last; one that is still being written would be copied half
LETTER: dict[Purpose, str] = {"preferences": "r", "comparison": "c"}
"""How the name of a round begins."""
NAMED = "dropped-"  # how the sources that are made of them begin
MOST_PROMPTS = 100_000  # that are kept for the rounds to come


@dataclass(frozen=True)
class Votes:
    """How many items of a round have as many votes as they need, of how many; and of people, how many voted."""

    done: int
    items: int
    people: int

    @property
    def complete(self) -> bool:
        return self.done == self.items

    def __str__(self) -> str:
        return f"{self.done:,} of {self.items:,} items have their votes, of {self.people:,} people"


def open_round(run: Run, dag: str, now: datetime.datetime, purpose: Purpose = "preferences") -> Round:
    """The round over the items that the run's `sample` made; it is opened if it is not there.

    dag: the DAG whose people may vote. A round that is there stays as it is. Two runs with the same items have a round
    each, because their recipes may ask for votes in different ways. Raises InputError for a comparison of fewer than
    two models.
    """
    made = need(run.store, run.task("sample"))
    number, folder = run.recipe.sample.round, _folder(run.uri)
    name = f"{LETTER[purpose]}{number:03d}-{hashlib.sha256(f'{made.fingerprint} {folder}'.encode()).hexdigest()[:12]}"
    if run.store.exists(f"{FOLDER}/{name}/round.json"):
        return feedback.read_round(run.store, name)
    if purpose == "comparison":
        _check_models(run, made)
    found = Round(
        name=name,
        number=number,
        run=folder,
        opened=now,
        files=(*made.of(Kind.RATED), *_gold(run, name)),
        made_by=made.path,
        dag=dag,
        purpose=purpose,
        # `sample.judge` votes on what `sample` made, and in no comparison.
        beside_gold=int(purpose == "preferences" and run.recipe.sample.judge is not None),
        rating=run.recipe.feedback.rating,
    )
    return feedback.open_round(run.store, found)


def _check_models(run: Run, made: Manifest) -> None:
    """Raise InputError if all replies that `sample` made are of one model."""
    rows = (row for file in made.of(Kind.RATED) for row in read_rows(run.store, file, ["replies"]))
    models = {reply["model"] for row in rows for reply in row["replies"]}
    if len(models) < 2:
        raise InputError(
            f"compare: all replies are of {', '.join(models)}; name two in sample.models, such as [aligned, sft]"
        )


def _gold(run: Run, name: str) -> list[File]:
    """The gold items of a round as a file in its folder; none if the recipe names no `sample.gold`."""
    if run.recipe.sample.gold is None:
        return []
    run.check_outside("sample")
    found = read_gold(run.recipe.sample)
    return [feedback.write_items(run.store, f"{FOLDER}/{name}/gold.parquet", found)] if found else []


def _folder(uri: str) -> str:
    return split_digest(uri)[0].split("/")[-2]


def votes(store: Store, name: str) -> Votes:
    """What a round has until now."""
    made = feedback.read_round(store, name)
    items, counting = feedback.items(store, made), feedback.ballots(store, made).counting
    done = people_of(counting)
    voted = {vote.annotator for vote in counting if not vote.skipped}
    return Votes(sum(done[name] >= made.people(item) for name, item in items.items()), len(items), len(voted))


@dataclass(frozen=True)
class Collected:
    """The run that learns from a round. frozen: the files of its votes; left_out: annotator -> why; dropped: the files
    of pairs that are new in it."""

    run: Run
    frozen: tuple[str, ...] = ()
    left_out: Mapping[str, str] | None = None
    dropped: tuple[str, ...] = ()


def with_revisions(store: Store, made: Round) -> dict[str, Round]:
    """The round by its name in a recipe, and the one of its replies' revisions if there is one."""
    key, beside = f"r{made.number:03d}", judging.revised_name(made)
    there = store.exists(f"{FOLDER}/{beside}/round.json")
    return {key: made, **({f"{key}-revised": feedback.read_round(store, beside)} if there else {})}


def collect(run: Run, made: Round, name: str) -> Collected:
    """Freeze the votes of a round and make the run that learns from it and from all rounds before, called `name`.

    With the round goes the one of its revised replies, if there is one.

    If that run exists already, it is returned as it is. From then on the round takes no vote. Raises InputError if no
    vote counts and no file was dropped.
    """
    uri = run.store.full(f"runs/{name}/recipe.yaml")
    if run.store.exists(f"runs/{name}/recipe.yaml"):
        return closed(run.store, made, Collected(open_run(uri)))
    settings = run.recipe.feedback
    dropped = keep_dropped(run.store, made, run.recipe.preferences)
    frozen, left_out = dict[str, str](), dict[str, str]()
    for key, one in with_revisions(run.store, made).items():
        try:
            path, gone = rating.freeze(run.store, one, settings.trust)
        except InputError:  # no vote counts
            continue
        frozen[key] = run.store.full(path)
        left_out |= gone
    if not frozen and not dropped:
        raise InputError(f"round {made.name}: no vote counts, and no file was dropped, so there is nothing to learn")
    values = changes(run.recipe.preferences, settings, made.number, frozen, dropped)
    values |= dict.fromkeys(followed(run.recipe), last_model(run))
    if run.recipe.prompts.data is None:
        values["prompts.data"] = keep_prompts(run, made)
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    found = Collected(vary(run, name, given), tuple(frozen.values()), left_out, tuple(dropped.values()))
    return closed(run.store, made, found)


def closed(store: Store, made: Round, found: Collected) -> Collected:
    """The same, with the round and that of its revised replies closed for votes. A round is closed once."""
    for one in with_revisions(store, made).values():
        feedback.close(store, one, feedback.Collected(run=found.run.uri, when=datetime.datetime.now(datetime.UTC)))
    return found


def changes(
    now: Preferences, settings: Feedback, number: int, frozen: Mapping[str, str], dropped: Mapping[str, str]
) -> dict[str, Any]:
    """What a round changes in a recipe: dotted key -> JSON value.

    The weights of the rounds before are multiplied by `feedback.earlier`. frozen: name -> URI of the round's
    votes. dropped: name -> URI of the files of pairs that are new.
    """
    rounds = {
        name: {"votes": one.votes, "weight": round(one.weight * settings.earlier, 9)}
        for name, one in now.rounds.items()
    }
    rounds |= {name: {"votes": uri, "weight": 1.0} for name, uri in frozen.items()}
    made: dict[str, Any] = {"preferences.rounds": rounds, "sample.round": number + 1}
    if dropped:
        before = {name: one.model_dump(mode="json") for name, one in now.sources.items()}
        if now.data != "synthetic":  # `data` and `sources` go not together
            before["data"] = {"data": now.data}
        made |= {
            "preferences.data": "synthetic",
            "preferences.sources": before | {name: {"data": uri} for name, uri in dropped.items()},
        }
    return made


def followed(recipe: Recipe) -> list[str]:
    """The keys that name the model of the last round in the recipe of the next one."""
    policy = recipe.section(recipe.align)
    begins = isinstance(policy, Rollouts) and recipe.feedback.goes_on and not policy.lora.enabled
    return ["sample.last", "evaluate.last", *([f"{recipe.align}.last"] if begins else [])]


def keep_prompts(run: Run, made: Round) -> str:
    """The URI of a file with the prompts of the run's training pairs, which lies in the round's folder.

    The pairs of the next run are of this round, whose prompts are few. Without the file, each round would draw from the
    prompts of the last one that were compared, and from fewer every time.
    """
    learned_apart = run.recipe.reward.pretrain_tasks
    lines: dict[str, None] = {}
    for file in need(run.store, run.task("preferences")).of(Kind.PAIRS):
        for row in read_rows(run.store, file, ["task", "prompt"]):
            turns = [{"role": turn["role"], "content": turn["text"]} for turn in row["prompt"]]
            if row["task"] not in learned_apart and len(lines) < MOST_PROMPTS:
                lines[json.dumps({"prompt": turns}, ensure_ascii=False)] = None
    path = f"{made.folder}/prompts.jsonl"
    run.store.create(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    return run.store.full(path)


def last_model(run: Run) -> str:
    """The address of the model that the run aligned, or of its SFT model if it aligned none: `ppo/FINGERPRINT`."""
    aligned, tuned = run.task(run.recipe.align), run.task("sft")
    model = tuned if without_ppo(run.store, need(run.store, run.task("gate")), aligned) else aligned
    return f"{model.stage}/{model.fingerprint}"


def keep_dropped(store: Store, made: Round, now: Preferences) -> dict[str, str]:
    """Name of a source -> URI, of the files of pairs in the folder DROPPED that no round before has learned from.

    Each is copied into the round under its digest, so that what a model learned from stays when somebody changes the
    file. One that cannot be learned from is left out, and the log says why: it must not end the run that collects.
    """
    from pipelines.examples.reading import NAMED as READABLE

    found = {}
    entries = [(entry, READABLE.search(entry.path)) for entry in store.files(DROPPED, recursive=False)]
    clock = store.clock() if entries else 0.0
    for entry, ending in entries:
        if ending is None or entry.path.rpartition("/")[2].startswith((".", "_")):
            continue
        if why := _unsettled(entry, clock):
            log.warning("left out: %s", printable(f"{store.full(entry.path)}: {why}"))
            continue
        data = store.read_bytes(entry.path)
        digest = hashlib.sha256(data).hexdigest()
        name, path = f"{NAMED}{digest[:12]}", f"{made.folder}/dropped/{digest[:40]}{ending[0].lower()}"
        if name in now.sources:
            continue
        try:
            said = usable(data, ending[0], now)
        except InputError as error:
            log.warning("left out: %s", printable(f"{store.full(entry.path)}: {error}"))
            continue
        log.info("%s", printable(f"{store.full(entry.path)}: {said}"))
        store.create(path, data)
        found[name] = store.full(path)
    return found


def _unsettled(entry: Entry, clock: float) -> str:
    """Why a file is not read now; empty if it is. clock: the store's time, a Unix time in seconds."""
    if entry.size > MOST_BYTES:
        return f"has {entry.size:,} bytes; at most {MOST_BYTES:,} are read"
    if clock - entry.modified / 1e9 < SETTLED_S:
        return f"changed in the last {SETTLED_S:.0f} seconds, so it may not be whole; the next round takes it"
    return ""


def usable(data: bytes, ending: str, now: Preferences) -> str:
    """What a file of pairs holds, in one line, as `preferences` would read it. Raises InputError if it could not.

    Neither names the file: it is read from a copy, whose name means nothing to people.
    """
    from pipelines.examples.comparisons import comparisons
    from pipelines.examples.reading import inspect, read_pairs
    from pipelines.examples.shapes import allowed

    shapes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"pairs{ending}")
        file.write_bytes(data)
        alone = now.model_copy(update={"data": str(file), "sources": {}})
        described = allowed(comparisons(now.criteria))
        rows = (replace(row, place=row.place.removeprefix(f"{file.name} ")) for row in read_pairs(alone, shapes))
        try:
            return inspect("pairs", "it", rows, shapes, described).removeprefix("pairs: ")
        except InputError as error:
            why = str(error).removeprefix("pairs: ").removeprefix(f"preferences.data: {file.as_uri()}: ")
            raise InputError(why) from None

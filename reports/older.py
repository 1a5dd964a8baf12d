"""Results of a run that older versions of the stages made: they are in the store, and this version cannot use them.

The version is part of a fingerprint, so these results lie in other folders than those of the plan. The fingerprint of
an older result is computed as the plan would have done with an older version, and looked for among the folders of the
stage. A result whose recipe had other defaults as well is not found that way.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from contract.identity import Identity, Input
from contract.plan import Run, Task
from contract.stages import STAGES
from contract.store import Store
from reports.indexes import together

FRESH_S = 60.0  # for so long the folders of a store are remembered
FEW = 3  # segments of a stage that are tried with every version; if none is found, the others are not tried


@dataclass(frozen=True)
class Older:
    """What an older version made of a stage. version: the stage's then; now: its version here; prefix: of the first."""

    stage: str
    version: int
    now: int
    prefix: str

    @property
    def said(self) -> str:
        """What is there and what to do, in words that follow a colon."""
        if self.version == self.now:
            return f"a result is there that was made from results of older versions; run {self.stage} again"
        return f"a result of version {self.version} is there; this version is {self.now}; run {self.stage} again"


def notice(found: Mapping[str, Older]) -> str:
    """One sentence on all stages with older results; empty if there are none."""
    if not found:
        return ""
    changed = [
        f"{one.stage} (version {one.version}, now {one.now})" for one in found.values() if one.version != one.now
    ]
    rest = len(found) - len(changed)
    after = f" {rest} further {'stage' if rest == 1 else 'stages'} used those results." if rest else ""
    return (
        f"Results of this run were made by older versions of the stages {', '.join(changed)}.{after} "
        "They are in the store, but cannot be read as results of this version. Start the run again to make them anew."
    )


def older(run: Run) -> dict[str, Older]:
    """Stage -> what an older version made of it, of the stages of a run that this version has not begun."""
    folders = _folders(run.store, int(time.monotonic() / FRESH_S))
    planned = {task.fingerprint for task in run.tasks().values()}
    if not any(folders[stage] - planned for stage in STAGES):
        return {}
    made: dict[str, Input] = {}  # prefix of a task -> its older result
    how: dict[str, tuple[bool, int]] = {}  # stage -> from older inputs or not, and the version that was found
    failed = dict.fromkeys(STAGES, 0)
    found: dict[str, Older] = {}
    for task in run.tasks().values():
        if failed[task.stage] >= FEW:
            continue
        others = folders[task.stage] - planned
        match = _look(run, task, others, made, how) if others else None
        failed[task.stage] += match is None
        if match is None:
            # It may have been left out then, as PPO behind a closed gate; what follows it names it all the same.
            if guess := next((identity for (old, _), identity in _identities(task, made) if old), None):
                made[task.prefix] = _input(task, guess)
            continue
        made[task.prefix] = match
        if task.fingerprint not in folders[task.stage]:
            version = how[task.stage][1]
            found.setdefault(task.stage, Older(task.stage, version, STAGES[task.stage].version, match.prefix))
    return found


@lru_cache(maxsize=16)
def _folders(store: Store, _: int) -> Mapping[str, frozenset[str]]:
    """Stage -> the fingerprints of its folders. It may be a minute old: nobody makes new results of older versions."""
    return dict(zip(STAGES, map(frozenset, together(store, store.folders, [*STAGES])), strict=True))


def _look(
    run: Run, task: Task, folders: frozenset[str], made: Mapping[str, Input], how: dict[str, tuple[bool, int]]
) -> Input | None:
    """The older result of a task, or None. `how` says what was found of the stage before, which is tried alone then."""
    known = how.get(task.stage)
    for key, identity in _identities(task, made):
        if known not in (None, key):
            continue
        one = _input(task, identity)
        if one.fingerprint in folders and (known or run.store.exists(f"{one.prefix}/manifest.json")):
            how[task.stage] = key
            return one
    return None


def _input(task: Task, identity: Identity) -> Input:
    return Input(stage=task.stage, partition=task.partition, fingerprint=identity.fingerprint())


def _identities(task: Task, made: Mapping[str, Input]) -> Iterator[tuple[tuple[bool, int], Identity]]:
    """What older versions would have called a task, the newest first, with (whether its inputs are older, version)."""
    version = task.identity.version
    inputs = tuple(made.get(one.prefix, one) for one in task.identity.inputs)
    if inputs != task.identity.inputs:
        for number in range(version, 0, -1):
            yield (True, number), task.identity.model_copy(update={"version": number, "inputs": inputs})
    for number in range(version - 1, 0, -1):
        yield (False, number), task.identity.model_copy(update={"version": number})

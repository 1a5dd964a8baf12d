"""Finds the checkpoint of a finished run from which a run of another length can go on, if there is one.

The result must be the one of a run that was never extended, for both have the same fingerprint. So the earlier run must
have the same identity but for its length, and must have had the same learning rate in every step up to the checkpoint.
A cosine or linear decay to the end of the earlier run allows no extension: its weights have come to rest for that end.
"""

from collections.abc import Iterator

from contract.errors import StoreError
from contract.identity import Identity
from contract.manifest import Manifest, read
from contract.results import Checkpoint
from contract.settings.training import Optim
from training.engine.checkpoint import committed_below
from training.engine.job import Job
from training.engine.schedule import lr_at

LENGTH = ("steps", "tokens")  # the settings that say how long a run is


def extendable(job: Job, steps: int, optim: Optim) -> list[str]:
    """The folders of checkpoints from which this run of `steps` steps may go on, the most steps first.

    Prints a line if an earlier run is alike but for its length, and none of its checkpoints will do. Every rank gets
    the same list.
    """
    if job.ranks.rank:
        return job.ranks.share([])
    found, alike = [], None
    for done in _finished(job):
        alike = done
        for one in committed_below(job.store, done.stage, done.fingerprint):
            made = Checkpoint.of(one)
            if made.step <= steps and same_rates(made.step, made.schedule_steps, steps, optim):
                found.append((made.step, one.prefix))
    if alike and not found:
        print(
            f"{job.task.stage}: {job.store.full(alike.prefix)} differs only in its length, but training cannot go on "
            "from its checkpoints, because their learning rates are not those of this run; starting over. A run with "
            "optim.schedule=constant and optim.warmup_steps can be extended",
            flush=True,
        )
    return job.ranks.share([prefix for _, prefix in sorted(found, reverse=True)])


def same_rates(step: int, before: int, after: int, optim: Optim) -> bool:
    """Whether schedules of `before` and of `after` steps have the same learning rates in the first `step` steps."""
    return all(lr_at(one, before, optim) == lr_at(one, after, optim) for one in range(step))


def _finished(job: Job) -> Iterator[Manifest]:
    """The results of this stage that differ from the job's only in how long it trained."""
    for fingerprint in job.store.folders(job.task.stage):
        if fingerprint == job.task.fingerprint:
            continue
        try:
            done = read(job.store, f"{job.task.stage}/{fingerprint}/{job.task.partition}")
        except (FileNotFoundError, StoreError):  # not finished; damaged, or of another version
            continue
        if _without_length(done.identity) == _without_length(job.task.identity):
            yield done


def _without_length(identity: Identity) -> Identity:
    lengths = {f"{identity.stage}.{name}" for name in LENGTH}
    return identity.model_copy(
        update={"settings": {key: value for key, value in identity.settings.items() if key not in lengths}}
    )

"""Checkpoints hold all state that the next step needs. They are committed as results are, in folders `step-<n>`.

    shard-00000-of-00004.safetensors   float32 weights and AdamW's two moments of every fourth parameter, whole
    random-00000.safetensors           one process's random states
    state.json                         step, update counts, norms of the last updates, and the stage's own small values
    metrics.jsonl                      the curves so far

Tensors are stored whole, parameter by parameter, under any ZeRO stage. So a run may resume with another number of
processes, another ZeRO stage or another micro-batch; with the same ones it continues bit for bit. Nothing is pickled.
Each process writes and uploads its own share of the parameters; gathering one parameter at a time bounds the memory.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from contract.digest import file_digest
from contract.errors import DamagedError, InputError, Interrupted, StoreError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, find, parse, read
from contract.printable import printable
from contract.results import Checkpoint
from training.engine import zero
from training.engine.checkpoint_files import Shards, check_digests, header_fits, random_state, restore_random_state
from training.engine.engine import Engine
from training.engine.job import Job, checkpoint_prefixes

KEEP = 2  # the newest, and one in case the newest is damaged
LISTINGS = 5  # tries; another attempt deletes old checkpoints once in minutes, not between any two listings


def due(step: int, last: int, every: int, stopping: bool) -> bool:
    """Whether to save a checkpoint after update `step`: every `every` updates, and when the task is asked to stop.

    Never after the last update, because the stage then commits its result.
    """
    return step < last and (stopping or step % every == 0)


def save_when_due(job: Job, step: int, last: int, engines: Mapping[str, Engine], extra: Mapping[str, Any]) -> None:
    """Save a checkpoint if one is `due`; every rank calls this after every update.

    Raises Interrupted after the save if the task was asked to stop.
    """
    stopping = job.ranks.stopping()
    if not due(step, last, job.settings.engine.checkpoint_steps, stopping):
        return
    save(job, step, engines, extra)
    if stopping:
        raise Interrupted(f"{job.task.stage}: stopped after step {step} of {last}; run again to go on")


def save(job: Job, step: int, engines: Mapping[str, Engine], extra: Mapping[str, Any]) -> None:
    """Write, upload and commit the state after `step` updates; then delete all but the newest KEEP checkpoints.

    Every rank calls it. `extra` maps names to JSON values, the same on every rank. Raises, on every rank, InputError if
    a weight or a moment is NaN or infinite, because training cannot recover from that state, and Interrupted if another
    attempt, on a machine that was cut off, has finished the task.
    """
    shard = _shard(job, engines)
    if job.ranks.sum(float(not all(bool(value.isfinite().all()) for value in shard.values())))[0]:
        raise InputError(
            f"{job.task.stage}: weights contain NaN or Inf after step {step}; training diverged, "
            f"lower the learning rate or clip of {job.task.stage}"
        )
    _stop_where_done(job)
    attempt = job.attempt_at(f"step-{step:08d}")
    folder = job.scratch.fresh(f"checkpoint-{job.ranks.rank}")
    save_file(shard, folder / f"shard-{job.ranks.rank:05d}-of-{job.ranks.world:05d}.safetensors")
    save_file(random_state(), folder / f"random-{job.ranks.rank:05d}.safetensors")
    if job.ranks.rank == 0:
        states = {name: engine.state() for name, engine in engines.items()}
        (folder / "state.json").write_text(json.dumps({"step": step, "engines": states, "extra": dict(extra)}))
        (folder / "metrics.jsonl").write_bytes(job.curves.dump())
    own = [
        File(
            path=attempt.path(path.name),
            kind=Kind.METRICS if path.suffix == ".jsonl" else Kind.CHECKPOINT,
            bytes=path.stat().st_size,
            sha256=file_digest(path),
        )
        for path in sorted(folder.iterdir())
    ]
    with job.leading(attempt):
        job.store.upload(folder, f"{attempt.prefix}/{attempt.id}")
        written = [file for files in job.ranks.gather(own) for file in files]  # also waits for the other uploads
        if job.ranks.rank == 0:
            _commit(job, attempt, step, written)
        job.ranks.barrier()


def _commit(job: Job, attempt: Attempt, step: int, files: list[File]) -> None:
    attempt.commit(files, result=Checkpoint(step=step, processes=job.ranks.world))
    for old in committed(job)[KEEP:]:
        _delete(job, old)


def _stop_where_done(job: Job) -> None:
    if job.ranks.share(job.ranks.rank == 0 and find(job.store, job.task) is not None):
        raise Interrupted(
            f"{job.task.stage}: another attempt has finished this task; its result stands, this one stops"
        )


def committed(job: Job) -> list[Manifest]:
    """The manifests of the task's checkpoints, newest first."""
    manifests: list[Manifest] = []
    for prefix in checkpoint_prefixes(job.store, job.task):
        with contextlib.suppress(FileNotFoundError, DamagedError):  # not committed, or damaged: `restore` handles that
            manifests.append(read(job.store, prefix))
    return manifests


@dataclass(frozen=True)
class _Opened:
    """The contents of one checkpoint that one rank needs."""

    manifest: Manifest
    state: dict[str, Any]
    shards: Shards
    random: dict[str, Tensor]
    curves: bytes


def restore(job: Job, engines: Mapping[str, Engine]) -> tuple[int, dict[str, Any]]:
    """Put the newest undamaged checkpoint's state into engines, curves and random generators; returns (step, extra).

    Damaged checkpoints are reported and set aside. If the task never had a checkpoint, nothing changes and the result
    is (0, {}). Raises, on every rank, InputError if all checkpoints are damaged or the checkpoint does not fit the
    engines, and StoreError if one cannot be read at this time.
    """
    found = _newest(job)
    if found is None:
        return 0, {}
    manifest, state = found.manifest, found.state
    if state["engines"].keys() != engines.keys():
        raise InputError(
            f"{job.store.full(manifest.path)}: holds {sorted(state['engines'])}, this stage needs {sorted(engines)}; "
            "delete it to start afresh"
        )
    for name, engine in engines.items():
        try:
            zero.write(engine.deepspeed, partial(found.shards.tensors, name), state["engines"][name]["updates"])
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{job.store.full(manifest.path)}: does not fit the model ({error}); delete it to start afresh"
            ) from error
        except (OSError, SafetensorError) as error:  # not damage: the header was already read and checked
            raise StoreError(f"{job.store.full(manifest.path)}: cannot be read ({error}); run again") from error
        engine.restore(state["engines"][name])
    if found.random:
        restore_random_state(found.random)
    job.curves.restore(found.curves)
    if job.ranks.rank == 0:
        print(f"resumed {job.task.stage} from step {state['step']}: {job.store.full(manifest.path)}", flush=True)
    return int(state["step"]), state["extra"]


def _newest(job: Job) -> _Opened | None:
    """The newest undamaged checkpoint, the same on every rank; None if there never was one."""
    for _ in range(LISTINGS):
        for prefix in job.ranks.share(_listed(job) if job.ranks.rank == 0 else []):
            look = _look(job, prefix)
            own = hashlib.sha256(look.manifest).hexdigest()
            same = job.ranks.share(own) == own  # if not, another attempt replaced it between two ranks' reads
            worst = max(job.ranks.gather(look.state if same else max(look.state, _State.GONE)))
            if worst is _State.WHOLE:
                return look.opened
            if worst is _State.GONE:
                break  # another attempt deleted it and has newer ones: list again
            why = look.why or "by another process"
            if worst is _State.UNREADABLE:
                raise StoreError(f"{job.store.full(prefix)}: cannot be read ({why}); nothing was changed, run again")
            if job.ranks.rank == 0:
                _set_aside(job, prefix, look.manifest, why)
        else:
            _refuse_to_start_over(job)
            return None
    raise StoreError(
        f"{job.task.stage}: its checkpoints vanish while they are read; another attempt is at work, run again"
    )


def _listed(job: Job) -> list[str]:
    """Prefixes that hold a checkpoint's manifest, damaged ones included, newest first."""
    prefixes = checkpoint_prefixes(job.store, job.task)
    return [prefix for prefix in prefixes if job.store.exists(f"{prefix}/manifest.json")]


class _State(IntEnum):
    """The state of a checkpoint as one rank finds it, from good to bad; the worst over all ranks decides."""

    WHOLE = 0
    DAMAGED = 1  # a file has the wrong size, checksum or header
    GONE = 2
    UNREADABLE = 3  # for now: for example too many open files, or a server that does not answer


@dataclass(frozen=True)
class _Look:
    """One rank's view of a checkpoint: its contents if it is whole, else what is wrong, and the manifest's bytes."""

    state: _State
    opened: _Opened | None = None
    why: str = ""
    manifest: bytes = b""


def _look(job: Job, prefix: str) -> _Look:
    content = b""
    try:
        content = job.store.read_bytes(f"{prefix}/manifest.json")
        manifest = parse(job.store, prefix, content)
        wanted = {Path(file.path).name: file for file in manifest.files if _wanted(job, file)}
        local = {name: job.scratch.download(file) for name, file in wanted.items()}
        check_digests(local, {name: file.sha256 for name, file in wanted.items()}, job.ranks.rank, job.ranks.world)
        return _Look(_State.WHOLE, _opened(job, manifest, local), "", content)
    except (DamagedError, KeyError, ValueError, TypeError, AttributeError) as error:
        return _Look(_unless_gone(job, prefix, _State.DAMAGED), None, str(error), content)
    except (StoreError, OSError, SafetensorError) as error:
        return _Look(_unless_gone(job, prefix, _State.UNREADABLE), None, str(error), content)


def _unless_gone(job: Job, prefix: str, state: _State) -> _State:
    try:
        return state if job.store.exists(f"{prefix}/manifest.json") else _State.GONE
    except StoreError:
        return _State.UNREADABLE


def _opened(job: Job, manifest: Manifest, local: Mapping[str, Path]) -> _Opened:
    for path in local.values():
        if path.suffix == ".safetensors" and not header_fits(path):
            raise DamagedError(f"{path.name}: its header does not match its contents")
    drawn = local.get(f"random-{job.ranks.rank:05d}.safetensors")
    return _Opened(
        manifest,
        json.loads(local["state.json"].read_text()),
        Shards(path for name, path in local.items() if name.startswith("shard-")),
        load_file(drawn) if drawn else {},
        local["metrics.jsonl"].read_bytes(),
    )


def _set_aside(job: Job, prefix: str, content: bytes, why: str) -> None:
    """Rename a damaged checkpoint's manifest, or the next checkpoint of this step would be refused as a second one.

    The checkpoint's files stay for inspection until the task is done. A manifest that no longer holds `content` is left
    alone, because another attempt wrote it.
    """
    path = f"{prefix}/manifest.json"
    try:
        if job.store.read_bytes(path) != content:
            return
    except FileNotFoundError:
        return
    aside = f"{prefix}/damaged-{hashlib.sha256(content).hexdigest()[:32]}.json"
    job.store.create(aside, content)
    job.store.delete(path)
    print(printable(f"skipped a damaged checkpoint ({why}); its manifest is now {job.store.full(aside)}"), flush=True)


def _refuse_to_start_over(job: Job) -> None:
    """Raise InputError if checkpoints were set aside, Interrupted if another attempt has finished and deleted them.

    Every rank raises the same error.
    """
    _stop_where_done(job)
    aside = [
        entry.path
        for prefix in (checkpoint_prefixes(job.store, job.task) if job.ranks.rank == 0 else ())
        for entry in job.store.files(prefix, recursive=False)
        if "/damaged-" in entry.path
    ]
    if count := job.ranks.share(len(aside)):
        base = job.store.full(f"{job.task.stage}/{job.task.fingerprint}")
        raise InputError(
            f"{job.task.stage}: all {count} checkpoint(s) are damaged, so training would start over; "
            "bring their files back and rename damaged-*.json to manifest.json, "
            f"or delete the folders {base}/step-* to start over"
        )


def _delete(job: Job, manifest: Manifest) -> None:
    """Delete the manifest first, so that no reader finds a manifest whose files are gone."""
    job.store.delete(manifest.path)
    job.store.delete(f"{manifest.prefix}/{manifest.attempt}")  # not the whole step: a damaged attempt in it stays


def _wanted(job: Job, file: File) -> bool:
    name = Path(file.path).name
    return not name.startswith("random-") or name == f"random-{job.ranks.rank:05d}.safetensors"


def _shard(job: Job, engines: Mapping[str, Engine]) -> dict[str, Tensor]:
    """This rank's share of the state. All ranks gather every parameter together; each keeps every world-th one."""
    kept: dict[str, Tensor] = {}
    index = 0
    for name, engine in engines.items():
        for parameter, tensors in zero.read(engine.deepspeed):
            if index % job.ranks.world == job.ranks.rank:
                kept.update({f"{name}/{parameter}/{key}": value.cpu() for key, value in tensors.items()})
            index += 1
    return kept

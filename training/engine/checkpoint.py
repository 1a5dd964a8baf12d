"""Checkpoints hold all state that the next step needs. They are committed as results are, in folders `step-<n>`.

    shard-00000-000.safetensors   process 0's first part: float32 weights and AdamW's two moments of whole parameters
    random-00000.safetensors      process 0's random states
    state.json                    step, update counts, norms of the last updates, and the stage's own small values
    metrics.jsonl                 the curves so far

Tensors are stored whole, parameter by parameter, under any ZeRO stage. So a run may resume with another number of
processes, another ZeRO stage or another micro-batch; with the same ones it continues bit for bit. Nothing is pickled.
Each process writes and uploads its own share of the parameters; gathering one parameter at a time bounds the memory.

The loop waits only until every process has copied its share into memory. The upload runs behind the next steps, in
several streams. It needs no word between the processes: each leaves a list of its files in the store, and process 0
commits when it has all lists.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import Tensor

from contract.errors import DamagedError, InputError, Interrupted, StoreError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Manifest, find, parse, read
from contract.printable import printable
from contract.results import Checkpoint
from contract.store import Store
from training.engine import zero
from training.engine.checkpoint_files import Shards, check_digests, header_fits, random_state, restore_random_state
from training.engine.engine import Engine, State
from training.engine.job import Job, checkpoint_prefixes, kept_steps

KEEP = 2  # while a stage trains, at least: the newest, and one in case the newest is damaged
LISTINGS = 5  # tries; another attempt deletes old checkpoints once in minutes, not between any two listings
STREAMS = 4  # uploads at a time per process; one connection to a store rarely fills a network card
PIECE_BYTES = 256 << 20  # of a shard: with its copies while it is uploaded, four streams take some 2 GB of memory
LISTED = TypeAdapter(list[File])
ALREADY = "{}: another attempt has finished this task; its result stands, this one stops"


def due(step: int, last: int, every: int, wanted: bool) -> bool:
    """Whether to save a checkpoint after update `step`: every `every` updates, and when it is `wanted`.

    It is wanted where the task is asked to stop, or the model is the best so far. Never after the last update: what
    is saved there is saved for a longer run, see `save_last`.
    """
    return step < last and (wanted or step % every == 0)


def save_when_due(
    job: Job,
    step: int,
    last: int,
    engines: Mapping[str, Engine],
    extra: Mapping[str, Any],
    heldout_loss: float | None = None,
) -> None:
    """Begin to save a checkpoint if one is `due`; every rank calls this after every update.

    `heldout_loss` is given where the model was just measured and is the best so far. Raises Interrupted after the save
    if the task was asked to stop, and the error of an upload that has failed since the last call.
    """
    job.behind.check()
    stopping = job.ranks.stopping()
    if step < last and stopping:
        _stop(job, step, last, partial(begin, job, step, engines, extra, heldout_loss))
    if due(step, last, job.settings.engine.checkpoint_steps, heldout_loss is not None):
        begin(job, step, engines, extra, heldout_loss)


def save_last(
    job: Job,
    last: int,
    engines: Mapping[str, Engine],
    extra: Mapping[str, Any],
    heldout_loss: float | None = None,
) -> None:
    """Begin to save the state after the last update, so that a longer run can go on from it, if any is to be kept.

    `heldout_loss` is as for `save_when_due`.
    """
    newest = committed(job)[:1] if job.ranks.rank == 0 else []
    have = job.ranks.share(newest[0].metrics["step"] if newest else None)
    if job.settings.engine.keep_last and have != last:
        begin(job, last, engines, extra, heldout_loss)


def kept_at(job: Job, step: int, elsewhere: str | None) -> str | None:
    """The folder of the checkpoint of a step, once the upload under way has ended; None if it was not kept.

    `elsewhere` is the folder of a checkpoint of the run from which this one was extended.
    """
    job.behind.wait()
    own = f"{job.task.stage}/{job.task.fingerprint}"
    tasks = [own, elsewhere.rpartition("/")[0]] if elsewhere else [own]
    found = (f"{task}/step-{step:08d}" for task in tasks)
    return next((one for one in found if job.store.exists(f"{one}/manifest.json")), None)


def take_weights(job: Job, step: int, engines: Mapping[str, Engine]) -> bool:
    """Put the weights of the checkpoint of a step into engines, to commit them; whether that could be done.

    It cannot if the checkpoint was not kept or is damaged. Moments go along; nothing else changes.
    """
    job.behind.wait()
    job.ranks.sum(0.0)  # so that no process looks before the one that uploads has ended
    kept = job.ranks.share(kept_at(job, step, None) if job.ranks.rank == 0 else None)
    look = _look(job, kept) if kept else None
    worst = max(job.ranks.gather(look.state if look else _State.GONE))
    if worst is not _State.WHOLE or look is None or look.opened is None:
        return False
    state = look.opened.state
    for name, engine in engines.items():
        zero.write(engine.deepspeed, partial(look.opened.shards.tensors, name), state["engines"][name]["updates"])
    return True


def _stop(job: Job, step: int, last: int, save_now: Callable[[], None]) -> None:
    """Save if there is time for it, let the upload end, and raise Interrupted."""
    behind, grace = job.behind, job.grace_s
    late = not fits(behind.left_s, behind.took_s, grace)
    if job.ranks.sum(float(late))[0]:  # the same answer on every rank
        if job.ranks.rank == 0:
            under_way = f"the {behind.what} is still being uploaded, and another upload would take"
            takes = (
                f"{under_way} {behind.took_s:.0f} s more" if behind.busy else f"an upload takes {behind.took_s:.0f} s"
            )
            print(f"{job.task.stage}: {takes}; {grace:.0f} s are granted, so step {step} is not saved", flush=True)
    else:
        save_now()
    behind.wait()
    job.ranks.barrier()  # a rank that leaves ends the others, and rank 0 commits after all have uploaded
    raise Interrupted(f"{job.task.stage}: stopped after step {step} of {last}; run again to go on")


def fits(left_s: float, upload_s: float, grace_s: float | None) -> bool:
    """Whether an upload of `upload_s` seconds, after `left_s` for the one under way, ends within the grace period."""
    return grace_s is None or left_s + upload_s <= grace_s


def save(job: Job, step: int, engines: Mapping[str, Engine], extra: Mapping[str, Any]) -> None:
    """`begin`, and wait until the checkpoint is committed."""
    begin(job, step, engines, extra)
    job.behind.wait()
    job.ranks.barrier()


def begin(
    job: Job, step: int, engines: Mapping[str, Engine], extra: Mapping[str, Any], heldout_loss: float | None = None
) -> None:
    """Copy the state after `step` updates into memory and start its upload, which commits it and deletes old ones.

    Every rank calls it. It first waits for the upload of the checkpoint before. `extra` maps names to JSON values, the
    same on every rank. Raises, on every rank, InputError if a weight or a moment is NaN or infinite, because training
    cannot recover from that state. The upload raises Interrupted, where the loop asks next, if another attempt, on a
    machine that was cut off, has finished the task.
    """
    began = time.perf_counter()
    _await(job, step)
    waited = time.perf_counter() - began
    pieces, finite = _copy(job, engines)
    if job.ranks.sum(float(not finite))[0]:
        raise InputError(
            f"{job.task.stage}: weights contain NaN or Inf after step {step}; training diverged, "
            f"lower the learning rate or clip of {job.task.stage}"
        )
    job.curves.read(job.ranks)
    rank = job.ranks.rank
    tensors = {f"shard-{rank:05d}-{number:03d}.safetensors": piece for number, piece in enumerate(pieces)}
    tensors[f"random-{rank:05d}.safetensors"] = random_state()
    plain: dict[str, bytes] = {}
    if rank == 0:
        states = {name: engine.state() for name, engine in engines.items()}
        plain["state.json"] = json.dumps({"step": step, "engines": states, "extra": dict(extra)}).encode()
        plain["metrics.jsonl"] = job.curves.dump()
    attempt = job.attempt_at(f"step-{step:08d}")
    known = {} if heldout_loss is None else {"heldout_loss": heldout_loss}
    schedule = next(iter(engines.values())).total_steps
    result = Checkpoint(step=step, processes=job.ranks.world, schedule_steps=schedule, **known)
    held = time.perf_counter() - began
    job.behind.start(
        f"checkpoint of step {step}",
        partial(_upload, job, attempt, tensors, plain, result, (held, waited)),
        partial(job.store.exists, f"{attempt.prefix}/manifest.json"),
    )


def _await(job: Job, step: int) -> None:
    """Wait for the upload under way, and say so: steps that wait are lost time."""
    if job.behind.busy and job.ranks.rank == 0:
        print(
            f"{job.task.stage}: step {step} is to be saved, and the {job.behind.what} is still being uploaded; "
            f"waiting, about {job.behind.left_s:.0f} s; raise {job.task.stage}.engine.checkpoint_steps",
            flush=True,
        )
    job.behind.wait()


def _copy(job: Job, engines: Mapping[str, Engine]) -> tuple[list[dict[str, Tensor]], bool]:
    """This rank's share of the state in memory, in pieces of about PIECE_BYTES, and whether all of it is finite.

    All ranks gather every parameter together; each keeps every world-th one. The stages of a pipeline have other
    parameters, so there each rank keeps every so many-th one of its stage. The copy takes the memory of the one before.
    """
    before, job.behind.copied = job.behind.copied, {}
    pieces: list[dict[str, Tensor]] = [{}]
    size = index = 0
    worst = torch.zeros(())
    for name, engine in engines.items():
        sharers, own = (job.ranks.replicas, job.ranks.replica) if engine.pipeline else (job.ranks.world, job.ranks.rank)
        for parameter, tensors in zero.read(engine.deepspeed):
            if index % sharers == own:
                for key, value in tensors.items():
                    worst = torch.maximum(worst.to(value.device), largest(value))
                    if size > PIECE_BYTES:
                        pieces.append({})
                        size = 0
                    where = f"{name}/{parameter}/{key}"
                    pieces[-1][where] = job.behind.copied[where] = _copied(value, before.get(where))
                    size += value.nbytes
            index += 1
    return pieces, bool(worst.isfinite())


def _copied(value: Tensor, memory: Tensor | None) -> Tensor:
    """A copy of a tensor on the CPU, in `memory` if that has its shape."""
    if memory is None or memory.shape != value.shape:
        memory = torch.empty(value.shape, dtype=value.dtype)
    return memory.copy_(value)


def largest(value: Tensor) -> Tensor:
    """The largest size of a tensor's numbers; NaN or infinite if any of them is. Reads each once, on its device.

    On the CPU this is some ten times as fast as the norm of order infinity.
    """
    low, high = value.aminmax()
    return torch.maximum(-low, high)


def _upload(
    job: Job,
    attempt: Attempt,
    tensors: Mapping[str, dict[str, Tensor]],
    plain: Mapping[str, bytes],
    result: Checkpoint,
    held: tuple[float, float],
) -> None:
    """Upload this rank's files; rank 0 also commits. Runs behind the steps, so it calls no other rank."""
    began = time.monotonic()
    _stop_where_done(job)
    with job.leading(attempt):
        with ThreadPoolExecutor(STREAMS) as streams:
            put = partial(_put, job, attempt)
            files = [*streams.map(lambda name: put(name, as_safetensors(tensors[name])), tensors)]
        files += [put(name, content) for name, content in plain.items()]
        if job.ranks.rank:
            job.store.write_bytes(_list_of(attempt, job.ranks.rank), LISTED.dump_json(files))
            return
        for rank in range(1, job.ranks.world):
            files += _files_of(job, attempt, rank)
        took = time.monotonic() - began
        attempt.commit(files, result=result.model_copy(update={"upload_s": round(took, 1)}))
        for rank in range(1, job.ranks.world):
            job.store.delete(_list_of(attempt, rank))
    _delete_old(job)
    _say(job, result.step, sum(file.bytes for file in files), held, time.monotonic() - began)


def _put(job: Job, attempt: Attempt, name: str, content: bytes) -> File:
    path = attempt.path(name)
    job.store.write_bytes(path, content)
    kind = Kind.METRICS if name == "metrics.jsonl" else Kind.CHECKPOINT
    return File(path=path, kind=kind, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _list_of(attempt: Attempt, rank: int) -> str:
    return attempt.path(f"files-{rank:05d}.json")


def _files_of(job: Job, attempt: Attempt, rank: int) -> list[File]:
    """The files that another rank has uploaded; waits for its list. If that rank fails, the launcher ends this one."""
    while True:
        with contextlib.suppress(FileNotFoundError, ValueError):  # not there, or not all of it
            return LISTED.validate_json(job.store.read_bytes(_list_of(attempt, rank)))
        time.sleep(0.2)


def _delete_old(job: Job) -> None:
    """Delete all checkpoints but those that the settings keep."""
    engine = job.settings.engine
    found = {Checkpoint.of(one).step: one for one in committed(job)}
    measured = [(loss, step) for step, one in found.items() if (loss := Checkpoint.of(one).heldout_loss) is not None]
    best = min(measured)[1] if measured else None
    stay = kept_steps(list(found), max(KEEP, engine.keep_last), engine.keep_every, best)
    for step in found.keys() - stay:
        _delete(job, found[step])


def _say(job: Job, step: int, size: int, held: tuple[float, float], seconds: float) -> None:
    """How long the loop and the upload took; and beforehand, that the grace period of a stop is too short for one."""
    took, waited = held
    rate = size / max(seconds, 1e-9)
    print(
        f"{job.task.stage}: checkpoint of step {step}, {size / 1e6:,.1f} MB: the steps waited {took:.2f} s"
        + (f", {waited:.2f} s of them for the one before" if waited >= 0.01 else "")
        + f"; uploaded in {seconds:.1f} s at {rate / 1e6:,.0f} MB/s",
        flush=True,
    )
    if not fits(0, seconds, job.grace_s):
        print(
            f"{job.task.stage}: a stop grants {job.grace_s:.0f} s, and a checkpoint of {size / 1e6:,.1f} MB at "
            f"{rate / 1e6:,.0f} MB/s takes {seconds:.0f} s: a stop will lose the steps since the last checkpoint; "
            "grant more, use a faster store, or lower engine.checkpoint_steps",
            flush=True,
        )


def _stop_where_done(job: Job) -> None:
    if job.ranks.rank == 0 and find(job.store, job.task) is not None:
        raise Interrupted(ALREADY.format(job.task.stage))


def committed(job: Job) -> list[Manifest]:
    """The manifests of the task's checkpoints, newest first."""
    return committed_below(job.store, job.task.stage, job.task.fingerprint)


def committed_below(store: Store, stage: str, fingerprint: str) -> list[Manifest]:
    """The manifests of the checkpoints of the task with this fingerprint, newest first."""
    manifests: list[Manifest] = []
    for prefix in checkpoint_prefixes(store, stage, fingerprint):
        with contextlib.suppress(FileNotFoundError, DamagedError):  # not committed, or damaged: `restore` handles that
            manifests.append(read(store, prefix))
    return manifests


class _Saved(BaseModel):
    """What state.json holds."""

    step: int
    engines: dict[str, State]
    extra: dict[str, Any]


@dataclass(frozen=True)
class _Opened:
    """The contents of one checkpoint that one rank needs."""

    manifest: Manifest
    state: dict[str, Any]
    shards: Shards
    random: dict[str, Tensor]
    curves: bytes


def restore(
    job: Job, engines: Mapping[str, Engine], others: Callable[[], Sequence[str]] = tuple
) -> tuple[int, dict[str, Any]]:
    """Put the newest undamaged checkpoint's state into engines, curves and random generators; returns (step, extra).

    Damaged checkpoints are reported and set aside. If the task never had a checkpoint, the first undamaged one of
    `others` is taken, and named in `extra` as `extended_from`; it returns folders of other tasks' checkpoints. If there
    is none, nothing changes and the result is (0, {}). Raises, on every rank, InputError if all checkpoints are damaged
    or the checkpoint does not fit the engines, and StoreError if one cannot be read at this time.
    """
    found = _newest(job) or _first_whole(job, others())
    if found is None:
        return 0, {}
    manifest, state = found.manifest, found.state
    elsewhere = manifest.fingerprint != job.task.fingerprint
    _check_state(job, manifest, state)
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
    job.curves.add(state["step"], resumed=1.0)
    job.behind.took_s = Checkpoint.of(manifest).upload_s or 0.0
    if job.ranks.rank == 0:
        how = "extended" if elsewhere else "resumed"
        print(f"{how} {job.task.stage} from step {state['step']}: {job.store.full(manifest.path)}", flush=True)
    return int(state["step"]), state["extra"] | ({"extended_from": manifest.prefix} if elsewhere else {})


def _check_state(job: Job, manifest: Manifest, state: object) -> None:
    """Raise InputError if state.json is not what `begin` writes today. It is not damaged: its checksum was right."""
    try:
        _Saved.model_validate(state, strict=True)
    except ValidationError as error:
        [first, *_] = error.errors()
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{job.store.full(manifest.prefix)}: its state.json was written by another version of this program "
            f"({printable(key)}: {first['msg']}); delete the folder to start afresh"
        ) from error


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


def _first_whole(job: Job, prefixes: Sequence[str]) -> _Opened | None:
    """The first checkpoint of other tasks that every rank can read. Nothing of another task is ever set aside."""
    for prefix in prefixes:
        look = _look(job, prefix)
        if max(job.ranks.gather(look.state)) is _State.WHOLE:
            return look.opened
        if job.ranks.rank == 0:
            print(
                printable(f"not extended from {job.store.full(prefix)}: {look.why or 'it cannot be read'}"), flush=True
            )
    return None


def _listed(job: Job) -> list[str]:
    """Prefixes that hold a checkpoint's manifest, damaged ones included, newest first."""
    prefixes = checkpoint_prefixes(job.store, job.task.stage, job.task.fingerprint)
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
    if job.ranks.share(job.ranks.rank == 0 and find(job.store, job.task) is not None):
        raise Interrupted(ALREADY.format(job.task.stage))
    aside = [
        entry.path
        for prefix in (
            checkpoint_prefixes(job.store, job.task.stage, job.task.fingerprint) if job.ranks.rank == 0 else ()
        )
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

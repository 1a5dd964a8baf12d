"""Checkpoints: everything that the next step depends on, committed like any result, under `step-<n>` beside the stage's own partition.

    shard-00000-of-00004.safetensors   float32 weights and AdamW's two moments of every fourth parameter, whole
    random-00000.safetensors           one process's random states
    state.json                         step, update counts, and what the stage itself needs to go on (small values)
    metrics.jsonl                      the curves so far

Tensors are stored whole, parameter by parameter, whatever ZeRO stage cut them up: a run may go on with another number of processes,
another ZeRO stage or another micro-batch. With the same ones it goes on bit for bit. Nothing is pickled. Each process writes and uploads its
own share of the parameters; gathering one parameter at a time bounds the memory.
"""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from contract.errors import InputError, Interrupted
from contract.manifest import Attempt, File, Manifest, read
from contract.printable import printable
from training import zero
from training.engine import Engine
from training.job import Job

KEEP = 2  # one to go on from, and one in case the newest is found damaged


def due(step: int, last: int, every: int, stopping: bool) -> bool:
    """Whether to save a checkpoint after update `step`: every `every` updates, and when the task is asked to stop.

    Never after the last update, because the result is committed there.
    """
    return step < last and (stopping or step % every == 0)


def save_when_due(job: Job, step: int, last: int, engines: Mapping[str, Engine], extra: Mapping[str, Any]) -> None:
    """Save a checkpoint if one is `due`; every rank calls this after every update.

    Raises Interrupted after the save where the task was asked to stop.
    """
    stopping = job.stopping()
    if not due(step, last, job.settings.engine.checkpoint_steps, stopping):
        return
    save(job, step, engines, extra)
    if stopping:
        raise Interrupted(f"{job.task.stage}: stopped after step {step} of {last}; run again to go on")


def save(job: Job, step: int, engines: Mapping[str, Engine], extra: Mapping[str, Any]) -> None:
    """Write, upload and commit the state after `step` updates; then delete all but the newest checkpoints. Every rank calls it.

    `extra` maps names to JSON values, the same on every rank. Raises InputError, on every rank, where a weight or a moment
    is no number: what goes on from there is lost.
    """
    shard = _shard(job, engines)
    if job.sum(float(not all(bool(value.isfinite().all()) for value in shard.values())))[0]:
        raise InputError(
            f"{job.task.stage}: weights are no numbers after step {step}; training diverged, lower the learning rate or clip of {job.task.stage}"
        )
    attempt = Attempt(job.run, job.task, f"step-{step:08d}")
    attempt.id = job.share(attempt.id)
    folder = job.fresh(f"checkpoint-{job.rank}")
    save_file(shard, folder / f"shard-{job.rank:05d}-of-{job.world:05d}.safetensors")
    save_file(_random_state(), folder / f"random-{job.rank:05d}.safetensors")
    if job.rank == 0:
        updates = {name: engine.steps_done for name, engine in engines.items()}
        (folder / "state.json").write_text(json.dumps({"step": step, "updates": updates, "extra": dict(extra)}))
        (folder / "metrics.jsonl").write_bytes(job.curves.dump())
    job.store.upload(folder, f"{attempt.prefix}/{attempt.id}")
    job.barrier()
    if job.rank == 0:
        files = [
            File(path=entry.path, kind="metrics" if entry.path.endswith(".jsonl") else "checkpoint", bytes=entry.size)
            for entry in job.store.files(f"{attempt.prefix}/{attempt.id}")
        ]
        attempt.commit(files, metrics={"step": step, "processes": job.world})
        for old in committed(job)[KEEP:]:
            _delete(job, old)
    job.barrier()


def committed(job: Job) -> list[Manifest]:
    """The task's checkpoints, newest first."""
    base = f"{job.task.stage}/{job.task.fingerprint}"
    found: list[Manifest] = []
    for name in sorted((one for one in job.store.folders(base) if one.startswith("step-")), reverse=True):
        try:
            found.append(read(job.store, f"{base}/{name}"))
        except FileNotFoundError:
            continue  # never committed, or being deleted
    return found


@dataclass(frozen=True)
class _Opened:
    """One checkpoint's files as one rank reads them."""

    manifest: Manifest
    state: dict[str, Any]
    shards: "_Shards"
    random: dict[str, Tensor]
    curves: bytes


def restore(job: Job, engines: Mapping[str, Engine]) -> tuple[int, dict[str, Any]]:
    """Put the newest whole checkpoint's state into the engines, the curves and the random generators; returns (step, extra).

    One that is damaged is said and left out. Without any nothing changes and the answer is (0, {}). Raises InputError for one that does
    not fit the engines.
    """
    prefixes = job.share("\n".join(one.prefix for one in committed(job)) if job.rank == 0 else "").split()
    found = next(filter(None, (_open(job, read(job.store, prefix)) for prefix in prefixes)), None)
    if found is None:
        return 0, {}
    manifest, state = found.manifest, found.state
    if state["updates"].keys() != engines.keys():
        raise InputError(
            f"{job.store.full(manifest.path)}: holds {sorted(state['updates'])}, this stage needs {sorted(engines)}; delete it to start afresh"
        )
    for name, engine in engines.items():
        try:
            zero.write(engine.deepspeed, partial(found.shards.tensors, name), state["updates"][name])
        except (KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{job.store.full(manifest.path)}: does not fit the model ({error}); delete it to start afresh"
            ) from error
        engine.steps_done = state["updates"][name]
    if found.random:
        _restore_random_state(found.random)
    if job.rank == 0:
        job.curves.restore(found.curves)
        print(f"resumed {job.task.stage} from step {state['step']}: {job.store.full(manifest.path)}", flush=True)
    return int(state["step"]), state["extra"]


def _open(job: Job, manifest: Manifest) -> _Opened | None:
    """A checkpoint's files, or None, on every rank, where one of them is missing or cut short for any rank."""
    opened = None
    try:
        local = {Path(file.path).name: job.download(file) for file in manifest.files if _wanted(job, file)}
        drawn = local.get(f"random-{job.rank:05d}.safetensors")
        opened = _Opened(
            manifest,
            json.loads(local["state.json"].read_text()),
            _Shards(path for name, path in local.items() if name.startswith("shard-")),
            load_file(drawn) if drawn else {},
            local["metrics.jsonl"].read_bytes(),
        )
    except (FileNotFoundError, KeyError, ValueError, SafetensorError) as error:
        print(printable(f"left out a damaged checkpoint: {job.store.full(manifest.path)} ({error})"), flush=True)
    if not job.sum(float(opened is None))[0]:
        return opened
    if job.rank == 0:
        _delete(job, manifest)  # or the next checkpoint of this step would be refused as a second one
    return None


def _delete(job: Job, manifest: Manifest) -> None:
    """The manifest goes first, so that a reader never meets one whose files are gone."""
    job.store.delete(manifest.path)
    job.store.delete(manifest.prefix)


def _wanted(job: Job, file: File) -> bool:
    name = Path(file.path).name
    return not name.startswith("random-") or name == f"random-{job.rank:05d}.safetensors"


def _shard(job: Job, engines: Mapping[str, Engine]) -> dict[str, Tensor]:
    """This rank's share of the state. Every rank takes part in gathering every parameter, and keeps each world-th."""
    kept: dict[str, Tensor] = {}
    index = 0
    for name, engine in engines.items():
        for parameter, tensors in zero.read(engine.deepspeed):
            if index % job.world == job.rank:
                kept.update({f"{name}/{parameter}/{key}": value.cpu() for key, value in tensors.items()})
            index += 1
    return kept


class _Shards:
    """The tensors of all shards, read when asked for: no process holds a whole checkpoint."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._where: dict[str, dict[str, Path]] = {}  # engine/parameter -> part -> file
        for path in paths:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    parameter, _, part = key.rpartition("/")
                    self._where.setdefault(parameter, {})[part] = path

    def tensors(self, engine: str, parameter: str) -> dict[str, Tensor]:
        name = f"{engine}/{parameter}"
        if name not in self._where:
            raise KeyError(f"no {parameter}")
        found = {}
        for part, path in self._where[name].items():
            with safe_open(path, "pt") as file:
                found[part] = file.get_tensor(f"{name}/{part}")
        return found


def _random_state() -> dict[str, Tensor]:
    """The states of torch's, numpy's and Python's global generators as tensors."""
    version, words, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(key).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    version, *words = states["python"].tolist()
    gauss = states["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    position, has_gauss, cached = states["numpy_rest"].tolist()
    np.random.set_state(("MT19937", states["numpy"].numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])

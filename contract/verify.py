"""Verifies results: that fingerprints follow from identities, and that files are what was committed.

`python -m contract verify URI` follows the chain of manifests from a result down to the stage that read the crawl. It
reads every file that they list, so it takes as long as reading the data does. Crawl files and other files outside the
store are not read, and nothing proves the counts and figures that a manifest holds.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from contract.errors import InputError, StoreError
from contract.manifest import File, Manifest, read
from contract.metrics import Progress
from contract.plan import open_run
from contract.stages import STAGES
from contract.store import Store

FINGERPRINT = re.compile(r"[0-9a-f]{40}")
CHUNK = 8 << 20
READERS = 8  # files at once: reading waits for the store, and hashing lets other threads run


@dataclass(frozen=True)
class Verdict:
    """What was verified, and a line for each thing that is wrong."""

    manifests: int
    files: int
    bytes: int
    wrong: tuple[str, ...]


def verify(uri: str) -> Verdict:
    """Verify a result and everything that it was made from.

    `uri` names a manifest or its folder, or a resolved run's recipe.yaml: then every finished task of the run is
    verified. Raises InputError if it names neither.
    """
    store, prefixes = _starts(uri)
    wrong: list[str] = []
    manifests = dict(_chain(store, prefixes, wrong))
    files: dict[str, tuple[File, list[Manifest]]] = {}
    for manifest in manifests.values():
        for file in manifest.files:
            known, owners = files.setdefault(file.path, (file, []))
            owners.append(manifest)
            if (known.bytes, known.sha256) != (file.bytes, file.sha256):
                other = f"with another size or checksum than {owners[0].path}"
                wrong.append(f"{store.full(manifest.path)}: lists {file.path} {other}")
    wrong += _unlisted(store, manifests)
    progress = Progress("verify", "all", "files", len(files))
    with ThreadPoolExecutor(READERS) as pool:
        for (file, owners), why in zip(
            files.values(), pool.map(partial(_fault, store), (file for file, _ in files.values())), strict=True
        ):
            progress.advance()
            if why:
                wrong.append(f"{store.full(file.path)}: {why}; listed by {', '.join(one.path for one in owners)}")
    progress.finish()
    return Verdict(len(manifests), len(files), sum(file.bytes for file, _ in files.values()), tuple(wrong))


def _starts(uri: str) -> tuple[Store, list[str]]:
    """The store, and the prefixes of the manifests to start from."""
    place, *names = uri.rstrip("/").removesuffix("/manifest.json").rsplit("/", 3)
    if len(names) == 3 and names[0] in STAGES and FINGERPRINT.fullmatch(names[1]):
        store, prefix = Store(place), "/".join(names)
        store.reach()
        if not store.exists(f"{prefix}/manifest.json"):
            raise InputError(f"{uri}: there is no manifest")
        return store, [prefix]
    run = open_run(uri)
    done = [task.prefix for task in run.tasks().values() if run.store.exists(f"{task.prefix}/manifest.json")]
    if not done:
        raise InputError(f"{uri}: no task of this run is done, so there is nothing to verify")
    return run.store, done


def _chain(store: Store, prefixes: list[str], wrong: list[str]) -> Iterator[tuple[str, Manifest]]:
    """Yield (prefix, manifest) of the given results and of all that they were made from, each once.

    Reading a manifest recomputes its fingerprint from its identity.
    """
    waiting, seen = list(reversed(prefixes)), set(prefixes)
    while waiting:
        prefix = waiting.pop()
        try:
            manifest = read(store, prefix)
        except FileNotFoundError:
            wrong.append(f"{store.full(prefix)}/manifest.json: is gone; run {prefix.partition('/')[0]} again")
            continue
        except StoreError as error:  # damaged, or of another version of Gristmill
            wrong.append(str(error))
            continue
        yield prefix, manifest
        before = [one.prefix for one in manifest.inputs if one.prefix not in seen]
        seen.update(before)
        waiting += before


def _unlisted(store: Store, manifests: dict[str, Manifest]) -> Iterator[str]:
    """Yield a line for each file of an earlier stage that a manifest lists and none of its inputs does."""
    for manifest in manifests.values():
        if manifest.identity.segment and manifest.identity.segment != manifest.partition:
            yield f"{store.full(manifest.path)}: was made from the segment {manifest.identity.segment}"
        others = [file for file in manifest.files if not file.path.startswith(f"{manifest.prefix}/")]
        read = [manifests.get(one.prefix) for one in manifest.inputs]
        if None in read:
            continue  # reported already
        listed = {(file.path, file.kind, file.sha256) for one in read if others and one for file in one.files}
        for file in others:
            if (file.path, file.kind, file.sha256) not in listed:
                yield f"{store.full(manifest.path)}: lists {file.path}, which none of its inputs lists"


def _fault(store: Store, file: File) -> str | None:
    """What is wrong with a file in the store, or None if it holds the committed bytes."""
    digest, size = hashlib.sha256(), 0
    try:
        with store.open_input(file.path) as source:
            while data := source.read(CHUNK):
                digest.update(data)
                size += len(data)
    except FileNotFoundError:
        return "is gone"
    except (StoreError, OSError) as error:
        return f"cannot be read ({error})"
    if size != file.bytes:
        return f"has {size:,} bytes, {file.bytes:,} were committed"
    if not file.sha256:
        return "was committed without a checksum"
    return None if digest.hexdigest() == file.sha256 else "holds other bytes than were committed"

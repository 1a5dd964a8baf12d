"""Scratch folders hold an attempt's files on this machine. The attempt removes its own at the end; those of killed
attempts are removed when the next attempt starts."""

import contextlib
import getpass
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from filelock import Timeout

from contract.errors import InputError
from contract.manifest import File
from contract.private import private_folder, private_lock
from contract.store import Store, split_uri


@dataclass
class Scratch:
    """The scratch folder of one attempt on this machine, shared by its processes."""

    store: Store
    stage: str
    attempt: str
    """The attempt's id, the same in every process."""
    local_rank: int = 0

    @cached_property
    def folder(self) -> Path:
        """Its name holds a digest of store and attempt, so no other attempt and no other store's run uses it."""
        own = hashlib.sha256(f"{self.store.uri}\n{self.attempt}".encode()).hexdigest()
        return private_folder(scratch_base() / f"{self.stage}-{own[:24]}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder and remove it at the end, also after an error. The machine's first process does this.

        Every process enters it before it asks for any file. Folders that killed attempts left behind are removed
        first: their lock files are not locked.
        """
        if self.local_rank:
            yield
            return
        for left in scratch_base().glob("*.held"):
            # Another user's file may be named after somebody else's folder.
            with contextlib.suppress(OSError, Timeout), private_lock(left, timeout=0):
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                left.unlink()
        held = self.folder.with_name(self.folder.name + ".held")
        with private_lock(held):
            try:
                yield
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)
                held.unlink(missing_ok=True)

    def fresh(self, name: str) -> Path:
        """An empty folder in this one."""
        made = self.folder / name
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        return made

    def download(self, file: File, store: Store | None = None) -> Path:
        """A local path of a committed file of the stage's own store, or of another one.

        Files of a local store are used in place; others are fetched once per machine, by the first process that asks.
        Raises DamagedError if the file is gone or its size differs from the committed one.
        """
        store = store or self.store
        if not store.is_s3:
            file.open(store).close()
            return store.local(file.path)
        target = self.folder / "inputs" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with private_lock(target.with_name(target.name + ".lock")):
            if not target.exists():
                try:
                    part = store.download(file.path, target.with_name(target.name + ".part"))
                except FileNotFoundError:
                    raise file.damaged(store, None) from None
                file.compare(store, part.stat().st_size)
                os.replace(part, target)
        return target

    def fetch(self, uri: str, patterns: Sequence[str]) -> Path:
        """A local folder with the files of a folder or prefix outside the results whose names match a pattern.

        A local folder is used in place. Raises InputError if it is not there.
        """
        source = Store(uri)
        if not source.is_s3:
            folder = source.local("")
            if not folder.is_dir():
                raise InputError(f"{uri}: is not a folder")
            return folder
        target = self.folder / "outside" / hashlib.sha256(uri.encode()).hexdigest()[:24]
        target.mkdir(parents=True, exist_ok=True)
        with private_lock(target.with_name(target.name + ".lock")):
            for entry in source.files(recursive=False):
                if any(fnmatch(entry.path, pattern) for pattern in patterns) and not (target / entry.path).exists():
                    part = source.download(entry.path, target / f"{entry.path}.part")
                    os.replace(part, target / entry.path)
        return target

    def fetch_all(self, uri: str) -> Path:
        """A local path of a file outside the results, or of a folder or prefix with everything below it.

        What is local is used in place. Raises InputError if it is not there.
        """
        source, name = split_uri(uri)
        if not source.is_s3:
            path = source.local(name)
            if not path.exists():
                raise InputError(f"{uri}: is not there")
            return path
        file = source.entry(name)
        entries = [file] if file else source.files(name)
        if not entries:
            raise InputError(f"{uri}: is not there")
        target = self.folder / "outside" / hashlib.sha256(uri.encode()).hexdigest()[:24]
        target.mkdir(parents=True, exist_ok=True)
        with private_lock(target.with_name(target.name + ".lock")):
            for entry in entries:
                if not (target / entry.path).exists():
                    part = source.download(entry.path, target / f"{entry.path}.part")
                    os.replace(part, target / entry.path)
        return target / name


def scratch_base() -> Path:
    """The parent of all scratch folders of this machine.

    Users may share the folder that GRISTMILL_SCRATCH names; the folders in it are private.
    """
    shared = os.environ.get("GRISTMILL_SCRATCH")
    if not shared:
        return private_folder(Path(tempfile.gettempdir(), f"gristmill-{getpass.getuser()}"))
    Path(shared).mkdir(parents=True, exist_ok=True)
    return Path(shared)

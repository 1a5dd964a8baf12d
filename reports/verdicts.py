"""Notes that a drop was wrong, kept with the run: `runs/<run>/verdicts/<time>-<random>.json`, each created once.

A note changes no result. It tells whoever sets the thresholds which documents should have stayed. Stages, `gc` and
`verify` look at other folders, so notes disturb none of them.
"""

import datetime
import uuid
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from contract.digest import split_digest
from contract.plan import Run
from contract.store import Entry
from reports.indexes import together

NEWEST = 200
MOST_BYTES = 1 << 14
Short = Annotated[str, StringConstraints(max_length=250)]


class Verdict(BaseModel):
    """One note. who: as the login names them; document: an id; stage, reason: of the drop that was wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    who: Short
    when: datetime.datetime
    document: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    stage: Short
    reason: Short
    comment: Annotated[str, StringConstraints(max_length=1000)] = ""


def note(run: Run, verdict: Verdict) -> str:
    """Write a note into the run's store and return its path. Nothing is ever overwritten."""
    when = verdict.when.astimezone(datetime.UTC)
    path = f"{_folder(run)}/{when:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}.json"
    run.store.create(path, verdict.model_dump_json(indent=1).encode())
    return path


def listed(run: Run, document: str = "", most: int = NEWEST) -> tuple[list[Verdict], list[str]]:
    """The newest notes on a run, the newest first, and a sentence on what is left out. document: on this one alone."""
    entries = [entry for entry in run.store.files(_folder(run), recursive=False) if entry.path.endswith(".json")]
    newest = list(reversed(entries))[: most if not document else 10 * most]
    read = list(together(run.store, lambda entry: _read(run, entry), newest))
    found = [one for one in read if one is not None and document in ("", one.document)]
    return found[:most], list(_left_out(len(entries), len(newest), read.count(None)))


def _left_out(every: int, read: int, damaged: int) -> Iterator[str]:
    if every > read:
        yield f"The newest {read:,} of {every:,} notes were read."
    if damaged:
        yield f"{damaged:,} notes cannot be read and are left out; they lie in the folder verdicts of the run."


def _read(run: Run, entry: Entry) -> Verdict | None:
    """A note, or None if the file is none."""
    if entry.size > MOST_BYTES:
        return None
    try:
        return Verdict.model_validate_json(run.store.read_bytes(entry.path))
    except (ValidationError, FileNotFoundError):
        return None


def _folder(run: Run) -> str:
    """The folder of a run's notes, relative to its store."""
    return f"runs/{split_digest(run.uri)[0].split('/')[-2]}/verdicts"

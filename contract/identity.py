"""The identity of a result: everything that decides it. Its digest is the fingerprint, in the path of every result.

Settings enter only where they differ from the defaults, so that a new setting, whose default keeps the old behaviour,
makes no result stale. A changed default is a new version of the stage; `tests/contract/defaults.json` holds the
defaults of every version.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Input(BaseModel):
    """The task whose result was an input of this one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    partition: str
    fingerprint: str

    @property
    def prefix(self) -> str:
        """The folder of that task's result, relative to the store."""
        return f"{self.stage}/{self.fingerprint}/{self.partition}"


class Identity(BaseModel):
    """What decides the result of one task."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    version: int
    settings: dict[str, Any] = {}
    """Dotted key -> value, of the stage's section and of what it declares of other sections, without defaults."""
    facts: dict[str, Any] = {}
    """Name in `contract.facts` -> value."""
    outside: dict[str, str] = {}
    """Dotted key of a setting that names a file or folder outside the store -> digest of its content."""
    segment: str | None = None
    """The segment's name, for a stage that reads crawl files."""
    crawl_files: tuple[str, ...] = ()
    """The identity of each crawl file: of a folder's file its name, size and content; of a mirror's file its URI."""
    inputs: tuple[Input, ...] = ()

    def fingerprint(self) -> str:
        """40 hexadecimal digits of the SHA-256 of the identity as JSON with sorted keys."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:40]

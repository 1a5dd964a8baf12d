"""The digest of a resolved run is part of its URI: `<store>/runs/<run>/recipe.yaml#sha256=<64 hexadecimal digits>`.

A run's two files lie in the store, where users other than the one who resolved it may write. The URI passes from task
to task through Airflow's database, so each task can check that the files are those that were resolved.
"""

import hashlib
import re
from pathlib import Path

from contract.errors import RecipeError

DIGEST = re.compile(r"#sha256=([0-9a-f]{64})\Z")


def split_digest(uri: str) -> tuple[str, str | None]:
    """Split a run's URI into (the URI of its recipe.yaml, its digest or None)."""
    match = DIGEST.search(uri)
    return (uri[: match.start()], match[1]) if match else (uri, None)


def with_digest(place: str, recipe: bytes, inputs: bytes) -> str:
    """The URI, with digest, of the run whose recipe.yaml at `place` and inputs.json have these contents."""
    return f"{place}#sha256={_digest(recipe, inputs)}"


def verify(place: str, digest: str, recipe: bytes, inputs: bytes) -> None:
    """Raise RecipeError if the digest of a run's files is not `digest`."""
    if _digest(recipe, inputs) != digest:
        raise RecipeError(
            f"recipe {place}: it or the inputs.json beside it changed since the run was resolved, "
            "as the digest in the run's URI tells; find out who wrote there, and start a new run"
        )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(recipe: bytes, inputs: bytes) -> str:
    """The digest of the two files' digests, so that no bytes can move from one file to the other unnoticed."""
    return hashlib.sha256(hashlib.sha256(recipe).digest() + hashlib.sha256(inputs).digest()).hexdigest()

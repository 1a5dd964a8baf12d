"""The digest of a resolved run, which travels with its URI: `<store>/runs/<run>/recipe.yaml#sha256=<64 hexadecimal digits>`.

A run's two files lie in the store, where others than those who resolved it may write. The URI goes from task to task through Airflow's
database, so each task can tell whether it reads what was resolved.
"""

import hashlib
import re

from contract.errors import RecipeError

DIGEST = re.compile(r"#sha256=([0-9a-f]{64})\Z")


def split_digest(uri: str) -> tuple[str, str | None]:
    """(the URI of the file, the digest that follows it or None)."""
    found = DIGEST.search(uri)
    return (uri[: found.start()], found[1]) if found else (uri, None)


def with_digest(place: str, recipe: bytes, inputs: bytes) -> str:
    """The URI of a run whose files hold this."""
    return f"{place}#sha256={_digest(recipe, inputs)}"


def verify(place: str, digest: str, recipe: bytes, inputs: bytes) -> None:
    """Raises RecipeError where a run's files hold something else than when it was resolved."""
    if _digest(recipe, inputs) != digest:
        raise RecipeError(
            f"recipe {place}: it or the inputs.json beside it changed since the run was resolved, as the digest in the run's URI tells; "
            "find out who wrote there, and start a new run"
        )


def _digest(recipe: bytes, inputs: bytes) -> str:
    """Of both digests, so that nothing can move from one file to the other."""
    return hashlib.sha256(hashlib.sha256(recipe).digest() + hashlib.sha256(inputs).digest()).hexdigest()

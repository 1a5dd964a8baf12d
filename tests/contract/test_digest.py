"""A run's URI tells what its two files held, and nothing can move from one to the other unnoticed."""

import pytest

from contract.digest import split_digest, verify, with_digest
from contract.errors import RecipeError


def test_a_digest_is_of_both_files_and_of_which_holds_what() -> None:
    uri = with_digest("s3://b/r.yaml", b"ab", b"c")
    place, digest = split_digest(uri)
    assert (place, digest) == ("s3://b/r.yaml", uri.removeprefix("s3://b/r.yaml#sha256="))
    assert digest is not None
    verify(place, digest, b"ab", b"c")
    for recipe, inputs in ((b"a", b"bc"), (b"abc", b""), (b"ab", b"d"), (b"c", b"ab")):
        with pytest.raises(RecipeError, match=r"^recipe s3://b/r\.yaml: it or the inputs\.json beside it changed"):
            verify(place, digest, recipe, inputs)


@pytest.mark.parametrize(
    "tail", ["", "#sha256=" + "a" * 63, "#sha256=" + "A" * 64, f"#sha256={'a' * 64}\n", "#sha256=/y"]
)
def test_only_a_whole_digest_is_one(tail: str) -> None:
    assert split_digest(f"x{tail}") == (f"x{tail}", None)

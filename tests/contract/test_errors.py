"""Exit codes are what Airflow's operator fails, retries or resumes by: each error has its own, and none changes."""

import time

import pytest

from contract import errors
from contract.errors import GristmillError


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("GristmillError", 1),
        ("StoreError", 1),
        ("InputError", 65),
        ("NotReadyError", 65),
        ("Interrupted", 75),
        ("RecipeError", 78),
    ],
)
def test_an_error_ends_a_process_with_its_code(name: str, code: int) -> None:
    error = getattr(errors, name)
    assert issubclass(error, GristmillError)
    assert error("a").exit_code == code


def test_a_message_is_one_line_in_time_that_grows_with_it() -> None:
    assert str(GristmillError(" a \n\n  b\t\n c ")) == "a b c"
    began = time.process_time()
    GristmillError("a" + " " * 400_000 + "b")
    assert time.process_time() - began < 2

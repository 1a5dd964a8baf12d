"""Plain values pass; what hides a value, or stands for more than it shows, does not."""

import pytest

from contract import plainyaml


def test_plain_values_pass() -> None:
    assert plainyaml.load("a: {b: [1, 2.5, x]}\nc: null") == {"a": {"b": [1, 2.5, "x"]}, "c": None}
    assert plainyaml.load("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1, c: 2}", r"key 'c' stands twice.*line 2"),
        ("a: &x 1\nb: *x", "an alias is not read here; write the value out"),
        ("n: 1" + "0" * plainyaml.MAX_DIGITS, "a number of more than 4,300 characters"),
        ("x: " + ":".join(["1"] * plainyaml.MAX_DIGITS), "a number of more than 4,300 characters"),
        ("[" * (plainyaml.MAX_DEPTH + 1) + "]" * (plainyaml.MAX_DEPTH + 1), "nested more than 20 deep"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_what_hides_a_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(plainyaml.ERRORS, match=f"(?s){message}"):
        plainyaml.load(text)


def test_as_deep_and_as_long_as_allowed() -> None:
    deep = "[" * plainyaml.MAX_DEPTH + "]" * plainyaml.MAX_DEPTH
    assert str(plainyaml.load(deep)).count("[") == plainyaml.MAX_DEPTH
    assert plainyaml.load("7" * plainyaml.MAX_DIGITS) == int("7" * plainyaml.MAX_DIGITS)

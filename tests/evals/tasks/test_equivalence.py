"""Expressions that say the same and expressions that do not."""

import time

import pytest

from evals.tasks.equivalence import MOST_CHARS, alike, equivalent

SAME = [
    ("1/2", "\\frac{1}{2}"), ("0.5", "\\frac12"), ("x=5", "5"), ("2(x+1)", "2x+2"), ("x^2-1", "(x-1)(x+1)"), ("1,000", "1000"),
    ("\\$5", "5"), ("50\\%", "50"), ("90^\\circ", "90"), ("12 \\text{ cm}", "12"), ("12 cm", "12"), ("\\sqrt{8}", "2\\sqrt{2}"),
    ("1,2", "2,1"), ("1\\frac{1}{2}", "\\frac{3}{2}"), ("y = 2x + 3", "y=3+2x"), ("\\{1,2\\}", "\\{2, 1\\}"), ("[1,2)", "[1, 2)"),
    ("3 \\pm \\sqrt{2}", "3+\\sqrt{2}, 3-\\sqrt{2}"), ("(0.5,3)", "\\left(\\frac{1}{2},3\\right)"), ("5!", "120"), ("2^{10}", "1024"),
    ("\\frac{1}{x}", "x^{-1}"), ("x+y=3", "y+x=3"), ("x+y=3", "3=x+y"), ("2^{-1}", "0.5"), ("2^-1", "1/2"), ("x^{-2}", "1/x^2"), ("(A)", "A"), ("1+2i", "2i+1"), ("\\sin(x)^2+\\cos^2 x", "1"),
    ("\\sqrt[3]{8}", "2"), ("\\log_{}10", "\\log_{}10"), ("-|x|", "-|x|"), ("e^{2x}", "e^x e^x"), ("7 square units", "7"),
    ("(\\sqrt{3}-\\sqrt{2})^6", "485-198\\sqrt{6}"), ("\\frac{1}{99-70\\sqrt{2}}", "99+70\\sqrt{2}"), ("(x+1)^{10}", "(x^2+2x+1)^5"),
    ("\\sin(100\\pi)", "0"), ("e^{i\\pi}", "-1"), ("\\sqrt{0}", "0"), ("2^{100}", "4^{50}"), ("\\frac{10^{10}-1}{9}", "1111111111"),
    ("(\\text{A}, 1/2)", "(\\text{A}, 0.5)"), ("\\text{A, C}", "\\text{C, A}"), ("ab", "ba"), ("\\text{B}", "B"), ("\\text{b}", "b"), ("\\sqrt{9}!", "6"), ("|x|^2", "x^2"),
    ("\\text{Evelyn}", "evelyn"), ("101_{2}", "101_2"), ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
]  # fmt: skip
OTHER = [
    ("0.33", "1/3"), ("(1,2)", "(2,1)"), ("[1,2]", "(1,2)"), ("x+1", "x+2"), ("2", "3"), ("", "5"), ("5", ""), ("1,2", "1,2,3"), ("1,1", "1,2"),
    ("12345678901234567890", "12345678901234567891"), ("x=y+1", "y-1=x"), ("9^9^9^9^9", "5"), ("1/0", "5"), ("171!", "171!!"), ("(-1)!", "1"),
    ("__import__('os').getpid()", "5"), ("Evelyn", "Brook"), ("\\frac{1}{2}", "2"), ("x", "y"), ("i", "1"), ("a=b=c", "a=b=d"), ("3", "3x"), ("2^{-1}", "-2"), ("x+1", "-x-1"),
    ("2^{40}", "2^{40}-1"), ("3^{20}", "3^{20}-1"), ("\\frac{10^{10}-1}{9}", "\\frac{10^{10}}{9}"), ("2^{40}+\\pi", "2^{40}+\\pi-1"),
    ("\\text{east}", "\\text{seat}"), ("no", "on"), ("\\text{no}", "\\text{on}"), ("east", "seat"), ("\\text{AB}", "\\text{BA}"), ("\\text{ab}", "ba"),
    ("a+c", "2b"), ("x+z", "2y"), ("|x|", "x"), ("\\sqrt{x^2}", "x"), ("0.3333333333", "1/3"), ("\\sqrt{10^{30}+1}-10^{15}", "0.5"), ("\\frac{1}{\\sin(\\pi)}", "5"),
    ("3.14159265", "\\pi"), ("x^{-1}", "-x"), ("1.5!", "1"), ("\\sqrt{2}!", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_these_say_the_same_both_ways(one: str, other: str) -> None:
    assert equivalent(one, other)
    assert equivalent(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_these_do_not(one: str, other: str) -> None:
    assert not equivalent(one, other)
    assert not equivalent(other, one)


def test_brackets_may_be_nested_but_not_without_end() -> None:
    for opening, closing in (("(", ")"), ("{", "}"), ("\\sqrt{", "}"), ("-(", ")"), ("1^{", "}"), ("\\sin(", ")")):
        assert equivalent(f"{opening * 8}1{closing * 8}+0", f"{opening * 8}1.0{closing * 8}")
        deep = f"{opening * 60}1{closing * 60}"
        assert len(deep) > MOST_CHARS or not equivalent(deep, f"{deep}+0")


def test_what_is_too_long_is_equal_to_nothing() -> None:
    assert equivalent("1" * MOST_CHARS, "1" * MOST_CHARS)
    assert not equivalent("1" * (MOST_CHARS + 1), "1" * (MOST_CHARS + 1))


def test_units_and_names_of_one_letter_are_left_out() -> None:
    assert alike("x = 12\\text{ cm}^2.") == "12"
    assert alike("f(x) = 2 x") == "2x"
    assert alike("\\dfrac 3 4") == "\\frac{3}{4}"


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "{",
        "9^",
        "\\sqrt",
        "\\frac",
        "|",
        "-",
        "!",
        "((1)",
        "\\sin",
        "1,",
        "=",
        "x\\text{",
        "^\\circ",
        "a b ",
        "9^999*",
        "x^99+",
        "\\sqrt2*",
        "east ",
        "1/7+",
        "\\text{no}",
    ],
)
def test_hostile_expressions_end_at_once(piece: str) -> None:
    text = (piece * MOST_CHARS)[: MOST_CHARS - 1] + "1"
    began = time.perf_counter()
    assert not equivalent(text, "123456789")
    assert time.perf_counter() - began < 0.5

"""Numbers in text, against what a reader takes them for."""

from fractions import Fraction

import pytest

from evals.tasks.numbers import MOST_DIGITS, chinese, chinese_value, every, numbers, plain, worded, written


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1,234.56 and 7", ["1234.56", "7"]),
        ("1.234,56", ["1234.56"]),
        ("1.234.567", ["1234567"]),
        ("1,00,000", ["100000"]),
        ("0,5 .5 5.", ["0.5", "0.5", "5"]),
        ("3/4 1 1/2 2½", ["0.75", "1.5", "2.5"]),
        ("3-5", ["3", "5"]),
        ("9 - 5", ["9", "5"]),
        ("(-8) and -$3.20 and $-3", ["-8", "-3.2", "-3"]),
        ("−7 or negative 4", ["-7", "-4"]),
        ("12 000 but 2019 100", ["12000", "2019", "100"]),
        ("5\u202f000\u202f000", ["5000000"]),
        ("1.2 million, 3万5千, 1.2万, 50k", ["1200000", "35000", "12000", "50000"]),
        ("1e5 and 1.5 × 10^3 and 6 \\times 10^{4}", ["100000", "1500", "60000"]),
        ("1{,}000 \\frac{3}{4}", ["1000", "0.75"]),
        ("version 1.2.3", []),
        ("1/0", ["1", "0"]),
        ("12'345 ３５", ["12345", "35"]),
    ],
)
def test_digits_are_read_with_their_separators_signs_and_scales(text: str, wanted: list[str]) -> None:
    assert [written(one.value) for one in numbers(plain(text))] == wanted


def test_what_is_too_long_or_too_large_is_no_number() -> None:
    assert numbers("9" * (MOST_DIGITS + 1)) == []
    assert [one.value for one in numbers("9" * MOST_DIGITS)] == [10**MOST_DIGITS - 1]
    assert [one.value for one in numbers("1e9999")] == [1, 9999], "and no power of ten of a billion digits is made"


def test_a_number_knows_its_place() -> None:
    (found,) = numbers("it is 1,500 m")
    assert (found.start, found.end) == (6, 11)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("twenty-one", ["21"]),
        ("one hundred and five", ["105"]),
        ("two and a half", ["2.5"]),
        ("three thousand two hundred", ["3200"]),
        ("one million two hundred thousand and one", ["1200001"]),
        ("minus five", ["-5"]),
        ("one two", ["1", "2"]),
        ("five and six", ["5", "6"]),
        ("a dozen or two dozen", ["12", "24"]),
        ("three quarters", ["0.75"]),
        ("half a hundred", ["0.5", "100"]),
        ("nothing", []),
    ],
)
def test_english_words_are_numbers(text: str, wanted: list[str]) -> None:
    assert [written(one.value) for one in worded(text)] == wanted


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        ("三千五百", 3500), ("二〇二四", 2024), ("三点一四", Fraction(314, 100)), ("四分之三", Fraction(3, 4)),
        ("百分之二十", 20), ("负五", -5), ("十二", 12), ("两百五", 250), ("一万零五", 10005), ("一百零三", 103),
        ("三万五", 35000), ("一亿两千万", 120_000_000), ("壹佰贰拾叁", 123), ("几", None), ("点", None), ("零分之一", None),
    ],
)  # fmt: skip
def test_chinese_numerals(run: str, wanted: Fraction | None) -> None:
    assert chinese_value(run) == wanted


def test_every_way_of_writing_is_asked_for_the_surest_first() -> None:
    found = [[written(one.value) for one in several] for several in every("两个半, 7 and six")]
    assert found == [["7"], ["2.5"], ["6"]]
    assert [one.value for one in chinese("一共有二十四个")] == [1, 24]


@pytest.mark.parametrize(("value", "text"), [(Fraction(5), "5"), (Fraction(-7, 4), "-1.75"), (Fraction(1, 3), "1/3")])
def test_a_value_is_written_in_one_way(value: Fraction, text: str) -> None:
    assert written(value) == text

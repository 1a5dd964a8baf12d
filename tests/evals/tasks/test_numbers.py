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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1亿2万3千4百", ["100023400"]), ("3万5", ["30005"]), ("3千5万", ["3000", "50000"]), ("3万3万", ["30000", "30000"]),
        ("3万5千 and 6", ["35000", "6"]), ("1万2千3千4万", ["12000", "3000", "40000"]),
    ],
)  # fmt: skip
def test_a_smaller_chinese_unit_goes_on_with_a_number_and_no_other_does(text: str, wanted: list[str]) -> None:
    assert [written(one.value) for one in numbers(plain(text))] == wanted


@pytest.mark.parametrize("piece", ["3万", "3千", "3亿", "9亿9万9千"])
def test_units_that_are_repeated_without_end_are_numbers_of_their_own(piece: str) -> None:
    (one,) = numbers(piece)
    assert [found.value for found in numbers(piece * 2000)] == [one.value] * 2000
    assert [found.value for found in numbers("3万" + "0万" * 2000)] == [30_000]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (" hundred", 100), (" thousand", 1000), (" million", 10**6), (" billion", 10**9), (" trillion", 10**12), (" dozen", 12),
        ("百", 100), ("千", 1000), ("万", 10**4), ("百万", 10**6), ("千万", 10**7), ("亿", 10**8), ("万亿", 10**12), ("k", 1000),
        ("K", 1000), ("M", 10**6), ("bn", 10**9), ("-million", 10**6), ("km", 1), ("Mx", 1),
    ],
)  # fmt: skip
def test_every_scale_multiplies_what_stands_before_it(name: str, value: int) -> None:
    assert [one.value for one in numbers(f"3{name}")] == [3 * value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("zero", 0), ("one", 1), ("two", 2), ("three", 3), ("four", 4), ("five", 5), ("six", 6), ("seven", 7), ("eight", 8),
        ("nine", 9), ("ten", 10), ("eleven", 11), ("twelve", 12), ("thirteen", 13), ("fourteen", 14), ("fifteen", 15),
        ("sixteen", 16), ("seventeen", 17), ("eighteen", 18), ("nineteen", 19), ("twenty", 20), ("thirty", 30), ("forty", 40),
        ("fifty", 50), ("sixty", 60), ("seventy", 70), ("eighty", 80), ("ninety", 90), ("ninety-nine", 99), ("five thousand", 5000),
        ("two million", 2 * 10**6), ("three billion", 3 * 10**9), ("four trillion", 4 * 10**12), ("a thousand", 1000),
        ("a million", 10**6), ("hundred", 100), ("three and a quarter", Fraction(13, 4)), ("one and a third", Fraction(4, 3)),
        ("two thirds", Fraction(2, 3)), ("five halves", Fraction(5, 2)), ("three fourths", Fraction(3, 4)),
        ("two hundred thousand", 200_000), ("one thousand and one", 1001), ("negative two", -2), ("three dozen", 36),
    ],
)  # fmt: skip
def test_every_number_word(text: str, value: Fraction) -> None:
    assert [one.value for one in worded(f"it is {text}!")] == [value]


def test_words_that_are_no_part_of_a_number_end_it() -> None:
    assert [one.value for one in worded("seven and a bird, a one, two and eight")] == [7, 1, 2, 8]
    assert [one.value for one in worded("now seven")] == [7]
    assert [(one.start, one.end) for one in worded("it is twenty one!")] == [(6, 16)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1,234,56", []), ("1,2,3", []), ("12,34", ["12.34"]), ("1.2,3", []), ("1,234.5,6", []), ("1.234", ["1.234"]), ("12.345.6", []),
        ("0 123", ["0", "123"]), ("1 234,5", ["1234.5"]), ("1 234 567.25", ["1234567.25"]), ("5 100,000", ["5", "100000"]),
        ("1/2/3", ["1", "2/3"]), ("3 and 1/2", ["3.5"]), ("3 5/4", ["3", "1.25"]), ("1e-3", ["0.001"]), ("10^6", ["1000000"]),
        ("10^{3}", ["1000"]), ("5 - 3", ["5", "3"]), ("= - 3", ["-3"]), ("so - 3", ["3"]), ("so -3", ["-3"]), ("9 -3", ["9", "3"]),
        ("5%-3", ["5", "3"]), ("-", []), ("负 5", ["-5"]), ("2 x 10^3", ["2000"]), ("2**10", ["2", "10"]),
    ],
)  # fmt: skip
def test_odd_runs_of_digits(text: str, wanted: list[str]) -> None:
    assert [written(one.value) for one in numbers(plain(text))] == wanted

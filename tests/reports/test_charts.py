"""The figures: where each bar, line and word stands, and what the numbers beside them say."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from contract.settings.filter import Rule
from reports import charts
from reports.charts import (
    GONE,
    GRID,
    OURS,
    THEIRS,
    Bar,
    as_text,
    bounds,
    box,
    funnel,
    histograms,
    panel,
    place,
    share,
    short,
    text,
)


def rule(side: str, limit: float, score: str = "short_lines") -> Rule:
    return Rule("g", "short_lines", score, side, limit)


def boxes(parts: list[str], colour: str) -> list[tuple[float, ...]]:
    """x, y, width and height of the boxes of one colour."""
    found = [
        re.fullmatch(rf'<rect x="(.*)" y="(.*)" width="(.*)" height="(.*)" fill="{colour}"/>', part) for part in parts
    ]
    return [tuple(map(float, one.groups())) for one in found if one]


def words(parts: list[str]) -> list[tuple[float, float, str, str, str]]:
    """x, y, class, anchor and words of each text."""
    found = [
        re.fullmatch('<text x="(.*)" y="(.*)" class="(.*)" text-anchor="(.*)">(.*)</text>', part) for part in parts
    ]
    return [(float(one[1]), float(one[2]), one[3], one[4], one[5]) for one in found if one]


def test_pieces() -> None:
    assert (
        text(1, 2.25, "a < b", "title", "end")
        == '<text x="1.0" y="2.2" class="title" text-anchor="end">a &lt; b</text>'
    )
    assert text(0, 0, "a") == '<text x="0.0" y="0.0" class="" text-anchor="start">a</text>'
    assert box(1, 2, 0.5, 0.25, "#fff") == '<rect x="1.0" y="2.0" width="0.5" height="0.2" fill="#fff"/>'
    assert 'width="0.0" height="0.0"' in box(1, 2, -3, -4, "#fff")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.12345, "0.123"),
        (99.4, "99.4"),
        (100.4, "100"),
        (-100.4, "-100"),
        (12345.6, "12,346"),
        (7, "7"),
        (99.96, "100"),
    ],
)
def test_short_numbers(value: float, shown: str) -> None:
    assert short(value) == shown


def test_a_funnel() -> None:
    drawn = funnel([Bar("crawl", 0.5, None), Bar("filter & co", 0.25, 0.2)], "mine", "Theirs")
    lines = drawn.splitlines()
    assert lines[0].endswith('viewBox="0 0 820 156" width="820" height="156">')
    assert lines[2] == '<rect width="820" height="156" fill="#ffffff"/>'
    assert drawn.endswith("</svg>\n")
    assert boxes(lines, OURS) == [(210, 30, 10, 10), (210, 56, 265, 15), (210, 94, 132.5, 15)]
    assert boxes(lines, THEIRS) == [(300, 30, 10, 10), (210, 111, 106, 9)]
    assert boxes(lines, GRID) == [(x, 52, 1, 76) for x in (210, 342.5, 475, 607.5, 740)]
    assert words(lines) == [
        (210, 20, "title", "start", "Documents left after each step: mine"),
        (225, 39, "", "start", "this run"),
        (315, 39, "", "start", "Theirs"),
        *((x, 142, "faint", "middle", said) for x, said in zip((210, 342.5, 475, 607.5, 740), ("0%", "25%", "50%", "75%", "100%"), strict=True)),
        (200, 70, "", "end", "crawl"),
        (480, 68, "", "start", "50.0%"),
        (200, 108, "", "end", "filter &amp; co"),
        (347.5, 106, "", "start", "25.0%"),
        (321, 120, "faint", "start", "20.0%"),
    ]  # fmt: skip


def test_a_sheet_of_histograms() -> None:
    values = np.array([0.0, 1.0, np.nan])
    drawn = histograms([(f"score {at}", values, []) for at in range(5)])
    assert 'viewBox="0 0 1014 298"' in drawn
    assert re.findall(r"translate\((\d+),(\d+)\)", drawn) == [
        ("14", "34"), ("264", "34"), ("514", "34"), ("764", "34"), ("14", "166"),
    ]  # fmt: skip
    titles = words(drawn.splitlines())[:2]
    assert [one[:3] for one in titles] == [(14, 16, "title"), (164, 16, "faint")]
    assert len(boxes(drawn.splitlines(), OURS)) == 5 * 32
    assert 'viewBox="0 0 1014 166"' in histograms([("one", values, [])] * 4)
    ElementTree.fromstring(drawn)


def test_a_panel_shows_counts_thresholds_and_what_goes() -> None:
    values = np.array([0.0] * 64 + [1.0] * 16)
    parts = panel("short_lines", values, [rule(">", 0.5), rule("<", -5.0), rule(">", 1.0)])
    step = 226 / 32
    bars = boxes(parts, OURS)
    assert [bar[0] for bar in bars] == [round(at * step, 1) for at in range(32)]
    assert {bar[2] for bar in bars} == {6.1}
    assert [(bar[1], bar[3]) for bar in bars] == [(30, 64), *[(94, 0)] * 30, (62, 32)]  # square roots of 64 and 16
    assert boxes(parts, GONE) == [(round(31 * step, 1), 62, 6.1, 32)]
    assert [part for part in parts if part.startswith("<path")] == [
        f'<path d="M{at} 28V98" stroke="{GONE}" stroke-dasharray="3 2"/>' for at in ("113.0", "226.0")
    ]
    assert boxes(parts, charts.FAINT) == [(0, 94, 226, 1)]
    assert words(parts) == [
        (0, 10, "title", "start", "short_lines"),
        (0, 24, "gone", "start", "&gt; 0.5: 20.0%; &lt; -5: 0.0%; &gt; 1: 0.0%"),
        (0, 109, "faint", "start", "0"),
        (113, 109, "faint", "middle", "0.5"),
        (226, 109, "faint", "end", "1"),
    ]


def test_values_beyond_the_ends_are_in_the_first_and_the_last_bar() -> None:
    values = np.array([-100.0, *np.linspace(0, 1, 199), 100.0])
    parts = panel("short_lines", values, [rule(">", 0.995)])
    heights = [bar[3] for bar in boxes(parts, OURS)]
    assert len(heights) == 32
    assert min(heights) > 50
    assert len(boxes(parts, GONE)) == 1


def test_counts_over_powers_of_ten() -> None:
    parts = panel("words", np.array([10.0] * 64 + [1000.0] * 16), [rule("<", 100.0, "words")])
    assert [bar[3] for bar in boxes(parts, OURS)] == [64, *[0] * 30, 32]
    assert [bar[3] for bar in boxes(parts, GONE)] == [64]
    assert any('d="M113.0 28V98"' in part for part in parts)
    assert [one[4] for one in words(parts)[2:]] == ["10", "100", "1,000"]


def test_a_score_that_no_document_has() -> None:
    parts = panel("perplexity", np.array([]), [])
    assert words(parts) == [
        (0, 10, "title", "start", "perplexity"),
        (0, 24, "faint", "start", "no rule"),
        (113, 74, "faint", "middle", "not measured"),
    ]
    assert boxes(parts, GRID) == [(0, 94, 226, 1)]
    assert share(np.array([]), rule(">", 1)) == 0.0


LOW, HIGH = np.array([0.0] * 50 + [1.0] * 50), np.array([10.0] * 50 + [1000.0] * 50)


@pytest.mark.parametrize(
    ("values", "limits", "logarithmic", "ends"),
    [
        (LOW, [], False, (0, 1)),
        (LOW, [4.0, -3.0], False, (-3, 4)),
        (LOW, [4.1, -3.1], False, (0, 1)),
        (LOW, [0.5], False, (0, 1)),
        (LOW + 7, [11.0], False, (7, 11)),
        (LOW + 7, [4.0], False, (4, 8)),
        (LOW * 0 + 5, [], False, (5, 6)),
        (HIGH, [], True, (10, 1000)),
        (HIGH, [1.0, 10_000.0], True, (1, 10_000)),
        (HIGH, [0.9, 10_001.0], True, (10, 1000)),
        (LOW, [], True, (1, 10)),
        (LOW * 0 + 5, [], True, (5, 50)),
        (HIGH / 20, [], True, (1, 50)),
    ],
)  # fmt: skip
def test_a_panel_reaches_to_the_thresholds_near_it(
    values: np.ndarray, limits: list[float], logarithmic: bool, ends: tuple[float, float]
) -> None:
    assert bounds(values, [rule(">", limit) for limit in limits], logarithmic) == ends


def test_places_between_the_ends() -> None:
    assert place(3, 1, 5, False) == 0.5
    assert place(10, 1, 100, True) == 0.5
    assert place(8, 2, 32, True) == 0.5


def test_a_histogram_in_words() -> None:
    values = np.array([*range(1, 201), *[100] * 80, 5000.0, np.nan])
    assert as_text("sentences", values, [rule("<", 20.0), rule(">", 184.0), rule(">", 10_000.0)]) == [
        "",
        "#### sentences",
        "",
        "short_lines: drops when < 20, 19 of 281",
        "short_lines: drops when > 184, 17 of 281",
        "short_lines: drops when > 10000, 0 of 281",
        "",
        "```",
        "       3.8 ######                               19 (3 of them below, from 1)",
        "        20 #####                                17 <- < 20",
        "      36.2 #####                                16",
        "      52.4 #####                                16",
        "      68.6 #####                                16",
        "      84.8 ##############################       96",
        "       101 #####                                17",
        "     117.2 #####                                16",
        "     133.4 #####                                16",
        "     149.6 #####                                16",
        "     165.8 #####                                16",
        "       182 ######                               20 <- > 184 (3 of them above 198.2, up to 5000)",
        "```",
    ]


def test_values_at_the_ends_do_not_lie_beyond_them() -> None:
    assert not any("(" in line for line in as_text("x", LOW, []))


def test_a_histogram_of_one_value_in_words() -> None:
    assert as_text("words", np.array([7.0, 7.0]), []) == [
        "", "#### words", "", "", "```", f"{'6.5':>10} {'#' * 30} {'2':>8}", "```",
    ]  # fmt: skip
    assert as_text("words", np.array([np.nan]), []) == ["", "#### words", "", "not measured"]

"""Text from the web is shown and never run, and JSON holds what browsers can read."""

import datetime
import json
import math

import numpy as np
import pytest

from reports.cockpit.rendering import as_json, count, duration, files, moment, percent, plain, templates, visible

HOSTILE = "<script>alert(1)</script>\" onload='x'"


def shown(source, **values):
    return templates().from_string(source).render(values)


def test_markup_of_a_text_is_escaped_in_text_and_in_attributes():
    assert shown("{{ a }}", a=HOSTILE) == ("&lt;script&gt;alert(1)&lt;/script&gt;&#34; onload=&#39;x&#39;")
    made = shown('<p data-rows="{{ rows|json }}">', rows=[HOSTILE])
    assert "<script" not in made
    assert made.count('"') == 2


def test_hidden_characters_are_made_visible_and_lines_stay():
    assert shown("{{ a }}", a="a\x1b[2J\u202eb\n\tc") == "a\\x1b[2J\\u202eb\n\tc"
    assert visible("é 漢") == "é 漢"
    assert visible(7) == 7


def test_a_name_that_is_missing_is_an_error():
    with pytest.raises(Exception, match="'nothing' is undefined"):
        shown("{{ nothing }}")


def test_json_has_null_for_what_is_no_number():
    value = {"a": [math.nan, math.inf, 1.5, np.float32(0.5), np.int64(3)], 4: np.array([1.0, math.nan])}
    assert json.loads(as_json(value)) == {"a": [None, None, 1.5, 0.5, 3], "4": [1.0, None]}
    assert plain(datetime.date(2026, 3, 4)) == "2026-03-04"
    assert plain({"x": {True}}) == {"x": [True]}
    with pytest.raises(TypeError, match="object is no value for JSON"):
        as_json(object())


def test_json_in_a_page_is_ascii():
    assert as_json("\u2028</script>") == '"\\u2028</script>"'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s"), (60, "1 min 0 s"), (119.6, "2 min 0 s"),
     (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90_000, "25 h 0 min")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_numbers_and_times():
    assert [count(None), count(1234567)] == ["-", "1,234,567"]
    assert [percent(None), percent(math.nan), percent(0.1234)] == ["-", "-", "12.3\N{NO-BREAK SPACE}%"]
    east = datetime.timezone(datetime.timedelta(hours=2))
    assert moment(datetime.datetime(2026, 3, 4, 1, 30, tzinfo=east)) == "2026-03-03 23:30 UTC"
    assert moment(None) == "-"


def test_the_browsers_files_are_our_own_and_plotlys():
    found = files()
    assert {"style.css", "frame.js", "charts.js", "plotly.min.js"} <= found.keys()
    assert found["plotly.min.js"][0].stat().st_size > 1_000_000
    assert len({digest for _, digest in found.values()}) == len(found)

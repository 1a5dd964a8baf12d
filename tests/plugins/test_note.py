"""The line that a run's note gets, beside what a person wrote there."""

import pytest
from airflow.plugins_manager import get_plugin_info

from gristmill_airflow.note import noted

LINE = "uses recipe tiny, crawl NEWS-2024-10 of /data/news, as crawl_refresh keeps it"


@pytest.mark.parametrize(
    ("note", "then"),
    [
        (None, LINE),
        ("", LINE),
        ("for the paper", f"{LINE}\nfor the paper"),
        ("uses recipe base, of an earlier try\nthe result", f"{LINE}\nthe result"),
        (LINE, LINE),
    ],
)
def test_the_first_line_is_ours_and_the_others_stay(note, then):
    assert noted(note, LINE) == then


def test_a_note_never_outgrows_its_column():
    assert noted(None, LINE * 20) == (LINE * 20)[:1000]
    assert noted("x" * 980, LINE) == f"{LINE[:19]}\n{'x' * 980}", "what a person wrote stays whole"
    assert noted("x" * 1000, LINE) == "x" * 1000


def test_airflow_loads_the_listener():
    (plugin,) = [one for one in get_plugin_info() if one["name"] == "gristmill"]
    assert plugin["listeners"] == ["gristmill_airflow.note"]

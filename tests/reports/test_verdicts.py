"""Notes on drops lie beside the run, are never overwritten, and disturb nothing that cleans or checks the store."""

import datetime

import pytest
from pydantic import ValidationError

from contract.gc import collect
from reports import verdicts
from reports.verdicts import Verdict


def note(at, document="a" * 32, comment="it is fine"):
    when = datetime.datetime(2026, 1, 2, 3, 4, at, tzinfo=datetime.UTC)
    return Verdict(who="ada", when=when, document=document, stage="filter", reason="too_few_words", comment=comment)


def test_the_newest_note_comes_first_and_old_ones_are_left_out(judged_run):
    paths = [verdicts.note(judged_run, note(at, f"{at:032x}")) for at in range(3)]
    assert all(path.startswith("runs/one/verdicts/2026") for path in paths)
    found, left_out = verdicts.listed(judged_run)
    assert ([one.when.second for one in found], left_out) == ([2, 1, 0], [])
    found, left_out = verdicts.listed(judged_run, most=2)
    assert ([one.when.second for one in found], left_out) == ([2, 1], ["The newest 2 of 3 notes were read."])
    assert [one.when.second for one in verdicts.listed(judged_run, document=f"{0:032x}")[0]] == [0]


def test_what_is_no_note_is_left_out(judged_run):
    verdicts.note(judged_run, note(0))
    judged_run.store.write_bytes("runs/one/verdicts/x.json", b"{")
    judged_run.store.write_bytes("runs/one/verdicts/y.json", b"x" * (verdicts.MOST_BYTES + 1))
    found, left_out = verdicts.listed(judged_run)
    assert len(found) == 1
    assert left_out == ["2 notes cannot be read and are left out; they lie in the folder verdicts of the run."]


def test_a_note_is_bounded():
    with pytest.raises(ValidationError):
        note(0, comment="x" * 1001)
    with pytest.raises(ValidationError):
        note(0, document="../../x")


def test_gc_leaves_notes_alone(judged_run):
    path = verdicts.note(judged_run, note(0))
    assert collect(judged_run.store, 3600, 4e9, delete=True)[0] == []
    assert judged_run.store.exists(path)
    assert verdicts.listed(judged_run)[0] == [note(0)]


@pytest.fixture
def judged_run(resolve_run, tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "a.warc.gz").write_bytes(b"WARC")
    return resolve_run(tmp_path / "crawl")

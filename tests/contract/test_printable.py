"""What strangers wrote can neither move a cursor nor begin a line nor turn one round, wherever it is shown."""

import datetime
import logging
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import contamination, fetch, funnel
from contract.contamination import Benchmark, Report
from contract.errors import InputError, RecipeError
from contract.funnel import Level
from contract.headline import headline
from contract.identity import Identity
from contract.manifest import Manifest, Rows
from contract.printable import printable, printable_lines
from contract.recipe import parse

EVIL = "\x1b[2J\rerror: forged\n\x9b1m\u202efile\u2066\u2028\x07\ud800"
SHOWN = r"\x1b[2J\rerror: forged\n\x9b1m\u202efile\u2066\u2028\x07\ud800"


def test_what_does_something_is_written_out() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("\t\x00\x7f\x85\u061c\u200e\u200f\u2029\u2069") == r"\t\x00\x7f\x85\u061c\u200e\u200f\u2029\u2069"


def test_what_is_shown_stays() -> None:
    for text in ("", "naïve 東京 مرحبا 👩‍💻 \\x1b ~ \xa0 ­", "C:\\new"):
        assert printable(text) == text


@given(st.text(st.characters()))
def test_nothing_that_does_something_is_left(text: str) -> None:
    made = printable(text)
    assert not [one for one in made if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [
        one
        for one in made
        if unicodedata.bidirectional(one) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    assert printable(made) == made
    assert len(made.splitlines()) <= 1


def test_it_is_linear() -> None:
    began = time.process_time()
    printable("\x1ba" * 500_000)
    assert time.process_time() - began < 5


def test_errors_warnings_headlines_and_tables_are_printable(caplog: pytest.LogCaptureFixture) -> None:
    assert str(InputError(f"{EVIL} is wrong")) == SHOWN.replace(r"\n", " ") + " is wrong"
    with caplog.at_level(logging.WARNING):
        fetch.warn(EVIL)
    assert caplog.messages == [f"warning: {SHOWN}"]
    now = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
    made = Manifest(
        stage="filter", identity=Identity(stage="filter", version=1), fingerprint="a" * 40, partition="all", attempt="attempt-x", files=(),
        rows=Rows(read=1, dropped=1, reasons={EVIL: 1}), run="", code="", started=now, finished=now,
    )  # fmt: skip
    assert headline(made) == f"0 of 1 documents kept; {SHOWN} 1"
    level = Level("filter", 1, 0, 0, funnel.Counter({EVIL: 1}), funnel.Counter())
    assert funnel.render([level]).splitlines()[1].endswith(f"  {SHOWN} 1")
    one = Benchmark(
        name=EVIL, items=1, sought=1, leaked=0, overlapping=0, documents_leaking=0, documents_overlapping=0, ngrams=1, ngrams_found=1,
        common=((EVIL, 2),),
    )  # fmt: skip
    table = contamination.render("the crawl", Report(benchmarks=(one,)))
    assert table[1].startswith(SHOWN)
    assert table[2] == f"    in 2 documents: {SHOWN}"


@pytest.mark.parametrize("hidden", ["\x85", "\x9b", "\u202e", "\u2028"])
def test_a_recipe_names_nothing_with_them(hidden: str) -> None:
    with pytest.raises(RecipeError, match="should hold no control characters"):
        parse("", "here", [f'instructions.data="/data/a{hidden.encode("unicode_escape").decode()}"'])


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1bb\n\nc") == "a\\x1bb\n\nc\n"
    assert printable_lines("") == ""

"""What every reader agrees on: one form of text, what is no text, and lines that are too long."""

import io
import re
import sys
import time
import tracemalloc
import unicodedata

import pytest

from contract import examples
from contract.conversation import Turn, opening
from contract.examples import Unusable, clean, lines_of


def test_a_conversation_opens_with_the_first_thing_a_user_says() -> None:
    assert opening((Turn("system", "Be kind."), Turn("user", "So?"), Turn("user", "Well?"))) == "So?"
    assert opening((Turn("assistant", "Hello."),)) == "Hello."


def test_a_text_is_stored_in_one_form() -> None:
    assert clean(" cafe\u0301\r\nau\rlait \n") == "caf\u00e9\nau\nlait"
    with pytest.raises(Unusable, match=r"^broken text: lone surrogate at character 2$"):
        clean("ab\ud800")


def test_a_huge_line_is_passed_over_and_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MAX_LINE_BYTES", 100)
    stream = io.BufferedReader(io.BytesIO(b"\n".join([b"a" * 99, b"b" * 100, b"x" * 10_000_000, b"c", b"y" * 101])))
    tracemalloc.start()
    found = list(lines_of(stream))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [str(line) if isinstance(line, Unusable) else len(line) for line in found] == [
        100, "row too long: 101 bytes", "row too long: 10,000,001 bytes", 2, "row too long: 101 bytes",
    ]  # fmt: skip
    assert peak < 2_000_000


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0f73"], ids=["marks", "one that becomes two"])
def test_a_long_run_of_marks_is_refused_in_linear_time(marks: str) -> None:
    clean("\u00e9")  # so that what is made once does not count
    begun = time.process_time()
    with pytest.raises(Unusable, match="broken text: more than 1,000 combining marks in a row"):
        clean("a" + marks * 80_000)
    assert time.process_time() - begun < 1
    few = marks * (1000 // len(marks))
    for start in (0, 1, 500, 998, 999, 1000, 1001, 1999):
        text = "a" * start + few
        assert clean(f"{text} {text}") == unicodedata.normalize("NFC", f"{text} {text}").strip()
        with pytest.raises(Unusable):
            clean(f"{text}\u0301 {text}")


def test_every_combining_mark_counts() -> None:
    found = set("".join(re.findall(examples._marks(), "".join(map(chr, range(sys.maxunicode + 1))))))
    assert found >= {chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))}
    assert not found & set("a\u00e9\u0439\uac00\u4e00 ")

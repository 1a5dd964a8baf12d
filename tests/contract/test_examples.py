"""Files of instructions and preferences, good and bad: every row comes out, as an example or as a reason with its place."""

import gzip
import json
import re
import sys
import time
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from contract import examples
from contract.conversation import Preference, Turn, opening
from contract.errors import InputError
from contract.examples import (
    ALPACA,
    HH_RLHF,
    Format,
    Unusable,
    clean,
    inspect,
    parse_alpaca,
    parse_dialogue,
    parse_hh,
    read,
)

GOOD = {"instruction": "a", "output": "b"}


def found_in(path: Path, form: Format[Any] = ALPACA) -> tuple[list[Any], list[tuple[str, str]]]:
    """(the examples, each unusable row's place and what is wrong with it) of a file."""
    rows = list(read("x.data", str(path), form))
    bad = [(row.place, str(row.found)) for row in rows if isinstance(row.found, Unusable)]
    return [row.found for row in rows if not isinstance(row.found, Unusable)], bad


def test_alpaca_rows() -> None:
    assert parse_alpaca({"instruction": "Add.", "input": "1, 2", "output": "3 "}) == (
        Turn("user", "Add.\n\n1, 2"),
        Turn("assistant", "3"),
    )
    for extra in ({}, {"input": None}, {"input": " "}):
        assert parse_alpaca({"instruction": " a ", "output": "b", **extra})[0] == Turn("user", "a")


def test_hh_rlhf_rows_share_their_prompt() -> None:
    prompt = "\n\nHuman: Who?\n\nAssistant: Me.\n\nHuman: Why?\n\nAssistant:"
    found = parse_hh({"chosen": prompt + " Because.", "rejected": prompt + " No."})
    turns = (Turn("user", "Who?"), Turn("assistant", "Me."), Turn("user", "Why?"))
    assert found == Preference(turns, "Because.", "No.")
    assert parse_dialogue("\n\nHuman: a\n\nb\n\nAssistant: c")[0].text == "a\n\nb"
    assert parse_dialogue(" \n\nHuman: a Human: b\n\nAssistant: c") == (
        Turn("user", "a Human: b"),
        Turn("assistant", "c"),
    )


def test_a_conversation_opens_with_the_first_thing_a_user_says() -> None:
    assert opening((Turn("system", "Be kind."), Turn("user", "So?"), Turn("user", "Well?"))) == "So?"
    assert opening((Turn("assistant", "Hello."),)) == "Hello."


def test_a_text_is_stored_in_one_form() -> None:
    assert clean(" cafe\u0301\r\nau\rlait \n") == "caf\u00e9\nau\nlait"
    with pytest.raises(Unusable, match=r"^broken text: lone surrogate at character 2$"):
        clean("ab\ud800")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], "not an object"),
        ("text", "not an object"),
        ({"output": "b"}, "missing text: instruction"),
        ({"instruction": None, "output": "b"}, "missing text: instruction"),
        ({"instruction": "\n", "output": "b"}, "empty text: instruction"),
        ({"instruction": "a", "input": 3, "output": "b"}, "not a text: input"),
        ({"instruction": "a", "input": None, "output": ["b"]}, "not a text: output"),
        ({"instruction": "a", "output": "b\udfff"}, "broken text: lone surrogate at character 1"),
    ],
)
def test_why_an_instruction_cannot_be_used(row: object, said: str) -> None:
    with pytest.raises(Unusable, match=f"^{said}$"):
        parse_alpaca(row)


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        ("Human: a\n\nAssistant: b", "Human: a\n\nAssistant: b ", "replies are equal"),
        (
            "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "replies are equal",
        ),
        ("Human: a\n\nAssistant: b", "Human: c\n\nAssistant: d", "prompts differ"),
        ("Human: a\n\nAssistant: b", "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "prompts differ"),
        ("Human: a\n\nAssistant: ", "Human: a\n\nAssistant: b", "empty text: reply"),
        ("Human: a\n\nAssistant: b\n\nHuman: c", "Human: a\n\nAssistant: d", "not a dialogue: .*ends with a reply"),
        ("So. \n\nHuman: a\n\nAssistant: b", "Human: a\n\nAssistant: d", "not a dialogue: .*ends with a reply"),
        ("Assistant: b", "Assistant: d", "not a dialogue: .*ends with a reply"),
    ],
)
def test_why_a_comparison_cannot_be_used(chosen: str, rejected: str, said: str) -> None:
    with pytest.raises(Unusable, match=f"^{said}$"):
        parse_hh({"chosen": chosen, "rejected": rejected})


def test_bad_rows_are_named_with_file_and_line(tmp_path: Path) -> None:
    lines = [
        "{",
        '"text"',
        '{"instruction": "a"}',
        '{"instruction": 1, "output": "b"}',
        '{"instruction": "a", "output": " "}',
        '{"instruction": "\\ud800", "output": "b"}',
        "[" * 100_000,
        "1" * 10_000,
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join([*lines, "", json.dumps(GOOD)]).encode() + b"\n{\xff}\n")
    found, bad = found_in(path)
    assert found == [(Turn("user", "a"), Turn("assistant", "b"))]
    assert bad == [
        ("a.jsonl line 1", "not json"),
        ("a.jsonl line 2", "not an object"),
        ("a.jsonl line 3", "missing text: output"),
        ("a.jsonl line 4", "not a text: instruction"),
        ("a.jsonl line 5", "empty text: output"),
        ("a.jsonl line 6", "broken text: lone surrogate at character 0"),
        ("a.jsonl line 7", "not json"),
        ("a.jsonl line 8", "not json"),
        ("a.jsonl line 11", "not json"),
    ]
    snippets = [row.snippet for row in read("x.data", str(path), ALPACA)]
    assert snippets[:2] == ["{\n", '"text"\n']
    assert max(map(len, snippets)) <= 800


def test_a_huge_line_is_passed_over_and_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MAX_LINE_BYTES", 100)
    fits = json.dumps({"instruction": "a", "output": "b"}).ljust(99)
    path = tmp_path / "a.jsonl.gz"
    rows = [fits, fits + " ", "x" * 10_000_000, fits, "y" * 101]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    tracemalloc.start()
    found, bad = found_in(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2
    assert bad == [
        ("a.jsonl.gz line 2", "row too long: 101 bytes"),
        ("a.jsonl.gz line 3", "row too long: 10,000,001 bytes"),
        ("a.jsonl.gz line 5", "row too long: 101 bytes"),
    ]
    assert peak < 2_000_000


def test_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("1.jsonl", "2.json", "3.jsonl.gz", "deep/4.json.gz", "5.txt", "6.jsonl.bak", "7jsonl")
    ):
        data = json.dumps([{"instruction": f"q{number + 1}", "output": "a"}]).encode()
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    rows = list(read("x.data", str(tmp_path / "in"), ALPACA))
    assert {row.place: row.found[0].text for row in rows} == {
        "in/1.jsonl item 0": "q1",
        "in/2.json item 0": "q2",
        "in/3.jsonl.gz item 0": "q3",
        "in/deep/4.json.gz item 0": "q4",
    }
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "5.txt").write_text("{}")
    with pytest.raises(InputError, match=r"^x\.data: .*/none: the folder holds no file named .json"):
        list(read("x.data", str(tmp_path / "none"), ALPACA))


@pytest.mark.parametrize("form", ["lines", "array", "gzip", "folder", "bom", "bom array"])
def test_every_form_of_file_reads_the_same(tmp_path: Path, form: str) -> None:
    rows = [{"instruction": f"q{index}", "output": f"a{index}"} for index in range(5)]
    data = json.dumps(rows) if "array" in form else "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / "in" / ("rows.jsonl.gz" if form == "gzip" else "rows.json")
    path.parent.mkdir()
    coded = b"\xef\xbb\xbf" * ("bom" in form) + data.encode()
    path.write_bytes(gzip.compress(coded) if form == "gzip" else coded)
    (path.parent / "LICENSE").write_text("free")
    found, bad = found_in(path.parent if form == "folder" else path)
    assert [turns[1].text for turns in found] == ["a0", "a1", "a2", "a3", "a4"]
    assert not bad


def test_an_array_names_its_bad_item_or_that_it_is_no_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text(' \n[{"instruction": "a", "output": "b"}, 7, {}]')
    found, bad = found_in(path)
    assert len(found) == 1
    assert bad == [("a.json item 1", "not an object"), ("a.json item 2", "missing text: instruction")]
    for broken in ('[{"instruction": "a", "output": "b"},', "[" * 100_000):
        path.write_text(broken)
        with pytest.raises(
            InputError, match=r"^x\.data: .*a.json: not valid JSON \(.*allowed: JSONL or one JSON array"
        ):
            found_in(path)
    monkeypatch.setattr(examples, "MAX_ARRAY_BYTES", 20)
    path.write_text('["123456789012345"]\n')
    assert found_in(path)[1] == [("a.json item 0", "not an object")]
    path.write_text('["1234567890123456"]\n')
    with pytest.raises(InputError, match=r"is a JSON array of more than 20 bytes; write it as JSONL"):
        found_in(path)


def test_a_damaged_or_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(InputError, match=r"^x\.data: .*a.jsonl: no such file or folder"):
        found_in(path)
    packed = gzip.compress(
        b"".join(json.dumps({"instruction": str(at), "output": "b"}).encode() + b"\n" for at in range(999))
    )
    for damaged in (packed[:-20], packed[:-5] + b"\xff" + packed[-4:], packed[:10] + b"\xff" * 20):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"^x\.data: file://{path}: damaged gzip \(.*\); fetch it again"):
            found_in(path)


def test_a_file_is_described_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(["{}", json.dumps(GOOD), "{", json.dumps(GOOD), "7"]))
    first = "the first: a.jsonl line 1: missing text: instruction"
    assert inspect("x.data", str(path), ALPACA) == f"x.data: 2 usable rows, 3 unusable, {first}"
    assert inspect("x.data", str(path), ALPACA, 1) == f"x.data: 1 usable rows, 1 unusable, {first}"
    with pytest.raises(
        InputError,
        match=r"^x\.data: .*a.jsonl holds no usable row \(a.jsonl line 1: missing text: chosen\); allowed: .*rejected",
    ):
        inspect("x.data", str(path), HH_RLHF)
    path.write_text(json.dumps(GOOD))
    assert inspect("x.data", str(path), ALPACA) == "x.data: 1 usable rows"
    path.write_text("\n")
    with pytest.raises(InputError, match=r"holds no usable row \(it is empty\)"):
        inspect("x.data", str(path), ALPACA)


def test_real_preference_files(data_dir: Path) -> None:
    found, bad = found_in(data_dir / "pref" / "hh-rlhf", HH_RLHF)
    assert len(found) + len(bad) == 2312 + 2354
    assert len(found) > 4500, bad
    assert all(one.prompt[-1].role == "user" and one.chosen and one.chosen != one.rejected for one in found)


def test_real_instruction_files(data_dir: Path) -> None:
    found, bad = found_in(data_dir / "sft" / "llama-factory" / "alpaca_en_demo.json")
    assert len(found) + len(bad) == 999
    assert len(found) > 990


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

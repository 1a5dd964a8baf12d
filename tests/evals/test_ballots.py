"""Pairs and ballots as files, and the command that judges."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.errors import InputError
from evals.__main__ import EXIT_UNJUDGED, main
from evals.ballots import ballot_file, lines_of, read_pairs
from evals.judge import Ballot, Judging, Pair
from tests.evals.conftest import Answer, Served


def rows(path: Path, *some: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in some))
    return path


def test_pairs_are_read(tmp_path: Path) -> None:
    one = {"id": 1, "prompt": "p", "ours": "o", "theirs": "t"}
    path = rows(tmp_path / "pairs.jsonl", one, {**one, "id": "2", "category": "code", "difficulty": None})
    assert read_pairs(path) == [Pair("1", "p", "o", "t"), Pair("2", "p", "o", "t", "code")]
    for wrong, why in (
        ({"id": 1}, "is no pair"),
        ({**one, "ours": 5}, "must be texts"),
        ([], "is no pair"),
        (one, "occurs twice"),
    ):
        rows(path, one, wrong)
        with pytest.raises(InputError, match=f"pairs.jsonl:2: .*{why}"):
            read_pairs(path)
    rows(path)
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path / "gone")


def test_ballots_are_told_by_category_and_with_what_is_missing() -> None:
    def voted(name: str, category: str) -> Ballot:
        return Ballot(Pair(name, name, "o", "t", category), "first", "second")

    lines = lines_of(Judging((voted("a", "code"), voted("b", "art"), voted("c", "")), {"d": "down"}))
    assert lines[0] == "1 of 4 pairs were not judged and count nowhere, for example: down"
    assert lines[1] == "win rate 1.0000 [0.4385, 1.0000], n = 3"
    assert [line.split(":")[0] for line in lines[5:]] == ["  category none", "  category art", "  category code"]
    assert lines_of(Judging((), {"d": "down"})) == ["1 of 1 pairs were not judged and count nowhere, for example: down"]


def test_verdicts_are_written_with_their_reasons(tmp_path: Path) -> None:
    with ballot_file(tmp_path / "b.jsonl") as keep:
        keep(Ballot(Pair("a", "p", "o", "t"), "first", "tie", ("x", "y")))
        (row,) = map(json.loads, (tmp_path / "b.jsonl").read_text().splitlines())
    assert (row["id"], row["score"], row["reasons"]) == ("a", 0.75, ["x", "y"])
    with pytest.raises(InputError, match="cannot be written"), ballot_file(tmp_path / "no" / "b.jsonl"):
        pass
    with ballot_file(None) as keep:
        keep(Ballot(Pair("a", "p", "o", "t"), "first", "tie"))


def test_the_command_judges_over_http(tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = rows(tmp_path / "p.jsonl", *({"id": at, "prompt": f"p{at}", "ours": "o", "theirs": "t"} for at in range(3)))
    given = [
        "judge",
        "--pairs",
        str(pairs),
        "--endpoint",
        served.url,
        "--model",
        "m",
        "--out",
        str(tmp_path / "b.jsonl"),
    ]
    served.answer = lambda body, number: "reads well [[A]]"
    assert main(given) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "all 3 pairs were judged",
        "win rate 0.5000 [0.5000, 0.5000], n = 3",
    ]
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 3
    assert len(served.asked) == 6
    served.answer = lambda body, number: "no verdict"
    assert main(given) == EXIT_UNJUDGED
    assert (
        capsys.readouterr().out
        == "3 of 3 pairs were not judged and count nowhere, for example: the judge's answer holds no verdict\n"
    )


def test_one_refused_pair_costs_no_other_its_verdict_and_a_refused_key_none_that_is_paid(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ({"id": at, "prompt": f"p{at}", "ours": "o" * (at == 2), "theirs": "t"} for at in range(4))
    pairs, out = rows(tmp_path / "p.jsonl", *some), tmp_path / "b.jsonl"
    given = ["judge", "--pairs", str(pairs), "--endpoint", served.url, "--model", "m", "--out", str(out)]

    def too_long(body: dict[str, Any], number: int) -> str | Answer:
        return (400, {}, b"context length exceeded") if "p2" in body["messages"][1]["content"] else "[[A]]"

    served.answer = too_long
    assert main([*given, "--workers", "1"]) == EXIT_UNJUDGED
    said = capsys.readouterr().out
    assert said.startswith("1 of 4 pairs were not judged and count nowhere, for example: http")
    assert "refuses the request (status 400): context length exceeded" in said
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["0", "1", "3"]
    served.asked.clear()
    served.answer = lambda body, number: "[[A]]" if number <= 2 else (401, {}, b"")
    assert main([*given, "--workers", "1"]) == 78
    assert "refuses the key" in capsys.readouterr().err
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["0"]
    served.answer = lambda body, number: (404, {}, b"no such model")
    assert main(given) == 65, "what refuses every question ends it"

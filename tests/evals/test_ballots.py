"""Pairs and ballots as files, and the command that judges."""

import json
import re
from collections.abc import Callable
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
        ({**one, "score": 1.5}, "a number from 0 to 1"),
        ({**one, "score": True}, "a number from 0 to 1"),
        (one, "occurs twice"),
    ):
        rows(path, one, wrong)
        with pytest.raises(InputError, match=f"pairs.jsonl:2: .*{why}"):
            read_pairs(path)
    rows(path, {**one, "score": 0.25})
    assert read_pairs(path)[0].others == 0.25
    del one["theirs"]
    rows(path, one)
    assert read_pairs(path, ("prompt", "ours")) == [Pair("1", "p", "o", "")]
    with pytest.raises(InputError, match="it needs id, prompt, ours, theirs"):
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
        "win rate 0.5000 [0.1253, 0.8747], n = 3",
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


def test_replies_are_rated_by_category_and_difficulty(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = [("code", "hard", "4"), ("code", "easy", "8"), ("art", "hard", "9"), ("art", "easy", "no points")]
    some = (
        {"id": at, "prompt": f"p{at}", "ours": f"says {points}", "category": category, "difficulty": difficulty}
        for at, (category, difficulty, points) in enumerate(kinds)
    )
    pairs, out = rows(tmp_path / "p.jsonl", *some), tmp_path / "r.jsonl"
    served.answer = lambda body, number: f"so [[{body['messages'][1]['content'].partition('says ')[2].split()[0]}]]"
    given = ["judge", "--rate", "--pairs", str(pairs), "--endpoint", served.url, "--model", "m", "--out", str(out)]
    assert main(given) == EXIT_UNJUDGED
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "1 of 4 replies were not judged and count nowhere, for example: the judge's answer holds"
    )
    assert [line.split(" [")[0] for line in lines[1:]] == [
        "points from 1 to 10: 7.00", "  category art: 9.00", "  category code: 6.00",
        "  difficulty easy: 8.00", "  difficulty hard: 6.50",
    ]  # fmt: skip
    kept = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert sorted((row["points"], row["reasons"], row["category"]) for row in kept.values()) == [
        (4, "so [[4]]", "code"), (8, "so [[8]]", "code"), (9, "so [[9]]", "art"),
    ]  # fmt: skip


def test_what_a_judge_gives_ours_beyond_what_others_give_is_told(
    tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ballots of one judge are the pairs of the next."""
    some = ({"id": at, "prompt": f"p{at}", "ours": "o", "theirs": "t"} for at in range(20))
    pairs, first, second = rows(tmp_path / "p.jsonl", *some), tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    given = ["judge", "--endpoint", served.url, "--model", "m"]

    def likes_ours(every: int) -> Callable[[dict[str, Any], int], str]:
        def answer(body: dict[str, Any], number: int) -> str:
            said = body["messages"][1]["content"]
            ours_first = said.index("\no\n") < said.index("\nt\n")
            own = int(re.findall(r"p(\d+)", said)[0]) % every == 0
            return "[[A]]" if ours_first == own else "[[B]]"

        return answer

    served.answer = likes_ours(2)
    assert main([*given, "--pairs", str(pairs), "--out", str(first)]) == 0
    assert "gives ours" not in capsys.readouterr().out
    assert main([*given, "--pairs", str(first), "--out", str(second)]) == 0
    assert "gives ours +0.0000 [+0.0000, +0.0000] more than the pairs' scores do, n = 20: no" in capsys.readouterr().out
    served.answer = likes_ours(1)
    assert main([*given, "--pairs", str(second)]) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("gives ours")]
    assert line.startswith("gives ours +0.5000 [+0.27")
    assert line.endswith("n = 20: it likes its own family, if ours is of it")

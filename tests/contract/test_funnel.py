"""The funnel of a run whose counts are known, and each of its columns."""

from collections import Counter
from collections.abc import Callable

import pytest

from contract.funnel import Level, human_bytes, levels, render, tables
from contract.manifest import Attempt, Rows
from contract.plan import Run


def level(read: int, kept: int, reasons: dict[str, int] | None = None, losses: dict[str, int] | None = None) -> Level:
    return Level("extract", read, kept, 2048, Counter(reasons or {}), Counter(losses or {}))


def test_a_level_is_the_sum_of_its_segments_and_only_of_finished_ones(make_run: Callable[..., Run]) -> None:
    run = make_run()
    one, two = (segment.partition for segment in run.segments)

    def commit(stage: str, partition: str = "all", **rows: object) -> None:
        Attempt(run, run.task(stage, partition)).commit([], Rows.model_validate(rows))

    assert levels(run) == []
    commit("crawl", one, losses={"cut": 3})
    commit("extract", one, read=9, kept=6, dropped=3, reasons={"empty": 2, "slow": 1}, bytes_kept=100)
    commit("extract", two, read=4, kept=3, dropped=1, reasons={"empty": 1}, bytes_kept=20, losses={"odd": 2})
    commit("langid", one, read=6, kept=6, bytes_kept=90)
    commit("minhash_sign", one)
    commit("sft", read=5, kept=5)
    assert levels(run) == [
        Level("crawl", 0, 0, 0, Counter(), Counter({"cut": 3})),
        Level("extract", 13, 9, 120, Counter({"empty": 3, "slow": 1}), Counter({"odd": 2})),
        Level("langid", 6, 6, 90, Counter(), Counter()),
    ]


def test_a_damaged_manifest_is_left_out_with_a_warning(
    make_run: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    one, two = (run.task("extract", segment.partition) for segment in run.segments)
    Attempt(run, one).commit([], Rows(read=2, kept=2))
    run.store.write_bytes(f"{two.prefix}/manifest.json", b"{")
    assert [level.read for level in levels(run)] == [2]
    assert f"left out: {run.store.full(two.prefix)}/manifest.json: is not a manifest" in caplog.text


def test_shares_are_of_the_stage_and_of_the_first() -> None:
    lines = render([level(200, 100), level(100, 30, {"a": 40, "b": 30})]).splitlines()
    assert [line.split() for line in lines] == [
        ["stage", "documents", "kept", "of", "all", "bytes", "dropped", "because"],
        ["extract", "100", "50.0%", "50.0%", "2.0", "KiB", "-"],
        ["extract", "30", "30.0%", "15.0%", "2.0", "KiB", "a", "40,", "b", "30"],
    ]


def test_the_sources_beside_the_crawl_count_from_where_they_join_it() -> None:
    def at(stage: str, read: int, kept: int) -> str:
        return next(line for line in told if line.startswith(stage)).split()[3]

    found = [("crawl", 200, 100), ("dedup_url", 100, 80), ("curate", 50, 40), ("dedup_fuzzy", 120, 100)]
    told = render([Level(*one, 0, Counter(), Counter()) for one in found]).splitlines()
    assert [at(*one) for one in found] == ["50.0%", "40.0%", "80.0%", "40.0%"]


def test_a_stage_that_read_nothing_kept_nothing() -> None:
    assert render([]).splitlines() == ["stage             documents    kept  of all     bytes  dropped because"]
    [_, line] = render([level(0, 0)]).splitlines()
    assert line == "extract                   0    0.0%    0.0%   2.0 KiB  -"
    [_, first, last] = render([level(200, 100), level(0, 0)]).splitlines()
    assert (first.split()[2:4], last.split()[2:4]) == (["50.0%", "50.0%"], ["0.0%", "0.0%"])


@pytest.mark.parametrize(
    ("letters", "said"),
    [
        ("abcdef", "f 6, e 5, d 4, c 3, b 2, a 1"),
        ("abcdefg", "g 7, f 6, e 5, d 4, c 3, b 2, 1 other reasons 1"),
        ("abcdefghi", "i 9, h 8, g 7, f 6, e 5, d 4, 3 other reasons 6"),
    ],
)
def test_rare_reasons_are_told_together(letters: str, said: str) -> None:
    reasons = {letter: number for number, letter in enumerate(letters, 1)}
    assert render([level(100, 1, reasons)]).splitlines()[1].endswith(f"KiB  {said}")


def test_what_never_became_a_document_stands_below_in_lines_that_fit() -> None:
    losses = {f"kind_of_record_{letter}": 1000 + number for number, letter in enumerate("abcdef")}
    lines = render([level(2, 1, losses=losses)]).splitlines()[2:]
    assert lines[0].startswith(
        f"{' ' * 16}records that gave no document: kind_of_record_f 1,005, kind_of_record_e 1,004,"
    )
    assert lines[1].startswith(" " * 18)
    assert lines[1][18] != " "
    assert max(map(len, lines)) <= 110
    assert " ".join(lines).split()[-2:] == ["kind_of_record_a", "1,000"]


def test_bytes_have_a_unit_that_a_person_reads() -> None:
    counts = (0, 1023, 1024, 1536, 1 << 20, 3 << 30, (1 << 40) - 1, 1 << 40, 5000 << 40)
    assert [human_bytes(count) for count in counts] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "3.0 GiB", "1024.0 GiB", "1.0 TiB", "5000.0 TiB",
    ]  # fmt: skip


def test_examples_stand_in_a_table_of_their_own(make_run: Callable[..., Run]) -> None:
    """They are not documents: none of them is in the funnel, and a share of all documents says nothing of them."""
    run = make_run()
    Attempt(run, run.task("decontaminate")).commit(
        [], Rows(read=200, kept=100, dropped=100, reasons={"contaminated": 100})
    )
    assert tables(run) == [render(levels(run))]
    rows = Rows(read=50, kept=40, dropped=10, reasons={"duplicate": 3, "contaminated": 7}, bytes_kept=2048)
    Attempt(run, run.task("preferences")).commit([], rows)
    assert [level.stage for level in levels(run)] == ["decontaminate"]
    assert [level.stage for level in levels(run, "examples")] == ["preferences"]
    assert tables(run)[1:] == [
        "",
        "stage              examples    kept             bytes  dropped because",
        "preferences              40   80.0%           2.0 KiB  contaminated 7, duplicate 3",
    ]

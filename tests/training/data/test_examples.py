"""The committed chats and pairs as training reads them: row by row, in order, and nothing more in memory than the tables."""

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from contract.conversation import Preference, Turn
from contract.errors import DamagedError
from contract.kinds import Kind
from contract.tables import read_rows
from training.data import examples
from training.data.examples import distinct_prompts, read_chats, read_pairs
from training.engine.job import Job


def test_examples_are_the_committed_rows(make_job: Callable[..., Job]) -> None:
    job = make_job("sft")
    for kind, floor in ((Kind.CHATS, 50), (Kind.HELDOUT_CHATS, 50)):
        (file,) = job.manifest("instructions").of(kind)
        rows = list(read_rows(job.store, file))
        chats = read_chats(job, kind)
        assert len(chats) == len(rows) == file.rows >= floor
        expected = [tuple(Turn(**turn) for turn in row["turns"]) for row in rows]
        assert list(chats) == expected
        assert [chats[at] for at in (0, 7, len(rows) - 1)] == [expected[at] for at in (0, 7, -1)]
        assert chats[3:9] == expected[3:9]
        assert chats[9:3] == chats[len(rows) :] == []
        for beyond in (len(rows), -1):
            with pytest.raises(IndexError):
                chats[beyond]
        with pytest.raises(ValueError, match="in order"):
            chats[::2]


def test_pairs_and_their_distinct_prompts(make_job: Callable[..., Job]) -> None:
    job = make_job("reward")
    (file,) = job.manifest("preferences").of(Kind.PAIRS)
    rows = list(read_rows(job.store, file))
    pairs = read_pairs(job, Kind.PAIRS)
    assert list(pairs) == [
        Preference(
            tuple(Turn(**turn) for turn in row["prompt"]),
            row["chosen"],
            row["rejected"],
            row["task"],
            row["chosen_score"],
            row["rejected_score"],
        )
        for row in rows
    ]
    prompts = [one.prompt for one in pairs]
    found = distinct_prompts(pairs)
    assert found == sorted({prompt: at for at, prompt in reversed(list(enumerate(prompts)))}.values())
    assert [prompts[at] for at in found] == list(dict.fromkeys(prompts))
    assert distinct_prompts(pairs, 5) == found[:5]
    assert distinct_prompts(pairs, 10**6) == found


def test_examples_that_are_left_out_keep_the_numbers_of_the_others(make_job: Callable[..., Job]) -> None:
    chats = read_chats(make_job("sft"), Kind.CHATS)
    kept = chats.without({0, 3, 4, 9})
    numbers = [number for number in range(len(chats)) if number not in (0, 3, 4, 9)]
    assert (list(kept.numbers), len(kept)) == (numbers, len(chats) - 4)
    assert list(kept) == [chats[number] for number in numbers]
    assert kept[1:7] == [chats[number] for number in (2, 5, 6, 7, 8, 10)]
    assert kept[len(kept) - 1] == chats[len(chats) - 1]


def test_a_table_that_a_disk_has_changed_is_refused(make_job: Callable[..., Job]) -> None:
    job = make_job("sft")
    (file,) = job.manifest("instructions").of(Kind.CHATS)
    data = bytearray(job.store.read_bytes(file.path))
    data[len(data) // 3] ^= 1
    job.store.write_bytes(file.path, bytes(data))
    with pytest.raises(DamagedError, match="does not hold what was committed"):
        list(read_chats(job, Kind.CHATS))


def test_the_processes_of_a_machine_share_one_table(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reads the store; another of the same attempt maps the file that the first wrote, and copies nothing."""
    job = make_job("sft")
    first = list(read_chats(job, Kind.CHATS))
    monkeypatch.setattr(examples, "read_batches", None)
    before = pa.total_allocated_bytes()
    again = read_chats(replace(job), Kind.CHATS)
    assert pa.total_allocated_bytes() - before < 1024
    assert list(again) == first

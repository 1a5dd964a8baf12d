"""Seconds of mutated files against the record reader; minutes of it are `python -m perf.fuzz`."""

import os
import random

from perf.fuzz import check, fuzz, mutate, seeds

SECONDS = float(os.environ.get("GRISTMILL_FUZZ_SECONDS", "4"))


def test_seeds_are_read_whole(tmp_path):
    for data in seeds():
        assert check(data, tmp_path / "seed.warc") == {
            "page": 6, "record_warcinfo": 1, "record_revisit": 1
        }  # fmt: skip


def test_mutated_files_never_break_the_reader(tmp_path):
    tried, total, broken = fuzz(SECONDS, 20240304, tmp_path)
    assert broken == []
    assert tried > 50
    assert total["page"] > 0
    assert len(total) >= 8, "mutations should reach many kinds of loss"


def test_mutations_are_repeatable():
    one, two = (mutate(seeds()[0], random.Random(7)) for _ in range(2))
    assert one == two != seeds()[0]

"""The shared 64-bit hashes against their definitions in Python's own integers."""

import re
from pathlib import Path

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

import pipelines
from pipelines.text.mixing import START, mix64, ngram_hashes, rolling, take

WORD64 = st.integers(0, 2**64 - 1)
GOLDEN = 0x9E3779B97F4A7C15


def plain_mix64(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD % 2**64
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 % 2**64
    return value ^ value >> 33


def plain_ngrams(values: list[int], n: int) -> list[int]:
    runs = [values[at : at + n] for at in range(len(values) - n + 1)]
    return [plain_mix64(sum(one * GOLDEN ** (n - 1 - at) for at, one in enumerate(run)) % 2**64) for run in runs]


def test_mix64_is_murmur_hash_3s() -> None:
    assert [mix64(np.uint64(value)) for value in (0, 1)] == [0, 0xB456BCFC34C2CB2C]


@given(WORD64)
@example(2**64 - 1)
def test_mix64(value: int) -> None:
    assert mix64(np.uint64(value)) == plain_mix64(value)


@given(WORD64, st.integers(0, 2**32 - 1))
def test_a_state_takes_a_code(state: int, code: int) -> None:
    assert take(np.uint64(state), code) == (state ^ code) * GOLDEN % 2**64 ^ state >> 29


def test_the_start_is_pi() -> None:
    """By Machin's formula, in units of 2^-80."""
    unit = 1 << 80
    angle = [sum((-1) ** k * unit // ((2 * k + 1) * x ** (2 * k + 1)) for k in range(40)) for x in (5, 239)]
    assert int(START) == (16 * angle[0] - 4 * angle[1] - 3 * unit) >> 16


@given(st.lists(WORD64, max_size=12), st.integers(1, 14))
def test_runs_have_the_hashes_of_their_polynomials(values: list[int], n: int) -> None:
    assert ngram_hashes(np.array(values, np.uint64), n).tolist() == plain_ngrams(values, n)


@given(st.lists(WORD64, max_size=9), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5))
def test_runs_of_a_part_are_written_behind_others(values: list[int], n: int, skip: int, cut: int, before: int) -> None:
    start, end = min(skip, len(values)), max(min(skip, len(values)), len(values) - cut)
    out = np.arange(before + len(values), dtype=np.uint64)
    expected = plain_ngrams(values[start:end], n)
    count = rolling(np.array(values, np.uint64), start, end, n, out, before)
    assert count == before + len(expected)
    assert out[:count].tolist() == [*range(before), *expected]
    assert out[count:].tolist() == [*range(count, len(out))]  # nothing else is written


def test_no_other_file_has_a_mixer_of_its_own() -> None:
    """Two copies of a hash drift apart. MurmurHash3's 32-bit finalizer, which datasketch uses, is another hash."""
    constants = re.compile(r"0x[0-9a-f_]{16,}", re.IGNORECASE)
    found = {
        file.relative_to(Path(pipelines.__file__).parent).as_posix(): constants.findall(file.read_text())
        for file in Path(pipelines.__file__).parent.rglob("*.py")
    }
    assert {name: made for name, made in found.items() if made and name != "text/mixing.py"} == {
        "text/hashing.py": ["0x13198A2E03707344"]  # where the hash of a text without words begins
    }

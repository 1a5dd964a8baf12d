"""Compiled block lists: every listed name is found in its list, nothing else is, whatever the size."""

import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.errors import InputError
from pipelines.urls.blocklist import Blocklists, build, digest, save

NAME = st.text(max_size=12)


def hashed(names):
    return np.array([digest(name.encode("utf-8", "replace")) for name in names], np.uint64)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    domains=st.lists(st.lists(NAME, max_size=30), max_size=4),
    urls=st.lists(NAME, max_size=5),
    asked=st.lists(NAME, max_size=30),
)
def test_a_name_is_found_in_the_first_list_that_holds_it(tmp_path, domains, urls, asked):
    names = [f"list {number} \N{SNOWMAN}" * number for number in range(len(domains) + 1)]
    tables = [build(map(hashed, domains), range(len(domains))), build([hashed(urls)], [len(domains)])]
    save(tmp_path / "lists", names, tables)
    mapped = Blocklists(tmp_path / "lists")
    assert mapped.names == tuple(names)
    assert len(mapped.domains) == len({name for one in domains for name in one})
    for name in [*asked, *urls, *(name for one in domains for name in one)]:
        expected = next((number for number, one in enumerate(domains) if name in one), None)
        assert mapped.domains.find(name) == expected
        assert mapped.urls.find(name) == (len(domains) if name in urls else None)


def test_names_whose_hashes_differ_only_in_their_last_bits(tmp_path):
    """Neighbours share a place of the directory; what lies between and around them is not listed."""
    listed = [digest(b"listed"), digest(b"listed") ^ 1, digest(b"listed") ^ 2, 0, 2**64 - 1]
    save(tmp_path / "lists", ["a"], [build([np.array(listed, np.uint64)], [0]), build([], [])])
    mapped = Blocklists(tmp_path / "lists")
    assert mapped.domains.find("listed") == 0
    assert mapped.domains.find("other") is None
    assert mapped.urls.find("listed") is None


def test_as_many_names_as_ut1_holds(tmp_path):
    count = 4_600_000
    many = np.random.default_rng(1).integers(0, 2**64, count, np.uint64)
    known = [f"site{n}.example.com" for n in range(1000)]
    save(tmp_path / "lists", ["many", "known"], [build([many, hashed(known)], [0, 1]), build([], [])])
    assert (tmp_path / "lists").stat().st_size < 90 << 20
    began = time.process_time()
    mapped = Blocklists(tmp_path / "lists")
    assert {mapped.domains.find(name) for name in known} == {1}
    assert {mapped.domains.find(f"no{name}") for name in known} == {None}
    assert time.process_time() - began < 2
    assert len(mapped.domains) == count + 1000


def test_the_file_is_as_its_description_says(tmp_path):
    """Magic, the head's length, the head, and from the next multiple of 8 on each array at a multiple of 8."""
    made = build([hashed(["a", "b", "c"])], [7])
    save(tmp_path / "lists", ["x"], [made])
    data = (tmp_path / "lists").read_bytes()
    size = int.from_bytes(data[8:16], "little")
    base = (16 + size + 7) // 8 * 8
    assert (data[:8], json.loads(data[16 : 16 + size])) == (
        b"GMLIST01",
        {"names": ["x"], "tables": [[[0, 24, "Q"], [24, 30, "H"], [32, 52, "I"]]]},
    )
    hashes, lists, directory = made
    assert data[base:] == hashes.tobytes() + lists.tobytes() + b"\0\0" + directory.tobytes() + b"\0" * 4
    assert lists.tolist() == [7, 7, 7]
    assert [len(build([hashed("abcde"[:count])], [0])[2]) for count in (0, 1, 2, 3, 4, 5)] == [3, 3, 3, 5, 5, 9]
    assert directory.tolist() == [*(sum(one >> 62 < leading for one in hashes.tolist()) for leading in range(4)), 3]


def test_another_file_is_refused(tmp_path):
    (tmp_path / "lists").write_bytes(b"something else entirely")
    with pytest.raises(InputError, match="is not a compiled block list"):
        Blocklists(tmp_path / "lists")

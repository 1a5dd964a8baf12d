"""Pages made to break a worker, through the record reader and the guarded extraction: none stalls it, none vanishes."""

import time

import pytest

from contract.guard import Outcome
from perf.pages import GOOD, LIMITS, fate, hostile_pages, read, records, write
from pipelines.extract import guard_for

LIMIT_S = LIMITS.seconds_per_page


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Every hostile page as read back from a crawl file, each followed by a good one."""
    file = tmp_path_factory.mktemp("hostile") / "hostile.warc"
    write(file)
    return read(file)


def test_every_record_comes_out(found):
    names = [name for name, _, _ in hostile_pages(0.001)]
    assert sorted(found) == sorted([*names, *(f"after_{name}" for name in names)])
    assert {name for name, page in found.items() if page.too_large} == {
        "one_text_node", "bomb_gzip", "bomb_deflate", "bomb_brotli", "bomb_twice"
    }  # fmt: skip
    assert all(found[f"after_{name}"].payload == GOOD for name in names)


def test_no_page_holds_the_worker_and_none_is_silent(found):
    guard = guard_for(LIMITS, ())
    fates = {}
    for name, page in found.items():
        if page.too_large or name.startswith("after_"):
            continue
        began = time.process_time(), time.monotonic()
        fates[name] = guard.call(page.payload, "html ")
        assert time.process_time() - began[0] < 1, f"{name}: the worker itself worked"
        assert time.monotonic() - began[1] < 10 * LIMIT_S, name
        good = guard.call(GOOD, "html ")
        assert good.outcome is Outcome.DONE, f"after {name} the worker no longer serves"
        assert "The river bends twice" in good.text
    assert fates["attributes"].outcome is Outcome.TIMEOUT
    assert {name for name, reply in fates.items() if reply.outcome is Outcome.FAILED} == set()
    assert "\x00" not in fates["nul_bytes"].text
    assert all(reply.text for name, reply in fates.items() if reply.outcome is not Outcome.DONE)


def test_extraction_of_a_surrogate_never_reaches_the_store(found):
    guard = guard_for(LIMITS, ())
    for name in ("surrogates", "utf16_half", "references"):
        reply = guard.call(found[name].payload, "html ")
        reply.text.encode("utf-8")  # would raise


def test_every_hostile_page_has_a_fate(tmp_path):
    """The bench's pages, a hundredth as large: of every content type and coding, and texts for what reads them behind extraction."""
    guard, fates = guard_for(LIMITS, ("en",)), {}
    for name, data in records(0.01):
        (tmp_path / "one.warc").write_bytes(data)
        fates[name], _ = fate(tmp_path / "one.warc", guard)
    guard.close()
    assert len(fates) >= 60
    assert all(fates.values())
    assert {fates[f"comments {mime}"] for mime in ("text/plain", "", "text/xml", "unknown/unknown")} == {"not_html"}
    assert fates["many_codings"] == fates["many_chunkings"] == "bad_content_encoding"
    assert fates["text_telephones"] == "kept, 20,971 characters"

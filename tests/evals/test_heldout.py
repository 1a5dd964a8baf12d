"""Perplexity and bits per byte, by hand."""

import math

import pytest

from evals.heldout import HeldOut, perplexity, together, totals


def test_totals_weigh_sequences_by_their_tokens() -> None:
    found = totals([2.0, 4.0], [(30, 90), (10, 10)])
    assert (found.nll, found.tokens, found.bytes) == (100.0, 40, 100)
    assert found.perplexity == pytest.approx(math.exp(2.5))
    assert found.bits_per_byte == pytest.approx(1 / math.log(2))


def test_what_has_no_bytes_has_no_bits_per_byte_and_what_overflows_is_infinite() -> None:
    assert HeldOut(1.0, 2, 0).bits_per_byte is None
    assert HeldOut(1.0, 2, 0).loss == 0.5
    assert perplexity(699.0) == math.exp(699.0)
    assert perplexity(701.0) == math.inf


def test_sources_together_weigh_by_their_tokens() -> None:
    assert together({"crawl": HeldOut(6.0, 2, 8), "code": HeldOut(1.0, 1, 4)}) == HeldOut(7.0, 3, 12)
    assert together({}) is None

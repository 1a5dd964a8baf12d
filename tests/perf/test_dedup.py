"""What the deduplication bench makes of its measurements."""

import pytest

from perf.dedup import growth


def test_growth_compares_what_further_documents_cost() -> None:
    """Start-up stands in all three and so in none of the differences."""
    assert growth((100, 500, 1000), (30 + 1, 30 + 5, 30 + 10)) == pytest.approx(1)
    assert growth((100, 500, 1000), (30 + 1, 30 + 5, 30 + 20)) == pytest.approx(3)

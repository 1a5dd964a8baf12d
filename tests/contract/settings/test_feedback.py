"""Settings of a round that cannot work are refused with their key."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.settings.feedback import Rating, Trust


def test_the_defaults_ask_three_people_for_three_criteria() -> None:
    assert (Rating().people, Rating().criteria) == (3, ("helpfulness", "correctness", "harmlessness"))
    assert Trust().model_dump() == {"min_agreement": 0.5, "min_gold": 0.5, "min_consistency": 0.0, "min_seconds": 0.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"people": 0}, "people"),
        ({"people": True}, "people"),
        ({"repeated": 1.5}, "repeated"),
        ({"hold_minutes": 0}, "hold_minutes"),
        ({"criteria": ["wit", "wit"]}, "each criterion once"),
        ({"criteria": list("abcdefg")}, "criteria"),
        ({"criteria": [""]}, "criteria"),
        ({"criteria": ["a\x1b"]}, "control characters"),
        ({"wit": 1}, "wit"),
    ],
)
def test_what_cannot_be_rated_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Rating.model_validate(given)


def test_a_round_may_ask_for_a_ranking_alone() -> None:
    assert Rating.model_validate({"criteria": []}).criteria == ()


@pytest.mark.parametrize("given", [{"min_agreement": 1.1}, {"min_gold": -0.1}, {"min_seconds": 1e9}])
def test_thresholds_are_shares_and_seconds(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Trust.model_validate(given)

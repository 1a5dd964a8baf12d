"""Replies beside known answers: right, abstained or wrong, and what each is worth."""

import pytest

from contract.settings.training import Answers
from training.answers import Verdict, points, verdict


@pytest.mark.parametrize(
    ("reply", "answers", "found"),
    [
        ("It is the River  Thames.", ("river thames",), Verdict.RIGHT),
        ("thames", ("river thames", "Thames"), Verdict.RIGHT),
        ("The Thamesmead", ("thames",), Verdict.WRONG),
        ("42", ("4",), Verdict.WRONG),
        ("14, 4.", ("4",), Verdict.RIGHT),
        ("I don’t know.", ("thames",), Verdict.ABSTAINED),
        ("I do not know, perhaps the Thames", ("thames",), Verdict.RIGHT),
        ("The Seine, I think", ("thames",), Verdict.WRONG),
        ("", ("thames",), Verdict.WRONG),
        ("答案是北京。", ("北京",), Verdict.RIGHT),
        ("The Seine", (), Verdict.UNKNOWN),
    ],
)
def test_a_reply_is_judged_by_its_whole_words(reply: str, answers: tuple[str, ...], found: Verdict) -> None:
    assert verdict(reply, answers, Answers()) is found


def test_abstaining_is_worth_more_than_a_wrong_answer() -> None:
    settings = Answers(right=2.0, abstained=0.25, wrong=-3.0)
    assert [points(one, settings) for one in (Verdict.RIGHT, Verdict.ABSTAINED, Verdict.WRONG)] == [2.0, 0.25, -3.0]
    assert points(Verdict.UNKNOWN, settings) == 0.0
    with pytest.raises(ValueError, match="abstaining scores above a wrong answer"):
        Answers(abstained=-1.0)

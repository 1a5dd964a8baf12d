"""A tiny chat model as a judge: whole questions alone reach it, and the others are counted."""

from collections.abc import Callable
from typing import Any

import pytest

from contract.conversation import Turn
from contract.errors import InputError
from contract.manifest import need
from evals.judge import CutOff
from evals.records import Output
from training.chat_judge import ChatJudge
from training.engine.job import Job
from training.sample import models_of

SHORT, LONG = (Turn("system", "Be brief."), Turn("user", "Hello")), (Turn("user", "word " * 200),)


@pytest.fixture
def judge(align: Callable[..., Job]) -> ChatJudge:
    job = align("sample", "sample.judge=aligned")
    return ChatJudge(job, need(job.store, models_of(job)["aligned"]), 8)


def test_a_question_that_would_be_cut_gets_an_empty_answer_and_is_counted(judge: ChatJudge) -> None:
    answers: dict[int, Any] = dict(judge.ask([LONG, SHORT, LONG]))
    assert (answers[0], answers[2], judge.too_long) == ("", "", 2)
    assert answers == {0: "", 1: dict(judge.ask([SHORT]))[0], 2: ""}
    assert answers[1], "the tiny model says something"
    assert judge.judge.model.startswith("ppo/")
    assert dict(judge.ask([])) == {}


def test_an_answer_that_ends_at_the_limit_is_cut_off_and_one_that_ends_itself_is_whole(
    judge: ChatJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {True: [Output("It ends.")], False: [Output("It goes", whole=False)]}
    monkeypatch.setattr("training.chat_judge.answer", lambda *given, **more: [whole[True], whole[False]])
    kinds = {number: type(text) for number, text in judge.ask([SHORT, SHORT])}
    assert kinds == {0: str, 1: CutOff}


def test_a_model_that_can_read_no_question_is_refused(judge: ChatJudge) -> None:
    with pytest.raises(InputError, match=r"sample\.judge: the shortest question has \d+ tokens, .* can read 56 before"):
        dict(judge.ask([LONG, LONG]))

"""Refusals of PPO: kept, read back, removed, and what they mean for the stages after PPO."""

import pytest

from contract import approval
from contract.approval import Refusal, refusal, without_ppo
from contract.errors import DamagedError
from contract.manifest import Attempt, need
from contract.results import Evaluate, Gate, Ppo

AT = "2026-11-22T15:00:00+00:00"


@pytest.fixture
def run(make_run):
    return make_run()


def gate(run, open_):
    result = Gate(open=open_, accuracy=0.6, low=0.5, high=0.7, threshold=0.55)
    Attempt(run, run.task("gate")).commit([], result=result)
    return need(run.store, run.task("gate"))


def test_figures_beyond_their_bounds_are_said():
    found = Evaluate(
        heldout_sequences=1,
        heldout_tokens=1,
        prompts=8,
        perplexity_ppo=4.0,
        win_rate=0.5,
        reward_sft=0.0,
        worse_sft=False,
    )
    assert approval.beyond(found, {"win_rate": 0.5, "prompts": 1}, {"perplexity_ppo": 4.0}) == []
    assert approval.beyond(found, {"win_rate": 0.51, "judge_win_rate": 0.0}, {"perplexity_ppo": 3.9}) == [
        "win_rate 0.5 is under 0.51",
        "judge_win_rate was not measured",
        "perplexity_ppo 4 is above 3.9",
    ]
    diverged = found.model_copy(update={"perplexity_ppo": float("nan")})
    assert approval.beyond(diverged, {}, {"perplexity_ppo": 1e9}) == ["perplexity_ppo nan is above 1e+09"]


def test_a_refusal_is_kept_until_an_approval(run):
    ppo = run.task("ppo")
    assert refusal(run.store, ppo) is None
    assert approval.allow(run.store, ppo) is False
    approval.refuse(run.store, ppo, Refusal("ann", AT))
    approval.refuse(run.store, ppo, Refusal("bob", AT))
    assert refusal(run.store, ppo) == Refusal("bob", AT)
    assert run.store.exists(f"refusals/{ppo.fingerprint}.json")
    assert approval.allow(run.store, ppo) is True
    assert refusal(run.store, ppo) is None


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("ann", f"PPO is left out, because ann rejected it ({AT})"),
        ("", f"PPO is left out, because nobody approved it in time ({AT})"),
        ("a\nerror: b" + "c" * 300, rf"PPO is left out, because a\nerror: b{'c' * 190} rejected it ({AT})"),
    ],
)
def test_a_refusal_says_who_and_when_in_one_line(by, said):
    assert Refusal(by, AT).why == said


def test_the_tuned_model_is_the_result_of_a_closed_gate_and_of_a_refusal(run):
    ppo = run.task("ppo")
    closed = gate(run, False)
    assert without_ppo(run.store, closed, ppo).startswith("PPO is left out, because the gate is closed: ")
    opened = closed.model_copy(update={"metrics": {**closed.metrics, "open": True}})
    assert without_ppo(run.store, opened, ppo) is None
    approval.refuse(run.store, ppo, Refusal("ann", AT))
    assert without_ppo(run.store, opened, ppo) == Refusal("ann", AT).why
    Attempt(run, ppo).commit([], result=Ppo.model_construct(reward_first=0.0))
    assert without_ppo(run.store, opened, ppo) is None, "it was done before it was refused"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"by": "a"}'])
def test_a_damaged_refusal_says_what_to_do(run, content):
    run.store.write_bytes(approval.place(run.task("ppo")), content)
    with pytest.raises(DamagedError, match="is not a refusal; delete it to be asked again"):
        refusal(run.store, run.task("ppo"))

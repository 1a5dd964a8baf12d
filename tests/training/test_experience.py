"""What replies are worth and like, by hand: rewards of both sources, figures of known answers, speeds, and the best of n."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from contract.conversation import Turn
from contract.kinds import Kind
from contract.manifest import need
from contract.settings.training import Answers, Engine, Grpo, Ppo
from tests.training.test_ppo import experience, job_of
from training import dpo, grpo, ppo
from training import experience as tested
from training.answers import Verdict
from training.chat.template import open_chat
from training.data.prompts import Asked, Prompts, read_prompts
from training.engine.job import Job
from training.experience import Actors, Question, best_of, figures_of, questions, score, share, speeds
from training.rollout import Rollout

SAID = {1: "It is Rome", 2: "I don't know", 3: "It is Oslo", 4: "Who asks?"}
CHAT: Any = SimpleNamespace(
    end_of_text=0, decode=lambda ids: SAID[ids[0]], prompt=lambda turns, most: [ord(turns[0].text)][:most]
)
ASKED = [Question([9], 0, ("Rome",)), Question([9], 1, ("Rome",)), Question([9], 2, ("Rome", "Rom")), Question([9], 3)]


def replies() -> Rollout:
    """One token each, and the end, to a prompt of one token."""
    tokens = torch.tensor([[9, said, 0] for said in SAID])
    return Rollout(tokens, torch.ones(4, 3, dtype=torch.long), torch.ones(4, 2))


class Judge(torch.nn.Module):
    """Rewards a reply by the number of its first token, times ten."""

    def forward(self, tokens: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        return (10.0 * tokens[:, 1:2]).expand(tokens.shape).clone()


@pytest.mark.parametrize(
    ("source", "expected"),
    [("model", [10, 20, 30, 40]), ("answers", [2, 0.5, -3, 0]), ("both", [12, 20.5, 27, 40])],
)
def test_rewards_are_the_models_or_points_for_known_answers_or_their_sum(source: Any, expected: list[float]) -> None:
    settings = Ppo(reward=source, answers=Answers(right=2.0, abstained=0.5, wrong=-3.0), engine=Engine(micro_batch=3))
    judge: Any = SimpleNamespace(awake=lambda: Lent(Judge()))
    found, verdicts = score(judge, replies(), ASKED, CHAT, settings)
    assert found.tolist() == expected
    assert verdicts.tolist() == [Verdict.RIGHT, Verdict.ABSTAINED, Verdict.WRONG, Verdict.UNKNOWN]
    if source == "answers":
        assert score(None, replies(), ASKED, CHAT, settings)[0].tolist() == expected


class Lent:
    """A context that lends a module."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __enter__(self) -> Any:
        return self.module

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""


def test_shares_of_verdicts_are_of_the_prompts_whose_answers_are_known() -> None:
    none = figures_of(experience(), Ppo())
    assert "right_fraction" not in none
    known = experience(verdicts=torch.tensor([Verdict.RIGHT, Verdict.UNKNOWN]))
    found = figures_of(known, Ppo())
    assert (found["right_fraction"], found["abstained_fraction"], found["wrong_fraction"]) == (1.0, 0.0, 0.0)


def test_tokens_that_no_update_learned_do_not_count_as_learned() -> None:
    """Five tokens of replies, nine with their prompts; four updates of two epochs."""
    settings = Ppo(rollout_batch=4, minibatch=2, inner_epochs=2)
    seen = experience(attention=torch.ones(2, 5))
    all_made = speeds(seen, settings, 4, 2.0, 5.0, 10.0)
    assert all_made == {"sampled_tokens_per_s": 2.5, "learned_tokens_per_s": 4.0, "sampling_share": 0.2}
    assert speeds(seen, settings, 1, 2.0, 5.0, 10.0)["learned_tokens_per_s"] == 1.0


def test_every_process_gets_as_many_rows_by_repeating_the_last() -> None:
    jobs = [job_of(Ppo(), rank, 2) for rank in range(2)]
    shares = [share(job, ASKED[:3]) for job in jobs]
    assert [len(one) for one in shares] == [2, 2]
    assert {one.seed for part in shares for one in part} == {0, 1, 2}


def prompts(*texts: str) -> Prompts:
    return Prompts(range(len(texts)), lambda row: Asked((Turn("user", texts[row]),), (), row))


def test_the_best_of_n_is_a_mean_over_prompts_of_the_highest_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts with three replies each, of which four are sampled at once."""
    rewards = iter([1.0, 5.0, 3.0, 2.0, 2.0, 0.0, 99.0])
    asked: list[list[Question]] = []
    monkeypatch.setattr(tested, "sample", lambda module, mine, *given: asked.append(list(mine)))
    monkeypatch.setattr(
        tested, "score", lambda judge, sampled, mine, *given: (torch.tensor([next(rewards) for _ in mine]), None)
    )
    job = job_of(Ppo(rollout_batch=4, minibatch=4))
    job.ranks.gather = lambda one: [one]
    actors: Any = SimpleNamespace(reference=SimpleNamespace(awake=lambda: Lent(None)), reward=None)
    found = best_of(job, actors, prompts("a", "b"), CHAT, 3)
    assert found is not None
    assert (found.reward, found.single) == (pytest.approx(3.5), pytest.approx(13 / 6))
    assert [len(one) for one in asked] == [4, 2]
    assert [one.ids for part in asked for one in part] == [[97]] * 3 + [[98]] * 3
    assert len({one.seed for part in asked for one in part}) == 6
    assert best_of(job, actors, prompts(), CHAT, 3) is None


def test_neighbours_of_a_group_have_one_prompt_and_seeds_of_their_own() -> None:
    settings = Grpo(rollout_batch=6, minibatch=6, group_size=3)
    asked, rows = questions(prompts("a", "b", "c", "d"), CHAT, 2, settings, 3)
    assert len(asked) == len(rows) == 6
    assert [one.ids for one in asked] == [[97 + row] for row in rows]
    assert rows[0] == rows[1] == rows[2] != rows[3] == rows[4] == rows[5]
    assert len({one.seed for one in asked}) == 6


def test_a_critic_of_its_own_needs_no_reward_model_to_be_awake() -> None:
    def never() -> Any:
        raise AssertionError("it was asked")

    reward: Any = SimpleNamespace(awake=never)
    none: Any = None
    with tested.critic_awake(Actors(none, none, none, reward, shared=False)):
        pass
    with pytest.raises(AssertionError, match="it was asked"):
        tested.critic_awake(Actors(none, none, none, reward, shared=True))


def test_every_way_to_align_follows_the_template_of_sft(align: Callable[..., Job], curves: Callable[..., Any]) -> None:
    """A reply ends with the template's token, and the model is committed with the template."""
    given = (
        "sft.chat_template=chatml", "ppo.steps=1", "ppo.eval_prompts=2", "ppo.best_of=1", "grpo.steps=1", "grpo.rollout_batch=8",
        "grpo.minibatch=8", "grpo.group_size=2", "grpo.eval_prompts=2", "grpo.max_prompt_tokens=32", "grpo.max_response_tokens=16",
        "ppo.max_prompt_tokens=32", "dpo.max_tokens=64", "dpo.batch=16", "dpo.engine.micro_batch=16",
    )  # fmt: skip
    for stage, module in (("ppo", ppo), ("grpo", grpo), ("dpo", dpo)):
        job = align(stage, f"align={stage}", *given)
        chat = open_chat(job)
        assert chat.end_token == "<|im_end|>"
        module.run(job)
        files = {file.path.rpartition("/")[2]: file for file in need(job.store, job.task).of(Kind.MODEL)}
        assert job.store.read_bytes(files["chat_template.jinja"].path).decode() == chat.jinja
        if stage == "dpo":
            assert curves(job)["loss"][0][1] == pytest.approx(0.6931, abs=1e-4)
            continue
        asked, _ = questions(read_prompts(job).training, chat, 0, job.settings)
        reader = Tokenizer.from_file(str(chat.path))
        assert all(
            reader.decode(one.ids, skip_special_tokens=False).endswith("<|im_start|>assistant\n") for one in asked
        )
        assert curves(job)["kl"][0][1] == pytest.approx(0, abs=1e-4)

"""PPO: the step's arithmetic by hand, and real runs that start at the reference, gain reward, resume and split over processes."""

import io
import math
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from contract import results
from contract.errors import InputError, Interrupted
from contract.kinds import Kind
from contract.manifest import find, need
from contract.metrics import Point
from contract.mixture import schedule
from contract.settings.training import Engine as EngineSettings
from contract.settings.training import Mixture, Ppo
from tests.training.conftest import OF_MACHINE
from training import loss, ppo, reward
from training.chat.template import open_chat
from training.data.batch import Batch
from training.data.examples import distinct_prompts, read_pairs
from training.data.order import rows_of, share_of
from training.data.reading import TokenData
from training.engine.job import Job
from training.experience import Actors, Experience, Question, collect, ends, gather, minibatches
from training.models import llama as model
from training.models.frozen import Frozen, frozen
from training.rollout import left_pad, row_seed


def experience(**changed: torch.Tensor) -> Experience:
    """Two replies, of three and of two tokens; the second did not end."""
    given = {
        "tokens": torch.zeros(2, 5, dtype=torch.long),
        "attention": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]),
        "mask": torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]),
        "log_probs": torch.tensor([[-1.0, -1.0, -1.0], [-2.0, -2.0, 0.0]]),
        "reference": torch.tensor([[-2.0, -1.0, -1.0], [-2.0, -1.0, 0.0]]),
        "values": torch.zeros(2, 3),
        "scores": torch.tensor([2.0, 1.0]),
        "ended": torch.tensor([1.0, 0.0]),
        "exact": torch.tensor([[0.5, 0.25, 0.0], [0.5, 1.25, 0.0]]),
        "verdicts": torch.tensor([-1, -1]),
    }
    return Experience(**{**given, **changed})


def test_rewards_penalties_and_figures_by_hand() -> None:
    settings = Ppo(no_eot_penalty=0.5, gamma=1.0, lam=1.0)
    advantages, returns, figures = ppo.estimate_advantages(experience(), 0.1, settings)
    # KL terms: -0.1 on the first token; +0.1 on the fifth. Scores: 2 on the third, 1 - 0.5 on the fifth.
    expected = torch.tensor([[1.9, 2.0, 2.0], [0.6, 0.6, 0.0]])
    torch.testing.assert_close(returns, expected)
    kept = advantages[experience().mask.bool()]
    assert (float(kept.mean()), float(kept.std(unbiased=False))) == pytest.approx((0.0, 1.0), abs=1e-5)
    assert kept.argsort().tolist()[:2] in ([3, 4], [4, 3])
    assert figures == pytest.approx(
        {
            "reward": 1.5,
            "reward_std": 0.5,
            "objective": (1.9 + 0.6) / 2,
            "kl": 0.0,
            "kl_k3": (math.exp(-1) + math.e - 2) / 2,  # the log ratios are -1 and 1
            "kl_exact": (0.75 + 1.75) / 2,
            "kl_coef": 0.1,
            "response_length": 2.5,
            "response_length_max": 3.0,
            "eot_fraction": 0.5,
            "explained_variance": 0.0,
        }
    )


def test_rewards_are_normalised_by_all_rewards_so_far_and_clipped() -> None:
    settings = Ppo(no_eot_penalty=0.0, gamma=1.0, lam=1.0, normalise_rewards=True, reward_clip=1.5)
    moments = loss.Moments().seen(torch.tensor([0.0, 1.0, 0.0, 1.0]))  # mean and deviation 0.5
    _, returns, figures = ppo.estimate_advantages(experience(), 0.0, settings, moments)
    # (2 - 0.5) / 0.5 = 3 is clipped to 1.5; (1 - 0.5) / 0.5 = 1
    assert [returns[0, 0].item(), returns[1, 0].item()] == pytest.approx([1.5, 1.0], abs=1e-5)
    assert figures["reward"] == 1.5, "the curve shows the reward itself"
    _, returns, _ = ppo.estimate_advantages(
        experience(), 0.0, settings.model_copy(update={"reward_clip": None}), moments
    )
    assert returns[0, 0].item() == pytest.approx(3.0, abs=1e-5)


def test_the_penalty_by_k3_is_never_a_gift() -> None:
    settings = Ppo(no_eot_penalty=0.0, gamma=1.0, lam=0.0, kl_estimator="k3")
    _, returns, _ = ppo.estimate_advantages(experience(scores=torch.zeros(2)), 1.0, settings)
    assert returns[0, 0].item() == pytest.approx(-math.exp(-1))  # r - 1 - log r at log r = -1
    assert returns[1, 1].item() == pytest.approx(-(math.e - 2))


def test_a_perfect_critic_leaves_no_advantage() -> None:
    _, returns, _ = ppo.estimate_advantages(experience(), 0.1, Ppo(no_eot_penalty=0.0, gamma=1.0, lam=1.0))
    _, again, figures = ppo.estimate_advantages(
        experience(values=returns), 0.1, Ppo(no_eot_penalty=0.0, gamma=1.0, lam=0.95)
    )
    torch.testing.assert_close(again, returns)
    assert figures["explained_variance"] == pytest.approx(1.0)


def by_hand(seen: Experience, kl_coef: float, settings: Ppo) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages before whitening and returns of each reply's tokens, in plain numbers: InstructGPT's reward, GAE's recursion."""
    advantages, returns, rewards = [], [], []
    for row in range(len(seen.mask)):
        length = int(seen.mask[row].sum())
        log_ratio = (seen.log_probs[row] - seen.reference[row]).tolist()[:length]
        paid = [-kl_coef * one for one in log_ratio]
        paid[-1] += float(seen.scores[row]) - (0 if seen.ended[row] else settings.no_eot_penalty)
        rewards.append(paid)
    if settings.whiten_rewards:
        every = torch.tensor([one for row in rewards for one in row])
        rewards = [[one / float(every.std(unbiased=False)) for one in row] for row in rewards]
        shift = float(every.mean() - every.mean() / every.std(unbiased=False))
        rewards = [[one + shift for one in row] for row in rewards]  # the mean stays what it was
    for row, paid in enumerate(rewards):
        values = [*seen.values[row].tolist()[: len(paid)], 0.0]
        found, following = [0.0] * len(paid), 0.0
        for t in reversed(range(len(paid))):
            delta = paid[t] + settings.gamma * values[t + 1] - values[t]
            found[t] = following = delta + settings.gamma * settings.lam * following
        advantages.append(found)
        returns.append([one + value for one, value in zip(found, values, strict=False)])
    return advantages, returns


@pytest.mark.parametrize("whiten", [False, True])
def test_advantages_and_returns_against_loops_over_plain_numbers(whiten: bool) -> None:
    settings = Ppo(no_eot_penalty=0.7, gamma=0.9, lam=0.8, whiten_rewards=whiten)
    seen = experience(
        log_probs=torch.tensor([[-1.0, -1.5, -0.2], [-2.0, -0.1, 0.0]]),
        values=torch.tensor([[0.3, -0.2, 0.9], [1.1, 0.4, 0.0]]),
    )
    advantages, returns, figures = ppo.estimate_advantages(seen, 0.3, settings)
    expected, targets = by_hand(seen, 0.3, settings)
    assert [row[: len(one)] for row, one in zip(returns.tolist(), targets, strict=True)] == [
        pytest.approx(one, abs=1e-5) for one in targets
    ]
    flat = torch.tensor([one for row in expected for one in row])
    white = (flat - flat.mean()) / flat.std(unbiased=False)
    assert advantages[seen.mask.bool()].tolist() == pytest.approx(white.tolist(), abs=1e-5)
    assert float(advantages[1, 2]) == float(returns[1, 2]) == 0
    # KL: 1, -0.5, 0.8 and 0, 0.9. Objective: scores less the penalty less 0.3 KL.
    assert figures["kl"] == pytest.approx((1.3 + 0.9) / 2)
    assert figures["objective"] == pytest.approx((2 - 0.3 * 1.3 + 1 - 0.7 - 0.3 * 0.9) / 2)
    assert (figures["reward"], figures["kl_coef"]) == (1.5, 0.3)
    errors = torch.tensor([one for row in targets for one in row]) - seen.values[seen.mask.bool()]
    spread = torch.tensor([one for row in targets for one in row]).var(unbiased=False)
    assert figures["explained_variance"] == pytest.approx(float(1 - errors.var(unbiased=False) / spread), abs=1e-5)


# ---------------------------------------------------------------- a step on tiny models, without DeepSpeed

TINY = LlamaConfig(
    vocab_size=13,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    initializer_range=0.4,  # large, so that distributions are far from uniform and from each other
    bos_token_id=None,
    eos_token_id=0,
)
PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 2], [8, 8], [1, 2, 3], [12, 11]]


def tiny_policy(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(TINY).eval()


def tiny_critic(seed: int) -> reward.RewardModel:
    torch.manual_seed(seed)
    return reward.RewardModel(LlamaModel(TINY), seed).eval()


class PlainEngine:
    """What an update asks of an engine: gradients averaged over the parts of all processes; `step` only counts."""

    def __init__(self, module: torch.nn.Module, micro_batch: int, accumulation: int, world: int) -> None:
        self.module, self.micro_batch, self.accumulation, self.world = module, micro_batch, accumulation, world
        self.steps_done, self.norm = 0, 0.5

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.module(*given, **named)

    def backward(self, one: torch.Tensor) -> None:
        (one / (self.accumulation * self.world)).backward()

    def step(self) -> None:
        self.steps_done += 1

    def report_skip(self, *given: Any) -> None:
        self.reported = [*getattr(self, "reported", []), given]

    def gradients(self) -> list[torch.Tensor]:
        return [torch.zeros_like(one) if one.grad is None else one.grad for one in self.module.parameters()]


def job_of(settings: Any, rank: int = 0, world: int = 1) -> Any:
    ranks = SimpleNamespace(rank=rank, world=world, device=torch.device("cpu"), sum=lambda *values: list(values))
    return SimpleNamespace(settings=settings, ranks=ranks)


def actors_of(micro_batch: int = 2, accumulation: int = 1, world: int = 1) -> Any:
    engines = [PlainEngine(one, micro_batch, accumulation, world) for one in (tiny_policy(1), tiny_critic(2))]
    return Actors(*engines, Frozen(tiny_policy(3)), Frozen(tiny_critic(4)))  # type: ignore[arg-type]


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_collecting_asks_every_model_about_every_reply(micro_batch: int) -> None:
    """Log-probabilities, values and scores of padded batches against each chat alone, without padding."""
    actors = actors_of()
    settings = Ppo(max_response_tokens=16, temperature=0.8, engine=EngineSettings(micro_batch=micro_batch))
    asked = [Question(ids, row_seed(7, row)) for row, ids in enumerate(PROMPTS)]
    seen, seconds = collect(actors, asked, 6, SimpleNamespace(end_of_text=0), settings)  # type: ignore[arg-type]
    assert seconds > 0
    assert seen.tokens.shape[1] == 6 + seen.mask.shape[1]
    assert {float(one) for one in seen.ended} == {0.0, 1.0}, "the seeds should give both kinds"
    for row, prompt in enumerate(PROMPTS):
        chat = seen.tokens[row][seen.attention[row].bool()]
        size = int(seen.mask[row].sum())
        assert chat[: len(prompt)].tolist() == prompt
        assert len(chat) == len(prompt) + size
        assert float(seen.ended[row]) == (int(chat[-1]) == 0)
        with torch.no_grad():
            for found, module in ((seen.log_probs, actors.policy.module), (seen.reference, actors.reference.module)):
                log_p = (module(input_ids=chat[None]).logits[0] / 0.8).log_softmax(-1)
                expected = [float(log_p[at - 1, chat[at]]) for at in range(len(prompt), len(chat))]
                assert found[row, -size:].tolist() == pytest.approx(expected, abs=1e-4)
            values = actors.critic.module(chat[None], torch.ones_like(chat[None]))[0]
            scores = actors.reward.module(chat[None], torch.ones_like(chat[None]))[0]
            ours, theirs = (
                (module(input_ids=chat[None]).logits[0, len(prompt) - 1 : -1] / 0.8).log_softmax(-1)
                for module in (actors.policy.module, actors.reference.module)
            )
        apart = (ours.exp() * (ours - theirs)).sum(-1).tolist()
        assert seen.exact[row, -size:].tolist() == pytest.approx(apart, abs=1e-4)
        assert seen.values[row, -size:].tolist() == pytest.approx(values[len(prompt) - 1 : -1].tolist(), abs=1e-4)
        assert float(seen.scores[row]) == pytest.approx(float(scores[-1]), abs=1e-4)
        for padded in (seen.log_probs, seen.reference, seen.values, seen.exact):
            assert padded[row, :-size].abs().sum() == 0
            assert not padded.requires_grad


def made_up(actors: Any, temperature: float) -> tuple[Experience, tuple[torch.Tensor, torch.Tensor]]:
    """Six replies of up to four tokens whose old log-probabilities and values lie on both sides of the clips, and their targets."""
    noise = torch.Generator().manual_seed(5)
    tokens, attention = left_pad(PROMPTS, 0, "cpu")
    replies = torch.randint(0, 13, (6, 4), generator=noise)
    mask = (torch.arange(4) < torch.tensor([4, 2, 3, 1, 4, 2])[:, None]).float()
    tokens, attention = torch.cat((tokens, replies), 1), torch.cat((attention, mask.long()), 1)
    with torch.no_grad():
        logits = ppo.response_logits(actors.policy.module, tokens, attention, 4)
        new = loss.log_probs(logits, replies, temperature)
        values = actors.critic.module(tokens, attention)[:, -5:-1]
    drift = [torch.randn(6, 4, generator=noise) * size for size in (0.4, 0.4, 1.0, 1.0)]
    seen = Experience(
        tokens,
        attention,
        mask,
        (new + drift[0]) * mask,
        new * mask,
        (values + drift[1]) * mask,
        torch.zeros(6),
        mask[:, 0],
        torch.zeros(6, 4),
        torch.full((6,), -1),
    )
    return seen, (drift[2] * mask, drift[3] * mask)


def objectives(
    actors: Any, seen: Experience, targets: tuple[torch.Tensor, torch.Tensor], rows: Sequence[int], settings: Ppo,
    ptx: Sequence[Sequence[int]],
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:  # fmt: skip
    """What policy and critic minimise, token by token and chat by chat without padding, and the figures."""
    sums = dict.fromkeys(ppo.LEARNT, torch.zeros(()))
    count = 0
    for row in rows:
        chat = seen.tokens[row][seen.attention[row].bool()]
        size = int(seen.mask[row].sum())
        start = len(chat) - size
        log_p = (actors.policy.module(input_ids=chat[None]).logits[0] / settings.temperature).log_softmax(-1)
        values = actors.critic.module(chat[None], torch.ones_like(chat[None]))[0]
        for t in range(size):
            here = log_p[start + t - 1]
            ratio = (here[chat[start + t]] - seen.log_probs[row, t]).exp()
            within = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            advantage, wanted = targets[0][row, t], targets[1][row, t]
            value, old = values[start + t - 1], seen.values[row, t]
            near = old + (value - old).clamp(-settings.value_clip, settings.value_clip)
            one = {
                "policy_loss": -torch.minimum(ratio * advantage, within * advantage),
                "value_loss": torch.maximum((value - wanted) ** 2, (near - wanted) ** 2) / 2,
                "entropy": -(here.exp() * here).sum(),
                "clip_fraction": (within != ratio).float(),
                "ratio": ratio,
                "kl_update": ratio - 1 - ratio.log(),
            }
            sums |= {name: sums[name] + term for name, term in one.items()}
            count += 1
    sums = {name: total / count for name, total in sums.items()}
    for ids in ptx:
        log_p = actors.policy.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        seen_once = sum(log_p[at - 1, ids[at]] for at in range(1, len(ids)))
        sums["ptx_loss"] = sums["ptx_loss"] - seen_once / sum(len(one) - 1 for one in ptx)
    policy = sums["policy_loss"] - settings.entropy_coef * sums["entropy"] + settings.ptx_coef * sums["ptx_loss"]
    return policy, settings.value_coef * sums["value_loss"], {name: float(one.detach()) for name, one in sums.items()}


@pytest.mark.parametrize(
    ("world", "entropy_coef", "ptx_rows"), [(1, 0.3, 4), (2, 0.3, 4), (1, 0.0, 0), (1, 0.3, 1)], ids=str
)
def test_an_update_is_the_gradient_of_the_papers_objective(world: int, entropy_coef: float, ptx_rows: int) -> None:
    """Clipped surrogate, entropy, pretraining and clipped value losses, each with its coefficient, whatever the processes and parts."""
    settings = Ppo(
        temperature=0.7, clip=0.2, value_clip=0.1, value_coef=0.4, entropy_coef=entropy_coef, ptx_coef=0.6 * bool(ptx_rows)
    )  # fmt: skip
    rows = [4, 0, 5, 1]
    actors = actors_of(micro_batch=1, accumulation=4 // world, world=world)
    seen, targets = made_up(actors, settings.temperature)
    expected = deepcopy(actors)
    ptx = torch.randint(0, 13, (ptx_rows, 6), generator=torch.Generator().manual_seed(8))
    policy, value, figures = objectives(expected, seen, targets, rows, settings, ptx.tolist())
    policy.backward()
    value.backward()
    assert 0 < figures["clip_fraction"] < 1

    sums = torch.zeros(len(ppo.LEARNT))
    for rank in range(world):
        mine = torch.tensor(share_of(ptx.tolist(), rank, world))
        batch = Batch(mine, torch.ones(len(mine), 5), ptx_rows * 5) if ptx_rows else None
        found = ppo.update(job_of(settings, rank, world), actors, seen, targets, rows, batch)
        assert not found.requires_grad
        sums += found
    assert dict(zip(ppo.LEARNT, sums.tolist(), strict=True)) == pytest.approx(figures, abs=1e-5)
    for engine, other in ((actors.policy, expected.policy), (actors.critic, expected.critic)):
        assert engine.steps_done == world
        assert any(one.abs().sum() > 0 for one in other.gradients())
        for one, two in zip(engine.gradients(), other.gradients(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_the_figures_of_a_step_are_means_over_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Ppo(rollout_batch=4, minibatch=2, inner_epochs=2, ptx_sequences=3, seed=11)
    actors = actors_of()
    actors.policy.steps_done = 8
    job = job_of(settings, 1, 2)
    job.ranks.sum = lambda *values: [2 * value for value in values]
    asked = []

    def update(*given: Any) -> torch.Tensor:
        asked.append(given[4:6])
        assert given[6], "the policy learns"
        assert given[:4] == (job, actors, "seen", "targets")
        actors.policy.steps_done += 1
        return torch.arange(7.0) * len(asked)

    monkeypatch.setattr(ppo, "update", update)
    packed = (SimpleNamespace(counted=lambda ranks, at=at: (at, ranks)) for at in range(8, 12))
    found = ppo.improve(job, actors, "seen", "targets", packed, 6, [20, 21, 22, 23])  # type: ignore[arg-type]
    assert asked == [(rows, (8 + at, job.ranks)) for at, rows in enumerate(minibatches(6, settings))]
    assert found == pytest.approx(
        dict(zip(ppo.LEARNT, (2 * 2.5 * at for at in range(7)), strict=True))
        | {"grad_norm": 0.5, "value_grad_norm": 0.5, "updates": 4}
    )
    for engine, what in ((actors.policy, "policy update"), (actors.critic, "critic update")):
        rows = [[("", 20 + row) for row in rows] for rows in minibatches(6, settings)]
        assert engine.reported == [(7, some, what, 4) for some in rows]
    ppo.improve(job, actors, "seen", "targets", None, 6, [20, 21, 22, 23])  # type: ignore[arg-type]
    assert [ptx for _, ptx in asked[4:]] == [None] * 4


def test_experience_is_gathered_in_the_order_of_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather(parts: list[torch.Tensor], mine: torch.Tensor) -> None:
        assert mine.is_contiguous()
        for rank, part in enumerate(parts):
            part.copy_(mine + 10 * rank)

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    mine = experience(values=torch.arange(6.0).view(3, 2).T)
    whole = gather(job_of(Ppo(), 0, 3), mine)
    assert torch.equal(whole.values, torch.cat([mine.values + 10 * rank for rank in range(3)]))
    assert whole.scores.tolist() == [2, 1, 12, 11, 22, 21]
    assert gather(job_of(Ppo()), mine) is mine


def test_every_inner_epoch_shows_every_row_once() -> None:
    settings = Ppo(rollout_batch=12, minibatch=4, inner_epochs=3)
    plan = minibatches(7, settings)
    assert [len(rows) for rows in plan] == [4] * 9
    epochs = [sorted(row for rows in plan[start : start + 3] for row in rows) for start in (0, 3, 6)]
    assert epochs == [list(range(12))] * 3
    assert plan[:3] != plan[3:6]
    assert plan != minibatches(8, settings)
    assert plan == minibatches(7, settings)
    assert plan != minibatches(7, settings.model_copy(update={"seed": 1}))


def test_first_and_last_values_of_curves() -> None:
    points = [
        Point(step, name, value, 0.0) for step, name, value in ((1, "kl", 0.0), (1, "reward", 1.0), (2, "kl", 3.0))
    ]
    assert ends(points, results.Ppo) == {"kl_first": 0.0, "kl_last": 3.0, "reward_first": 1.0, "reward_last": 1.0}
    assert ends([], results.Ppo) == {}


def test_prompts_are_those_that_evaluation_does_not_use(align: Callable[..., Job]) -> None:
    job = align("ppo")
    pairs = read_pairs(job, Kind.PAIRS)
    used = [pairs[row].prompt for row in distinct_prompts(pairs)]
    assert len(used) > 50
    assert not {*used} & {pair.prompt for pair in read_pairs(job, Kind.HELDOUT_PAIRS)}


def test_a_closed_gate_is_refused(align: Callable[..., Job]) -> None:
    job = align("ppo", "gate.min_accuracy=1.0")
    with pytest.raises(InputError, match=r"gate is closed: .* under gate.min_accuracy 1"):
        ppo.run(job)
    assert find(job.store, job.task) is None


def values(rows: list[tuple[float, float]]) -> list[float]:
    return [value for _, value in rows]


FULL = ("ppo.ptx_coef=0.5", "ppo.kl_target=0.01", "ppo.entropy_coef=0.01", "ppo.whiten_rewards=true", "ppo.seed=3")


def recording(real: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def recorded(*given: Any) -> Any:
        calls.append(given)
        return real(*given)

    return recorded


@pytest.fixture(scope="module")
def full(align: Callable[..., Job], curves: Callable[..., Any], tensors: Callable[..., Any]) -> SimpleNamespace:
    """One run with everything switched on that has a state: PTX data, the adaptive KL coefficient, both optimizers.

    The finished job, what its parts were asked to do in each step, what it printed and what it committed, which is deleted: the same
    task can run again.
    """
    job, asked, said = align("ppo", *FULL), {"collect": [], "estimate_advantages": [], "improve": []}, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        for name, calls in asked.items():
            patch.setattr(ppo, name, recording(getattr(ppo, name), calls))
        ppo.run(job)
    manifest = need(job.store, job.task)
    result = SimpleNamespace(
        job=job, asked=asked, said=said.getvalue(), manifest=manifest, curves=curves(job), tensors=tensors(job)
    )
    job.store.delete(manifest.path)
    return result


def test_each_step_samples_prompts_of_its_own_with_seeds_of_their_own(full: Any) -> None:
    job, asked = full.job, full.asked
    pairs, chat = read_pairs(job, Kind.PAIRS), open_chat(job)
    prompts = [chat.prompt(pairs[row].prompt, 24) for row in distinct_prompts(pairs)]
    assert len(asked["collect"]) == len(asked["improve"]) == 4
    for step, (_, given, width, _, settings, anyone) in enumerate(asked["collect"]):
        assert (anyone(False), anyone(True)) == (False, True)
        assert [one.ids for one in given] == [prompts[row] for row in rows_of(step, 16, len(prompts), 3)]
        assert [one.seed for one in given] == [row_seed(3, step, row) for row in range(16)]
        assert (width, settings) == (max(len(one.ids) for one in given), job.settings)
    numbers = distinct_prompts(pairs)
    for step, (_, _, seen, targets, packed, at, of) in enumerate(asked["improve"]):
        assert at == step
        assert of == [numbers[row] for row in rows_of(step, 16, len(prompts), 3)]
        assert packed is not None, "every step has pretraining text"
        expected = ppo.estimate_advantages(seen, asked["estimate_advantages"][step][1], job.settings)
        assert torch.equal(targets[0], expected[0])
        assert torch.equal(targets[1], expected[1])


def test_every_update_has_pretraining_text_of_its_own_also_after_a_resume(full: Any) -> None:
    text = ppo.pretraining_text(full.job)
    rows = TokenData(full.job, Kind.TOKENS, 64).sources["crawl"]
    assert (text.schedule, text.seed) == (schedule([(16, Mixture(), {"crawl": rows})], 4), 3)
    with text.stream(full.job.ranks, 13) as packed:
        for at, batch in enumerate(packed, 13):
            assert torch.equal(batch.tokens, text.batch(at).tokens)
            assert batch.positions is not None
    assert at == 15


def test_the_kl_coefficient_adapts_after_every_step(full: Any) -> None:
    found = full.curves
    assert [step for step, _ in found["kl"]] == [1, 2, 3, 4]
    coefficients = values(found["kl_coef"])
    assert coefficients[0] == full.job.settings.kl_coef
    for step in range(3):
        assert coefficients[step + 1] == loss.adapt_kl_coef(coefficients[step], values(found["kl"])[step], 0.01)
    assert len(set(coefficients)) > 1
    assert [given[1] for given in full.asked["estimate_advantages"]] == coefficients, (
        "what was written is what the rewards were shaped with"
    )
    assert all(one > 0 for one in values(found["ptx_loss"]) + values(found["entropy"]))


def test_a_run_says_where_it_is_and_commits_policy_and_critic(full: Any) -> None:
    found, manifest = full.curves, full.manifest
    last = [line for line in full.said.splitlines() if line.startswith("progress")][-1]
    assert last.startswith("progress ppo all 4/4 steps ")
    assert last.endswith(f"reward {values(found['reward'])[-1]:.3f} kl {values(found['kl'])[-1]:.3f}")
    assert {file.path.rpartition("/")[2]: file.kind for file in manifest.files} == {
        "critic.json": "critic",
        "critic.safetensors": "critic",
        "curves.json": "curves",
        "samples.jsonl": "samples",
        "events.out.tfevents.0000000000.gristmill": "events",
        "metrics.jsonl": "metrics",
        **dict.fromkeys(
            ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
            "model",
        ),
    }
    expected = {
        f"{name}_{end}": values(rows)[at]
        for name, rows in found.items()
        for end, at in (("first", 0), ("last", -1))
        if f"{name}_{end}" in results.Ppo.model_fields
    }
    none_known = {"right_fraction", "abstained_fraction", "wrong_fraction"}
    assert {f"{name}_{end}" for end in ("first", "last") for name in none_known} & manifest.metrics.keys() == set()
    assert values(found["memory_bytes"])[-1] > 1e8
    assert all(seconds > 0 for seconds in values(found["step_s"]))
    pairs, chat = read_pairs(full.job, Kind.PAIRS), open_chat(full.job)
    cut = [pairs[row].prompt for row in distinct_prompts(pairs) if len(chat.prompt(pairs[row].prompt, 999)) > 24]
    none = {"turns_dropped": 0, "system_dropped": 0, "reply_cut": 0}
    expected["cuts"] = {"prompts": {**none, "prompt_cut": len(cut)}}
    found_of_n = {name: manifest.metrics[name] for name in ("best_of_reward", "sft_reward", "heldout_reward")}
    assert found_of_n["best_of_reward"] > found_of_n["sft_reward"], "the best of four is better than any"
    assert found_of_n["heldout_reward"] == values(found["heldout_reward"])[-1]
    expected |= {
        **found_of_n,
        "best_of": 4,
        "best_of_kl": math.log(4) - 0.75,
        "beats_best_of": found_of_n["heldout_reward"] > found_of_n["best_of_reward"],
    }
    assert manifest.metrics == expected | {"skipped_updates": 0, "skipped_steps": "", "zero_stage": 0}


def test_learners_start_as_the_models_that_judge_them(align: Callable[..., Job]) -> None:
    job = align("ppo", *FULL)
    actors = ppo.start(job)
    updates = 4 * 2 * 2  # steps, inner epochs, minibatches
    assert (actors.policy.total_steps, actors.critic.total_steps) == (updates, updates)
    assert (actors.policy.accumulation, actors.policy.micro_batch) == (2, 4)
    assert actors.policy.optim == job.settings.policy_optim
    assert actors.critic.optim == job.settings.value_optim
    for learner, judge in (
        (actors.policy.module, actors.reference.module),
        (actors.critic.module, actors.reward.module),
    ):
        for one, two in zip(learner.parameters(), judge.parameters(), strict=True):
            assert torch.equal(one, two)
            assert one.requires_grad
            assert not two.requires_grad
        assert not judge.training
    half = frozen(job, tiny_policy(1), EngineSettings(dtype="bf16"))
    assert {one.dtype for one in half.module.parameters()} == {torch.bfloat16}


def test_reward_rises_and_the_policy_leaves_the_reference(
    align: Callable[..., Job], curves: Callable[..., Any]
) -> None:
    job = align("ppo", "ppo.steps=25", "ppo.rollout_batch=32", "ppo.minibatch=16", "ppo.kl_coef=0.01")
    ppo.run(job)
    found = {name: values(rows) for name, rows in curves(job).items()}
    assert found["kl"][0] == pytest.approx(0.0, abs=1e-4)
    assert found["kl"][-1] > 0.05
    early, late = (sum(found["objective"][part]) / 5 for part in (slice(0, 5), slice(-5, None)))
    assert late > early + 0.3
    assert set(found["kl_coef"]) == {0.01}, "without a target it stays"
    assert set(found["ptx_loss"]) == {0.0}


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(full: Any, final_tensors: Callable[..., Any]) -> None:
    whole, resumed = full.tensors, final_tensors("ppo", 3, *FULL)
    assert {name.split("/")[0] for name in whole} == {
        "model.safetensors",
        "critic.safetensors",
        "curve",
        "figure",
        "rows",
    }
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(("zero_stage", "stop"), [(0, 2), (3, None)])
def test_two_processes_do_what_one_does(
    full: Any,
    align: Callable[..., Job],
    curves: Callable[..., Any],
    run_two: Callable[..., list[str]],
    zero_stage: int,
    stop: int | None,
) -> None:
    """The same samples and, but for the order of sums, the same updates; every figure of every step is compared.

    Without ZeRO they go on from what one process did until it was stopped. With ZeRO 3, each process holds half of every
    model, also of those that only compute.
    """
    job = align("ppo", *FULL, f"ppo.engine={{micro_batch: 4, checkpoint_steps: 100, zero_stage: {zero_stage}}}")
    assert job.task.fingerprint == full.job.task.fingerprint
    if stop:
        answers = iter([False] * (stop - 1) + [True])
        job.ranks.stopping = lambda: next(answers)  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            ppo.run(job)
    output = "".join(run_two("-m", "training", "ppo", "--recipe", job.attempt.run.uri))
    assert (f"resumed ppo from step {stop}" in output) == bool(stop)
    two, manifest = curves(job), need(job.store, job.task)
    job.store.delete(manifest.path)
    assert manifest.metrics["zero_stage"] == zero_stage
    assert two.keys() - {"resumed"} == full.curves.keys()
    for name, rows in full.curves.items():
        if name in OF_MACHINE:
            continue
        assert values(two[name]) == pytest.approx(values(rows), rel=2e-3, abs=2e-3), name


def test_a_critic_may_be_a_head_and_learn_before_the_policy_which_stops_in_time(
    align: Callable[..., Job], curves: Callable[..., Any]
) -> None:
    job = align(
        "ppo", "ppo.critic=head", "ppo.steps=3", "ppo.value_warmup_steps=1", "ppo.kl_stop=1.0e-9", "ppo.offload_frozen=true",
        "ppo.best_of=1", "ppo.normalise_rewards=true", "ppo.reward_clip=3.0",
    )  # fmt: skip
    actors = ppo.start(job)
    assert actors.shared
    assert actors.reward is not None
    assert actors.critic is not None
    assert actors.critic.module.decoder is actors.reward.module.decoder, "it is in memory once"
    ppo.run(job)
    found, manifest = curves(job), need(job.store, job.task)
    # In the first step only the critic learns. In the others, the first update's ratio is 1, and the second's is not.
    assert values(found["updates"]) == [4, 2, 2]
    assert [step for step, _ in found["policy_loss"]] == [2, 3]
    assert [step for step, _ in found["value_loss"]] == [1, 2, 3]
    assert found["kl"][1][1] == pytest.approx(0, abs=1e-4), "the policy has not moved"
    [committed] = [file for file in manifest.files if file.path.endswith("critic.safetensors")]
    critic = load_file(job.scratch.download(committed))
    [of_reward] = [file for file in job.manifest("reward").files if file.path.endswith("model.safetensors")]
    before = load_file(job.scratch.download(of_reward))
    assert critic.keys() == before.keys()
    assert {name for name in critic if not torch.equal(critic[name], before[name])} == {"score.weight"}


def test_known_answers_may_give_the_rewards(
    align: Callable[..., Job], curves: Callable[..., Any], tmp_path: Any
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(f'{{"prompt": "What is {row}?", "answer": "the"}}\n' for row in range(12)))
    job = align("ppo", f"prompts.data={file}", "ppo.reward=answers", "ppo.steps=2", "ppo.answers={wrong: -2.0}")
    assert ppo.start(job).reward is None, "no reward model is in memory"
    ppo.run(job)
    found = {name: values(rows) for name, rows in curves(job).items()}
    for right, abstained, wrong, paid in zip(
        *(found[f"{name}_fraction"] for name in ("right", "abstained", "wrong")), found["reward"], strict=True
    ):
        assert right + abstained + wrong == pytest.approx(1)
        assert paid == pytest.approx(right - 2 * wrong, abs=1e-5)
    assert need(job.store, job.task).metrics["right_fraction_first"] == found["right_fraction"][0]


LORA = (*FULL, "ppo.lora={enabled: true, rank: 4}", "ppo.engine.zero_stage=2", "ppo.value_warmup_steps=1")


def test_adapters_learn_beside_a_policy_that_is_its_own_reference(
    align: Callable[..., Job],
    curves: Callable[..., Any],
    tensors: Callable[..., Any],
    final_tensors: Callable[..., Any],
) -> None:
    """And a run that was stopped ends with the same bits, also before the policy has made its first update."""
    pytest.importorskip("peft")
    job = align("ppo", *LORA)
    ppo.run(job)
    found, manifest, whole = curves(job), need(job.store, job.task), tensors(job)
    for name in ("kl", "kl_exact"):
        assert found[name][0][1] == pytest.approx(0, abs=1e-4), "it has not moved"
        assert found[name][-1][1] > 0.05
    made, began = model.load_model(job, manifest), model.load_model(job, job.manifest("sft"))
    changed = {
        name: one - other
        for (name, one), other in zip(made.named_parameters(), began.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert len(changed) == 2 * 7, "every matrix of both layers"
    assert max(int(torch.linalg.matrix_rank(one.detach(), rtol=1e-4)) for one in changed.values()) <= 4
    job.store.delete(manifest.path)
    resumed = final_tensors("ppo", 1, *LORA)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_with_a_very_large_coefficient_the_policy_stays_where_it_began(
    align: Callable[..., Job], curves: Callable[..., Any]
) -> None:
    """In the first step nothing is to be paid yet, because the policy is the SFT model: it moves, and is drawn back."""
    found = {}
    for coef in (0.0, 1000.0):
        optim = "ppo.policy_optim={lr: 1.0e-3, weight_decay: 0.0, schedule: linear, min_lr_fraction: 0.0}"
        job = align("ppo", f"ppo.kl_coef={coef}", "ppo.best_of=1", "ppo.steps=10", optim)
        ppo.run(job)
        found[coef] = values(curves(job)["kl_exact"])
    free, tied = found.values()
    assert tied[1] == pytest.approx(free[1], abs=0.1), "after the first step"
    assert sum(tied[-3:]) < sum(free[-3:]) / 5
    assert sum(tied[-3:]) / 3 < tied[1]

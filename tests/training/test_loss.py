"""Every formula against numbers worked out by hand, and the identities that must hold for any input."""

import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.dispatched import Largest
from training import loss

numbers = st.floats(-5, 5, allow_nan=False, width=32)


@st.composite
def trajectories(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and a mask (B, T) that is a run of ones from position 0, as in a response."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    table = st.lists(st.lists(numbers, min_size=length, max_size=length), min_size=rows, max_size=rows)
    rewards, values = (torch.tensor(draw(table), dtype=torch.float64) for _ in range(2))
    kept = draw(st.lists(st.integers(1, length), min_size=rows, max_size=rows))
    mask = (torch.arange(length)[None] < torch.tensor(kept)[:, None]).double()
    return rewards * mask, values * mask, mask


def test_log_probs_of_known_distribution() -> None:
    logits = torch.tensor([[[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]]]).log()
    found = loss.log_probs(logits, torch.tensor([[1, 0]]))
    assert found.exp().tolist()[0] == pytest.approx([0.2, 0.25])
    # At temperature 1/2 the probabilities are squared and normalised: 0.04 / (0.49 + 0.04 + 0.01).
    cold = loss.log_probs(logits, torch.tensor([[1, 1]]), temperature=0.5)
    assert cold.exp().tolist()[0] == pytest.approx([0.04 / 0.54, 0.25 / 0.375])


def test_half_precision_logits_are_read_in_float32() -> None:
    logits = torch.tensor([[[1.0, 2.0, 3.0]]], dtype=torch.bfloat16)
    total = sum(math.exp(one) for one in (1, 2, 3))
    found = loss.log_probs(logits, torch.tensor([[0]]))
    assert found.dtype == loss.entropy(logits).dtype == torch.float32
    assert found.tolist()[0] == pytest.approx([1 - math.log(total)], abs=1e-6)
    expected = -sum(math.exp(one) / total * (one - math.log(total)) for one in (1, 2, 3))
    assert loss.entropy(logits).tolist()[0] == pytest.approx([expected], abs=1e-6)
    pair = loss.pairwise_loss(*(torch.tensor([one], dtype=torch.bfloat16) for one in (1.0, 2.0)))
    assert pair.dtype == torch.float32
    assert pair.tolist() == pytest.approx([math.log(1 + math.e)], abs=1e-6)


def test_kl_of_two_known_distributions() -> None:
    teacher = torch.tensor([[[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]]]).log()
    student = torch.tensor([[[0.25, 0.5, 0.25], [0.7, 0.2, 0.1]]]).log()
    # 0.5 ln(0.5 / 0.25) + 0.25 ln(0.25 / 0.5) + 0.25 ln 1
    assert loss.kl_divergence(teacher, student).tolist()[0] == pytest.approx([0.25 * math.log(2), 0.0], abs=1e-6)
    sure, uniform = torch.tensor([[[0.8, 0.1, 0.1]]]).log(), torch.zeros(1, 1, 3)
    ahead = math.log(3) + 0.8 * math.log(0.8) + 0.2 * math.log(0.1)
    behind = -math.log(3) - (math.log(0.8) + 2 * math.log(0.1)) / 3
    assert loss.kl_divergence(sure, uniform).item() == pytest.approx(ahead, abs=1e-6)
    assert loss.kl_divergence(uniform, sure).item() == pytest.approx(behind, abs=1e-6)
    # At temperature 1/2 the probabilities are squared and normalised: 64, 1 and 1 of 66.
    cold = math.log(3) + 64 / 66 * math.log(64 / 66) + 2 / 66 * math.log(1 / 66)
    assert loss.kl_divergence(sure, uniform, 0.5).item() == pytest.approx(cold, abs=1e-6)
    assert loss.kl_divergence(sure.bfloat16(), uniform.bfloat16()).dtype == torch.float32


def test_distillation_weighs_the_text_and_the_teacher() -> None:
    nll, kl = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, 0.0]])
    assert loss.distilled(nll, kl, 0.25, 3.0).tolist()[0] == pytest.approx([0.75 * 2 + 0.25 * 9 * 0.5, 0.75])
    assert loss.distilled(nll, kl, 1.0, 1.0).tolist() == kl.tolist()


@given(st.lists(numbers, min_size=12, max_size=12), st.floats(0.2, 5), st.floats(0.1, 1))
def test_a_teacher_that_is_the_student_adds_nothing_to_the_gradient(
    values: list[float], temperature: float, weight: float
) -> None:
    logits = torch.tensor(values, dtype=torch.float64).float().view(1, 3, 4).requires_grad_()
    targets = torch.tensor([[0, 3, 1]])
    kl = loss.kl_divergence(logits.detach(), logits, temperature)
    assert kl.abs().max() < 1e-6
    nll = -loss.log_probs(logits, targets)
    (plain,) = torch.autograd.grad(nll.sum(), logits, retain_graph=True)
    (mixed,) = torch.autograd.grad(loss.distilled(nll, kl, weight, temperature).sum(), logits)
    torch.testing.assert_close(mixed, (1 - weight) * plain, atol=1e-5, rtol=1e-4)


@given(st.lists(numbers, min_size=8, max_size=8))
def test_kl_is_never_negative(values: list[float]) -> None:
    one, two = torch.tensor(values).view(2, 1, 1, 4)
    assert loss.kl_divergence(one, two).item() > -1e-6


def head_batch(
    seed: int, rows: int, length: int, width: int, vocabulary: int, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Hidden states and a head's weight, both with gradients, targets, and a mask that leaves some of them out."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, length, width, generator=random).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=random).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows, length), generator=random)
    return [hidden, weight, targets, (torch.rand(rows, length, generator=random) < 0.7).float()]


@given(
    st.integers(0, 1000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 9),
    st.sampled_from([(torch.float32, 1e-5), (torch.bfloat16, 0.02)]), st.floats(0.01, 8), st.sampled_from([1, 7, 1000]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_the_loss_at_the_head_is_that_of_its_logits(
    seed: int, rows: int, length: int, width: int, vocabulary: int,
    precision: tuple[torch.dtype, float], scale: float, at_once: int,
) -> None:  # fmt: skip
    dtype, near = precision
    hidden, weight, targets, mask = head_batch(seed, rows, length, width, vocabulary, dtype)
    nll = -loss.log_probs(hidden @ weight.T, targets)
    (scale * (nll * mask).sum()).backward()
    expected = [hidden.grad, weight.grad]
    hidden.grad = weight.grad = None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loss, "LOGITS_AT_ONCE", {"cpu": at_once})
        found = loss.head_loss(hidden, weight, targets, mask)
        measured = loss.head_nll(hidden, weight, targets)
        (scale * found).backward()
    assert found.dtype == measured.dtype == torch.float32
    assert not measured.requires_grad
    assert torch.allclose(measured, nll, rtol=1e-5, atol=1e-5)
    assert found.item() == pytest.approx((nll * mask).sum().item(), rel=1e-5, abs=1e-5)
    for got, wanted in zip((hidden.grad, weight.grad), expected, strict=True):
        assert got is not None
        assert wanted is not None
        assert got.dtype == dtype
        assert (got - wanted).abs().max() <= near * max(float(wanted.abs().max()), scale)


def test_the_gradient_of_the_head_is_summed_in_float32() -> None:
    """In bf16, 1 + 2^-9 is 1: of many small parts added to a large one, all would be lost."""
    hidden = torch.ones(1, 513, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.tensor([[256.0] + [1.0] * 512])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 2})
        loss.head_loss(hidden, weight, torch.zeros(1, 513, dtype=torch.long), mask).backward()
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == [-384.0, 384.0]


def test_only_what_learns_gets_a_gradient_at_the_head() -> None:
    hidden, weight, targets, mask = head_batch(0, 2, 3, 4, 5, torch.float32)
    loss.head_loss(hidden, weight.detach(), targets, mask).backward()
    loss.head_loss(hidden.detach(), weight, targets, mask).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    own = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    loss.head_loss(hidden, weight, targets, mask).backward()
    assert torch.equal(hidden.grad, own[0])
    assert torch.equal(weight.grad, own[1])


def test_the_compiled_loss_at_the_head_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 4 * 50})
    hidden, weight, targets, mask = head_batch(1, 2, 5, 3, 50, torch.float32)
    found = []
    for compiled in (False, True):
        total = loss.head_loss(hidden, weight, targets, mask, compiled)
        total.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        found.append((total.detach(), hidden.grad, weight.grad))
        hidden.grad = weight.grad = None
    assert loss._compiled_part.cache_info().currsize == 1, "it was compiled"
    for plain, made in zip(*found, strict=True):
        assert torch.allclose(plain, made, rtol=1e-5, atol=1e-6)


class OnGpu(torch.Tensor):
    """A tensor that says where it is as its test wants."""

    is_cuda = False  # type: ignore[assignment]


def test_liger_gets_the_rows_the_head_and_the_targets_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that computes what its kernel is documented to."""
    called: list[torch.dtype] = []

    def kernel(rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, **given: Any) -> torch.Tensor:
        called.append(given.pop("accum_dtype"))
        return torch.nn.functional.cross_entropy(rows @ weight.T, targets, **given)

    named = "liger_kernel.transformers.functional"
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", ModuleType("liger_kernel.transformers"))
    monkeypatch.setitem(sys.modules, named, ModuleType(named))
    monkeypatch.setattr(sys.modules[named], "liger_fused_linear_cross_entropy", kernel, raising=False)
    monkeypatch.setattr(loss, "_has_liger", lambda: True)
    hidden, weight, targets, mask = head_batch(2, 2, 5, 3, 7, torch.float32)
    found = []
    for on_a_gpu in (False, True):
        monkeypatch.setattr(OnGpu, "is_cuda", on_a_gpu)
        total = loss.head_loss(hidden.as_subclass(OnGpu), weight, targets, mask)
        total.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        found.append([total.detach(), hidden.grad, weight.grad])
        hidden.grad = weight.grad = None
        assert called == [torch.float32] * on_a_gpu, "on a CPU Liger cannot run"
    for own, ligers in zip(*found, strict=True):
        assert torch.allclose(own, ligers, rtol=1e-5, atol=1e-6)


def test_liger_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(loss, "find_spec", asked.append)
    loss._has_liger.cache_clear()
    hidden, weight, targets, mask = head_batch(2, 2, 5, 3, 7, torch.float32)
    monkeypatch.setattr(OnGpu, "is_cuda", True)
    for _ in range(3):
        loss.head_loss(hidden.as_subclass(OnGpu), weight, targets, mask)
    loss._has_liger.cache_clear()
    assert asked == ["liger_kernel"]


def test_the_logits_of_a_large_vocabulary_never_lie_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, tokens = 32_000, 512
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", {"cpu": 32 * vocabulary})
    hidden, weight, targets, mask = head_batch(0, 2, tokens // 2, 4, vocabulary, torch.float32)
    with Largest() as plain:
        (-loss.log_probs(hidden @ weight.T, targets) * mask).sum().backward()
    with Largest() as chunked:
        loss.head_loss(hidden, weight, targets, mask).backward()
    with Largest() as measured:
        loss.head_nll(hidden, weight, targets)
    assert plain.bytes == 4 * tokens * vocabulary
    assert chunked.bytes == measured.bytes == plain.bytes / 16


def test_sequence_log_probs_leave_padding_out() -> None:
    values = torch.tensor([[-1.0, -2.0, -4.0], [-1.0, -1.0, -1.0]])
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert loss.sequence_log_probs(values, mask).tolist() == [-3.0, -1.0]


def test_entropy() -> None:
    logits = torch.tensor([[[0.5, 0.5, 1e-30], [1.0, 1e-30, 1e-30]]]).log()
    assert loss.entropy(logits).tolist()[0] == pytest.approx([math.log(2), 0.0], abs=1e-6)
    # Squared and normalised at temperature 1/2: 0.64 / 0.68 and 0.04 / 0.68, whatever constant the logits carry.
    cold = loss.entropy(torch.tensor([[[0.8, 0.2]]]).log() + 3, temperature=0.5)
    expected = -sum(one / 0.68 * math.log(one / 0.68) for one in (0.64, 0.04))
    assert cold.tolist()[0] == pytest.approx([expected], abs=1e-6)


def test_masked_mean() -> None:
    values, mask = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([1.0, 1.0, 0.0])
    assert loss.masked_mean(values, mask) == 1.5
    assert loss.masked_mean(values, mask, 6) == 0.5
    assert loss.masked_mean(values, torch.zeros(3)) == 0.0
    assert loss.masked_mean(values, torch.tensor([0.0, 0.0, 1.0])) == 30.0


def test_pairwise_loss() -> None:
    found = loss.pairwise_loss(torch.tensor([0.0, 2.0, -100.0]), torch.tensor([0.0, 1.0, 0.0]))
    assert found.tolist() == pytest.approx([math.log(2), math.log(1 + math.exp(-1)), 100.0])


@settings(deadline=None)  # the first call pays for starting torch
@given(numbers, numbers)
def test_pairwise_loss_is_the_cross_entropy_of_a_preference(chosen: float, rejected: float) -> None:
    one, other = (
        float(loss.pairwise_loss(torch.tensor([a]), torch.tensor([b])))
        for a, b in ((chosen, rejected), (rejected, chosen))
    )
    assert math.exp(-one) + math.exp(-other) == pytest.approx(1, abs=1e-5)


def test_rewards_put_the_score_on_the_last_token() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    kl = torch.tensor([[0.5, -1.0, 9.0], [0.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    found = loss.shape_rewards(torch.tensor([3.0, -1.0, 7.0]), kl, mask, kl_coef=0.1)
    expected = [[-0.05, 3.1, 0.0], [0.0, 0.0, -1.2], [0.0, 0.0, 0.0]]
    for row, wanted in zip(found.tolist(), expected, strict=True):
        assert row == pytest.approx(wanted)
    alone = loss.shape_rewards(torch.tensor([3.0]), kl[:1], mask[:1], kl_coef=0.1)
    assert torch.equal(alone, found[:1]), "fewer rows than positions"
    double = loss.shape_rewards(torch.tensor([3.0, -1.0, 7.0]), kl.double(), mask, kl_coef=0.1)
    assert double.dtype == torch.float64


def test_gae_by_hand() -> None:
    # gamma 0.5, lam 0.5: delta_2 = 4 - 2 = 2; delta_1 = 1 + 0.5 * 2 - 1 = 1; A_1 = 1 + 0.25 * 2 = 1.5;
    # delta_0 = 0 + 0.5 * 1 - 3 = -2.5; A_0 = -2.5 + 0.25 * 1.5 = -2.125. The padded position changes nothing.
    rewards = torch.tensor([[0.0, 1.0, 4.0, 0.0]])
    values = torch.tensor([[3.0, 1.0, 2.0, 8.0]])
    advantages, returns = loss.gae(rewards, values, torch.tensor([[1.0, 1.0, 1.0, 0.0]]), 0.5, 0.5)
    assert advantages.tolist() == [[-2.125, 1.5, 2.0, 0.0]]
    assert returns.tolist() == [[0.875, 2.5, 4.0, 0.0]]


@settings(deadline=None)  # the first call pays for starting torch
@given(trajectories())
def test_gae_without_discount_is_return_minus_value(case: tuple[torch.Tensor, ...]) -> None:
    rewards, values, mask = case
    to_go = rewards.flip(-1).cumsum(-1).flip(-1) * mask
    advantages, returns = loss.gae(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, to_go)
    torch.testing.assert_close(advantages, to_go - values)


@settings(deadline=None)  # the first call pays for starting torch
@given(trajectories(), st.floats(0, 1))
def test_gae_with_lam_zero_is_the_one_step_error(case: tuple[torch.Tensor, ...], gamma: float) -> None:
    rewards, values, mask = case
    following = torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), dim=1)
    advantages, _ = loss.gae(rewards, values, mask, gamma, lam=0.0)
    torch.testing.assert_close(advantages, (rewards + gamma * following - values) * mask)


@settings(deadline=None)  # the first call pays for starting torch
@given(trajectories())
def test_whitened_values_have_mean_zero_and_variance_one(case: tuple[torch.Tensor, ...]) -> None:
    values, _, mask = case
    found = loss.whiten(values, mask)
    kept = found[mask.bool()]
    assert found[~mask.bool()].abs().sum() == 0
    assert float(kept.mean()) == pytest.approx(0, abs=1e-3)
    if values[mask.bool()].var(unbiased=False) > 1e-3:
        assert float(kept.var(unbiased=False)) == pytest.approx(1, abs=1e-3)


def test_whitening_can_keep_the_mean() -> None:
    found = loss.whiten(torch.tensor([2.0, 6.0]), torch.ones(2), shift_mean=False)
    assert found.tolist() == pytest.approx([-1 + 4, 1 + 4])


def test_whitening_adds_epsilon_to_the_variance_and_computes_in_float64() -> None:
    # Variance 1e-8, and as much again: a deviation of 1e-4 becomes 1 / sqrt(2).
    found = loss.whiten(torch.tensor([-1e-4, 1e-4]), torch.ones(2))
    assert found.tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], rel=1e-4)
    # In float32 the mean of these would be off by 4 % of their deviation.
    large = loss.whiten(torch.tensor([1e6, 1e6 + 1, 1e6 + 1]), torch.ones(3))
    assert large.tolist() == pytest.approx([-math.sqrt(2), math.sqrt(0.5), math.sqrt(0.5)], abs=1e-5)
    assert large.dtype == torch.float32


def test_whitening_nothing_gives_zeros() -> None:
    assert loss.whiten(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_policy_loss_by_hand() -> None:
    ratios = torch.tensor([[1.0, 1.5, 1.5, 0.5, 0.5]])
    advantages = torch.tensor([[2.0, 1.0, -1.0, 1.0, -1.0]])
    found = loss.policy_loss(ratios.log(), torch.zeros(1, 5), advantages, clip=0.2)
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8)
    assert found.tolist()[0] == pytest.approx([-2.0, -1.2, 1.5, -0.5, 0.8])
    left = loss.clipped(ratios.log(), torch.zeros(1, 5), 0.2)
    assert left.tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0]]
    assert left.dtype == torch.float32
    old = torch.tensor([[-1.0, -2.0]])
    assert loss.clipped(old + 0.1, old, 0.2).tolist() == [[0.0, 0.0]], "a ratio of 1.105 has not left 1.2"
    assert loss.policy_loss(old + math.log(1.1), old, torch.ones(1, 2), 0.2).tolist()[0] == pytest.approx([-1.1] * 2)
    assert loss.clipped(torch.tensor([math.log(1.5)]), torch.zeros(1), 0.5).tolist() == [0.0], (
        "the limit itself is inside"
    )


def test_policy_gradient_stops_where_the_clip_holds() -> None:
    new = torch.tensor([[1.5, 1.5, 1.0]]).log().requires_grad_()
    loss.policy_loss(new, torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 3.0]]), 0.2).sum().backward()
    assert new.grad is not None
    assert new.grad.tolist()[0] == pytest.approx([0.0, 1.5, -3.0])


def test_value_loss_by_hand() -> None:
    values, old, returns = torch.tensor([[1.0, 1.0, 0.1]]), torch.zeros(1, 3), torch.tensor([[1.0, 3.0, 0.0]])
    # Clipped value 0.2: max(0, 0.64) / 2; max(4, 7.84) / 2; within the clip 0.01 / 2.
    assert loss.value_loss(values, old, returns, 0.2).tolist()[0] == pytest.approx([0.32, 3.92, 0.005])
    # From old values of 2, downwards: clipped to 1.8 against 1 and 3; the larger error counts.
    values, old, returns = torch.tensor([[1.0, 1.0]]), torch.full((1, 2), 2.0), torch.tensor([[1.0, 3.0]])
    assert loss.value_loss(values, old, returns, 0.2).tolist()[0] == pytest.approx([0.32, 2.0])


def test_kl_penalty_is_the_kl_divergence_in_expectation() -> None:
    policy, reference = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    expected = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    assert float((policy * loss.kl_penalty(policy.log(), reference.log())).sum()) == pytest.approx(expected)


def test_kl_coefficient_follows_its_target() -> None:
    assert loss.adapt_kl_coef(0.2, kl=6.6, target=6.0) == pytest.approx(0.2 * 1.01)
    assert loss.adapt_kl_coef(0.2, kl=60.0, target=6.0) == pytest.approx(0.2 * 1.02)
    assert loss.adapt_kl_coef(0.2, kl=-3.0, target=6.0) == pytest.approx(0.2 * 0.98)
    assert loss.adapt_kl_coef(0.2, kl=6.0, target=6.0) == 0.2


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0, 4.0, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    assert loss.explained_variance(returns + 5, returns, mask) == pytest.approx(1.0)
    assert loss.explained_variance(torch.zeros(1, 5), returns, mask) == pytest.approx(0.0)
    assert loss.explained_variance(-returns, returns, mask) == pytest.approx(-3.0)
    assert loss.explained_variance(returns, mask, mask) == 0.0
    one = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])
    assert loss.explained_variance(returns, returns, one) == 0.0, "one return does not vary"
    # A variance of 1.21e-8 is above the limit of 1e-8, one of 0.81e-8 under it.
    barely, less = (torch.tensor([[-one, one]], dtype=torch.float64) for one in (1.1e-4, 0.9e-4))
    assert loss.explained_variance(barely / 2, barely, torch.ones(1, 2)) == pytest.approx(0.75)
    assert loss.explained_variance(less / 2, less, torch.ones(1, 2)) == 0.0


def test_k3_is_never_negative_and_in_expectation_the_kl_divergence() -> None:
    policy, reference = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    found = loss.kl_k3(policy.log(), reference.log())
    assert float(found.min()) >= 0
    # 1/3 - 1 + log 3, 0, 5 - 1 - log 5
    assert found.tolist() == pytest.approx([1 / 3 - 1 + math.log(3), 0.0, 4 - math.log(5)], abs=1e-6)
    exact = sum(p * math.log(p / q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    assert float((policy * found).sum()) == pytest.approx(exact)
    plain = loss.kl_penalty(policy.log(), reference.log())
    spread = [float((policy * (one - exact) ** 2).sum()) for one in (found, plain)]
    assert spread[0] < spread[1], "its variance is smaller"


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = torch.tensor([3.0, 5.0, -1.0, 2.0, 2.0, 7.0])
    found = loss.Moments()
    for part in (values[:1], values[1:1], values[1:4], values[4:]):
        found = found.seen(part)
    assert (found.count, found.mean) == (6, pytest.approx(3.0))
    assert found.squares == pytest.approx(0 + 4 + 16 + 1 + 1 + 16)
    deviation = math.sqrt(38 / 6)
    assert found.scaled(torch.tensor([3.0, 3 + deviation])).tolist() == pytest.approx([0, 1])
    assert found.scaled(torch.tensor([3 + 9 * deviation, -40.0]), clip=2.0).tolist() == [2.0, -2.0]
    large = loss.Moments().seen(torch.tensor([1e6, 1e6 + 1, 1e6 + 2]))
    assert large.squares == pytest.approx(2.0), "in float64"


def test_group_advantages_by_hand() -> None:
    scores = torch.tensor([1.0, 0.0, 0.0, 1.0, 5.0, 5.0, 5.0, 5.0, 3.0, 1.0, 1.0, 1.0])
    found = loss.group_advantages(scores, 4).tolist()
    root = math.sqrt(3)  # of the last group: mean 1.5, variance 0.75
    assert found == pytest.approx([1, -1, -1, 1, 0, 0, 0, 0, root, -1 / root, -1 / root, -1 / root], abs=1e-6)
    assert loss.group_advantages(scores, 4, by_deviation=False).tolist()[8:] == [1.5, -0.5, -0.5, -0.5]


def test_dpo_loss_and_gradient_by_hand() -> None:
    chosen, rejected = torch.tensor([-3.0, -1.0], requires_grad=True), torch.tensor([-4.0, -1.0], requires_grad=True)
    reference = torch.tensor([-4.0, -1.0]), torch.tensor([-2.0, -1.0])
    found, better, worse = loss.dpo_loss((chosen, rejected), reference, beta=0.5)
    # r_w = 0.5 (-3 + 4), r_l = 0.5 (-4 + 2): the margin is 1.5; in the second pair nothing has moved.
    assert (better.tolist(), worse.tolist()) == ([0.5, 0.0], [-1.0, 0.0])
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-1.5)), math.log(2)])
    found.sum().backward()
    # d loss / d log pi(y_w) = -beta sigmoid(-margin), and the opposite for y_l (Rafailov et al. 2023, section 4)
    sigmoid = 1 / (1 + math.exp(1.5))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-0.5 * sigmoid, -0.25])
    assert rejected.grad.tolist() == pytest.approx([0.5 * sigmoid, 0.25])
    smooth, *_ = loss.dpo_loss((chosen, rejected), reference, beta=0.5, smoothing=0.1)
    assert smooth.tolist()[0] == pytest.approx(0.9 * math.log(1 + math.exp(-1.5)) + 0.1 * math.log(1 + math.exp(1.5)))


def test_best_of_one_is_the_model_itself() -> None:
    assert loss.best_of_kl(1) == 0.0
    assert loss.best_of_kl(4) == pytest.approx(math.log(4) - 0.75)

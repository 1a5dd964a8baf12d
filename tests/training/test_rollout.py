"""Sampling on a small real model: what it draws from, where it stops, and that rows are independent."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.rollout import Rollout, draw, generate, joined, left_pad, positions, response_logits, row_seed, trimmed

END = 0
PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9]]
SEEDS = [row_seed(1, row) for row in range(3)]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,  # large, so that the distribution is far from uniform
        bos_token_id=None,
        eos_token_id=END,
    )
    return LlamaForCausalLM(config).eval()


def test_cached_sampling_draws_from_the_distribution_of_a_whole_forward_pass(model: LlamaForCausalLM) -> None:
    for temperature in (1.0, 0.7):
        sampled = generate(model, PROMPTS, SEEDS, 24, END, temperature)
        logits = response_logits(model, sampled.tokens, sampled.attention, sampled.mask.shape[1])
        for row, seed in enumerate(SEEDS):
            uniforms = torch.rand(24, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            text = sampled.texts()[row]
            again = draw((logits[row, -len(text) :] / temperature).softmax(-1), uniforms[: len(text)])
            assert again.tolist() == text


def test_padding_does_not_change_a_row(model: LlamaForCausalLM) -> None:
    together = generate(model, PROMPTS, SEEDS, 24, END)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        alone = generate(model, [prompt], [seed], 24, END)
        assert alone.texts()[0] == together.texts()[row]


def test_response_ends_at_end_of_text(model: LlamaForCausalLM) -> None:
    prompts = [[5, 6]] * 40
    sampled = generate(model, prompts, [row_seed(2, row) for row in range(40)], 30, END)
    ended = sampled.ended(END)
    assert 0 < int(ended.sum()) < 40, "the seed should give both kinds"
    for row, text in enumerate(sampled.texts()):
        assert text.count(END) == int(ended[row])
        assert (text[-1] == END) == bool(ended[row])
        assert len(text) == 30 or bool(ended[row])
        assert sampled.attention[row].tolist() == [0] * (sampled.mask.shape[1] - len(text)) + [1] * (2 + len(text))


def test_same_seed_same_response_other_seed_another(model: LlamaForCausalLM) -> None:
    first, again = (generate(model, PROMPTS, SEEDS, 16, END).texts() for _ in range(2))
    assert first == again
    assert first != generate(model, PROMPTS, [seed + 1 for seed in SEEDS], 16, END).texts()


def test_first_tokens_follow_the_models_distribution(model: LlamaForCausalLM) -> None:
    """Real sampling: 4,000 first tokens against the softmax, by a chi-square statistic (30 degrees of freedom, p = 0.001: 59.7)."""
    count = 4000
    sampled = generate(model, [[5, 6]] * count, [row_seed(3, row) for row in range(count)], 1, END)
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1) * count
    found = torch.bincount(sampled.responses[:, 0], minlength=31)
    common = expected >= 5
    assert int(common.sum()) >= 5
    assert float((((found - expected) ** 2) / expected)[common].sum()) < 59.7


def test_draw_inverts_the_cumulative_distribution() -> None:
    probabilities = torch.tensor([[0.5, 0.0, 0.25, 0.25]]).repeat(5, 1)
    uniform = torch.tensor([0.0, 0.49, 0.5, 0.75, 0.999999], dtype=torch.float64)
    assert draw(probabilities, uniform).tolist() == [0, 0, 2, 3, 3]


def test_draw_scales_to_the_sum_and_never_leaves_the_vocabulary() -> None:
    uniform = torch.tensor([0.2, 0.5, 0.999, 1.0], dtype=torch.float64)
    assert draw(torch.tensor([[2.0, 1.0, 1.0]]).repeat(4, 1), uniform).tolist() == [0, 1, 2, 2]


@pytest.fixture
def calls(model: LlamaForCausalLM) -> Iterator[list[dict[str, Any]]]:
    """What the model is called with, and in which mode."""
    seen: list[dict[str, Any]] = []
    modes = lambda: {"training": model.training, "gradients": torch.is_grad_enabled()}  # noqa: E731
    hook = model.register_forward_pre_hook(lambda _, given, named: seen.append(named | modes()), with_kwargs=True)
    yield seen
    hook.remove()


def test_sampling_feeds_one_token_at_a_time(model: LlamaForCausalLM, calls: list[dict[str, Any]]) -> None:
    model.train()
    sampled = generate(model, PROMPTS, SEEDS, 5, END, width=9)
    assert model.training
    model.eval()
    steps = sampled.mask.shape[1]
    assert [tuple(one["input_ids"].shape) for one in calls] == [(3, 9), *[(3, 1)] * (steps - 1)]
    assert [tuple(one["attention_mask"].shape) for one in calls] == [(3, 9 + step) for step in range(steps)]
    assert [one["position_ids"][2, -1].item() for one in calls] == [6 + step for step in range(steps)]
    assert all(one["logits_to_keep"] == 1 and one["use_cache"] for one in calls)
    assert not any(one["training"] or one["gradients"] for one in calls)
    (first,) = sampled.texts()[1:2]
    assert sampled.tokens[1].tolist() == [END] * (8 + steps - len(first)) + [9, *first]
    generate(model, PROMPTS, SEEDS, 2, END)
    assert not model.training, "evaluation mode stays as well"


def test_all_go_on_until_every_process_is_done(model: LlamaForCausalLM) -> None:
    prompts, seeds = [[5, 6]] * 40, [row_seed(2, row) for row in range(40)]
    alone = generate(model, prompts, seeds, 30, END)
    ended = [row for row in range(40) if len(alone.texts()[row]) < 12 and bool(alone.ended(END)[row])]
    assert ended
    few = [prompts[row] for row in ended], [seeds[row] for row in ended]
    short = generate(model, *few, 30, END)
    assert short.mask.shape[1] == max(map(len, short.texts())) < 30, "it stops with its longest reply"
    told: list[bool] = []
    longer = generate(model, *few, 30, END, anyone=lambda flag: bool(told.append(flag)) or len(told) < 20)
    assert longer.mask.shape[1] == 20
    assert told == [True] * (short.mask.shape[1] - 1) + [False] * (21 - short.mask.shape[1])
    assert longer.texts() == short.texts()
    padding = longer.attention == 0
    assert set(longer.tokens[padding].tolist()) == {END}
    assert torch.equal(longer.attention.sum(-1), 2 + longer.mask.sum(-1).long())


def test_rows_of_prompt_and_response_are_padded_on_the_left_alone() -> None:
    tokens, attention = left_pad([[4, 5], [6]], pad=9, device="cpu")
    made = joined(
        tokens, attention, torch.tensor([[7, 9, 9], [1, 2, 3]]), torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    )
    assert made.tokens.tolist() == [[9, 9, 4, 5, 7], [9, 6, 1, 2, 3]]
    assert made.attention.tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert made.mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert made.texts() == [[7], [1, 2, 3]]
    narrow = trimmed(made.tokens, made.attention, 3)
    assert [one.tolist() for one in narrow] == [[[9, 4, 5, 7], [6, 1, 2, 3]], [[0, 1, 1, 1], [1, 1, 1, 1]]]
    assert trimmed(made.tokens[:1], made.attention[:1], 3)[0].tolist() == [[9, 4, 5, 7]], "length + 1 positions stay"
    assert trimmed(made.tokens[:1], made.attention[:1], 1)[0].tolist() == [[4, 5, 7]]


def test_padding_after_a_cut_reply_is_no_end() -> None:
    tokens = torch.tensor([[7, 5, END], [7, END, 5]])
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    cut = Rollout(tokens, torch.ones_like(tokens), mask)
    assert cut.ended(END).tolist() == [False, True]
    assert cut.texts() == [[5], [END]]


def test_logits_of_replies_have_gradients_and_no_cache(model: LlamaForCausalLM, calls: list[dict[str, Any]]) -> None:
    tokens, attention = left_pad(PROMPTS, END, "cpu")
    found = response_logits(model, tokens, attention, 2)
    assert found.requires_grad
    whole = model(tokens[2:]).logits[0, 4:6]
    torch.testing.assert_close(found[2], whole, rtol=1e-4, atol=1e-4)
    assert (calls[0]["use_cache"], calls[0]["logits_to_keep"]) == (False, 3)


def test_left_padding() -> None:
    tokens, attention = left_pad([[4, 5], [6]], pad=9, device="cpu")
    assert tokens.tolist() == [[4, 5], [9, 6]]
    assert attention.tolist() == [[1, 1], [0, 1]]
    assert positions(attention).tolist() == [[0, 1], [0, 0]]
    tokens, attention = left_pad([[4, 5], [6]], pad=9, device="cpu", width=3)
    assert tokens.tolist() == [[9, 4, 5], [9, 9, 6]]
    assert attention.tolist() == [[0, 1, 1], [0, 0, 1]]


def test_row_seeds_of_more_or_longer_numbers_are_others() -> None:
    keys = [(), (1,), (1, 2), (1, 2, 0), (1, 2, 0, 0), (12,), (0, 1), (1 << 32,), (2, 1)]
    assert len({row_seed(*key) for key in keys}) == len(keys)


def test_row_seeds_are_distinct_and_fit_a_generator() -> None:
    seeds = {row_seed(seed, step, row) for seed in range(5) for step in range(20) for row in range(20)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62, "63 bits are used"
    assert row_seed(1, 2, 3) == 1632909043327546833, (
        "a run that goes on after an upgrade draws what it would have drawn"
    )


def test_training_mode_is_left_as_it_was(model: LlamaForCausalLM) -> None:
    model.train()
    generate(model, PROMPTS, SEEDS, 2, END)
    assert model.training
    model.eval()

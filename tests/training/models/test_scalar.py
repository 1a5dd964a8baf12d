"""A model with one number per position: its head, where its reward is read, and that transformers opens it with the same scores."""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaModel,
)

from training.models import llama as model
from training.models.scalar import BRANCHES, RewardModel, last, load, normalised
from training.reward import Ranked, losses_of, rewards_of, rewards_of_groups
from training.rollout import left_pad

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
PAD = 1


@pytest.fixture(scope="module")
def small() -> RewardModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return RewardModel(LlamaModel(config), seed=1).eval()


def test_the_head_starts_as_stiennon_et_al_say() -> None:
    config = LlamaConfig(vocab_size=5, hidden_size=24, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    made = [RewardModel(LlamaModel(config), seed) for seed in (3, 3, 4)]
    drawn = torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(made[0].head.weight.detach(), drawn / math.sqrt(25))
    assert made[0].head.bias.tolist() == [0.0]
    assert torch.equal(made[0].head.weight, made[1].head.weight)
    assert not torch.equal(made[0].head.weight, made[2].head.weight)


def test_reward_is_read_at_the_last_real_token() -> None:
    values = torch.arange(12.0).view(3, 4)
    attention = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]])
    assert last(values, attention).tolist() == [3.0, 6.0, 11.0]


def test_reward_does_not_depend_on_padding_or_company(small: RewardModel) -> None:
    chats = [[3, 4, 5, 6, 7], [8, 9]]
    together = rewards_of(small, chats, 0, torch.device("cpu")).detach()
    alone = [rewards_of(small, [chat], 0, torch.device("cpu"))[0].detach() for chat in chats]
    torch.testing.assert_close(together, torch.stack(alone))
    changed = rewards_of(small, [[3, 4, 5, 6, 8]], 0, torch.device("cpu")).detach()
    assert abs(float(changed[0] - together[0])) > 1e-3


def test_rewards_are_computed_in_float32_also_if_the_decoder_is_in_bf16(small: RewardModel) -> None:
    exact = small.head.weight.detach().clone()
    tokens, attention = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]]), torch.ones(1, 8, dtype=torch.long)
    half = model.cast(deepcopy(small), "bf16")
    assert {one.dtype for one in half.decoder.parameters()} == {torch.bfloat16}
    assert torch.equal(half.head.weight, exact), "a frozen head keeps its weights"
    for judge in (half, deepcopy(half).bfloat16()):  # as DeepSpeed casts one that learns
        with torch.no_grad():
            found = judge(tokens, attention)
            hidden = judge.decoder(input_ids=tokens, attention_mask=attention).last_hidden_state.float()
            expected = hidden @ judge.head.weight.float()[0] + judge.head.bias.float()
        torch.testing.assert_close(found, expected)
        assert not torch.equal(found, found.bfloat16().float())


def test_normalisation_is_folded_into_the_head(small: RewardModel) -> None:
    chats = [[3, 4, 5], [8, 9], [7, 7, 7, 7]]
    exact = dict(small.named_parameters())
    with torch.no_grad():
        before = rewards_of(small, chats, 0, torch.device("cpu"))
        small.load_state_dict(normalised(exact, 2.0, 4.0))
        after = rewards_of(small, chats, 0, torch.device("cpu"))
        small.load_state_dict(normalised(dict(small.named_parameters()), -0.5, 0.25))  # undoes it
        again = rewards_of(small, chats, 0, torch.device("cpu"))
    torch.testing.assert_close(after, (before - 2) / 4)
    torch.testing.assert_close(again, before)


def test_a_loaded_model_computes_with_the_attention_of_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    RewardModel(LlamaModel(LlamaConfig(vocab_size=50, **shape)), seed=0).save_pretrained(tmp_path)
    monkeypatch.setattr(model, "attention", lambda dtype, kind: {"bf16": "eager", "fp32": "sdpa"}[dtype])
    for dtype, attention in (("bf16", "eager"), ("fp32", "sdpa")):
        loaded = load(tmp_path, dtype)
        assert loaded.decoder.config._attn_implementation == attention


def _saved(kind: str, folder: Path, **more: Any) -> RewardModel:
    """A reward model over a random decoder of a kind, normalised so that a mean is subtracted, and written to a folder."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **more)
    module = RewardModel(AutoModel.from_config(config), seed=3).eval()
    module.load_state_dict(normalised(dict(module.state_dict()), 0.7, 0.3))
    module.save_pretrained(folder, pad=PAD)
    return module


@pytest.mark.parametrize("kind", sorted(BRANCHES))
def test_replies_that_share_their_prompt_have_the_rewards_and_gradients_of_rows_of_their_own(kind: str) -> None:
    """Of every type that may do so; three prompts with one to three replies, of which two fit in one row."""
    torch.manual_seed(0)
    module = RewardModel(AutoModel.from_config(AutoConfig.for_model(kind, **SHAPE, sliding_window=None)), seed=3).eval()
    groups = [
        Ranked([3, 4, 5, 6], [[7, 8, 9], [8, 2], [11]], ["", "", ""], [None] * 3, [(0, 1), (1, 2)], frozenset()),
        Ranked([12, 13], [[14], [15, 16]], ["", ""], [None] * 2, [(0, 1)], frozenset()),
        Ranked([3, 4], [[17]], [""], [5.0], [], frozenset()),
    ]
    found = {}
    for shared in (False, True):
        if shared:
            module.share_prompts()
        calls: list[torch.Size] = []
        handle = module.decoder.register_forward_hook(lambda *given, calls=calls: calls.append(given[-1][0].shape))
        rewards = rewards_of_groups(module, groups, PAD, torch.device("cpu"))
        handle.remove()
        module.zero_grad()
        losses_of(rewards, groups, "both", 0.5).total.backward()
        gradients = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
        found[shared] = rewards.detach(), gradients, calls[0][:2].numel()
    torch.testing.assert_close(found[True][0], found[False][0], atol=5e-6, rtol=0)
    torch.testing.assert_close(found[True][1], found[False][1], atol=5e-6, rtol=1e-3)
    assert (found[False][2], found[True][2]) == (6 * 7, 2 * 10), "tokens that ran through the decoder"


def test_decoders_whose_attention_takes_no_mask_of_its_own_share_nothing() -> None:
    for kind, more in (("bloom", {}), ("mistral", {"sliding_window": 8})):
        module = RewardModel(AutoModel.from_config(AutoConfig.for_model(kind, **SHAPE, **more)), seed=3)
        module.share_prompts()
        assert not module.branches


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["llama", "mixtral", "bloom", "gpt2", "gpt_neox"])
def test_transformers_opens_it_with_the_same_scores(kind: str, side: str, tmp_path: Path) -> None:
    module = _saved(kind, tmp_path)
    opened, told = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), "no weight is missing, unknown or of another shape"
    rows = [[3, 4, 5, 6, 1, 7], [8, 9], [10]]
    tokens, attention = left_pad(rows, PAD, "cpu")
    with torch.no_grad():
        ours, again = (last(one(tokens, attention), attention) for one in (module, load(tmp_path).eval()))
        known = {}
        if side == "right":
            tokens = torch.tensor([[*row, *[PAD] * (6 - len(row))] for row in rows])
            attention = torch.tensor([[*[1] * len(row), *[0] * (6 - len(row))] for row in rows])
        elif kind == "gpt2":  # its positions are absolute, and transformers counts padding unless it is told them
            known = {"position_ids": (attention.cumsum(-1) - 1).clamp(min=0)}
        scores = opened.eval()(input_ids=tokens, attention_mask=attention, **known).logits
    assert scores.shape == (3, 1)
    assert opened.config.reward_mean == pytest.approx(0.7 / 0.3)
    torch.testing.assert_close(scores[:, 0] - opened.config.reward_mean, ours, atol=1e-5, rtol=0)
    assert torch.equal(again, ours), "our own loader subtracts the mean"


def test_a_decoder_of_which_transformers_has_no_classifier_still_opens_here(tmp_path: Path) -> None:
    module = _saved("cohere", tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert "architectures" not in described
    assert {"score.weight", "model.norm.weight"} <= load_file(tmp_path / "model.safetensors").keys()
    tokens, attention = left_pad([[3, 4, 5], [6]], PAD, "cpu")
    with torch.no_grad():
        assert torch.equal(load(tmp_path).eval()(tokens, attention), module(tokens, attention))


def test_what_fills_blanks_is_saved_as_a_plain_llama(tmp_path: Path) -> None:
    _saved("llama", tmp_path, span_places=8)
    described = json.loads((tmp_path / "config.json").read_text())
    assert "span_places" not in described
    assert (described["architectures"], described["pad_token_id"]) == (["LlamaForSequenceClassification"], PAD)

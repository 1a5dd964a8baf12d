"""RoPE's scaling: what a phase means for the model, and that transformers reads the same of what is saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from contract.errors import InputError
from contract.settings.training import Model, Phase, Rope
from training.models import llama
from training.models.positions import Positions, mean_length, of_model, of_phases, turn

SHAPE = Model(layers=2, d_model=32, heads=4, kv_heads=2, d_ff=64)
START = Positions(64, {"rope_type": "default", "rope_theta": 10_000.0})


def test_what_phases_mean_for_positions() -> None:
    phases = (
        Phase(share=0.5),
        Phase(share=0.2, seq_len=256, rope=Rope(type="yarn")),
        Phase(share=0.1, seq_len=128),
        Phase(share=0.1, rope=Rope(theta=500_000.0)),
        Phase(share=0.1, seq_len=512, rope=Rope(type="llama3", factor=16, theta=1e6)),
    )
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    assert of_phases(START, phases, 64) == [
        START,
        Positions(256, yarn),
        Positions(256, yarn),
        Positions(256, {"rope_type": "default", "rope_theta": 500_000.0}),
        Positions(
            512,
            {
                "rope_type": "llama3",
                "rope_theta": 1e6,
                "factor": 16,
                "original_max_position_embeddings": 64,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
        ),
    ]
    assert of_phases(START, (), 64) == of_phases(START, (), 32) == [START]
    assert of_phases(START, (), 128) == [Positions(128, START.rope)], "a model that goes on with longer sequences"
    assert of_phases(START, (Phase(share=1, seq_len=32, rope=Rope(type="linear")),), 64)[0].rope["factor"] == 1.0


@pytest.mark.parametrize("rope", [Rope(type="linear"), Rope(type="yarn"), Rope(type="llama3"), Rope(theta=5e5)])
def test_a_model_that_was_turned_is_the_one_that_is_saved(rope: Rope, tmp_path: Path) -> None:
    module = llama.build(SHAPE, 50, 64, seed=0)
    start = of_model(module)
    assert start == START
    tokens = torch.arange(200)[None] % 50
    with torch.no_grad():
        plain = module(input_ids=tokens).logits
        turn(module, of_phases(start, (Phase(share=1, seq_len=256, rope=rope),), 64)[0])
        scaled = module(input_ids=tokens).logits
        assert (scaled - plain).abs().max() > 1e-4
        module.save_pretrained(tmp_path)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(theirs(input_ids=tokens).logits, scaled)
        assert theirs.config.max_position_embeddings == 256
        assert of_model(theirs).rope["rope_theta"] == (rope.theta or 10_000.0)
        turn(module, start)
        assert torch.equal(module(input_ids=tokens).logits, plain), "wherever it was before"


def test_linear_scaling_divides_positions() -> None:
    module = llama.build(SHAPE, 50, 64, seed=0)
    before = module.model.rotary_emb.inv_freq.clone()
    turn(module, of_phases(START, (Phase(share=1, seq_len=256, rope=Rope(type="linear")),), 64)[0])
    assert torch.allclose(module.model.rotary_emb.inv_freq, before / 4)


def test_the_mean_length_is_over_tokens() -> None:
    assert mean_length([900, 100], [2048, 32_768]) == 5120


def made(kind: str, **shape: object) -> Any:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=50, **shape)).eval()


def test_a_model_without_rotary_positions_refuses_to_scale_them_and_is_left_as_it_is() -> None:
    module = made("bloom", hidden_size=32, n_layer=1, n_head=4)
    start = of_model(module)
    assert start == Positions(0, None)
    assert of_phases(start, (Phase(share=1, seq_len=256),), 64) == [start], "ALiBi reaches as far as one likes"
    with pytest.raises(InputError, match=r"^pretrain.phases.1.rope: the model .* has no rotary positions"):
        of_phases(start, (Phase(share=0.5), Phase(share=0.5, rope=Rope(type="linear"))), 64)
    before = module.config.to_dict()
    turn(module, start)
    assert module.config.to_dict() == before


def test_a_table_of_positions_takes_no_longer_sequences() -> None:
    start = of_model(made("gpt2", n_embd=32, n_layer=1, n_head=4, n_positions=64))
    assert start == Positions(64, None)
    assert of_phases(start, (), 64) == [start]
    with pytest.raises(InputError, match=r"^pack.seq_len: .* has learnt 64 positions, and sequences have 65 tokens"):
        of_phases(start, (), 65)
    with pytest.raises(InputError, match=r"^pretrain.phases.0.seq_len: .* sequences have 128 tokens; pack shorter"):
        of_phases(start, (Phase(share=1, seq_len=128),), 64)


def test_a_model_that_turns_a_part_of_each_head_goes_on_so(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    module = made("gpt_neox", max_position_embeddings=64, **shape)
    start = of_model(module)
    tokens = torch.arange(100)[None] % 50
    with torch.no_grad():
        plain = module(input_ids=tokens).logits
        turn(module, of_phases(start, (Phase(share=1, seq_len=256, rope=Rope(type="linear")),), 64)[0])
        assert module.config.rope_parameters["partial_rotary_factor"] == 0.25
        scaled = module(input_ids=tokens).logits
        assert (scaled - plain).abs().max() > 1e-4
        module.save_pretrained(tmp_path)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(theirs(input_ids=tokens).logits, scaled)
        turn(module, start)
        assert torch.equal(module(input_ids=tokens).logits, plain)


def test_rotary_positions_of_each_kind_of_layer_are_not_scaled_as_one() -> None:
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "head_dim": 8,
    }
    start = of_model(made("gemma3_text", num_key_value_heads=2, max_position_embeddings=64, **shape))
    assert of_phases(start, (), 128) == [start] == [Positions(0, None)], "and they reach as far as one likes"

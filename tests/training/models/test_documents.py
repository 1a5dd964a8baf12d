"""Each kind of attention is told the same: a token sees what is not later in its own document."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from tests.training.dispatched import Reads
from training.models.documents import _maker, blocks, dense, kept_apart, numbers

CPU = torch.device("cpu")
POSITIONS = torch.tensor([[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5]])


def test_documents_are_numbered_in_each_row() -> None:
    assert numbers(POSITIONS).tolist() == [[1, 1, 2, 3, 3, 3], [1] * 6]


def test_a_token_sees_its_own_document_up_to_itself() -> None:
    found = dense(numbers(POSITIONS))
    assert found.shape == (2, 1, 6, 6)
    seen = [row.nonzero().flatten().tolist() for row in found[0, 0]]
    assert seen == [[0], [0, 1], [2], [3], [3, 4], [3, 4, 5]]
    assert found[1, 0].equal(torch.ones(6, 6, dtype=torch.bool).tril())


def test_blocks_are_the_same_mask_and_leave_out_what_sees_nothing() -> None:
    positions = torch.cat([torch.arange(256), torch.arange(256)])[None].repeat(2, 1)
    positions[1] = torch.arange(512)
    documents = numbers(positions)
    made = blocks(documents)
    assert create_mask(made.mask_mod, 2, 1, 512, 512, "cpu").equal(dense(documents))
    every = made.kv_num_blocks + made.full_kv_num_blocks
    assert every.flatten(1).tolist() == [[1, 2, 1, 2], [1, 2, 3, 4]], "of blocks of 128 tokens"


def test_on_a_gpu_blocks_are_made_by_one_compiled_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for a GPU; what Triton makes of it, only a GPU can tell."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda made: compile_(made, backend="eager", fullgraph=True))
    compiled = _maker.__wrapped__("cuda")
    for seed, grad in ((0, True), (1, False), (2, True)):
        documents = numbers(torch.randint(0, 100, (2, 512), generator=torch.Generator().manual_seed(seed)))
        expected = blocks(documents)
        with torch.set_grad_enabled(grad), pytest.MonkeyPatch.context() as patched:
            patched.setattr("training.models.documents._maker", {"cpu": compiled}.get)
            made = blocks(documents)
        assert create_mask(made.mask_mod, 2, 1, 512, 512, "cpu").equal(dense(documents))
        assert made.kv_num_blocks.equal(expected.kv_num_blocks)
        assert made.kv_indices.equal(expected.kv_indices)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "of other documents no other program is made"


@pytest.mark.parametrize(
    ("kind", "more", "gets"),
    [
        ("sdpa", {}, {"attention_mask"}),
        ("flex_attention", {}, {"attention_mask"}),
        ("eager", {}, set()),
        ("sdpa", {"sliding_window": 4}, set()),
        ("flex_attention", {"sliding_window": 4}, set()),
        ("sdpa", {"sliding_window": None}, {"attention_mask"}),
        ("flash_attention_3", {}, {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}),
    ],
)
def test_what_each_kind_of_attention_gets(kind: str, more: dict[str, Any], gets: set[str]) -> None:
    with Reads() as reads:
        config = SimpleNamespace(_attn_implementation=kind, model_type="llama", **more)
        known = kept_apart(SimpleNamespace(config=config), POSITIONS, CPU)
    assert known.keys() - {"position_ids"} == gets
    assert known["position_ids"].equal(POSITIONS)
    if kind == "flash_attention_3":
        assert known["cu_seq_lens_q"].tolist() == [0, 2, 3, 6, 12]
        assert known["max_length_k"] == 6
    else:
        assert reads.count == 0

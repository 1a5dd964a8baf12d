"""No token of an earlier document moves a later logit, and no later token an earlier one; who cannot is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from contract.errors import InputError
from contract.manifest import need
from tests.training.conftest import train_tokenizer
from tests.training.models.test_causal import TYPES, config_of
from training import pretrain
from training.data.batch import Batch
from training.engine.job import Job
from training.models import llama
from training.models.causal import adapted, class_of
from training.models.documents import kept_apart
from training.models.lm import next_logits
from training.models.sight import _by_change, _by_gradient, check_sight, check_sight_of_stages

CPU = torch.device("cpu")


def made(config: Any) -> Any:
    torch.manual_seed(5)
    kind = class_of(config)
    config._attn_implementation = llama.attention("fp32", kind)
    return adapted(kind(config))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_no_token_of_an_earlier_document_moves_a_later_logit(kind: str, dtype: Any) -> None:
    module = llama.cast(made(config_of(kind, 50)), dtype).eval()
    check_sight(module, True, CPU)
    tokens = torch.arange(2 * 21).reshape(2, 21) % 50
    other = tokens.clone()
    other[:, :8] = (tokens[:, :8] + 7) % 50
    positions = torch.cat([torch.arange(8), torch.arange(12)]).expand(2, -1)
    with torch.no_grad():
        one, two, alone = (
            next_logits(module, Batch(some, torch.ones(2, some.shape[1] - 1), 40, where), CPU)
            for some, where in ((tokens, positions), (other, positions), (tokens[:, 8:], None))
        )
    assert (one - two)[:, :8].abs().max() > 0.01
    close = 1e-5 if dtype == "fp32" else 0.05
    torch.testing.assert_close(one[:, 8:], two[:, 8:], rtol=0, atol=close)
    torch.testing.assert_close(one[:, 8:], alone, rtol=0, atol=close)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
        ("falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True}),
        ("xglm", {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64}),
    ],
)
def test_a_type_that_mixes_documents_is_refused_unless_boundaries_are_off(kind: str, shape: dict[str, Any]) -> None:
    module = made(AutoConfig.for_model(kind, vocab_size=50, initializer_range=0.1, **shape))
    with pytest.raises(
        InputError, match=f"type '{kind}' cannot keep the documents .* set pretrain.boundaries to false"
    ):
        check_sight(module, True, CPU)
    check_sight(module, False, CPU)
    assert module.training, "as it was"


@torch.no_grad()
def test_under_zero_3_changed_tokens_tell_the_same() -> None:
    """Where a gradient would disturb it: the same answers of both ways for types that can and cannot."""
    tokens = torch.arange(24).reshape(2, 12)
    positions = torch.cat([torch.arange(6), torch.arange(6)]).expand(2, -1)
    for kind, leaks in (("llama", False), ("mixtral", False), ("gpt_neox", False), ("falcon", True)):
        own = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True}
        config = config_of(kind, 50) if kind != "falcon" else AutoConfig.for_model("falcon", vocab_size=50, **own)
        module = made(config).eval()
        # Falcon with ALiBi takes no mask of documents, and positions do not keep them apart.
        known = {"position_ids": positions} if leaks else kept_apart(module, positions, CPU)
        expected = [leaks] * 6 + [True] * 4 + [False] * 2
        assert _by_change(module, tokens, known, 6, 9).tolist() == expected
        with torch.enable_grad():
            assert _by_gradient(module, tokens, known, 6, 9).tolist() == expected


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("llama", vocab_size=50, is_causal=False, **shape)
    with pytest.raises(InputError, match="type 'llama' sees later tokens"):
        check_sight(made(config), False, CPU)


def test_before_a_pipeline_cuts_a_model_plain_attention_on_the_cpu_tells() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    module = made(AutoConfig.for_model("llama", vocab_size=50, is_causal=False, **shape))
    module.config._attn_implementation = "flex_attention"  # as on a GPU; it has no gradient on a CPU
    with pytest.raises(InputError, match="type 'llama' sees later tokens"):
        check_sight_of_stages(module, False)
    module = made(AutoConfig.for_model("llama", vocab_size=50, **shape))
    module.config._attn_implementation = "eager"
    check_sight_of_stages(module, True)
    assert module.config._attn_implementation == "eager", "as it was"


def test_pretraining_refuses_a_type_that_mixes_documents_before_its_first_step(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "alibi": True}
    made(AutoConfig.for_model("falcon", vocab_size=384, **shape)).save_pretrained(tmp_path / "falcon")
    (tmp_path / "falcon" / "tokenizer.json").write_bytes(train_tokenizer().to_str().encode())
    settings = (f"pretrain.start_from={tmp_path / 'falcon'}", "pretrain.steps=1")
    job = make_job("pretrain", *settings)
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "Engine", lambda *_: pytest.fail("it cuts or compiles the model before the check"))
        with pytest.raises(InputError, match="type 'falcon' cannot keep the documents"):
            pretrain.run(job)
    assert not job.curves.points
    job = make_job("pretrain", *settings, "pretrain.boundaries=false")
    pretrain.run(job)
    assert need(job.store, job.task).metrics["tokens"] > 0

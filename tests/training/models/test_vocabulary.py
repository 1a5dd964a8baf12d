"""Going on from a model: which are refused, what new rows start as, and that they alone move where the recipe says so."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers import models as tokenizer_models

from contract.errors import InputError
from contract.manifest import need
from contract.settings.training import Engine, Model, Pretrain
from tests.training.conftest import train_tokenizer
from training import pretrain
from training.chat.template import open_chat
from training.engine.job import Job
from training.models import llama, vocabulary

SHAPE = Model(layers=1, d_model=8, heads=2, kv_heads=1, d_ff=16)
UNTIED = SHAPE.model_copy(update={"tie_embeddings": False})


def tokenizer(extra: dict[str, int], merges: list[tuple[str, str]], special: tuple[str, ...] = ()) -> Tokenizer:
    made = Tokenizer(tokenizer_models.BPE({"a": 0, "b": 1, "c": 2, "ab": 3, **extra}, [("a", "b"), *merges]))
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    return made


BASE = tokenizer({}, [])
GROWN = tokenizer({"abc": 4, "cc": 5}, [("ab", "c"), ("c", "c")], ("<ca>",))


def test_a_new_token_is_spelled_with_tokens_of_the_base() -> None:
    assert vocabulary.spellings(BASE, GROWN) == [[3, 2], [2, 2], [2, 0]], "abc is ab and c; <ca> is c and a"


@pytest.mark.parametrize("shape", [SHAPE, UNTIED])
def test_a_new_row_is_the_mean_of_the_rows_that_spell_it(shape: Model) -> None:
    module = llama.build(shape, 6, 16, seed=0)  # two rows more than tokens, as padded models have
    matrices = vocabulary.per_token(module)
    assert len(matrices) == (1 if shape.tie_embeddings else 2)
    with torch.no_grad():
        for number, weight in enumerate(matrices):
            weight[:] = torch.arange(6.0)[:, None] * 10 ** (number + 1)
    vocabulary.grow(module, [[3, 2], [2, 2], []], 4)
    matrices = vocabulary.per_token(module)
    for number, weight in enumerate(matrices):
        expected = torch.tensor([0, 1, 2, 3, 2.5, 2, 1.5]) * 10 ** (number + 1)
        assert torch.equal(weight.detach(), expected[:, None].expand(7, 8))
    assert module.config.vocab_size == 7
    assert module(input_ids=torch.tensor([[6, 4]])).logits.shape == (1, 2, 7)
    assert (module.get_input_embeddings().weight is module.get_output_embeddings().weight) == shape.tie_embeddings


ONLY = """
import os
from types import SimpleNamespace
from training.engine.ranks import join
ranks = join()
import torch
from contract.settings.training import Engine as Settings, Model, Optim
from training.engine import zero
from training.engine.engine import Engine
from training.models import llama, vocabulary

job = SimpleNamespace(ranks=ranks, task=SimpleNamespace(stage="pretrain"))
OLD, STEPS, LAST = 7, 2, 3

def made(stage, tied):
    shape = Model(layers=1, d_model=8, heads=2, kv_heads=1, d_ff=16, tie_embeddings=tied)
    module = llama.build(shape, 11, 16, seed=0)  # 11 rows: no number of processes divides them
    engine = Engine(job, module, Optim(lr=0.1, warmup_fraction=0), Settings(zero_stage=stage, micro_batch=1), ranks.world, LAST)
    return engine, vocabulary.OnlyNewRows(engine, OLD, STEPS)

def state(engine):
    return {name: {key: value.clone() for key, value in one.items()} for name, one in zero.read(engine.deepspeed)}

def train(engine, only, step):
    only.before(step)
    tokens = torch.tensor([[0, 8, 3, 9, 10, 7, 1]]) + ranks.rank % 2
    tokens = tokens.clamp(max=10)
    engine.backward(-engine(input_ids=tokens).logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None]).mean())
    engine.step()

for stage, tied in ((0, True), (1, False), (2, True), (3, False)):
    engine, only = made(stage, tied)
    start = state(engine)
    grown = [name for name, one in start.items() if one["weight"].shape[0] == 11]
    assert len(grown) == (1 if tied else 2), grown
    for step in range(STEPS):
        train(engine, only, step)
    middle = state(engine)
    for name, one in middle.items():
        before, after = start[name]["weight"], one["weight"]
        old = OLD if name in grown else len(before)
        assert torch.equal(before[:old], after[:old]), (stage, tied, name)
        assert old == len(before) or bool((before[old:] != after[old:]).any(1).all()), (stage, tied, name)
    for step in range(STEPS, LAST):
        train(engine, only, step)
    end = state(engine)
    assert not any(torch.equal(end[name]["weight"][:OLD], start[name]["weight"][:OLD]) for name in end), (stage, tied)

    again, only = made(stage, tied)  # killed after the first step, and resumed
    train(again, only, 0)
    saved = state(again)
    again, only = made(stage, tied)
    zero.write(again.deepspeed, saved.__getitem__, 1)
    again.steps_done = 1
    for step in range(1, LAST):
        train(again, only, step)
    found = state(again)
    assert all(torch.equal(found[name]["weight"], end[name]["weight"]) for name in end), (stage, tied)
os.write(1, f"{ranks.rank}\\n".encode())
torch.distributed.barrier()
os._exit(0)
"""


def test_only_new_rows_move_at_first_under_every_zero_stage_in_two_processes(run_two: Callable[..., list[str]]) -> None:
    assert [one.splitlines()[-1] for one in run_two("-c", ONLY)] == ["0", "1"]


@pytest.fixture
def base_model(tmp_path: Path) -> Path:
    folder = tmp_path / "llama"
    llama.build(UNTIED, 4, 16, seed=0).save_pretrained(folder)
    BASE.save(str(folder / "tokenizer.json"))
    return folder


def test_the_model_must_have_the_tokenizer_that_was_brought(base_model: Path) -> None:
    vocabulary.check_tokenizer(base_model, "uri", BASE, None)
    with pytest.raises(
        InputError, match=r"was trained with another tokenizer \('.+' has the id .* bring the tokenizer"
    ):
        vocabulary.check_tokenizer(base_model, "uri", GROWN, None)
    (base_model / "tokenizer.json").rename(base_model / "other.json")
    with pytest.raises(InputError, match="uri has no tokenizer; bring the tokenizer of this model"):
        vocabulary.check_tokenizer(base_model, "uri", BASE, None)
    (base_model / "tokenizer.model").write_bytes(b"pieces")
    with pytest.raises(InputError, match=r"uri has another tokenizer\.model than tokenizer\.start_from"):
        vocabulary.check_tokenizer(base_model, "uri", BASE, None)
    vocabulary.check_tokenizer(base_model, "uri", BASE, hashlib.sha256(b"pieces").hexdigest())


def test_only_causal_models_in_safetensors_are_read(base_model: Path) -> None:
    assert vocabulary.load(base_model, "uri", "fp32").config.vocab_size == 4
    described = json.loads((base_model / "config.json").read_text())
    (base_model / "config.json").write_text(json.dumps(described | {"model_type": "own"}))
    with pytest.raises(InputError, match="uri is a model of type 'own', which transformers does not know; code that"):
        vocabulary.load(base_model, "uri", "fp32")
    (base_model / "config.json").write_text(json.dumps(described))
    (base_model / "model.safetensors").rename(base_model / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"uri has no \*\.safetensors; other formats are not read"):
        vocabulary.load(base_model, "uri", "fp32")
    (base_model / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="uri cannot be loaded"):
        vocabulary.load(base_model, "uri", "fp32")
    (base_model / "config.json").unlink()
    with pytest.raises(InputError, match=r"uri has no readable config\.json"):
        vocabulary.load(base_model, "uri", "fp32")


@pytest.mark.parametrize(
    ("shape", "removed", "first"),
    [
        (UNTIED, "model.layers.0.", "model.layers.0.input_layernorm.weight"),
        (UNTIED, "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj.weight"),
        (UNTIED, "lm_head", "lm_head.weight"),
        (SHAPE, "model.norm", "model.norm.weight"),
        (SHAPE, "model.embed_tokens", "model.embed_tokens.weight"),
    ],
)
def test_a_model_that_lacks_tensors_is_refused(tmp_path: Path, shape: Model, removed: str, first: str) -> None:
    llama.build(shape, 4, 16, seed=0).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(removed)}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    count = len(tensors) - len(kept)
    with pytest.raises(InputError, match=rf"uri lacks {count} of its model's tensors, .* the first is {first};"):
        vocabulary.load(tmp_path, "uri", "fp32")


def test_a_model_with_one_matrix_for_both_has_it_once_in_its_file(tmp_path: Path) -> None:
    made = llama.build(SHAPE, 4, 16, seed=0)
    made.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    module = vocabulary.load(tmp_path, "uri", "fp32")
    assert torch.equal(module.lm_head.weight, made.model.embed_tokens.weight)


def test_only_what_can_be_read_name_by_name_begins_in_shards(base_model: Path, tmp_path: Path) -> None:
    """What begins so is tested with two processes, in test_zero.py."""
    settings = Pretrain(start_from=str(base_model), engine=Engine(zero_stage=2))
    assert vocabulary.grown_in_shards(base_model, settings, [], 4, 1) is None, "another stage"
    sharded = Pretrain(start_from=str(base_model), engine=Engine(zero_stage=3))
    assert vocabulary.grown_in_shards(base_model, sharded, [], 5, 1) is None, "fewer rows than old tokens"
    experts = SHAPE.model_copy(update={"experts": 2})
    llama.build(experts, 4, 16, seed=0).save_pretrained(tmp_path / "experts")  # a tensor for each expert
    assert vocabulary.grown_in_shards(tmp_path / "experts", sharded, [], 4, 1) is None
    tensors = load_file(base_model / "model.safetensors")
    save_file({name: one for name, one in tensors.items() if "norm" not in name}, base_model / "model.safetensors")
    assert vocabulary.grown_in_shards(base_model, sharded, [], 4, 1) is None, "`load` says what is missing"


def test_a_model_with_another_tokenizer_or_without_new_tokens_is_refused(
    make_job: Callable[..., Job], base_model: Path
) -> None:
    job = make_job("pretrain", f"pretrain.start_from={base_model}", "pretrain.new_rows_first=1")
    with pytest.raises(InputError, match="was trained with another tokenizer"):
        vocabulary.started(job, open_chat(job))
    (base_model / "tokenizer.json").write_bytes(open_chat(job).path.read_bytes())
    with pytest.raises(InputError, match="has 4 embeddings for 384 tokens"):
        vocabulary.started(job, open_chat(job))
    llama.build(UNTIED, 384, 16, seed=3).save_pretrained(base_model)
    with pytest.raises(InputError, match="new_rows_first: the tokenizer has no new tokens, so there are no new rows"):
        vocabulary.started(job, open_chat(job))


def test_pretraining_goes_on_from_a_folder_and_trains_only_the_new_rows_first(
    make_job: Callable[..., Job], base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = train_tokenizer(370)
    llama.build(UNTIED, 370, 64, seed=3).save_pretrained(base_model)
    base.save(str(base_model / "tokenizer.json"))
    job = make_job("pretrain", f"pretrain.start_from={base_model}", "pretrain.steps=2", "pretrain.new_rows_first=2")
    monkeypatch.setattr(vocabulary, "base_tokenizer", lambda *_: base)
    begun, old = vocabulary.started(job, chat := open_chat(job))
    assert (old, begun.config.vocab_size, begun.config.pad_token_id) == (370, 384, chat.pad)
    start = {name: value.clone() for name, value in begun.state_dict().items()}
    piece = Tokenizer.from_file(str(chat.path)).id_to_token(383)
    ids = [token.id for token in base.model.tokenize(piece)]
    embedding = "model.embed_tokens.weight"
    assert len(ids) > 1
    assert torch.equal(start[embedding][383], start[embedding][ids].mean(0))

    pretrain.run(job)
    end = llama.load_model(job, need(job.store, job.task)).state_dict()
    assert end[embedding].shape == (384, 8)
    for name, value in end.items():
        rows = 370 if name in (embedding, "lm_head.weight") else len(value)
        assert torch.equal(value[:rows], start[name][:rows]), name
        assert rows == len(value) or not torch.equal(value[rows:], start[name][rows:]), name

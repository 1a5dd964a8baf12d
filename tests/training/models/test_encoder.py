"""A reward model on an encoder: its pairs of texts, what it cuts, and that transformers opens it with the same rewards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from contract.conversation import Turn
from contract.errors import InputError
from tests.training.conftest import texts
from training.chat.template import Cut
from training.models import encoder
from training.models import llama as model
from training.models.scalar import last, normalised
from training.reward import rewards_of

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE = {
    "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 66, "pad_token_id": 0, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4,
    "embedding_size": 32, "initializer_range": 0.3, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
ASKED = (Turn("system", "Be kind."), Turn("user", "Where is the mill?"))


def write_tokenizer(folder: Path, twice: bool = False) -> Tokenizer:
    """BERT's tokenizer, of few words. twice: two tokens between the texts and no token types, as RoBERTa has it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator([*texts(50), "user: system: assistant: be kind. ?"], trainer)
    pair = "[CLS] $A [SEP] [SEP] $B [SEP]" if twice else "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.fixture
def brought(tmp_path: Path) -> Callable[..., Path]:
    """`brought("bert")`: a folder with a small language model of this kind and its own tokenizer, as people publish it."""

    def make(kind: str = "bert") -> Path:
        folder = tmp_path / kind
        torch.manual_seed(0)
        module: Any = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **SHAPE))
        module.save_pretrained(folder)
        write_tokenizer(folder, kind == "roberta")
        return folder

    return make


def begun(folder: Path, most: int = 64, seed: int = 3) -> encoder.EncoderReward:
    return encoder.begun(folder, f"reward.start_from: {folder}", most, seed, "fp32").eval()


def chats_of(made: encoder.EncoderReward, replies: list[str]) -> list[list[int]]:
    fit = made.reader.fit(ASKED, replies, made.max_tokens)
    return [fit.prompt + reply for reply in fit.replies]


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "modernbert"])
def test_transformers_opens_it_with_the_same_rewards(kind: str, brought: Callable[..., Path], tmp_path: Path) -> None:
    """Also its tokenizer, which gets the two texts as they are; the mean and deviation are folded into its last layer."""
    made = begun(brought(kind))
    replies = ["The mill stands near the river.", "No.", "Nobody ever saw [SEP] the mill"]
    with torch.no_grad():
        before = rewards_of(made, chats_of(made, replies), made.reader.pad, torch.device("cpu"))
    weights = normalised(dict(made.state_dict()), 0.7, 0.3, made.head_name)
    encoder.save(made, tmp_path / "out", weights)
    opened, told = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told.values()), "no weight is missing, unknown or of another shape"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    dialogue = ["system: Be kind.\nuser: Where is the mill?\n"] * 2
    given = tokenizer(dialogue, replies[:2], padding=True, return_tensors="pt")
    if not made.reader.kind:
        given.pop("token_type_ids", None)
    again = encoder.load(tmp_path / "out").eval()
    with torch.no_grad():
        theirs = opened.eval()(**given).logits[:, 0]
        ours = rewards_of(again, chats_of(again, replies), again.reader.pad, torch.device("cpu"))
    torch.testing.assert_close(ours, (before - 0.7) / 0.3, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(theirs, ours[:2], atol=1e-5, rtol=1e-5)
    assert opened.config.reward_mean == 0.0
    assert again.max_tokens == 64


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_rewards_do_not_depend_on_padding_or_company(kind: str, brought: Callable[..., Path]) -> None:
    made = begun(brought(kind))
    chats = chats_of(made, ["The mill stands near the river by the old bridge.", "No."])
    together = rewards_of(made, chats, 0, torch.device("cpu")).detach()
    alone = torch.cat([rewards_of(made, [one], 0, torch.device("cpu")).detach() for one in chats])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    tokens = torch.zeros(1, 40, dtype=torch.long)
    tokens[0, : len(chats[1])] = torch.tensor(chats[1])
    attention = (torch.arange(40) < len(chats[1])).long()[None]
    torch.testing.assert_close(last(made(tokens, attention), attention).detach(), alone[1:], atol=1e-5, rtol=1e-5)
    assert abs(float(together[0] - together[1])) > 1e-3


def test_a_dialogue_and_a_reply_are_the_two_texts_of_its_own_tokenizer(brought: Callable[..., Path]) -> None:
    folder = brought()
    reader, tokenizer = encoder.reader_of(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    fit = reader.fit(ASKED, ["The river.", "No."], 64)
    for reply, text in zip(fit.replies, ["The river.", "No."], strict=True):
        assert fit.prompt + reply == tokenizer.encode("system: Be kind.\nuser: Where is the mill?\n", text).ids
    assert (fit.cuts, reader.end_of_text, reader.kind) == (frozenset(), 3, 1)
    assert 3 not in reader.fit(ASKED, ["a [SEP] b"], 64).replies[0][:-1], "written in a text, it is plain characters"


def test_all_replies_follow_the_same_cut_dialogue_and_a_reply_without_its_end_is_seen(
    brought: Callable[..., Path],
) -> None:
    reader = encoder.reader_of(brought())
    turns = (Turn("user", "The river. " * 9), Turn("assistant", "Yes."), Turn("user", "And the mill?"))
    fit = reader.fit(turns, ["The mill " * 6, "No."], 32)
    assert fit.cuts == {Cut.TURNS}
    assert fit.prompt == reader.fit(turns[-1:], ["No."], 32).prompt
    assert [ids[-1] for ids in fit.replies] == [3, 3]
    assert max(len(fit.prompt + ids) for ids in fit.replies) <= 32
    longer = reader.fit(turns, ["The mill " * 60, "No."], 32)
    assert (Cut.REPLY in longer.cuts, longer.replies[0][-1] == 3, longer.replies[1][-1]) == (True, False, 3)
    alone = reader.fit(turns[:1], ["No."], 16)
    assert (alone.cuts, len(alone.prompt + alone.replies[0])) == ({Cut.PROMPT}, 16)


def test_the_head_follows_from_the_seed_and_computes_in_float32(brought: Callable[..., Path]) -> None:
    folder = brought()
    made = [begun(folder, seed=seed) for seed in (3, 3, 4)]
    one, two, three = (dict(each.state_dict()) for each in made)
    assert all(torch.equal(one[name], two[name]) for name in one), "also what was missing of the encoder, its pooler"
    assert not torch.equal(one["encoder.classifier.weight"], three["encoder.classifier.weight"])
    stored = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(one["encoder.bert.embeddings.word_embeddings.weight"], stored)
    half = model.cast(made[0], "bf16")
    assert half.head.weight.dtype == torch.float32
    assert half.encoder.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    found = rewards_of(half, chats_of(half, ["The mill."]), 0, torch.device("cpu"))
    assert not torch.equal(found, found.bfloat16().float())


def test_what_is_no_whole_encoder_is_refused(brought: Callable[..., Path], tmp_path: Path) -> None:
    folder = brought()
    with pytest.raises(
        InputError, match=r"reward.max_tokens 67 is more than the 66 that reward.start_from: .* lower it"
    ):
        begun(folder, most=67)
    with pytest.raises(InputError, match=r"reward.max_tokens 66 is more than the 65 that"):
        begun(brought("roberta"), most=66)
    weights = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        InputError, match=r"reward.start_from: .* lacks 16 of its encoder's tensors, the first is bert\."
    ):
        begun(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer.json; bring the encoder with its own fast tokenizer"):
        encoder.reader_of(folder)
    plain = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    plain.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match="puts no token between two texts and after them"):
        encoder.reader_of(folder)


def test_decoders_and_models_of_two_halves_are_no_encoders() -> None:
    said = {kind: encoder.is_encoder(AutoConfig.for_model(kind)) for kind in ("bert", "llama", "gpt2", "bart")}
    assert said == {"bert": True, "llama": False, "gpt2": False, "bart": False}
    assert not encoder.is_encoder(AutoConfig.for_model("bert", is_decoder=True))

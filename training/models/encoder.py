"""A reward model on an encoder such as BERT, which reads a dialogue and a reply as two texts.

It is the sequence classifier of transformers with one label, so `AutoModelForSequenceClassification` opens it, and its
logit is the reward. An encoder has a tokenizer of its own, which is not the policy's: replies are handed to it as text.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

from contract.conversation import Turn
from contract.errors import InputError
from training.chat.template import Cut, Fit, Piece, keep_turns
from training.models import llama as model
from training.models.causal import read_config
from training.models.scalar import MEAN, ScalarHead

MOST_TOKENS = "reward_max_tokens"
"""In config.json: how long a dialogue with its reply may be."""


def is_encoder(config: PreTrainedConfig) -> bool:
    """Whether a configuration is that of an encoder of text of which transformers has a sequence classifier."""
    known = type(config) in MODEL_FOR_MASKED_LM_MAPPING and type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return known and not config.is_encoder_decoder and not getattr(config, "is_decoder", False)


class PairReader:
    """Turns a dialogue and a reply into the ids of a pair of texts: of BERT, [CLS] dialogue [SEP] reply [SEP].

    It has what `Chat` has to cut prompts and replies. A special token that is written in a text is plain characters.
    """

    def __init__(self, path: Path, pad: int) -> None:
        """Raises InputError if the file is no tokenizer, or one that does not end a pair of texts with a token."""
        self.path, self.pad = path, pad
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            framed = self._tokenizer.encode("a", "a")
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise InputError(f"{path}: is not a tokenizer ({error})") from error
        self._tokenizer.encode_special_tokens = True
        texts = [at for at, text in enumerate(framed.sequence_ids) if text is not None]
        second = [at for at in texts if framed.sequence_ids[at] == 1]
        first = [at for at in texts if framed.sequence_ids[at] == 0]
        if not first or not second or second[-1] == len(framed.ids) - 1 or second[0] == first[-1] + 1:
            raise InputError(f"{path}: puts no token between two texts and after them, so it is no encoder's")
        self.before, self.after = framed.ids[: first[0]], framed.ids[second[-1] + 1 :]
        self.between = framed.ids[first[-1] + 1 : second[0]]
        self.kind: int = framed.type_ids[second[0]]
        """The token type of the reply; that of the dialogue is 0."""

    @property
    def end_of_text(self) -> int:
        """The token that ends a reply."""
        return self.after[-1]

    def fit(self, turns: Sequence[Turn], replies: Sequence[str], max_tokens: int) -> Fit:
        """A dialogue and replies to it, cut as `Chat.fit` does it. A turn is `role: text` and a new line."""
        pieces = [Piece(turn.role, ids, [0] * len(ids)) for turn in turns for ids in [self._turn(turn)]]
        room = max_tokens - len(self.before) - len(self.between)
        most = room - min(sum(len(piece.ids) for piece in pieces), max_tokens // 4)
        given = [[*self._text(reply), *self.after][:most] for reply in replies]
        kept, cuts = keep_turns(pieces, room - max(map(len, given)))
        if any(ids[-1] != self.end_of_text for ids in given):
            cuts |= {Cut.REPLY}
        prompt = [*self.before, *(token for piece in kept for token in piece.ids), *self.between]
        return Fit(prompt, [0] * len(prompt), given, cuts)

    def fit_chat(self, turns: Sequence[Turn], max_tokens: int) -> Fit:
        """`fit` of a chat whose last turn is the reply."""
        return self.fit(turns[:-1], [turns[-1].text], max_tokens)

    def described(self) -> dict[str, Any]:
        """tokenizer_config.json, for transformers."""
        pad = self._tokenizer.id_to_token(self.pad)
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": pad,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        }

    def _turn(self, turn: Turn) -> list[int]:
        return self._text(f"{turn.role}: {turn.text}\n")

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class EncoderReward(nn.Module):
    """An encoder's sequence classifier with one label, whose last layer computes in float32."""

    branches = False

    def __init__(self, classifier: PreTrainedModel, reader: PairReader, max_tokens: int) -> None:
        """Raises ValueError if the classifier does not end in a linear layer with a bias."""
        super().__init__()
        self.encoder, self.reader, self.max_tokens = classifier, reader, max_tokens
        found = [(name, one) for name, one in classifier.named_modules() if isinstance(one, nn.Linear)]
        name, layer = next(((name, one) for name, one in reversed(found) if one.out_features == 1), ("", None))
        if layer is None or layer.bias is None:
            raise ValueError("its classifier does not end in a linear layer with a bias")
        self.head_name = f"encoder.{name}"
        head = ScalarHead(layer.in_features, 1)
        head.load_state_dict(layer.state_dict())
        classifier.set_submodule(name, head)

    @property
    def head(self) -> nn.Linear:
        """The layer that gives the reward."""
        found = self.get_submodule(self.head_name)
        assert isinstance(found, nn.Linear)
        return found

    def forward(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """The reward at every position of a row: tokens and attention (B, T) -> (B, T).

        Padding may be on either side. The encoder gets it on the right, because it reads the reward at the first token.
        """
        length = tokens.shape[1]
        padding = (attention.cumsum(-1) == 0).sum(-1, keepdim=True)
        order = (torch.arange(length, device=tokens.device) + padding) % length
        tokens, attention = tokens.gather(1, order), attention.gather(1, order)
        given: dict[str, Any] = {"input_ids": tokens, "attention_mask": attention}
        if self.reader.kind:  # a model without token types has no second one
            ends = (tokens == self.reader.between[-1]).long()
            second = (ends.cumsum(-1) - ends >= len(self.reader.between)).long() * attention
            given["token_type_ids"] = second * self.reader.kind
        rewards: Tensor = self.encoder(**given).logits
        return rewards.float().expand(-1, length)

    def activation_checkpointing_enable(self, options: dict[str, Any], offload: bool) -> None:
        self.encoder.activation_checkpointing_enable(options, offload=offload)


def reader_of(folder: Path) -> PairReader:
    """The reader of the encoder in a folder. Raises InputError if it has no tokenizer.json that pairs texts."""
    if not (folder / "tokenizer.json").exists():
        raise InputError(f"{folder}: has no tokenizer.json; bring the encoder with its own fast tokenizer")
    return PairReader(folder / "tokenizer.json", read_config(folder).pad_token_id or 0)


def begun(folder: Path, where: str, max_tokens: int, seed: int, dtype: model.Dtype) -> EncoderReward:
    """A reward model on the encoder in a folder, with a fresh head, which follows from the seed.

    It is in float32 on the CPU. Raises InputError, which begins with `where`, if the encoder is not whole, or cannot
    read so many tokens.
    """
    config = read_config(folder)
    config.num_labels = 1
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, found = _opened(folder, config, dtype, ignore_mismatched_sizes=True)
        made = EncoderReward(module, reader_of(folder), max_tokens)
    except model.LOADING as error:
        raise InputError(f"{where} cannot be loaded ({error})") from error
    own = f"{module.base_model_prefix}."
    gone = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if lacking := sorted(name for name in gone if name.startswith(own) and ".pooler." not in name):
        raise InputError(f"{where} lacks {len(lacking):,} of its encoder's tensors, the first is {lacking[0]}")
    if max_tokens > (most := _places(module)):
        raise InputError(f"reward.max_tokens {max_tokens:,} is more than the {most:,} that {where} can read; lower it")
    with torch.no_grad():
        made.head.weight.copy_(
            torch.randn(made.head.weight.shape, generator=torch.Generator().manual_seed(seed))
            * (made.head.in_features + 1) ** -0.5
        )
        made.head.bias.zero_()
    return made


def save(module: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write what `load` and transformers read: model.safetensors, config.json, and the encoder's own tokenizer."""
    assert isinstance(module, EncoderReward)
    folder.mkdir(parents=True, exist_ok=True)
    named = {name.removeprefix("encoder."): one.detach().float().cpu().contiguous() for name, one in weights.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    described = json.loads(module.encoder.config.to_json_string())
    described |= {"architectures": [type(module.encoder).__name__], MEAN: 0.0, MOST_TOKENS: module.max_tokens}
    (folder / "config.json").write_text(json.dumps({**described, "dtype": "float32"}, indent=2))
    shutil.copyfile(module.reader.path, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(module.reader.described(), indent=1))


def load(folder: Path, dtype: model.Dtype = "fp32") -> EncoderReward:
    """The reward model in a folder, in float32 on the CPU. Raises one of `model.LOADING` if there is none."""
    config = read_config(folder)
    module, _ = _opened(folder, config, dtype)
    return EncoderReward(module, reader_of(folder), int(getattr(config, MOST_TOKENS)))


def _opened(folder: Path, config: Any, dtype: model.Dtype, **more: Any) -> tuple[Any, dict[str, Any]]:
    """(The classifier in a folder, what the library says of missing tensors)."""
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    module, found = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        attn_implementation=model.attention(dtype, kind),
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **more,
    )
    return module, found


def _places(module: Any) -> int:
    """How many tokens an encoder can read. RoBERTa's positions begin after that of padding."""
    most = getattr(module.config, "max_position_embeddings", None)
    if not most or most < 0:
        return 1 << 30
    before = getattr(getattr(module.base_model, "embeddings", None), "padding_idx", None)
    return int(most) - (0 if before is None else before + 1)

"""How well a small reward model of our own chain ranks real preferences: hh-rlhf, helpful and harmless.

As a judge it is also asked about the rankings of Open Assistant's trees, which it has never seen.
A tokenizer, a pretrained decoder, instruction tuning and the reward model are all trained here, on the dialogues of
the training side alone. It has no bar: a decoder of some million parameters that has read a megabyte knows little of what people
prefer.
"""

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from contract.chat import SPECIAL_TOKENS
from contract.conversation import Preference, Role, Turn
from contract.results import Reward
from perf.align.judged import read_oasst, tell
from perf.align.rewarded import make, make_run
from perf.bars import Bars
from pipelines.preferences import is_heldout, prompt

FILES = ("helpful-base", "harmless-base")
SHARE = 0.2  # of the prompts are held out
ENTRIES = 2048
MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")
RECIPE = """
name: hh
pack: {{seq_len: 256}}
decontaminate: {{benchmarks: {{}}}}
instructions: {{data: {chats}, heldout_fraction: 0.05, max_examples: 1600}}
preferences: {{data: {pairs}, heldout_fraction: {share}}}
pretrain:
  model: {{layers: 3, d_model: 96, heads: 3, kv_heads: 3, d_ff: 256}}
  optim: {{lr: 2.0e-3}}
  engine: {{micro_batch: 16, checkpoint_steps: 10000}}
  steps: 150
  batch: 16
sft:
  optim: {{lr: 1.0e-3, weight_decay: 0.0}}
  engine: {{micro_batch: 16, checkpoint_steps: 10000}}
  epochs: 1
  batch: 32
  max_tokens: 256
reward:
  optim: {{lr: 3.0e-4, weight_decay: 0.01}}
  engine: {{micro_batch: 16, checkpoint_steps: 10000}}
  batch: 32
  max_tokens: 256
judge: {{share: 0}}
ppo: {{max_prompt_tokens: 96, max_response_tokens: 48}}
"""


def run(bars: Bars, data: Path) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        train = [one for one in read_hh(data) if not is_heldout(prompt(one), SHARE)]
        documents = [text_of(one) for one in train]
        (folder / "chats.jsonl").write_text("".join(json.dumps(as_alpaca(one)) + "\n" for one in train))
        (folder / "pairs").mkdir()
        for file in FILES:
            (folder / "pairs" / f"{file}.jsonl.gz").write_bytes(_place(data, file).read_bytes())
        recipe = RECIPE.format(chats=folder / "chats.jsonl", pairs=folder / "pairs", share=SHARE)
        half = len(documents) * 4 // 5
        sides = {1: documents[:half], 2: documents[half:]}
        made = make_run(folder, recipe, tokenizer_of(train), lambda count, seed: sides[seed])
        found = Reward.of(make(made, "instructions", "preferences", "pretrain", "sft", "reward"))
        print(
            f"reward_hh_accuracy {found.accuracy:.4f}, 95 % interval {found.accuracy_low:.4f} to {found.accuracy_high:.4f}, "
            f"on {found.heldout_pairs:,} held-out pairs that say as much as {found.heldout_effective:,.0f}; "
            f"it learned from {found.pairs:,} prompts"
        )
        if found.shorter_accuracy is not None:
            print(
                f"where the better reply is shorter: {found.shorter_accuracy:.4f}, {found.shorter_accuracy_low:.4f} to "
                f"{found.shorter_accuracy_high:.4f}, on {found.shorter_pairs:,} pairs; calibration error {found.ece:.3f}"
            )
        print(f"left out {found.dropped}, cut {found.cuts}")
        tell("hh-rlhf, held out", made, [one for one in read_hh(data) if is_heldout(prompt(one), SHARE)])
        tell("oasst trees, never seen", made, read_oasst(data))
        bars.at_least("reward_hh_accuracy", found.accuracy, 0)


def _place(data: Path, file: str) -> Path:
    return data / "pref" / "hh-rlhf" / file / "test.jsonl.gz"


def read_hh(data: Path) -> list[Preference]:
    """The pairs of both files that can be used."""
    found = []
    for file in FILES:
        with gzip.open(_place(data, file), "rt") as lines:
            for line in lines:
                chosen, rejected = (turns_of(text) for text in json.loads(line).values())
                same = chosen[:-1] == rejected[:-1] and len(chosen) > 1
                if same and chosen[-1].text and rejected[-1].text and chosen != rejected:
                    found.append(Preference(chosen[:-1], chosen[-1].text, rejected[-1].text))
    return found


def turns_of(text: str) -> tuple[Turn, ...]:
    """The turns of a dialogue with the marks `Human:` and `Assistant:`."""
    pieces = MARK.split(text)
    names: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return tuple(Turn(names[name], words.strip()) for name, words in zip(pieces[1::2], pieces[2::2], strict=True))


def text_of(pair: Preference) -> str:
    """A dialogue as plain text, with the preferred reply."""
    return "\n\n".join([*(turn.text for turn in pair.prompt), pair.chosen])


def as_alpaca(pair: Preference) -> dict[str, str]:
    """The first question of a dialogue, with its first answer."""
    turns = [*(turn.text for turn in pair.prompt), pair.chosen]
    return {"instruction": turns[0] or ".", "output": turns[1] or "."}


def tokenizer_of(pairs: list[Preference]) -> Tokenizer:
    """A byte-level BPE of the dialogues."""
    return bpe(map(text_of, pairs))


def bpe(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of ENTRIES entries, or of as many as the texts give."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer

"""A model answers the prompts of a benchmark: it scores given choices, or writes an answer.

Numbers are those of the Language Model Evaluation Harness's backend for transformers: how a context and its continuation
are cut into tokens, what is cut off where a text is too long, where an answer stops. Only the work is less. What
several prompts begin with, such as the examples of a subject, runs through the model once; choices of one question
share the question; logits are made only where they are read; answers that have ended leave their batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from evals.records import Output
from evals.tasks.prompts import Prompt
from training.chat.wording import Wording
from training.engine.ranks import Ranks

Rewards = Callable[[Sequence[Prompt], Sequence[str]], Sequence[float]]
"""Prompts, and a text that answers each -> the reward of each."""


@dataclass(frozen=True)
class Asked:
    """How answers are written. Those that are scored (`Prompt.pairs`) need none of it but `most`.

    samples: answers to each prompt. temperature: 0 takes the likeliest token. max_tokens: of an answer. seed: determines
    all draws, whatever the batches and the number of processes. most: tokens that are in memory at once, counting
    padding and what is seen of them; only speed depends on it. longest: tokens that the model can see, by default
    what its configuration says; of a prompt that is longer the beginning is cut off.
    """

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    most: int = 16_384
    longest: int | None = None


def answer(
    model: nn.Module,
    wording: Wording,
    prompts: Sequence[Prompt],
    asked: Asked = Asked(),
    ranks: Ranks | None = None,
    rewards: Rewards | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[Output]]:
    """The outputs of each prompt, in the order of the prompts; every process returns all of them.

    A prompt with `pairs` has one output, with the log-likelihood of each; any other has `asked.samples` texts. The model
    is on its device and in evaluation mode. rewards: of a reward model, whose figure goes with each text. advance: told
    how many of the prompts of all processes are done since it was last called; on rank 0 alone.

    Raises Interrupted if a process was asked to stop, ValueError if several answers are wanted at temperature 0, and
    InputError if a prompt has no token or turns that the tokenizer cannot render.
    """
    raise NotImplementedError

"""A chat model of ours as a judge: it is asked in words through its own chat template, and answers greedily."""

from collections.abc import Iterator, Sequence

from contract.conversation import Conversation
from contract.errors import InputError
from contract.manifest import Manifest
from contract.metrics import Progress
from evals.judge import CutOff
from evals.judging import Judge
from evals.tasks.prompts import Prompt
from training.answering import Asked, answer
from training.engine.job import Job
from training.models.opened import open_result
from training.models.reader import Reader

ANY_LENGTH = 1 << 30


class ChatJudge:
    """A model on this process's device, which all processes ask the same. too_long: questions that it did not get."""

    def __init__(self, job: Job, made: Manifest, max_tokens: int) -> None:
        """made: the manifest of a chat model. max_tokens: of an answer. Raises InputError if it cannot be opened."""
        self._job = job
        self._opened = open_result(job.scratch, made, job.settings.engine.dtype, job.ranks.device, job.ranks.rank)
        self._asked = Asked(max_tokens=max_tokens)
        self._room = Reader(self._opened.module).longest - max_tokens
        self.too_long = 0

    @property
    def judge(self) -> Judge:
        """The same for the functions of `evals.judging`."""
        return Judge(self._opened.made_by, self.ask)

    def ask(self, prompts: Sequence[Conversation]) -> Iterator[tuple[int, str]]:
        """The number of each question with its answer.

        A question that is longer than what the model can read would lose its instruction or a text, so the model does
        not get it: its answer is empty. An answer that ended at the limit of tokens is a CutOff. Raises InputError if
        all questions are too long, and Interrupted after a stop.
        """
        lengths = [len(self._opened.wording.dialogue(turns, ANY_LENGTH)) for turns in prompts]
        fit = [number for number, length in enumerate(lengths) if length <= self._room]
        if prompts and not fit:
            raise InputError(
                f"{self._job.task.stage}.judge: the shortest question has {min(lengths):,} tokens, and the model can "
                f"read {max(self._room, 0):,} before an answer of {self._asked.max_tokens:,}; name a model that reads "
                "more, or ask for shorter replies"
            )
        self.too_long += len(prompts) - len(fit)
        progress = Progress(self._job.task.stage, self._job.task.partition, "questions", len(fit))
        outputs = answer(
            self._opened.module, self._opened.wording, [Prompt("", prompts[number]) for number in fit], self._asked,
            self._job.ranks, advance=progress.advance,
        )  # fmt: skip
        if self._job.ranks.rank == 0:
            progress.finish()
        texts = {
            number: one.text if one.whole else CutOff(one.text) for number, [one] in zip(fit, outputs, strict=True)
        }
        yield from ((number, texts.get(number, "")) for number in range(len(prompts)))

"""Prompts of benchmarks to outputs: cut, shared by processes, graded."""

import threading
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from contract.conversation import Turn
from contract.errors import InputError, Interrupted
from evals.grading import grade, report
from evals.records import Output
from evals.tasks.maths import GSM8K
from evals.tasks.prompts import Prompt, prompt
from evals.tasks.task import Item
from tests.training.conftest import texts, train_tokenizer
from training import answering
from training.answering import Asked, answer, by_reward_model, share
from training.chat.template import Chat
from training.chat.wording import Wording, of_chat, of_folder
from training.engine.ranks import Ranks, StopFlag
from training.models.scalar import RewardModel

STOP = ("\n",)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The models are so small that a second thread only waits."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def wording(tmp_path_factory: pytest.TempPathFactory) -> Wording:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer().save(str(path))
    return of_chat(Chat(path))


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            initializer_range=0.3, max_position_embeddings=128, bos_token_id=None, eos_token_id=0,
        )
    ).eval()  # fmt: skip


def prompts() -> list[Prompt]:
    """Of all kinds, in no order."""
    made = []
    for number, text in enumerate(texts(16, seed=2)):
        if number % 3 == 0:
            made.append(Prompt(text[:40], (), tuple((text[:40], f" {one}") for one in ("river", "old mill", "A"))))
        elif number % 3 == 1:
            made.append(Prompt(f"Question: {text}\nAnswer:", (), (), STOP))
        else:
            made.append(
                Prompt("", (Turn("user", text[:30]), Turn("assistant", "Yes."), Turn("user", "And?")), (), STOP)
            )
    return made


class Together:
    """Ranks of one process in threads: what they tell each other goes over a barrier."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world)
        self.said: list[Any] = [None] * world

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.said[rank] = value
        self.barrier.wait()
        found = [*self.said]
        self.barrier.wait()
        return found


class Rank(Ranks):
    together: Together

    def gather(self, value: Any) -> list[Any]:
        return self.together.gather(self.rank, value)

    def sum(self, *values: float) -> list[float]:
        return [sum(each) for each in zip(*self.gather(values), strict=True)]


def on_ranks(world: int, model: Any, wording: Wording, stop: bool = False, **given: Any) -> list[Any]:
    """What `answer` returns on each rank, or the exception that it raises there."""
    together, found = Together(world), [None] * world

    def work(rank: int) -> None:
        one = Rank(rank, rank, world, StopFlag())
        one.together = together
        one.stop.raised = stop and rank == world - 1
        try:
            found[rank] = answer(deepcopy(model), wording, prompts(), ranks=one, **given)
        except Interrupted as error:
            found[rank] = error
        except BaseException:
            together.barrier.abort()  # else the others would wait for ever
            raise

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


ASKED = Asked(samples=2, temperature=0.9, max_tokens=12, seed=3)


def same(one: Sequence[Sequence[Output]], two: Sequence[Sequence[Output]]) -> None:
    for first, second in zip(one, two, strict=True):
        assert [output.text for output in first] == [output.text for output in second]
        for a, b in zip(first, second, strict=True):
            assert a.logprobs is b.logprobs is None or a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@pytest.mark.parametrize("world", [2, 3, 20])
def test_ranks_share_the_work_and_know_all_answers(model: Any, wording: Wording, world: int) -> None:
    alone = answer(model, wording, prompts(), ASKED)
    for found in on_ranks(world, model, wording, asked=ASKED):
        same(found, alone)


def test_every_prompt_has_its_outputs(model: Any, wording: Wording) -> None:
    told: list[int] = []
    found = answer(model, wording, prompts(), ASKED, advance=told.append)
    assert sum(told) == len(prompts())
    for one, outputs in zip(prompts(), found, strict=True):
        assert len(outputs) == (1 if one.pairs else 2)
        assert all(len(output.logprobs or ()) == len(one.pairs) for output in outputs)
        assert all("\n" not in output.text for output in outputs), "cut at its stop"


def test_an_output_is_whole_unless_it_ended_at_the_limit(model: Any, wording: Wording) -> None:
    asked = [Prompt("The mill", stop=("\n",)), Prompt("The mill")]
    long = answer(model, wording, asked, Asked(max_tokens=64))
    for limit in range(1, 12):
        for [output], [longer] in zip(answer(model, wording, asked, Asked(max_tokens=limit)), long, strict=True):
            assert output.whole == (output.text == longer.text and longer.whole), limit


def test_all_stop_when_one_is_asked_to(model: Any, wording: Wording) -> None:
    assert [str(one)[:16] for one in on_ranks(2, model, wording, stop=True)] == ["answers: stopped"] * 2


def test_prompts_that_begin_alike_stay_together() -> None:
    alike = [Prompt(f"{'shared ' * 50}{at}") for at in range(4)] + [Prompt(f"{'other ' * 50}{at}") for at in range(4)]
    mixed = [alike[at] for at in (0, 4, 1, 5, 2, 6, 3, 7)]
    parts = [share(mixed, rank, 2, Asked(max_tokens=1)) for rank in range(2)]
    assert sorted(map(sorted, parts)) == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize("world", [1, 2, 7])
def test_every_prompt_is_of_one_rank(world: int) -> None:
    parts = [share(prompts(), rank, world, ASKED) for rank in range(world)]
    assert sorted(row for part in parts for row in part) == [*range(16)]
    assert max(map(len, parts)) <= 2 * 16 / world + 2


def test_a_long_prompt_loses_its_beginning(model: Any, wording: Wording) -> None:
    """Of 128 tokens the answer takes 12."""
    long = " ".join(texts(8, seed=4))
    ids = wording.bare(long)
    assert len(ids) > 300
    found = answer(model, wording, [Prompt(long)], Asked(max_tokens=12))
    wanted = answer(model, wording, [Prompt(wording.decode(ids[-116:]))], Asked(max_tokens=12))
    assert wording.bare(wording.decode(ids[-116:])) == ids[-116:], "else this test shows nothing"
    same(found, wanted)


def test_the_first_line_of_a_body_keeps_its_indent(
    model: Any, sentencepiece: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SentencePiece's decoder takes the first space of what it decodes."""
    made, asked = of_folder(sentencepiece), "def f(a, b):\n"
    body = "    c = a + b\n    return c\n"
    ids = made.encode([asked + body])[0][len(made.encode([asked])[0]) :]
    monkeypatch.setattr(answering, "replies", lambda *given: iter([{(0, 0): ids}]))
    assert answer(model, made, [Prompt(asked)], Asked(max_tokens=12))[0][0].text == body


def test_answers_as_long_as_the_model_sees_are_refused(model: Any, wording: Wording) -> None:
    with pytest.raises(InputError, match="answers of 128 tokens leave no room for a prompt: the model sees 128 tokens"):
        answer(model, wording, [Prompt("a")], Asked(max_tokens=128))
    assert answer(model, wording, [prompts()[0]], Asked(max_tokens=128))[0][0].logprobs, "what is scored needs no room"


def test_several_greedy_answers_are_refused(model: Any, wording: Wording) -> None:
    with pytest.raises(ValueError, match="at temperature 0 would all be the same"):
        answer(model, wording, [Prompt("a")], Asked(samples=2))


def test_majority_and_best_of_n_are_graded(model: Any, wording: Wording) -> None:
    """Eight answers to each of two questions, with rewards that find the shortest answer best."""
    items = [Item(str(at), str(at), f"How many {word}?", (), ("3",)) for at, word in enumerate(("stones", "mills"))]
    asked = [prompt(GSM8K, item) for item in items]

    def rewards(shown: Sequence[Prompt], said: Sequence[str]) -> list[float]:
        assert {one.text for one in shown} == {one.text for one in asked}
        return [-float(len(text)) for text in said]

    found = answer(model, wording, asked, Asked(samples=8, temperature=1.0, max_tokens=8), rewards=rewards)
    assert all(one.reward == -len(one.text) for outputs in found for one in outputs)
    outputs = dict(zip(("0", "1"), found, strict=True))
    made = report(grade(GSM8K, items, outputs, lambda item: prompt(GSM8K, item)))
    assert made.outputs == 16
    assert made.best is not None
    assert made.majority is not None
    assert [*made.pass_at] == [1, 5]


def test_a_reward_model_judges_texts_as_replies(tmp_path: Path) -> None:
    train_tokenizer().save(str(tmp_path / "tokenizer.json"))
    chat = Chat(tmp_path / "tokenizer.json")
    torch.manual_seed(1)
    shape = {
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    judge = RewardModel(LlamaModel(LlamaConfig(**shape)), seed=1).eval()
    asked = [Prompt("The mill?"), Prompt("", (Turn("system", "Be kind."), Turn("user", "So?")))] * 3
    said = [f"Quiet. {at}" for at in range(6)]
    found = by_reward_model(judge, chat, torch.device("cpu"), rows=4)(asked, said)
    for at, (one, text) in enumerate(zip(asked, said, strict=True)):
        turns = [*(one.turns or (Turn("user", one.text),)), Turn("assistant", text)]
        ids, _ = chat.encode(turns, 99)
        alone = judge(torch.tensor([ids]), torch.ones(1, len(ids)).long())[0, -1]
        assert found[at] == pytest.approx(float(alone), abs=1e-5)

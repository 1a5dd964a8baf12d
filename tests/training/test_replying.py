"""Answers against transformers' own generate, token by token, in pools of any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.training.conftest import train_tokenizer
from training import replying
from training.chat.wording import Wording, of_folder
from training.models.reader import Reader
from training.rollout import draw, row_seed

TOKENIZER = train_tokenizer()
END = 0
SHAPE: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 256, "bos_token_id": None,
    "eos_token_id": END,
}  # fmt: skip
WORDING = Wording(
    lambda texts: [TOKENIZER.encode(text).ids for text in texts],
    lambda text: list(TOKENIZER.encode(text).ids),
    lambda turns, most: [],
    lambda ids: TOKENIZER.decode(list(ids), skip_special_tokens=True),
    frozenset({END}),
    END,
)
Prompts = dict[int, tuple[list[int], tuple[str, ...]]]


@pytest.fixture(autouse=True)
def little_is_worth_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small tests share as much as large ones."""
    monkeypatch.setattr(replying, "LEAST_SAVED", 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The models are so small that a second thread only waits."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module", params=["shares", "window"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    if request.param == "window":
        made: Any = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=24)).eval()
    else:
        made = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    with torch.no_grad():
        made.lm_head.weight[END] *= 1.3  # so that some answers end early
    return made


def prompts(stop: tuple[str, ...] = ()) -> Prompts:
    """Two families that begin with 40 tokens, and some prompts of their own, of all lengths."""
    torch.manual_seed(5)
    shared = torch.randint(40, 384, (2, 40)).tolist()
    made: Prompts = {}
    for number in range(14):
        own = torch.randint(40, 384, (1 + 5 * (number % 5),)).tolist()
        made[number] = (([*shared[number % 2]] if number < 10 else []) + own, stop)
    return made


def written(model: Any, asked: Prompts, most: int = 100_000, **given: Any) -> dict[tuple[int, int], list[int]]:
    kept = {"samples": 1, "temperature": 0.0, "max_tokens": 30, "seed": 7} | given
    found: dict[tuple[int, int], list[int]] = {}
    for ended in replying.replies(Reader(model), WORDING, asked, most=most, **kept):
        assert not ended.keys() & found.keys(), "each answer is told once"
        found |= ended
    return found


@torch.no_grad()
def by_transformers(model: Any, ids: list[int], max_tokens: int = 30) -> list[int]:
    config = GenerationConfig(do_sample=False, max_new_tokens=max_tokens, eos_token_id=END, pad_token_id=END)
    ids_of_all = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), generation_config=config)
    return [token for token in ids_of_all[0, len(ids) :].tolist() if token != END]


@pytest.mark.parametrize("most", [80, 300, 100_000])
def test_greedy_answers_are_those_of_transformers(model: Any, most: int) -> None:
    asked = prompts()
    found = written(model, asked, most)
    wanted = {(number, 0): by_transformers(model, ids) for number, (ids, _) in asked.items()}
    assert found == wanted
    lengths = [len(one) for one in wanted.values()]
    assert min(lengths) < 30 == max(lengths), "the seed should give short answers and long ones"


def test_long_answers_outgrow_the_first_memory(model: Any) -> None:
    asked = {0: prompts()[0], 11: prompts()[11]}
    found = written(model, asked, max_tokens=150)
    assert found == {(number, 0): by_transformers(model, ids, 150) for number, (ids, _) in asked.items()}


def test_an_answer_ends_with_its_own_stop_text(model: Any) -> None:
    whole = written(model, prompts(), max_tokens=30)
    texts = {key: TOKENIZER.decode(ids) for key, ids in whole.items()}
    stops = {number: (texts[number, 0][9:12],) for number in prompts() if len(texts[number, 0]) > 20}
    assert len(stops) > 5
    asked = {number: (ids, stops.get(number, ())) for number, (ids, _) in prompts().items()}
    for (number, _), ids in written(model, asked, 400).items():
        text = TOKENIZER.decode(ids)
        if number in stops:
            (stop,) = stops[number]
            assert texts[number, 0].startswith(text)
            assert stop in text
            assert stop not in TOKENIZER.decode(ids[:-1]), "it ended as soon as the text stood there"
        else:
            assert ids == whole[number, 0]


def test_a_stop_text_may_begin_with_the_first_space_of_an_answer(sentencepiece: Path) -> None:
    wording = of_folder(sentencepiece)
    asked, whole = wording.encode(["Answer:", "Answer: 42 and more"])
    endings, one = replying.Endings(wording), replying.Reply(0, 0, asked, (" 42",))
    ended = [endings.add(one, token) for token in whole[len(asked) :]]
    assert ended.index(True) == len(wording.encode(["Answer: 42"])[0]) - len(asked) - 1


def test_draws_depend_on_the_prompt_and_the_sample_alone(model: Any) -> None:
    together = written(model, prompts(), 400, samples=3, temperature=0.8, max_tokens=20)
    assert set(together) == {(number, sample) for number in range(14) for sample in range(3)}
    alone = written(model, {4: prompts()[4]}, samples=3, temperature=0.8, max_tokens=20)
    assert [alone[4, sample] for sample in range(3)] == [together[4, sample] for sample in range(3)]
    assert len({tuple(together[4, sample]) for sample in range(3)}) > 1


@torch.no_grad()
def test_draws_are_from_the_distribution_of_a_whole_pass(model: Any) -> None:
    ids, _ = prompts()[3]
    (found,) = written(model, {3: prompts()[3]}, temperature=0.7, max_tokens=12).values()
    uniforms = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(row_seed(7, 3, 0)))
    logits = model(torch.tensor([ids + found])).logits[0, len(ids) - 1 :]
    again = draw((logits[: len(found)] / 0.7).softmax(-1), uniforms[: len(found)])
    assert again.tolist() == found


def test_prompts_that_begin_alike_are_read_once() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    reader = Reader(model)
    assert reader.shares
    read: list[int] = []
    model.model.register_forward_pre_hook(
        lambda module, given, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    asked = {number: one for number, one in prompts().items() if number < 10}
    [*replying.replies(reader, WORDING, asked, 4, 1.0, 1, 0, 100_000)]
    assert sum(read) < 40 * 2 + 10 * 25 + 4 * 10 + 60, "two beginnings, what is left of ten prompts, and a token each"


def test_nothing_is_asked() -> None:
    torch.manual_seed(0)
    assert written(LlamaForCausalLM(LlamaConfig(**SHAPE)).eval(), {}) == {}

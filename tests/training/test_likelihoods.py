"""Log-likelihoods against a plain pass of each text alone, and the harness's rules for tokens."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from contract.errors import InputError
from tests.training.conftest import texts, train_tokenizer
from training import likelihoods
from training.chat.wording import Wording
from training.likelihoods import Scored, batches, scored, tree, trees
from training.models.reader import Reader

TOKENIZER = train_tokenizer()
FIRST = 0
LONGEST = 96
SHAPE: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 2 * LONGEST, "bos_token_id": None,
    "eos_token_id": FIRST,
}  # fmt: skip


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


WORDING = Wording(
    lambda texts: [ids(text) for text in texts],
    ids,
    lambda turns, most: [],
    TOKENIZER.decode,
    frozenset({FIRST}),
    FIRST,
)


@pytest.fixture(autouse=True)
def little_is_worth_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small tests share as much as large ones."""
    monkeypatch.setattr(likelihoods, "LEAST_SAVED", 1)


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
        return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=24)).eval()
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


@torch.no_grad()
def plain(model: Any, context: str, text: str) -> float:
    """One row, one pass, no cache: the definition."""
    bare = context.rstrip()
    text = context[len(bare) :] + text
    before = ids(bare) if bare else [FIRST]
    behind = ids(bare + text)[len(before) :] if bare else ids(text)
    whole = (before + behind)[-(LONGEST + 1) :]
    logits = model(torch.tensor([whole[:-1]])).logits[0].double().log_softmax(-1)
    return float(sum(logits[at, whole[at + 1]] for at in range(len(whole) - 1 - len(behind), len(whole) - 1)))


def asked() -> dict[int, list[tuple[str, str]]]:
    """Few-shot questions of two subjects with letters, choices of several words, gaps, and texts without a context."""
    drawn, made = random.Random(3), {}
    sentences = texts(40, seed=5)
    examples = [" ".join(sentences[at : at + 1]) + "\n\n" for at in (0, 1)]
    for number in range(12):
        question = f"{examples[number % 2]}{sentences[2 + number][:60]} Answer:"
        made[number] = [(question, f" {letter}") for letter in "ABCD"]
    for number in range(12, 20):
        context = sentences[number][: drawn.randrange(10, 80)]
        made[number] = [(context, f" {sentences[at][: drawn.randrange(3, 50)]}") for at in range(4)]
    for number in range(20, 26):
        before, behind = sentences[number][:30], sentences[number][30:70]
        made[number] = [(f"{before} {word}", f" {behind}") for word in ("river", "old lantern")]
    made[26] = [("", sentences[30][:50]), ("", sentences[31][:40])]
    made[27] = [("The river ", "stands"), ("The river", " stands")]
    made[28] = [(" ".join(sentences[:8]), " quiet again"), (" ".join(sentences[:8]), " garden")]  # longer than is seen
    return made


@pytest.mark.parametrize("most", [130, 400, 100_000])
def test_any_batch_gives_what_a_row_alone_gives(model: Any, most: int) -> None:
    wanted = {number: [plain(model, *pair) for pair in pairs] for number, pairs in asked().items()}
    found: dict[int, list[float]] = {}
    for some in likelihoods.likelihoods(Reader(model), WORDING, asked(), LONGEST, most):
        assert not some.keys() & found.keys(), "each prompt is told once"
        found |= some
    assert found.keys() == wanted.keys()
    for number, values in found.items():
        assert values == pytest.approx(wanted[number], abs=1e-5), number


def test_white_space_between_belongs_to_the_continuation(model: Any) -> None:
    (one,) = [
        row
        for rows in likelihoods.likelihoods(Reader(model), WORDING, {0: asked()[27]}, LONGEST, 400)
        for row in rows.values()
    ]
    assert one[0] == pytest.approx(one[1], abs=1e-6)


def test_what_is_shared_is_read_once() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    read: list[int] = []
    model.model.register_forward_pre_hook(
        lambda module, given, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    reader = Reader(model)
    assert reader.shares
    prompts = {number: pairs for number, pairs in asked().items() if number < 12}
    whole = sum(len(ids(context)) + 1 for pairs in prompts.values() for context, _ in pairs)
    read.clear()
    [*likelihoods.likelihoods(reader, WORDING, prompts, LONGEST, 100_000)]
    assert sum(read) < whole / 6, "one row for four letters, and the examples of a subject once"


def test_a_long_text_is_scored_in_windows(model: Any) -> None:
    """Every token once, by the harness's rule: the last window has as much before it as is seen."""
    text = " ".join(texts(8, seed=9))
    whole = ids(text)
    assert len(whole) > 2 * LONGEST
    ((windows,),) = scored(WORDING, [[("", text)]], LONGEST)
    assert [one.targets for one in windows] == [whole[at : at + LONGEST] for at in range(0, len(whole), LONGEST)]
    assert windows[0].ids == [FIRST, *whole[: LONGEST - 1]]
    assert windows[1].ids == whole[LONGEST - 1 : 2 * LONGEST - 1]
    assert windows[-1].ids == whole[-LONGEST - 1 : -1]
    (found,) = [
        rows for rows in likelihoods.likelihoods(Reader(model), WORDING, {0: [("", text)]}, LONGEST, 400) if rows
    ]
    wanted = 0.0
    for one in windows:
        logits = model(torch.tensor([one.ids])).logits[0].double().log_softmax(-1)
        wanted += sum(float(logits[one.first + at, token]) for at, token in enumerate(one.targets))
    assert found[0] == pytest.approx([wanted], abs=1e-4)


def test_a_token_that_spells_both_is_scored() -> None:
    """The harness ends with an error where a continuation has no token of its own."""
    merged = next(token for token in ("er", "th", "he", "in") if len(ids(token)) == 1)
    ((one,),) = scored(WORDING, [[(f"a {merged[0]}", merged[1])]], LONGEST)[0]
    assert one.targets == ids(f"a {merged}")[len(one.ids) :]
    assert one.targets


def test_a_text_without_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="a text without a token cannot be scored"):
        scored(WORDING, [[("", "")]], LONGEST)


def test_choices_are_branches_of_one_row() -> None:
    texts = [Scored([1, 2, 3], [9]), Scored([1, 2, 3], [8]), Scored([1, 2, 5, 6], [3, 5, 6]), Scored([1, 2], [7])]
    made = tree(4, [*enumerate(texts)])
    assert (made.ids, made.positions, made.branches) == ([1, 2, 3, 5, 6], [0, 1, 2, 2, 3], [0, 0, 1, 2, 2])
    assert made.picks == [([2], [9]), ([2], [8]), ([1, 3, 4], [3, 5, 6]), ([1], [7])]
    assert made.shareable == 1, "the second token predicts a target"


def test_a_model_that_cannot_share_reads_each_text_once() -> None:
    pairs = [[Scored([1, 2], [9])], [Scored([1, 2], [8])], [Scored([1, 3], [9])]]
    made = trees(0, pairs, shares=False)
    assert [(one.ids, one.pairs) for one in made] == [([1, 2], [0, 1]), ([1, 3], [2])]


def test_batches_keep_to_the_memory_and_waste_little() -> None:
    rows = [tree(number, [(0, Scored([number] * length, [1]))]) for number, length in enumerate([4, 40, 5, 5, 4, 41])]
    found = [*batches(rows, 100, 100, shares=True)]
    assert [sorted(one.tree.number for one in batch) for batch in found] == [[1, 5], [0, 2, 3, 4]]
    assert [len(batch) for batch in batches(rows, 10, 100, shares=True)] == [1, 1, 2, 2]

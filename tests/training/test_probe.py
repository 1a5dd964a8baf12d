"""Measuring one model: every token once, as a direct computation has it, on the same bytes for every tokenizer."""

import json
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.headline import headline
from contract.manifest import need
from contract.settings.training import NEVER
from evals.heldout import HeldOut
from training import pretrain, probe
from training.chat.template import open_chat
from training.data.passages import Passage, Question
from training.engine.job import Job
from training.models.llama import load_model


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))
def test_every_token_is_predicted_once_with_half_a_sequence_before_it(size: int, first: int, seq_len: int) -> None:
    ids = list(range(size))
    seen: list[int] = []
    for window, begin in probe.windows(ids, first, seq_len):
        assert len(window) <= seq_len + 1
        assert begin >= 1
        assert begin >= min(seq_len // 2, window[begin]), "as much context as there is, or half a sequence"
        seen += window[begin:]
    assert seen == ids[first:]


def test_the_choice_is_the_one_with_the_least_nats_a_byte() -> None:
    asked = Question("q", [Passage("c true", 1), Passage("c much longer", 1)], 0)
    assert probe.answered(asked, [5.0, 12.1])
    assert not probe.answered(asked, [5.0, 11.9]), "longer, and cheaper a byte"
    assert not probe.answered(asked, [5.0, 12.0]), "a tie is no answer"


def test_figures_equal_a_direct_computation(make_job: Callable[..., Job]) -> None:
    trained = make_job("pretrain", "pretrain.steps=4")
    pretrain.run(trained)
    job = make_job("probe", "pretrain.steps=4", "probe.documents=6", "probe.engine.micro_batch=4")
    probe.run(job)
    manifest = need(job.store, job.task)
    (file,) = manifest.of("measures")
    found = json.loads(job.store.read_bytes(file.path))["documents"]["crawl"]
    chat, module = open_chat(job), load_model(job, job.manifest("pretrain")).eval()
    documents = probe.read_documents(job.store, job.manifest("mix"), job.settings)["crawl"]
    for passage, nats, size in zip(documents.passages, found["nats"], found["bytes"], strict=True):
        given, rest = chat.text(passage.text[: passage.given]), chat.text(passage.text[passage.given :])
        ids = torch.tensor([[*given, *rest]])
        assert ids[0].tolist() == chat.text(passage.text), "the cut is at the end of a word"
        with torch.no_grad():
            each = torch.log_softmax(module(input_ids=ids).logits[0, :-1], -1)
        total = -each.gather(1, ids[0, 1:, None])[len(given) - 1 :].sum()
        if ids.shape[1] <= 65:
            assert nats == pytest.approx(float(total), rel=1e-4)
        assert nats == pytest.approx(float(total), rel=0.05), "a window has less before it"
        assert size == len(passage.text[passage.given :].encode())
    bits = sum(found["nats"]) / math.log(2) / sum(found["bytes"])
    assert manifest.metrics["bits_per_byte"] == pytest.approx(bits)
    assert manifest.metrics["sources"]["crawl"]["documents"] == manifest.metrics["documents"] == 6
    assert manifest.metrics["documents_changed"] == 0
    assert manifest.metrics["diverged"] is False


def test_a_model_whose_bits_are_no_number_is_committed_as_diverged(make_job: Callable[..., Job]) -> None:
    """An ablation lets training go on to its end, so that the model is there to be measured."""
    usual = make_job("pretrain", "pretrain.steps=1")
    trained = make_job("pretrain", "pretrain.steps=1", f"pretrain.optim.give_up_after={NEVER}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "_judge", lambda *given: {"crawl": HeldOut(math.nan, 9, 9)})
        with pytest.raises(InputError, match="held-out loss is nan at the end; training diverged"):
            pretrain.run(usual)
        pretrain.run(trained)
    job = make_job("probe", "pretrain.steps=1", "probe.documents=6")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "nats", lambda *given: [math.nan] * len(given[-1]))
        probe.run(job)
    manifest = need(job.store, job.task)
    assert (manifest.metrics["diverged"], manifest.metrics["bits_per_byte"]) == (True, None)
    assert (manifest.metrics["sources"], manifest.metrics["documents"]) == ({}, 6)
    assert "tasks" not in manifest.metrics
    (file,) = manifest.of("measures")
    assert json.loads(job.store.read_bytes(file.path)) == {"documents": {}, "tasks": {}}
    assert headline(manifest) == "the model diverged: its bits per byte are no number"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], False),
        (range(5, 14), False),
        (range(5, 15), True),
        ([*range(5, 14), *range(15, 24)], False),
        ([1, 3, *range(20, 30), 40], True),
    ],
)
def test_training_that_would_have_given_up_has_diverged(steps: Sequence[int], expected: bool) -> None:
    assert probe.gave_up(" ".join(map(str, steps))) is expected

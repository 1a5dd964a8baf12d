"""Sampling a round: who writes which reply, what is left out, and real runs with one and two processes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contract import feedback, results
from contract.conversation import Turn
from contract.errors import InputError, Interrupted
from contract.feedback import Item
from contract.identity import Input
from contract.kinds import Kind
from contract.manifest import Manifest, need
from contract.settings.training import Sample
from contract.store import Store
from contract.tables import read_rows
from evals.tasks.prompts import Prompt
from tests.declared import only_declared
from training import reward, sample
from training.answering import Asked, answer
from training.chat.template import open_chat
from training.data.examples import own_pairs
from training.engine.job import Job
from training.models.opened import open_result
from training.models.reader import Reader
from training.sample import Voice, items_of, models_of, voices

SFT, PPO, OLD = (Input(stage=stage, partition="all", fingerprint=digit * 40) for stage, digit in (("sft", "a"), ("ppo", "b"), ("ppo", "c")))  # fmt: skip
MODELS = {"sft": SFT, "aligned": PPO, "last": OLD}
SMALL = ("sample.prompts=12", "sample.max_response_tokens=12", "sample.engine.micro_batch=4")
HELLO, BYE = (Turn("user", "Hello"),), (Turn("user", "Bye"),)


def test_models_take_turns_and_then_the_next_temperature() -> None:
    settings = Sample(replies=4, models=("aligned", "last"), temperatures=(0.5, 1.0))
    assert voices(settings, MODELS) == [Voice(PPO, 0.5), Voice(OLD, 0.5), Voice(PPO, 1.0), Voice(OLD, 1.0)]
    settings = Sample(replies=3, models=("sft",), temperatures=(0.5, 1.0))
    assert voices(settings, MODELS) == [Voice(SFT, 0.5), Voice(SFT, 1.0), Voice(SFT, 0.5)]


def test_prompts_without_two_replies_that_differ_are_left_out() -> None:
    said = [Voice(SFT, 0.5), Voice(PPO, 1.0), Voice(PPO, 0.5)]
    texts = [["one", "same"], ["", "same"], ["two", "same"]]
    [item] = items_of(7, [HELLO, BYE], said, texts)
    assert (item.prompt, item.round) == (HELLO, 7)
    assert [(one.text, one.model, one.temperature) for one in item.replies] == [
        ("one", "sft/" + "a" * 40, 0.5),
        ("two", "ppo/" + "b" * 40, 0.5),
    ]
    assert items_of(7, [HELLO, HELLO], said[:2], [["a", "a"], ["b", "b"]]) == items_of(7, [HELLO], said[:2], [["a"], ["b"]])  # fmt: skip


def items(job: Job) -> list[Item]:
    (file,) = need(job.store, job.task).of(Kind.RATED)
    return [Item.of(row) for row in read_rows(job.store, file)]


def test_a_round_holds_replies_of_the_aligned_and_the_last_model(align: Callable[..., Job]) -> None:
    given = (*SMALL, "sample.replies=3", "sample.models=[aligned, last]", f"sample.last=sft/{align('ppo').task.of('sft')[0].fingerprint}")  # fmt: skip
    job = align("sample", *given)
    assert {one.stage for one in job.task.elsewhere} == {"sft"}
    sample.run(job)
    told = results.Sample.of(need(job.store, job.task))
    found = items(job)
    assert (told.round, told.prompts, told.items) == (1, 12, len(found))
    assert told.replies == sum(len(item.replies) for item in found)
    aligned = job.task.of("ppo")[0].fingerprint
    wrote = Counter(reply.model for item in found for reply in item.replies)
    assert told.models == {model: {"replies": wrote[model]} for model in (f"ppo/{aligned}", job.settings.last)}
    learned = {pair.prompt for pair in own_pairs(job, Kind.PAIRS)}
    assert all(item.prompt in learned and len(item.replies) in (2, 3) for item in found)
    made = feedback.Round(name="r", number=1, run="run", opened="2026-01-01T00:00:00Z", files=tuple(need(job.store, job.task).of(Kind.RATED)))  # fmt: skip
    assert [*feedback.items(job.store, made).values()] == found


def of_another_tokenizer(store: Store, model: Input) -> Manifest:
    found = need(store, model)
    other = Input(stage="tokenizer", partition="all", fingerprint="e" * 40)
    return found.model_copy(update={"identity": found.identity.model_copy(update={"inputs": (other,)})})


def test_any_model_of_the_store_with_the_same_tokenizer_may_reply(
    align: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"sft/{align('ppo').task.of('sft')[0].fingerprint}"
    job = align("sample", *SMALL, f"sample.models=[{name}, aligned]")
    assert [f"{one.stage}/{one.fingerprint}" for one in job.task.elsewhere] == [name]
    assert voices(job.settings, models_of(job))[0].model == job.task.elsewhere[0]
    monkeypatch.setattr(sample, "need", of_another_tokenizer)
    with pytest.raises(InputError, match=r"sample\.models: sft/\w+ has another tokenizer"):
        models_of(job)


def test_a_reward_model_of_the_store_notes_its_rewards_of_what_people_read(align: Callable[..., Job]) -> None:
    given = next(one for one in align("ppo").task.inputs if one.stage == "reward")
    job = align("sample", *SMALL, f"sample.judge=reward/{given.fingerprint}")
    sample.run(job)
    found = items(job)
    assert job.task.fingerprint != align("sample", *SMALL).task.fingerprint
    judge = reward.load_reward_model(job, need(job.store, given)).eval()
    chat, item = open_chat(job), max(found, key=lambda item: len(item.replies))
    fit = chat.fit(item.prompt, [reply.text for reply in item.replies], 24 + 12 + 1)
    for reply, words in zip(item.replies, fit.replies, strict=True):
        ids = torch.tensor([fit.prompt + words])
        with torch.no_grad():
            alone = float(judge(ids, torch.ones_like(ids))[0, -1])
        assert reply.reward == pytest.approx(alone, abs=1e-4)
    assert len({one.reward for item in found for one in item.replies}) > 10


def test_a_judge_with_another_tokenizer_is_refused(align: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    given = next(one for one in align("ppo").task.inputs if one.stage == "reward")
    job = align("sample", *SMALL, f"sample.judge=reward/{given.fingerprint}")
    monkeypatch.setattr(sample, "need", of_another_tokenizer)
    with pytest.raises(InputError, match=r"sample\.judge: reward/\w+ has another tokenizer"):
        sample.with_rewards(job, [], open_chat(job))


@pytest.fixture
def reads_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tiny models, which learned on 64 tokens, read the 600 of a question.

    They never end an answer, so one that was cut off counts as whole.
    """
    monkeypatch.setattr("training.chat_judge.CutOff", str)
    monkeypatch.setattr(Reader, "longest", 2048)


def test_a_chat_model_of_the_run_compares_criticises_revises_and_chooses(
    align: Callable[..., Job], tmp_path: Path, reads_far: None
) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("Be kind.\nBe true.\n")
    job = align("sample", *SMALL, "sample.prompts=4", "sample.judge=aligned", f"sample.principles={rules}")
    sample.run(job)
    made, model = need(job.store, job.task), sample.models_of(job)["aligned"]
    address = f"{model.stage}/{model.fingerprint}"
    [file] = made.of(Kind.JUDGED)
    rows = [*read_rows(job.store, file)]
    told, found = results.Sample.of(made), items(job)
    changed = {row["item"] for row in rows if row["step"] == "choice"}
    steps = Counter((row["item"], row["step"]) for row in rows)
    for item in found:
        wanted = {"comparison": 2, "critique": 1, "revision": 1, "choice": 2 * (item.id in changed)}
        assert {step: steps[item.id, step] for step in wanted} == wanted
    assert {row["model"] for row in rows} == {address} == {told.judge}
    assert told.asked == 2 * (len(found) + len(changed))
    assert told.unread == sum(row["ranks"] is None for row in rows if row["step"] in ("comparison", "choice"))
    assert (told.too_long, told.revised) == (0, len(changed))

    opened = open_result(job.scratch, need(job.store, model), "fp32", job.ranks.device)
    prompts = [Prompt("", tuple(Turn(**turn) for turn in row["prompt"])) for row in rows]
    outputs = answer(opened.module, opened.wording, prompts, Asked(max_tokens=12))
    for row, [output] in zip(rows, outputs, strict=True):
        system, user = row["prompt"]
        assert row["answer"] == (output.text.strip() if row["step"] == "revision" else output.text)
        assert (row["principle"] in ("Be kind.", "Be true.")) == (row["step"] != "comparison")
        assert row["principle"] in system["text"]
        item = next(one for one in found if one.id == row["item"])
        shown = [reply.text for reply in item.replies] if row["step"] == "comparison" else [item.replies[0].text]
        assert all(f"\n{text}\n[end " in user["text"] for text in (item.prompt[-1].text, *shown))


def test_a_chat_model_of_the_store_judges_and_another_one_is_another_result(
    align: Callable[..., Job], reads_far: None
) -> None:
    few = (*SMALL, "sample.prompts=4")
    address = f"sft/{align('ppo').task.of('sft')[0].fingerprint}"
    job = align("sample", *few, f"sample.judge={address}")
    sample.run(job)
    made = need(job.store, job.task)
    assert results.Sample.of(made).judge == address
    [file] = made.of(Kind.JUDGED)
    assert {row["step"] for row in read_rows(job.store, file)} == {"comparison"}
    plain = align("sample", *few)
    assert plain.task.fingerprint != job.task.fingerprint != align("sample", *few, "sample.judge=sft").task.fingerprint
    assert Input(stage="sft", partition="all", fingerprint=address[4:]) in job.task.elsewhere
    job.store.delete(f"{job.task.prefix}/manifest.json")
    again = align("sample", *few, f"sample.judge={address}")
    sample.run(again)
    [same] = need(again.store, again.task).of(Kind.JUDGED)
    assert same.sha256 == file.sha256


def test_another_round_draws_other_prompts_and_is_another_task(align: Callable[..., Job]) -> None:
    one, two = align("sample", *SMALL), align("sample", *SMALL, "sample.round=2")
    assert one.task.fingerprint != two.task.fingerprint
    first, second = ({prompt[0].text for prompt in sample.prompts_of(job)} for job in (one, two))
    assert len(first) == len(second) == 12
    assert first != second
    assert {prompt[0].text for prompt in sample.prompts_of(one)} == first


def test_how_people_rate_changes_no_sample(align: Callable[..., Job]) -> None:
    one, two = align("sample", *SMALL), align("sample", *SMALL, "feedback.rating.people=7", "feedback.earlier=0.5")
    assert one.task.fingerprint == two.task.fingerprint


def test_a_round_in_which_all_replies_are_alike_is_refused(
    align: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "replies_of", lambda job, said, prompts, chat: [["same"] * len(prompts)] * len(said))
    with pytest.raises(InputError, match=r"no prompt of 12 got two replies that differ; raise sample\.temperatures"):
        sample.run(align("sample", *SMALL, "sample.seed=9"))


def test_a_stop_keeps_nothing(align: Callable[..., Job]) -> None:
    job = align("sample", *SMALL, "sample.seed=8")
    job.ranks.stopping = lambda: True  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="sample: stopped"):
        sample.run(job)


def test_two_processes_sample_what_one_does(align: Callable[..., Job], run_two: Callable[..., list[str]]) -> None:
    job = align("sample", *SMALL, "sample.temperatures=[0.7, 1.3]")
    run_two("-m", "training", "sample", "--recipe", job.attempt.run.uri)
    two = items(job)
    job.store.delete(f"{job.task.prefix}/manifest.json")
    run = only_declared(job.attempt.run, "sample")
    again = Job(run, run.task("sample"), job.attempt)
    sample.run(again)
    assert items(again) == two

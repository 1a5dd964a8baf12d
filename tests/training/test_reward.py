"""The reward model: where it reads, what it holds out, how it is measured, and that a real run learns, normalises and resumes."""

import io
import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from contract.conversation import Preference, Turn
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import need
from contract.plan import Run
from contract.schema import PAIRS
from contract.settings.training import Reward
from evals.rewards import ranking_figures
from reports import gate
from tests.training.conftest import commit
from tests.training.models.test_encoder import write_tokenizer
from training import evaluate, ppo, reward
from training.chat.template import Chat, Fit, open_chat
from training.data.examples import Examples, read_pairs
from training.data.order import rows_of
from training.data.rankings import Ranking, Rankings, ranking_of
from training.engine.engine import lr_at
from training.engine.job import Job
from training.models import llama as model
from training.models.encoder import EncoderReward


def pair(prompt: str, index: int = 0) -> Preference:
    return Preference((Turn("user", prompt),), f"good {index}", f"bad {index}")


def two(prompt: str, chosen: str, rejected: str) -> Ranking:
    return ranking_of([Preference((Turn("user", prompt),), chosen, rejected)])


def ranking(*scores: float | None) -> Ranking:
    """A prompt with a reply for each score, the best first, and a pair of each two."""
    pairs = tuple((one, other) for one in range(len(scores)) for other in range(one + 1, len(scores)))
    return Ranking((Turn("user", "p"),), tuple(f"reply {one}" for one in range(len(scores))), scores, pairs, "chat")


@pytest.fixture(scope="module")
def chat(corpus_store: Callable[..., Run]) -> Chat:
    run = corpus_store(name="chat")
    files = [one.path for one in run.store.files("tokenizer") if one.path.endswith("tokenizer.json")]
    return Chat(Path(run.store.root, files[0]))


def test_a_pair_becomes_two_chats_the_better_first(chat: Chat) -> None:
    one = pair("p", 1)
    found = reward.ranked(chat, ranking_of([one]), 90)
    chats = [chat.encode([*one.prompt, Turn("assistant", reply)], 90)[0] for reply in (one.chosen, one.rejected)]
    assert (found.chats, found.pairs, found.scores, found.scored) == (chats, [(0, 1)], [None, None], False)
    assert found.replies == [chat.response(reply, 90) for reply in (one.chosen, one.rejected)]
    assert found.texts == [one.chosen, one.rejected]


def test_all_replies_answer_the_same_tokens_however_long_they_are(chat: Chat) -> None:
    long = two("Where is the old mill? " * 9, "Here.", "The river stands near the old mill. " * 2)
    found = reward.ranked(chat, long, 48)
    assert found.prompt[-1] == chat.role("assistant")
    assert found.chats == [found.prompt + reply for reply in found.replies]
    assert len(found.chats[1]) == 48, "the longer reply decides"


def test_a_reply_that_lost_its_end_is_left_out_of_its_ranking(chat: Chat) -> None:
    long = "The river stands near the old mill. " * 9
    four = Ranking(
        (Turn("user", "So?"),), ("Yes.", long, "No.", "Yes. "), (5.0, 4.0, None, 1.0), ((0, 1), (0, 2), (1, 3), (2, 3))
    )
    found = reward.ranked(chat, four, 40)
    assert (found.texts, found.scores) == (["Yes.", "No.", "Yes. "], [5.0, None, 1.0])
    assert found.pairs == [(0, 1), (1, 2)], "by their new places"
    assert (found.scored, reward.unfit(found, "pairwise")) == (True, None)
    assert "reply_cut" in found.cuts


def test_why_a_prompt_cannot_be_learned_from(chat: Chat) -> None:
    scored, plain = reward.ranked(chat, ranking(3.0, None), 90), reward.ranked(chat, ranking(None, None), 90)
    assert [reward.unfit(scored, one) for one in ("pairwise", "both", "regression")] == [None, None, None]
    assert [reward.unfit(plain, one) for one in ("pairwise", "both", "regression")] == [None, None, "no_scores"]
    tied = reward.ranked(chat, Ranking((Turn("user", "p"),), ("a", "b"), (3.0, 3.0), ()), 90)
    assert [reward.unfit(tied, one) for one in ("both", "regression")] == ["equal", None]


def table(pairs: list[Preference]) -> Rankings:
    rows = [{"prompt": one.prompt[0].text, "chosen": one.chosen, "rejected": one.rejected} for one in pairs]
    return Rankings(
        Examples(
            pa.Table.from_pylist(rows),
            lambda row: Preference((Turn("user", row["prompt"]),), row["chosen"], row["rejected"]),
        )
    )


@pytest.mark.parametrize("world", [1, 2])
def test_pairs_that_became_equal_or_lost_their_end_are_left_out_and_counted(chat: Chat, world: int) -> None:
    same = "The river stands near the old mill. " * 9
    cut = [
        Preference((Turn("user", "Where?"),), same + "Yes.", same + "No."),
        Preference((Turn("user", "So?"),), "Yes.", same),
        Preference((Turn("user", "Twice?"),), "Yes.", "Yes."),
    ]
    rankings = table([pair("a", 1), cut[0], pair("b", 2), cut[1], cut[2], pair("Where is the old mill? " * 9, 3)])
    own: list[Any] = []

    def sifted(rank: int, gather: Callable[[Any], Any], some: Rankings = rankings) -> Any:
        ranks = SimpleNamespace(rank=rank, world=world, gather=gather)
        job: Any = SimpleNamespace(ranks=ranks, task=SimpleNamespace(stage="reward"))
        return reward.sift(job, Reward(max_tokens=40), chat, some, "pairwise")

    for rank in range(world):
        sifted(rank, lambda mine: own.append(mine) or [mine])
    shares = [{row for row in (1, 3, 4) if row % world == rank} for rank in range(world)]
    assert [set(mine) for mine, _ in own] == shares
    found = sifted(0, lambda mine: own)
    assert (found.kept.numbers, list(found.kept)) == ([0, 2, 5], [rankings[row] for row in (0, 2, 5)])
    assert found.dropped == {"equal": 1, "lost_end": 2, "no_scores": 0}
    assert found.cuts == {"turns_dropped": 0, "system_dropped": 0, "prompt_cut": 1, "reply_cut": 0}, "of those kept"
    said = r"reward: none of 2 prompts keeps replies .* reward.max_tokens 40 \(lost_end 2\); raise it"
    with pytest.raises(InputError, match=said):
        sifted(0, lambda mine: [({0: reward.Unfit.LOST_END, 1: reward.Unfit.LOST_END}, {})], table(cut[:2]))


def test_the_judge_and_the_reward_model_learn_from_other_prompts() -> None:
    rankings = table([pair(f"q{index // 2}", index) for index in range(800)])
    job: Any = SimpleNamespace(task=SimpleNamespace(stage="judge"))
    theirs, ours = (reward.divided(job, rankings, 0.3, judge) for judge in (True, False))
    assert sorted([*theirs.numbers, *ours.numbers]) == list(range(0, 800, 2)), "two pairs of a prompt are one ranking"
    assert {one.prompt for one in theirs}.isdisjoint(one.prompt for one in ours)
    assert 80 < len(theirs) < 160
    more = reward.divided(job, rankings, 0.5, judge=True)
    assert set(theirs.numbers) < set(more.numbers), "a larger share only adds"
    assert reward.divided(job, rankings, 0.0, judge=False).numbers == rankings.numbers
    with pytest.raises(InputError, match=r"judge: judge.share 0 leaves it none of 400 training prompts; raise it"):
        reward.divided(job, rankings, 0.0, judge=True)


def group(scores: list[float | None], pairs: list[tuple[int, int]]) -> reward.Ranked:
    return reward.Ranked([1], [[2]] * len(scores), ["r"] * len(scores), scores, pairs, frozenset())


def test_the_loss_of_a_ranking_is_the_mean_over_its_pairs_and_of_a_score_the_squared_error() -> None:
    rewards = torch.tensor([0.5, 1.0, -0.5, 2.0, 0.0], requires_grad=True)
    groups = [group([3.0, 2.0, 2.0], [(0, 1), (0, 2)]), group([None, None], [(0, 1)])]

    def surprise(margin: float) -> float:
        return math.log1p(math.exp(-margin))

    first, second = (surprise(-0.5) + surprise(1.0)) / 2, surprise(2.0)
    error = ((0.5 - 3) ** 2 + (1 - 2) ** 2 + (-0.5 - 2) ** 2) / 3
    found = reward.losses_of(rewards, groups, "both", 0.25)
    assert float(found.pairwise) == pytest.approx(first + second)
    assert float(found.regression) == pytest.approx(error), "a pair that nobody scored has no score to learn"
    assert float(found.total.detach()) == pytest.approx(first + second + 0.25 * error)
    assert float(found.right) == pytest.approx(0.5 + 1)
    weighted = [replace(groups[0], weights=(0.5, 3.0)), groups[1]]
    heavy = reward.losses_of(rewards, weighted, "pairwise", 0.0)
    assert float(heavy.pairwise) == pytest.approx((0.5 * surprise(-0.5) + 3 * surprise(1.0)) / 2 + second)
    assert float(heavy.right) == pytest.approx(0.5 + 1), "how many are ranked right is not weighted"
    unpaired = reward.losses_of(rewards[:3], [group([3.0, 2.0, 2.0], [])], "both", 2.0)
    assert float(unpaired.total.detach()) == pytest.approx(2 * error)
    for objective, total in (("pairwise", first + second), ("regression", error)):
        assert float(reward.losses_of(rewards, groups, objective, 0.25).total.detach()) == pytest.approx(total)
    (gradient,) = torch.autograd.grad(reward.losses_of(rewards, groups, "pairwise", 0.0).total, rewards)
    expected = [-1 / (1 + math.exp(margin)) for margin in (-0.5, 1.0, 2.0)]
    assert gradient.tolist() == pytest.approx(
        [(expected[0] + expected[1]) / 2, -expected[0] / 2, -expected[1] / 2, expected[2], -expected[2]]
    )


@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 5), (2, 9), (3, 2)])
def test_judging_is_split_over_processes(world: int, count: int) -> None:
    """Each process calls the model equally often, for under ZeRO 3 it would hang otherwise; together they judge every prompt once."""
    chat = SimpleNamespace(
        fit=lambda turns, replies, limit: Fit(
            [1 + int(turns[0].text)], [0], [[1 if one[0] == "g" else 2, 9] for one in replies], frozenset()
        ),
        pad=0,
        end_of_text=9,
    )
    settings = Reward(engine={"micro_batch": 2}, batch=2)
    shapes: list[list[int]] = []
    judged: dict[int, list[float]] = {}

    def rows(own: dict[int, list[float]]) -> list[list[float]]:
        assert judged.keys().isdisjoint(own)
        judged.update(own)
        return [judged[row] for row in sorted(judged)]

    for rank in range(world):
        called: list[int] = []

        def module(tokens: torch.Tensor, attention: torch.Tensor, called: list[int] = called) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            called.append(len(tokens))
            return (tokens[:, :1] * 10 + tokens[:, 1:2]).expand(-1, 3).float()

        job: Any = SimpleNamespace(ranks=SimpleNamespace(rank=rank, world=world, device="cpu", rows=rows))
        some = [ranking_of([pair(str(index), index)]) for index in range(count)]
        found = reward.score_groups(job, settings, module, chat, some)  # type: ignore[arg-type]
        shapes.append(called)
    assert found == [[10 * (1 + index) + 1, 10 * (1 + index) + 2] for index in range(count)]
    assert {len(called) for called in shapes} == {math.ceil(math.ceil(count / 2) / world)}
    assert max(max(called) for called in shapes) <= 4


def test_the_worst_pairs_are_those_with_the_largest_wrong_margins_and_their_texts_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reward, "WORST", 3)
    long = Preference((Turn("system", "Be kind."), Turn("user", "q" * 9000)), "y" * 9000, "n" * 9000)
    rankings = [ranking_of([one]) for one in (pair("right"), pair("a little wrong"), long, pair("a tie"))]
    rankings.append(ranking(2.0, 1.0, 0.0))
    rewards = [[1.0, 0.0], [0.0, 0.1], [-2.0, 1.0], [5.0, 5.0], [0.0, 1.0, 0.5]]
    groups = [
        reward.Ranked(
            [1], [[2], [2, 2], [2, 2, 2]][: len(one.replies)], [*one.replies], [*one.scores], [*one.pairs], frozenset()
        )
        for one in rankings
    ]
    seen = [reward.judged(*one) for one in zip(rankings, groups, rewards, strict=True)]
    found = reward.calibration(rankings, [7, 8, 9, 10, 11], groups, seen)
    assert [(one["row"], one["margin"]) for one in found["worst"]] == [(9, -3.0), (11, -1.0), (11, -0.5)]
    first, second, third = found["worst"]
    assert first["prompt"] == ("system: Be kind.\nuser: " + "q" * 9000)[:2000]
    assert (first["chosen"], first["rejected"]) == ("y" * 2000, "n" * 2000)
    assert (first["reward_chosen"], first["reward_rejected"]) == (-2.0, 1.0)
    assert (second["prompt"], second["chosen"], second["rejected"]) == (
        "user: p",
        "reply 0",
        "reply 1",
    )
    assert (third["chosen"], third["rejected"]) == ("reply 0", "reply 2")
    assert sum(one["pairs"] for one in found["bins"]) == 7
    assert [sum(found["histograms"][side]) for side in ("better", "worse")] == [7, 7]
    assert json.loads(json.dumps(found)) == found


def test_a_held_out_ranking_knows_its_task_and_its_opening() -> None:
    turns = (Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "More"))
    one = ranking_of([Preference(turns, "y", "n", "poems")])
    found = reward.judged(one, group([None, None], [(0, 1)]), [0.5, 0.25])
    assert (found.task, found.prompt, found.rewards, found.pairs) == ("poems", "Hi", (0.5, 0.25), ((0, 1),))


def test_a_run_learns_to_rank_and_saves_normalised_rewards(
    align: Callable[..., Job], curves: Callable[..., Any]
) -> None:
    job = align("gate")  # which has reward run
    manifest = job.manifest("reward")
    metrics = manifest.metrics
    assert metrics["accuracy_low"] > 0.6
    assert metrics["accuracy_low"] < metrics["accuracy"] <= metrics["accuracy_high"] + 1e-9
    assert {file.path.rpartition("/")[2]: file.kind for file in manifest.files} == {
        "events.out.tfevents.0000000000.gristmill": "events",
        "calibration.json": "calibration",
        "curves.json": "curves",
        "metrics.jsonl": "metrics",
        **dict.fromkeys(("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"), "model"),
    }
    judged = align("reward")
    chat, settings = open_chat(judged), judged.settings
    whole = [Rankings(read_pairs(judged, kind)) for kind in (Kind.PAIRS, Kind.HELDOUT_PAIRS)]
    whole[0] = reward.divided(judged, whole[0], 0.3, judge=False)
    train, heldout = (reward.sift(judged, settings, chat, rankings, "pairwise").kept for rankings in whole)
    assert metrics["dropped"] == {
        name: {"equal": 0, "lost_end": len(pairs) - len(kept), "no_scores": 0}
        for name, pairs, kept in zip(("training", "heldout"), whole, (train, heldout), strict=True)
    }
    groups = [reward.ranked(chat, one, settings.max_tokens) for one in heldout]
    pairs = sum(len(one.pairs) for one in groups)
    assert metrics["heldout_pairs"] == pairs > len(heldout), "some prompts have two pairs"
    loaded = reward.load_reward_model(judged, manifest).eval()
    again, rewards = figures_of(judged, loaded, heldout)
    assert again["accuracy"] == metrics["accuracy"]
    assert again["shorter_accuracy"] == metrics["shorter_accuracy"]
    assert 0 < metrics["shorter_pairs"] < pairs
    assert metrics["heldout_mse"] is None, "nobody scored these replies"
    shown = gate.view(judged.attempt.run)
    assert shown.calibration is not None
    bins, worst = shown.calibration.bins, shown.calibration.worst
    assert sum(one.pairs for one in bins) == pairs
    assert sum(one.pairs * one.right for one in bins) == pytest.approx(metrics["heldout_correct"])
    gaps = sum(one.pairs * abs(one.confidence - one.right) for one in bins)
    assert gaps / pairs == pytest.approx(metrics["ece"])
    wrong = sorted(
        (given[better] - given[worse], row, one.texts[better], one.texts[worse])
        for row, one, given in zip(heldout.numbers, groups, rewards, strict=True)
        for better, worse in one.pairs
        if given[better] < given[worse]
    )
    assert [(one.row, one.chosen, one.rejected) for one in worst] == [pair[1:] for pair in wrong[: reward.WORST]]
    assert metrics["pairs"] == len(train)
    # The curves: one row an update, at the schedule's rate; the first one is the untrained model's on the first batch.
    rows, optim = curves(Job(judged.attempt.run, judged.task, judged.attempt)), settings.optim
    steps = math.ceil(len(train) * 3 / 16)
    assert [step for step, _ in rows["loss"]] == list(range(1, steps + 1))
    assert [value for _, value in rows["lr"]] == [lr_at(step, steps, optim) for step in range(steps)]
    assert all(value > 0 for _, value in rows["grad_norm"])
    fresh = reward.RewardModel(model.load_model(judged, judged.manifest("sft")).model, settings.seed)
    first = [train[row] for row in rows_of(0, 16, len(train), settings.seed)]
    alone = [figures_of(judged, fresh, [one])[0] for one in first]
    assert rows["loss"][0][1] == pytest.approx(sum(one["heldout_loss"] for one in alone) / 16, rel=1e-4)
    assert rows["accuracy"][0][1] == pytest.approx(sum(one["accuracy"] for one in alone) / 16)
    assert (again["reward_mean"], again["reward_std"]) == pytest.approx((0.0, 1.0), abs=1e-4)
    # What transformers makes of the committed folder, its rows padded on the right.
    opened = AutoModelForSequenceClassification.from_pretrained(model.fetch(judged, manifest)).eval()
    ids = [one for part in heldout[:8] for one in reward.ranked(chat, part, settings.max_tokens).chats]
    pad, width = opened.config.pad_token_id, max(map(len, ids))
    tokens = torch.tensor([[*one, *[pad] * (width - len(one))] for one in ids])
    with torch.no_grad():
        scores = opened(input_ids=tokens, attention_mask=(tokens != pad).long()).logits[:, 0]
    expected = torch.tensor([one for given in rewards[:8] for one in given])
    torch.testing.assert_close(scores - opened.config.reward_mean, expected, atol=1e-5, rtol=0)


def figures_of(job: Job, module: Any, pairs: Sequence[Ranking]) -> tuple[dict[str, Any], list[list[float]]]:
    """The figures of a model on pairs, and its rewards of each."""
    chat = open_chat(job)
    rewards = reward.score_groups(job, job.settings, module, chat, pairs)
    groups = [reward.ranked(chat, one, job.settings.max_tokens) for one in pairs]
    return ranking_figures([reward.judged(*one) for one in zip(pairs, groups, rewards, strict=True)]), rewards


def test_it_may_start_from_another_decoder_than_the_policy(align: Callable[..., Job], tmp_path: Path) -> None:
    """A larger GPT-2 of the run's tokenizer; PPO's critic and judge are then of that kind."""
    chat = open_chat(align("reward"))
    shape = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
    larger = GPT2LMHeadModel(GPT2Config(vocab_size=chat.vocab_size, pad_token_id=chat.pad, **shape))
    larger.save_pretrained(tmp_path)
    shutil.copyfile(chat.path, tmp_path / "tokenizer.json")
    job = align("reward", f"reward.start_from={tmp_path}", "reward.epochs=1")
    reward.run(job)
    manifest = need(job.store, job.task)
    made = reward.load_reward_model(job, manifest)
    assert (made.decoder.config.model_type, made.decoder.config.n_layer) == ("gpt2", 3)
    assert manifest.metrics["accuracy"] > 0.6
    moved = made.decoder.h[0].mlp.c_fc.weight - larger.transformer.h[0].mlp.c_fc.weight
    assert 0 < float(moved.abs().max()) < 0.2, "it began with these weights"
    (tmp_path / "tokenizer.json").unlink()
    rankings = Rankings(read_pairs(job, Kind.PAIRS))
    with pytest.raises(InputError, match=r"reward.start_from: .* has no tokenizer"):
        reward.fresh(job, job.settings, rankings)


def test_it_may_be_an_encoder_with_a_tokenizer_of_its_own(align: Callable[..., Job], tmp_path: Path) -> None:
    """PPO then hands it the texts of the replies, and its critic starts from the SFT model."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=200, max_position_embeddings=66, **shape)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    brought = (f"reward.start_from={tmp_path}", "reward.epochs=2", "ppo.steps=1", "gate.min_accuracy=0")
    job = align("ppo", *brought)  # which has reward run
    manifest = job.manifest("reward")
    assert manifest.metrics["accuracy_low"] > 0.6
    made = reward.load_reward_model(job, manifest).eval()
    assert isinstance(made, EncoderReward)
    judged = align("reward", *brought)
    heldout = Rankings(read_pairs(judged, Kind.HELDOUT_PAIRS))
    reader, settings = reward.reader_of(judged, judged.settings), judged.settings
    heldout = reward.sift(judged, settings, reader, heldout, "pairwise").kept
    groups = [reward.ranked(reader, one, settings.max_tokens) for one in heldout]
    rewards = reward.score_groups(judged, settings, made, reader, heldout)
    again = ranking_figures([reward.judged(*one) for one in zip(heldout, groups, rewards, strict=True)])
    assert again["accuracy"] == manifest.metrics["accuracy"]
    assert (again["reward_mean"], again["reward_std"]) == pytest.approx((0.0, 1.0), abs=1e-4)
    folder = model.fetch(job, manifest)
    opened = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    first = heldout[0]
    dialogue = "".join(f"{turn.role}: {turn.text}\n" for turn in first.prompt)
    given = tokenizer([dialogue] * len(first.replies), list(first.replies), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert opened(**given).logits[:, 0].tolist() == pytest.approx(rewards[0], abs=1e-4)
        chat = open_chat(job)
        ids = [chat.response(reply, 64) for reply in first.replies]
        asked, texts = [first.prompt] * len(ids), [chat.decode(one) for one in ids]
        sampled = reward.rewards_of_texts(made, asked, texts, torch.device("cpu"))
    assert sampled.tolist() == pytest.approx(rewards[0], abs=1e-4), "the policy's tokens are read as their text"
    measured = evaluate.rewards(job, made, asked, [[1]] * len(ids), ids, chat)
    assert measured == pytest.approx(rewards[0], abs=1e-4)
    critic, tuned = reward.critic_of(job, "fp32"), model.load_model(job, job.manifest("sft"))
    assert critic.head.weight.abs().max() == 0
    assert torch.equal(critic.decoder.embed_tokens.weight, tuned.model.embed_tokens.weight)
    with pytest.raises(InputError, match=r"ppo.critic head: the reward model is an encoder"):
        ppo.headed(made)
    ppo.run(job)
    assert math.isfinite(need(job.store, job.task).metrics["reward_last"])


EARLY = ("reward.pretrain_tasks=[votes]", "reward.pretrain_epochs=2", "judge.share=0")


def test_public_comparisons_are_learned_first_and_measured_nowhere(
    align: Callable[..., Job], final_tensors: Callable[..., Any], curves: Callable[..., Any], tmp_path: Path
) -> None:
    """Preference model pre-training: its tasks come from a source of their own. A run stopped in it ends as one that was not."""
    for name, better in (("votes", "river"), ("own", "mill")):
        rows = [
            {"prompt": f"{name} question {n}?", "chosen": f"The {better} {n}", "rejected": f"The stone {n}"}
            for n in range(60)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = ", ".join(f"{name}: {{data: {tmp_path}/{name}.jsonl}}" for name in ("votes", "own"))
    asked = (*EARLY, f"preferences.sources={{{sources}}}", "reward.epochs=1", "reward.engine.checkpoint_steps=2")
    whole, resumed = final_tensors("reward", None, *asked), final_tensors("reward", 3, *asked)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    job = align("reward", *asked)
    train = Rankings(read_pairs(job, Kind.PAIRS))
    early, others = reward.phases_of(job, job.settings, train)
    assert {one.task for one in early} == {"votes"}
    assert {one.task for one in others} == {"own"}
    assert len(early) + len(others) == len(train)
    steps = [math.ceil(len(early) * 2 / 16), math.ceil(len(others) / 16)]
    assert whole["figure/pretrain_steps"] == steps[0]
    assert (whole["figure/pretrain_pairs"], whole["figure/pairs"]) == (len(early), len(others))
    assert len(whole["curve/loss"]) == sum(steps)
    assert whole["figure/heldout_pairs"] == 120 - len(train) - sum(
        one.task == "votes" for one in read_pairs(job, Kind.HELDOUT_PAIRS)
    )
    rate = [value for _, value in whole["curve/lr"].tolist()]
    assert rate == [lr_at(step, sum(steps), job.settings.optim) for step in range(sum(steps))], "one schedule over both"
    none = job.settings.model_copy(update={"pretrain_tasks": ("vote",)})
    with pytest.raises(InputError, match=r"reward.pretrain_tasks vote: among the tasks .* none \(own, votes\); name"):
        reward.phases_of(job, none, train)
    every = job.settings.model_copy(update={"pretrain_tasks": ("votes", "own")})
    with pytest.raises(InputError, match=r"are nothing but these \(own, votes\)"):
        reward.phases_of(job, every, train)


@pytest.mark.parametrize("objective", ["pairwise", "regression", "both"])
def test_ranked_and_scored_replies_are_learned(
    objective: str, align: Callable[..., Job], curves: Callable[..., Any]
) -> None:
    """Replies about a river are good, the more often the better: a known ranking of four replies to a prompt."""
    job = align("reward", f"reward.objective={objective}", "reward.regression_coef=0.5", "preferences.seed=7")
    run = job.attempt.run
    told = commit_rankings(run)
    reward.run(job)
    metrics = need(run.store, job.task).metrics
    assert metrics["heldout_pairs"] == 6 * metrics["heldout_prompts"] == 6 * told
    assert metrics["heldout_correlation"] > 0.7
    assert metrics["accuracy"] > 0.85
    rows = curves(Job(run, job.task, job.attempt))
    if objective == "pairwise":
        assert "regression_loss" not in rows
        return
    assert metrics["heldout_mse"] < 1.25, "the scores' own variance is 1.25"
    coefs = {"regression": (0.0, 1.0), "both": (1.0, 0.5)}[objective]
    for (_, loss), (_, ranked), (_, error) in zip(
        rows["loss"], rows["pairwise_loss"], rows["regression_loss"], strict=True
    ):
        assert loss == pytest.approx(coefs[0] * ranked + coefs[1] * error, rel=1e-5)


def commit_rankings(run: Run) -> int:
    """Commit preferences of four scored replies to each prompt; returns the held-out prompts."""
    replies = [" ".join(["The river"] * count + ["the mill"] * (3 - count)) for count in (3, 2, 1, 0)]
    files = {}
    for kind, count, first in ((Kind.PAIRS, 160, 0), (Kind.HELDOUT_PAIRS, 16, 160)):
        rows = [
            {
                "id": f"{number:030x}{better}{worse}", "source": "x", "task": "", "chosen": replies[better],
                "rejected": replies[worse], "prompt": [{"role": "user", "text": f"Question {number}?"}],
                "chosen_score": 4.0 - better, "rejected_score": 4.0 - worse,
            }
            for better, worse in itertools.combinations(range(4), 2)
            for number in range(first, first + count)
        ]  # fmt: skip
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, PAIRS), sink, write_page_checksum=True)
        files[f"{kind}.parquet"] = (kind, sink.getvalue(), len(rows))
    task = run.task("preferences")
    run.store.delete(f"{task.prefix}/manifest.json")
    commit(run, "preferences", files)
    return 16


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    final_tensors: Callable[..., Any], tmp_path: Path
) -> None:
    """From a file, two of whose rows are no pairs."""
    rows = [
        {"chosen": f"\n\nHuman: q{n}\n\nAssistant: yes {n}", "rejected": f"\n\nHuman: q{n}\n\nAssistant: no"}
        for n in range(60)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("{}\nnot JSON\n" + "".join(json.dumps(row) + "\n" for row in rows))
    less = ("reward.epochs=2", f"preferences.data={path}", "reward.engine.micro_batch=4", "judge.share=0")
    whole, resumed = final_tensors("reward", None, *less), final_tensors("reward", 3, *less)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert whole["figure/pairs"] + whole["figure/heldout_pairs"] == 60


def test_two_processes_keep_the_calibration_of_one(
    align: Callable[..., Job], run_two: Callable[..., list[str]]
) -> None:
    job = align("reward", "reward.epochs=1", "reward.engine={micro_batch: 4, zero_stage: 3}")
    run_two("-m", "training", "reward", "--recipe", job.attempt.run.uri)
    two = gate.view(job.attempt.run)
    job.store.delete(f"{job.task.prefix}/manifest.json")
    reward.run(job)
    one = gate.view(job.attempt.run)
    assert two.calibration is not None
    assert one.calibration is not None
    kept = ("low", "high", "pairs", "right")
    for found, expected in zip(two.calibration.bins, one.calibration.bins, strict=True):
        assert [getattr(found, name) for name in kept] == [getattr(expected, name) for name in kept]
        assert found.confidence == pytest.approx(expected.confidence, rel=1e-3)
    assert [pair.row for pair in two.calibration.worst] == [pair.row for pair in one.calibration.worst]
    assert [pair.margin for pair in two.calibration.worst] == pytest.approx(
        [pair.margin for pair in one.calibration.worst], rel=1e-2, abs=1e-3
    )

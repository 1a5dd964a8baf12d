"""The reward model: where it reads, what it holds out, how it is measured, and that a real run learns, normalises and resumes."""

import io
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from contract.conversation import Preference, Scored, Turn
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import need
from contract.plan import Run
from contract.schema import PAIRS
from contract.settings.training import Reward
from evals.rewards import ranking_figures
from reports import gate
from tests.training.conftest import commit
from training import reward
from training.chat.template import Chat, Fit, open_chat
from training.data.examples import Examples, read_pairs
from training.data.order import rows_of
from training.engine.engine import lr_at
from training.engine.job import Job
from training.models import llama as model


def pair(prompt: str, index: int = 0) -> Preference:
    return Preference((Turn("user", prompt),), f"good {index}", f"bad {index}")


@pytest.fixture(scope="module")
def chat(corpus_store: Callable[..., Run]) -> Chat:
    run = corpus_store(name="chat")
    files = [one.path for one in run.store.files("tokenizer") if one.path.endswith("tokenizer.json")]
    return Chat(Path(run.store.root, files[0]))


def ranking(*scores: float, prompt: str = "p") -> Preference:
    """A prompt with a reply for each score."""
    texts = [f"reply {number}" for number in range(len(scores))]
    replies = tuple(Scored(text, score) for text, score in zip(texts, scores, strict=True))
    return Preference((Turn("user", prompt),), texts[0], texts[-1], replies)


def test_a_pair_becomes_two_chats_the_better_first(chat: Chat) -> None:
    one = pair("p", 1)
    found = reward.ranked(chat, one, 90)
    chats = [chat.encode([*one.prompt, Turn("assistant", reply)], 90)[0] for reply in (one.chosen, one.rejected)]
    assert (found.chats, found.scores, found.scored) == (chats, [1.0, 0.0], False)
    assert found.sizes == [len(chat.response(reply, 90)) for reply in (one.chosen, one.rejected)]
    assert found.texts == [one.chosen, one.rejected]


def test_all_replies_answer_the_same_tokens_however_long_they_are(chat: Chat) -> None:
    long = Preference(
        (Turn("user", "Where is the old mill? " * 9),), "Here.", "The river stands near the old mill. " * 2
    )
    found = reward.ranked(chat, long, 48)
    prompts = [ids[: len(ids) - size] for ids, size in zip(found.chats, found.sizes, strict=True)]
    assert prompts[0] == prompts[1]
    assert prompts[0][-1] == chat.role("assistant")
    assert len(found.chats[1]) == 48, "the longer reply decides"


def test_of_many_replies_the_best_the_worst_and_some_between_are_compared(chat: Chat) -> None:
    found = reward.ranked(chat, ranking(*range(40, 0, -1)), 90)
    assert found.scores == [40, 36, 31, 26, 21, 16, 11, 6, 1]
    assert reward.ranked(chat, ranking(*range(9, 0, -1)), 90).scores == [*range(9, 0, -1)]


def test_a_reply_that_lost_its_end_or_repeats_a_better_one_is_left_out_of_its_ranking(chat: Chat) -> None:
    long = "The river stands near the old mill. " * 9
    replies = (Scored("Yes.", 5.0), Scored(long, 4.0), Scored("No.", 3.0), Scored("Yes.", 1.0))
    found = reward.ranked(chat, Preference((Turn("user", "So?"),), "Yes.", "Yes.", replies), 40)
    assert (found.texts, found.scores) == (["Yes.", "No."], [5.0, 3.0])
    assert reward.unfit(found, "pairwise") is None
    assert "reply_cut" in found.cuts


def test_why_a_prompt_cannot_be_learned_from(chat: Chat) -> None:
    tied, two = reward.ranked(chat, ranking(3.0, 3.0), 90), reward.ranked(chat, pair("p"), 90)
    assert [reward.unfit(tied, one) for one in ("pairwise", "both", "regression")] == ["tied", "tied", None]
    assert [reward.unfit(two, one) for one in ("pairwise", "both", "regression")] == [None, None, "no_scores"]


def pairs_table(pairs: list[Preference]) -> Examples[Preference]:
    rows = [{"prompt": one.prompt[0].text, "chosen": one.chosen, "rejected": one.rejected} for one in pairs]
    return Examples(
        pa.Table.from_pylist(rows),
        lambda row: Preference((Turn("user", row["prompt"]),), row["chosen"], row["rejected"]),
    )


@pytest.mark.parametrize("world", [1, 2])
def test_pairs_that_became_equal_or_lost_their_end_are_left_out_and_counted(chat: Chat, world: int) -> None:
    same = "The river stands near the old mill. " * 9
    cut = [
        Preference((Turn("user", "Where?"),), same + "Yes.", same + "No."),
        Preference((Turn("user", "So?"),), "Yes.", same),
        Preference((Turn("user", "Twice?"),), "Yes.", "Yes."),
    ]
    pairs = pairs_table([pair("a", 1), cut[0], pair("b", 2), cut[1], cut[2]])
    own: list[Any] = []

    def sifted(rank: int, gather: Callable[[Any], Any], some: Examples[Preference] = pairs) -> Any:
        ranks = SimpleNamespace(rank=rank, world=world, gather=gather)
        job: Any = SimpleNamespace(ranks=ranks, task=SimpleNamespace(stage="reward"))
        return reward.sift(job, Reward(max_tokens=40), chat, some, "pairwise")

    for rank in range(world):
        sifted(rank, lambda mine: own.append(mine) or [mine])
    assert [set(mine) for mine in own] == [{row for row in (1, 3, 4) if row % world == rank} for rank in range(world)]
    kept, dropped = sifted(0, lambda mine: own)
    assert (list(kept.numbers), list(kept)) == ([0, 2], [pairs[0], pairs[2]])
    assert dropped == {"equal": 1, "lost_end": 2}
    said = r"reward: none of 2 prompts keeps two replies .* reward.max_tokens 40 \(lost_end 2\); raise it"
    with pytest.raises(InputError, match=said):
        sifted(0, lambda mine: [{0: reward.Unfit.LOST_END, 1: reward.Unfit.LOST_END}], pairs_table(cut[:2]))


def test_the_judge_and_the_reward_model_learn_from_other_prompts(chat: Chat) -> None:
    pairs = pairs_table([pair(f"q{index // 2}", index) for index in range(400)])
    job: Any = SimpleNamespace(task=SimpleNamespace(stage="judge"))
    theirs, ours = (reward.divided(job, pairs, 0.3, judge) for judge in (True, False))
    assert sorted([*theirs.numbers, *ours.numbers]) == list(range(400))
    assert {one.prompt for one in theirs}.isdisjoint(one.prompt for one in ours)
    assert 80 < len(theirs) < 160
    more = reward.divided(job, pairs, 0.5, judge=True)
    assert set(theirs.numbers) < set(more.numbers), "a larger share only adds"
    assert list(reward.divided(job, pairs, 0.0, judge=False).numbers) == list(range(400))
    with pytest.raises(InputError, match=r"judge: judge.share 0 leaves it none of 400 training pairs; raise it"):
        reward.divided(job, pairs, 0.0, judge=True)


def group(scores: list[float], scored: bool = True) -> reward.Ranked:
    return reward.Ranked([[1]] * len(scores), scores, [1] * len(scores), scored, frozenset(), ["r"] * len(scores))


def test_the_loss_of_a_ranking_is_the_mean_over_its_pairs_and_of_a_score_the_squared_error() -> None:
    rewards = torch.tensor([0.5, 1.0, -0.5, 2.0, 0.0], requires_grad=True)
    groups = [group([3.0, 2.0, 2.0]), group([1.0, 0.0], scored=False)]

    def surprise(margin: float) -> float:
        return math.log1p(math.exp(-margin))

    first, second = (surprise(-0.5) + surprise(1.0)) / 2, surprise(2.0)
    error = ((0.5 - 3) ** 2 + (1 - 2) ** 2 + (-0.5 - 2) ** 2) / 3
    found = reward.losses_of(rewards, groups, "both", 0.25)
    assert float(found.pairwise) == pytest.approx(first + second)
    assert float(found.regression) == pytest.approx(error), "a pair that nobody scored has no score to learn"
    assert float(found.total.detach()) == pytest.approx(first + second + 0.25 * error)
    assert float(found.right) == pytest.approx(0.5 + 1)
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
        some = [pair(str(index), index) for index in range(count)]
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
    pairs = [pair("right"), pair("a little wrong"), long, pair("a tie"), ranking(2.0, 1.0, 0.0)]
    rewards = [[1.0, 0.0], [0.0, 0.1], [-2.0, 1.0], [5.0, 5.0], [0.0, 1.0, 0.5]]
    groups = [
        reward.Ranked([], [2.0, 1.0, 0.0][: len(one)], [1, 2, 3][: len(one)], False, frozenset(), [*texts])
        for one, texts in zip(
            rewards, [*((one.chosen, one.rejected) for one in pairs[:4]), ("best", "good", "bad")], strict=True
        )
    ]
    seen = [reward.judged(*one) for one in zip(pairs, groups, rewards, strict=True)]
    found = reward.calibration(pairs, [7, 8, 9, 10, 11], groups, seen)
    assert [(one["row"], one["margin"]) for one in found["worst"]] == [(9, -3.0), (11, -1.0), (11, -0.5)]
    first, second, third = found["worst"]
    assert first["prompt"] == ("system: Be kind.\nuser: " + "q" * 9000)[:2000]
    assert (first["chosen"], first["rejected"]) == ("y" * 2000, "n" * 2000)
    assert (first["reward_chosen"], first["reward_rejected"]) == (-2.0, 1.0)
    assert (second["prompt"], second["chosen"], second["rejected"]) == ("user: p", "best", "good")
    assert (third["chosen"], third["rejected"]) == ("best", "bad")
    assert sum(one["pairs"] for one in found["bins"]) == 7
    assert [sum(found["histograms"][side]) for side in ("better", "worse")] == [7, 7]
    assert json.loads(json.dumps(found)) == found


def test_a_held_out_reply_knows_its_file_and_its_opening() -> None:
    turns = (Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "More"))
    for source, expected in (("a/b.jsonl line 12", "a/b.jsonl"), ("all.json item 3", "all.json"), ("0f" * 16, "")):
        one = Preference(turns, "y", "n", source=source)
        found = reward.judged(one, group([1.0, 0.0]), [0.5, 0.25])
        assert (found.source, found.prompt, found.rewards) == (expected, "Hi", (0.5, 0.25))


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
    held = read_pairs(judged, Kind.HELDOUT_PAIRS)
    whole = [reward.divided(judged, read_pairs(judged, Kind.PAIRS), 0.3, judge=False), held]
    (train, _), (heldout, _) = (reward.sift(judged, settings, chat, pairs, "pairwise") for pairs in whole)
    assert metrics["dropped"] == {
        name: {"equal": 0, "lost_end": len(pairs) - len(kept), "tied": 0, "no_scores": 0}
        for name, pairs, kept in zip(("training", "heldout"), whole, (train, heldout), strict=True)
    }
    assert len(heldout) == metrics["heldout_pairs"]
    loaded = reward.load_reward_model(judged, manifest).eval()
    again, rewards = figures_of(judged, loaded, heldout)
    assert again["accuracy"] == metrics["accuracy"]
    assert again["shorter_accuracy"] == metrics["shorter_accuracy"]
    assert 0 < metrics["shorter_pairs"] < len(heldout)
    assert metrics["heldout_mse"] is None, "nobody scored these replies"
    shown = gate.view(judged.attempt.run)
    assert shown.calibration is not None
    bins, worst = shown.calibration.bins, shown.calibration.worst
    assert sum(one.pairs for one in bins) == len(heldout)
    assert sum(one.pairs * one.right for one in bins) == pytest.approx(metrics["heldout_correct"])
    gaps = sum(one.pairs * abs(one.confidence - one.right) for one in bins)
    assert gaps / len(heldout) == pytest.approx(metrics["ece"])
    margins = [better - worse for better, worse in rewards]
    wrong = sorted((row for row, margin in enumerate(margins) if margin < 0), key=lambda row: margins[row])
    assert [one.row for one in worst] == [heldout.numbers[row] for row in wrong[: reward.WORST]]
    assert [(one.chosen, one.rejected) for one in worst] == [
        (held[one.row].chosen, held[one.row].rejected) for one in worst
    ]
    assert metrics["pairs"] == len(train)
    # The curves: one row an update, at the schedule's rate; the first one is the untrained model's on the first batch.
    rows, optim = curves(Job(judged.attempt.run, judged.task, judged.attempt)), settings.optim
    steps = math.ceil(len(train) * 3 / 16)
    assert [step for step, _ in rows["loss"]] == list(range(1, steps + 1))
    assert [value for _, value in rows["lr"]] == [lr_at(step, steps, optim) for step in range(steps)]
    assert all(value > 0 for _, value in rows["grad_norm"])
    fresh = reward.RewardModel(model.load_model(judged, judged.manifest("sft")).model, settings.seed)
    first = [train[row] for row in rows_of(0, 16, len(train), settings.seed)]
    untrained, _ = figures_of(judged, fresh, first)
    assert rows["loss"][0][1] == pytest.approx(untrained["heldout_loss"], rel=1e-4)
    assert rows["accuracy"][0][1] == pytest.approx(untrained["accuracy"])
    assert (again["reward_mean"], again["reward_std"]) == pytest.approx((0.0, 1.0), abs=1e-4)
    # What transformers makes of the committed folder, its rows padded on the right.
    opened = AutoModelForSequenceClassification.from_pretrained(model.fetch(judged, manifest)).eval()
    ids = [one for part in heldout[:8] for one in reward.ranked(chat, part, settings.max_tokens).chats]
    pad, width = opened.config.pad_token_id, max(map(len, ids))
    tokens = torch.tensor([[*one, *[pad] * (width - len(one))] for one in ids])
    with torch.no_grad():
        scores = opened(input_ids=tokens, attention_mask=(tokens != pad).long()).logits[:, 0]
    expected = torch.tensor([one for both in rewards[:8] for one in both])
    torch.testing.assert_close(scores - opened.config.reward_mean, expected, atol=1e-5, rtol=0)


def figures_of(job: Job, module: Any, pairs: Sequence[Preference]) -> tuple[dict[str, Any], list[list[float]]]:
    """The figures of a model on pairs, and its rewards of each."""
    chat = open_chat(job)
    rewards = reward.score_groups(job, job.settings, module, chat, pairs)
    groups = [reward.ranked(chat, one, job.settings.max_tokens) for one in pairs]
    return ranking_figures([reward.judged(*one) for one in zip(pairs, groups, rewards, strict=True)]), rewards


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
    made = [{"text": text, "score": 4.0 - place} for place, text in enumerate(replies)]
    files = {}
    for kind, count, first in ((Kind.PAIRS, 160, 0), (Kind.HELDOUT_PAIRS, 16, 160)):
        rows = [
            {
                "id": f"{number:032x}", "source": f"x.jsonl line {number}", "chosen": replies[0], "rejected": replies[-1],
                "prompt": [{"role": "user", "text": f"Question {number}?"}], "replies": made,
            }
            for number in range(first, first + count)
        ]  # fmt: skip
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, PAIRS), sink, write_page_checksum=True)
        files[f"{kind}.parquet"] = (kind, sink.getvalue(), count)
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
    align: Callable[..., Job], launch: Callable[..., subprocess.Popen[str]]
) -> None:
    job = align("reward", "reward.epochs=1", "reward.engine.micro_batch=4")
    process = launch(job.attempt.run, "reward", processes=2)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
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

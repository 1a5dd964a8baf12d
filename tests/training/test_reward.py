"""The reward model: where it reads, what it holds out, how it is measured, and that a real run learns, normalises and resumes."""

import json
import math
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from contract.conversation import Preference, Turn
from contract.errors import InputError
from contract.kinds import Kind
from contract.plan import Run
from contract.settings.training import Reward
from evals.calibration import calibration_error
from evals.intervals import wilson
from reports import gate
from training import reward
from training.chat.template import Chat, Fit, open_chat
from training.data.examples import Examples, read_pairs
from training.data.order import rows_of
from training.engine.engine import lr_at
from training.engine.job import Job
from training.engine.ranks import Ranks
from training.models import llama as model


@pytest.fixture(scope="module")
def small() -> reward.RewardModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return reward.RewardModel(LlamaModel(config), seed=1).eval()


def pair(prompt: str, index: int = 0) -> Preference:
    return Preference((Turn("user", prompt),), f"good {index}", f"bad {index}")


def test_the_head_starts_as_stiennon_et_al_say() -> None:
    config = LlamaConfig(vocab_size=5, hidden_size=24, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    made = [reward.RewardModel(LlamaModel(config), seed) for seed in (3, 3, 4)]
    drawn = torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(made[0].head.weight.detach(), drawn / math.sqrt(25))
    assert made[0].head.bias.tolist() == [0.0]
    assert torch.equal(made[0].head.weight, made[1].head.weight)
    assert not torch.equal(made[0].head.weight, made[2].head.weight)


def test_reward_is_read_at_the_last_real_token() -> None:
    values = torch.arange(12.0).view(3, 4)
    attention = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]])
    assert reward.last(values, attention).tolist() == [3.0, 6.0, 11.0]


def test_reward_does_not_depend_on_padding_or_company(small: reward.RewardModel) -> None:
    chats = [[3, 4, 5, 6, 7], [8, 9]]
    together = reward.rewards_of(small, chats, 0, torch.device("cpu")).detach()
    alone = [reward.rewards_of(small, [chat], 0, torch.device("cpu"))[0].detach() for chat in chats]
    torch.testing.assert_close(together, torch.stack(alone))
    changed = reward.rewards_of(small, [[3, 4, 5, 6, 8]], 0, torch.device("cpu")).detach()
    assert abs(float(changed[0] - together[0])) > 1e-3


def test_rewards_are_computed_in_float32_also_if_the_decoder_is_in_bf16(small: reward.RewardModel) -> None:
    exact = small.head.weight.detach().clone()
    tokens, attention = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]]), torch.ones(1, 8, dtype=torch.long)
    half = model.cast(deepcopy(small), "bf16")
    assert {one.dtype for one in half.decoder.parameters()} == {torch.bfloat16}
    assert torch.equal(half.head.weight, exact), "a frozen head keeps its weights"
    for judge in (half, deepcopy(half).bfloat16()):  # as DeepSpeed casts one that learns
        with torch.no_grad():
            found = judge(tokens, attention)
            hidden = judge.decoder(input_ids=tokens, attention_mask=attention).last_hidden_state.float()
            expected = hidden @ judge.head.weight.float()[0] + judge.head.bias.float()
        torch.testing.assert_close(found, expected)
        assert not torch.equal(found, found.bfloat16().float())


def test_normalisation_is_folded_into_the_head(small: reward.RewardModel) -> None:
    chats = [[3, 4, 5], [8, 9], [7, 7, 7, 7]]
    exact = dict(small.named_parameters())
    with torch.no_grad():
        before = reward.rewards_of(small, chats, 0, torch.device("cpu"))
        small.load_state_dict(reward.normalised(exact, 2.0, 4.0))
        after = reward.rewards_of(small, chats, 0, torch.device("cpu"))
        small.load_state_dict(reward.normalised(dict(small.named_parameters()), -0.5, 0.25))  # undoes it
        again = reward.rewards_of(small, chats, 0, torch.device("cpu"))
    torch.testing.assert_close(after, (before - 2) / 4)
    torch.testing.assert_close(again, before)


@pytest.fixture(scope="module")
def chat(corpus_store: Callable[..., Run]) -> Chat:
    run = corpus_store(name="chat")
    files = [one.path for one in run.store.files("tokenizer") if one.path.endswith("tokenizer.json")]
    return Chat(Path(run.store.root, files[0]))


def test_encoding_puts_all_chosen_replies_before_the_rejected_ones(chat: Chat) -> None:
    pairs = [pair("p", 1), pair("q", 2)]
    sides = [(one, reply) for side in ("chosen", "rejected") for one in pairs for reply in [getattr(one, side)]]
    assert reward.encode(chat, pairs, 90) == [
        chat.encode([*one.prompt, Turn("assistant", reply)], 90)[0] for one, reply in sides
    ]


def test_both_replies_of_a_pair_answer_the_same_tokens_however_long_they_are(chat: Chat) -> None:
    long = Preference(
        (Turn("user", "Where is the old mill? " * 9),), "Here.", "The river stands near the old mill. " * 2
    )
    chosen, rejected = reward.encode(chat, [long], 48)
    prompts = [
        ids[: len(ids) - len(chat.response(reply, 99))] for ids, reply in ((chosen, "Here."), (rejected, long.rejected))
    ]
    assert prompts[0] == prompts[1]
    assert prompts[0][-1] == chat.role("assistant")
    assert len(rejected) == 48, "the longer reply decides"


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
    ]
    pairs = pairs_table([pair("a", 1), cut[0], pair("b", 2), cut[1], cut[0]])
    own: list[Any] = []

    def sifted(rank: int, gather: Callable[[Any], Any]) -> Any:
        ranks = SimpleNamespace(rank=rank, world=world, gather=gather)
        return reward.sift(SimpleNamespace(ranks=ranks, settings=Reward(max_tokens=40)), chat, pairs)  # type: ignore[arg-type]

    for rank in range(world):
        sifted(rank, lambda mine: own.append(mine) or [mine])
    assert [set(mine) for mine in own] == [{row for row in (1, 3, 4) if row % world == rank} for rank in range(world)]
    kept, dropped = sifted(0, lambda mine: own)
    assert (list(kept.numbers), list(kept)) == ([0, 2], [pairs[0], pairs[2]])
    assert dropped == {"equal": 2, "lost_end": 1}
    with pytest.raises(InputError, match=r"no reply of 2 pairs keeps its end within reward.max_tokens 40; raise it"):
        reward.sift(
            SimpleNamespace(ranks=Ranks(), settings=Reward(max_tokens=40)),
            chat,
            pairs_table(cut),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(("world", "count"), [(1, 5), (2, 5), (2, 9), (3, 2)])
def test_judging_is_split_over_processes(world: int, count: int) -> None:
    """Each process calls the model equally often, for under ZeRO 3 it would hang otherwise; together they judge every pair once."""
    chat = SimpleNamespace(
        fit=lambda turns, replies, limit: Fit(
            [1 + int(turns[0].text)], [0], [[1 if one[0] == "g" else 2] for one in replies], frozenset()
        ),
        pad=0,
    )
    settings = Reward(engine={"micro_batch": 2}, batch=2)
    shapes: list[list[int]] = []
    judged: dict[int, tuple[float, float]] = {}

    def rows(own: dict[int, tuple[float, float]]) -> list[tuple[float, float]]:
        assert judged.keys().isdisjoint(own)
        judged.update(own)
        return [judged[row] for row in sorted(judged)]

    for rank in range(world):
        called: list[int] = []

        def module(tokens: torch.Tensor, attention: torch.Tensor, called: list[int] = called) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            called.append(len(tokens))
            return (tokens[:, :1] * 10 + tokens[:, 1:]).expand(-1, 2).float()

        ranks = SimpleNamespace(rank=rank, world=world, device="cpu", rows=rows)
        job = SimpleNamespace(settings=settings, ranks=ranks)
        found = reward.score_pairs(job, module, chat, [pair(str(index), index) for index in range(count)])  # type: ignore[arg-type]
        shapes.append(called)
    assert found[0] == [10 * (1 + index) + 1 for index in range(count)]
    assert found[1] == [10 * (1 + index) + 2 for index in range(count)]
    assert {len(called) for called in shapes} == {math.ceil(math.ceil(count / 2) / world)}
    assert max(max(called) for called in shapes) <= 4


def test_measured_figures() -> None:
    found = reward.pair_metrics([1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 4.0, 0.0])
    assert (found["accuracy"], found["heldout_correct"], found["heldout_pairs"]) == (0.625, 2.5, 4)
    assert (found["reward_mean"], found["reward_std"]) == pytest.approx((1.5, math.sqrt(1.25)))
    losses = [math.log1p(math.exp(-margin)) for margin in (1, 2, -1, 0)]
    assert found["heldout_loss"] == pytest.approx(sum(losses) / 4)
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson(2.5, 4, 0.95)
    shared = reward.pair_metrics([1.0, 2.0, 3.0, 0.0] * 2, [0.0, 0.0, 4.0, 0.0] * 2, "abcdabcd")
    assert shared["heldout_effective"] == found["heldout_effective"] == pytest.approx(4)
    assert (shared["accuracy_low"], shared["accuracy_high"]) == pytest.approx(wilson(2.5, 4, 0.95))
    assert found["ece"] == pytest.approx(calibration_error([1.0, 2.0, -1.0, 0.0]))


def test_the_worst_pairs_are_those_with_the_largest_wrong_margins_and_their_texts_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reward, "WORST", 2)
    long = Preference((Turn("system", "Be kind."), Turn("user", "q" * 9000)), "y" * 9000, "n" * 9000)
    pairs = [pair("right"), pair("a little wrong"), long, pair("a tie"), pair("wrong")]
    found = reward.calibration(pairs, [7, 8, 9, 10, 11], [1.0, 0.0, -2.0, 5.0, 0.0], [0.0, 0.1, 1.0, 5.0, 1.0])
    assert [(one["row"], one["margin"]) for one in found["worst"]] == [(9, -3.0), (11, -1.0)]
    first, second = found["worst"]
    assert first["prompt"] == ("system: Be kind.\nuser: " + "q" * 9000)[:2000]
    assert (first["chosen"], first["rejected"]) == ("y" * 2000, "n" * 2000)
    assert (first["reward_chosen"], first["reward_rejected"]) == (-2.0, 1.0)
    assert (second["prompt"], second["chosen"], second["rejected"]) == ("user: wrong", "good 0", "bad 0")
    assert sum(one["pairs"] for one in found["bins"]) == 5
    assert json.loads(json.dumps(found)) == found


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
    whole = [read_pairs(judged, kind) for kind in (Kind.PAIRS, Kind.HELDOUT_PAIRS)]
    (train, _), (heldout, _) = (reward.sift(judged, open_chat(judged), pairs) for pairs in whole)
    assert metrics["dropped"] == {
        name: {"equal": 0, "lost_end": len(pairs) - len(kept)}
        for name, pairs, kept in zip(("training", "heldout"), whole, (train, heldout), strict=True)
    }
    assert len(heldout) == metrics["heldout_pairs"]
    chosen, rejected = reward.score_pairs(
        judged, reward.load_reward_model(judged, manifest).eval(), open_chat(judged), heldout
    )
    again = reward.pair_metrics(chosen, rejected)
    assert again["accuracy"] == metrics["accuracy"]
    shown = gate.view(judged.attempt.run)
    assert shown.calibration is not None
    bins, worst = shown.calibration.bins, shown.calibration.worst
    assert sum(one.pairs for one in bins) == len(heldout)
    assert sum(one.pairs * one.right for one in bins) == pytest.approx(metrics["heldout_correct"])
    gaps = sum(one.pairs * abs(one.confidence - one.right) for one in bins)
    assert gaps / len(heldout) == pytest.approx(metrics["ece"])
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    wrong = sorted((row for row, margin in enumerate(margins) if margin < 0), key=lambda row: margins[row])
    assert [one.row for one in worst] == [heldout.numbers[row] for row in wrong[: reward.WORST]]
    assert [(one.chosen, one.rejected) for one in worst] == [
        (whole[1][one.row].chosen, whole[1][one.row].rejected) for one in worst
    ]
    assert metrics["pairs"] == len(train)
    # The curves: one row an update, at the schedule's rate; the first one is the untrained model's on the first batch.
    rows, optim = curves(Job(judged.attempt.run, judged.task, judged.attempt)), judged.settings.optim
    steps = math.ceil(len(train) * 3 / 16)
    assert [step for step, _ in rows["loss"]] == list(range(1, steps + 1))
    assert [value for _, value in rows["lr"]] == [lr_at(step, steps, optim) for step in range(steps)]
    assert all(value > 0 for _, value in rows["grad_norm"])
    fresh = reward.RewardModel(model.load_model(judged, judged.manifest("sft")).model, judged.settings.seed)
    first = [train[row] for row in rows_of(0, 16, len(train), judged.settings.seed)]
    untrained = reward.pair_metrics(*reward.score_pairs(judged, fresh, open_chat(judged), first))
    assert rows["loss"][0][1] == pytest.approx(untrained["heldout_loss"], rel=1e-4)
    assert rows["accuracy"][0][1] == untrained["accuracy"]
    assert (again["reward_mean"], again["reward_std"]) == pytest.approx((0.0, 1.0), abs=1e-4)


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
    less = ("reward.epochs=2", f"preferences.data={path}", "reward.engine.micro_batch=4")
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


def test_a_loaded_model_computes_with_the_attention_of_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    reward.RewardModel(LlamaModel(LlamaConfig(vocab_size=50, **shape)), seed=0).save_pretrained(tmp_path)
    monkeypatch.setattr(model, "fetch", lambda job, manifest: tmp_path)
    monkeypatch.setattr(model, "attention", lambda dtype, kind: {"bf16": "eager", "fp32": "sdpa"}[dtype])
    for dtype, attention in (("bf16", "eager"), ("fp32", "sdpa")):
        loaded = reward.load_reward_model(None, None, dtype)  # type: ignore[arg-type]
        assert loaded.decoder.config._attn_implementation == attention

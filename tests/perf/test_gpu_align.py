"""The bench of a GPU on SFT, the reward model and PPO: small, on the CPU, through its own entry point; and what it makes of figures."""

import json
from pathlib import Path

import pytest

from contract.sizes import parameters
from perf import gpu_align
from perf.bars import Bars
from perf.gpu_align import END, SIZES, SMALL, Figures, chats, deepest, described, policy_of, report, told
from tests.perf.test_gpu import bench


@pytest.mark.slow
def test_a_whole_step_of_ppo_is_measured(tmp_path: Path) -> None:
    printed = bench(tmp_path, "--only", "small-align", "--kind", "ppo")
    found = json.loads(printed.splitlines()[-1])
    assert 0 < found["sampling_share"] < 1
    assert found["response_length"] <= SMALL.reply
    assert found["sampled_tokens_per_s"] * found["sampling_share"] * found["step_s"] == pytest.approx(
        SMALL.replies * found["response_length"], rel=0.3
    )


@pytest.mark.slow
def test_all_kinds_are_printed_with_their_bar(tmp_path: Path) -> None:
    # The engine's own lines stand between those of the bench.
    printed = bench(tmp_path, "--only", "small-align").splitlines()
    measured = [line for line in printed if line.startswith("small-align, ")]
    kinds = [f"small-align, 33,440 parameters, {kind}: " for kind in gpu_align.KINDS]
    deepest_of = f"{policy_of(1, 400):,} parameters at depth 1, the deepest that was tried; "
    largest = [f"small-align, {kind}: {deepest_of}" for kind in gpu_align.LARGEST]
    for line, starts in zip(measured, kinds + largest, strict=True):
        assert line.startswith(starts)
    assert all(line.endswith((" GB", "memory not counted")) for line in measured[: len(kinds)])
    assert [line.split()[1] for line in printed if line.startswith("BAR")] == ["ppo_sampling_share_small-align"]


def test_the_model_has_half_a_billion_parameters_and_its_recipe_is_valid() -> None:
    recipe = SIZES.recipe()
    assert 0.5e9 < parameters(recipe.pretrain.model, SIZES.vocabulary) < 0.6e9
    assert (recipe.ppo.engine.dtype, recipe.ppo.engine.processes) == ("bf16", 1)
    assert SIZES.recipe(*gpu_align.SPARED).ppo.critic == "head"


def test_chats_are_the_same_for_a_seed_and_never_hold_the_end() -> None:
    found = chats(50, 64, 97, 3)
    assert found == chats(50, 64, 97, 3) != chats(50, 64, 97, 4)
    assert {len(ids) for ids, _ in found} <= {*range(8, 65)}
    assert all(END not in ids and len(ids) == len(mask) and sum(mask) == -(-len(ids) // 2) for ids, mask in found)


@pytest.mark.parametrize("most", [1, 2, 7, 60])
def test_the_deepest_that_fits_is_found_from_any_guess(most: int) -> None:
    for true in range(most + 1):
        for guess in (0, 1, true, most // 2, most, 2 * most):
            tried: list[int] = []

            def fits(depth: int, true: int = true, tried: list[int] = tried) -> bool:
                tried.append(depth)
                return depth <= true

            assert deepest(fits, guess, most) == true
            assert len(tried) == len({*tried}), "no try is made twice"
            assert {*tried} <= {*range(1, most + 1)}
    near: list[int] = []
    deepest(lambda depth: near.append(depth) or depth <= 31, 30, 200)  # type: ignore[func-returns-value]
    assert len(near) <= 5, "a good guess needs few tries"


def ppo_of(share: float) -> Figures:
    return {
        "sampled_tokens_per_s": 1000.0, "learned_tokens_per_s": 4000.0, "sampling_share": share, "step_s": 12.0,
        "response_length": 256.0, "memory": 3e10,
    }  # fmt: skip


def test_the_bar_is_on_the_better_way_to_sample(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_align, "estimated", lambda sizes, *overrides: 1)
    found: dict[str, Figures | None] = {
        "sft": {"tokens_per_s": 5e4, "memory": 2e10}, "reward": None, "ppo": ppo_of(0.45), "ppo without CUDA graphs": ppo_of(0.7),
    }  # fmt: skip
    bars = Bars()
    report(bars, SMALL, lambda kind, depth: found[kind] if depth is None else {"fits": float(depth < 2)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("sft: 50,000 tokens/s, 20.0 GB")
    assert lines[1].endswith("reward: failed")
    assert lines[2].endswith(
        "1,000 sampled and 4,000 learned tokens/s, 45% of a step of 12.0 s spent sampling, 256 tokens a reply, 30.0 GB"
    )
    assert lines[4] == "BAR ppo_sampling_share_small-align 0.45 0.5 ok"
    assert lines[5] == f"small-align, largest policy: {told(1, 1, SMALL)}"
    assert bars.code == 0
    report(bars, SMALL, lambda kind, depth: None)
    assert "largest policy: failed at depth 1" in capsys.readouterr().out
    assert bars.short == [
        "ppo_sampling_share_small-align", "largest_policy_measured", "largest_policy_spared_measured",
    ]  # fmt: skip


def test_memory_that_is_not_counted_is_not_said() -> None:
    assert described({"tokens_per_s": 3.0, "memory": None}) == "3 tokens/s, memory not counted"
    assert told(1, 9, SMALL).startswith(
        f"{policy_of(1, 400):,} parameters at depth 1, the deepest that was tried; by the estimate "
    )

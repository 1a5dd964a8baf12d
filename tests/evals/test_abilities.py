"""The table of abilities and the balance: known answers, and how often chance alone flags a model."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from contract.errors import InputError
from evals import differences
from evals.abilities import Row, alignment_tax, balance, below, closing, pooled, table, told, untold
from evals.differences import compare
from evals.grading import scored
from evals.intervals import wilson
from evals.records import Record

ABILITY = {"gsm8k": "maths", "math": "maths", "mbpp": "code", "mmlu": "knowledge en", "bbh": "reasoning"}


def rows(scores: Sequence[float], name: str = "gsm8k", of_source: int = 1) -> list[Record]:
    """One record an item, so many items of each source."""
    return [
        Record(name, ABILITY[name], str(at), f"s{at // of_source}", 0, "", "", "", "x", float(score))
        for at, score in enumerate(scores)
    ]


def asked(**scores: Sequence[float]) -> dict[str, list[Record]]:
    return {name: rows(values, name) for name, values in scores.items()}


def spoilt(scores: Sequence[float], every: int) -> list[float]:
    """The same with every so many-th item wrong."""
    return [one * (at % every > 0) for at, one in enumerate(scores)]


def draw(seed: int, count: int = 300, share: float = 0.6) -> list[float]:
    return [float(one) for one in np.random.default_rng(seed).random(count) < share]


def test_an_ability_takes_the_items_of_its_benchmarks_together() -> None:
    found = table({"sft": asked(mbpp=[1, 0, 0, 0], gsm8k=[1, 1, 0], math=[0, 0, 0, 0, 0, 0, 0])})
    assert [(one.ability, one.benchmark) for one in found] == [
        ("code", None), ("code", "mbpp"), ("maths", None), ("maths", "gsm8k"), ("maths", "math"),
    ]  # fmt: skip
    maths, sums = found[2].scores["sft"], found[3].scores["sft"]
    assert maths is not None
    assert sums is not None
    assert (maths.mean, maths.n, maths.sources) == (0.2, 10, 10)
    assert (maths.low, maths.high) == pytest.approx(wilson(2, 10))
    assert (sums.mean, sums.n) == (pytest.approx(2 / 3), 3)


def test_one_benchmark_alone_has_the_score_that_its_own_report_gives() -> None:
    records = rows([1, 0, 1, 1, 0, 1, 1, 1, 0, 0], of_source=2)
    assert pooled([records]) == scored([one.score for one in records], [one.source for one in records])


def test_sources_of_two_benchmarks_with_one_name_are_two() -> None:
    both = pooled([rows([1, 1, 0, 0], of_source=2), rows([1, 1, 0, 0], "math", of_source=2)])
    assert both.sources == 4
    assert (both.low, both.high) == pytest.approx(wilson(2, 4)), "four sources, each all right or all wrong"


def test_a_model_that_was_not_asked_everything_has_no_score_of_the_ability() -> None:
    found = table({"pretrain": asked(gsm8k=[1, 0]), "sft": asked(gsm8k=[1, 1], math=[0, 0])})
    whole, sums, proofs = found
    assert whole.scores["pretrain"] is None
    assert whole.scores["sft"] is not None
    assert sums.scores["pretrain"] is not None
    assert proofs.scores["pretrain"] is None


def test_a_model_that_is_spoilt_in_one_ability_is_flagged_there_and_nowhere_else() -> None:
    good = {name: draw(seed) for seed, name in enumerate(("mmlu", "bbh", "mbpp", "gsm8k"))}
    found = balance({"pretrain": asked(**good), "sft": asked(**good | {"mbpp": spoilt(good["mbpp"], 5)})})
    assert [(one.ability, one.against, one.why, one.verdict) for one in found] == [
        ("knowledge en", "pretrain", "before", "same"),
        ("reasoning", "pretrain", "before", "same"),
        ("code", "pretrain", "before", "worse"),
        ("maths", "pretrain", "before", "same"),
    ]
    lost = sum(good["mbpp"][::5]) / 300
    assert found[2].drop == pytest.approx(lost)
    alone = compare(rows(good["mbpp"], "mbpp"), rows(spoilt(good["mbpp"], 5), "mbpp"))[0]
    assert found[2].difference.p == alone.p
    assert found[2].difference.adjusted == pytest.approx(4 * alone.p), "for four abilities"


def test_a_loss_that_comes_slowly_shows_against_the_best_so_far() -> None:
    """Each step loses too little to be told from noise; all of them together do not."""
    first = [1.0] * 200
    models = {f"pretrain-{step}": asked(gsm8k=[0.0] * (4 * step) + first[4 * step :]) for step in range(4)}
    found = balance(models)
    assert [(one.model, one.against, one.why, one.verdict) for one in found] == [
        ("pretrain-1", "pretrain-0", "before", "same"),
        ("pretrain-2", "pretrain-1", "before", "same"),
        ("pretrain-2", "pretrain-0", "best", "worse"),
        ("pretrain-3", "pretrain-2", "before", "same"),
        ("pretrain-3", "pretrain-0", "best", "worse"),
    ]
    by_hand = {8: 2 / 2**8, 12: 2 / 2**12}  # McNemar, all discordant items lost
    assert [one.difference.adjusted for one in found if one.why == "best"] == pytest.approx(
        [2 * by_hand[8], 3 * by_hand[12]]
    ), "times the number of models of which the best was chosen"


def test_the_best_so_far_is_chosen_ability_by_ability() -> None:
    models = {
        "pretrain": asked(gsm8k=[1] * 50, mbpp=[0] * 50),
        "sft": asked(gsm8k=[1] * 40 + [0] * 10, mbpp=[1] * 50),
        "aligned": asked(gsm8k=[1] * 40 + [0] * 10, mbpp=[1] * 50),
    }
    found = [one for one in balance(models) if one.model == "aligned"]
    assert [(one.ability, one.against, one.verdict) for one in found] == [
        ("code", "sft", "same"), ("maths", "sft", "same"), ("maths", "pretrain", "worse"),
    ]  # fmt: skip


def test_models_are_compared_in_what_both_were_asked() -> None:
    models = {"pretrain": asked(mbpp=[1] * 30), "sft": asked(gsm8k=[1] * 30), "aligned": asked(gsm8k=[1] * 30)}
    assert [(one.model, one.ability) for one in balance(models)] == [("aligned", "maths")]


def test_one_task_asked_in_two_ways_is_two_benchmarks() -> None:
    letters, cloze = rows([1] * 20, "mmlu"), rows([1] * 20, "mmlu")
    worse = rows([0] * 20, "mmlu")
    found = balance({"a": {"letters": letters, "cloze": cloze}, "b": {"letters": letters, "cloze": worse}})
    assert [(one.ability, one.difference.n, one.drop) for one in found] == [("knowledge en", 40, 0.5)]


def test_other_items_are_refused() -> None:
    with pytest.raises(InputError, match="2 items are in one result set alone"):
        balance({"a": asked(gsm8k=[1] * 5), "b": asked(gsm8k=[1] * 3)})


@pytest.mark.usefixtures("_fewer_draws")
def test_chance_alone_seldom_flags_anything() -> None:
    """Four models that are equal: at most 5 % are flagged in the family before, and 5 % in the family best."""
    flagged = {"before": 0, "best": 0}
    for seed in range(60):
        random = np.random.default_rng(seed)
        models = {
            str(model): asked(**{name: (random.random(60) < 0.5).tolist() for name in ("mmlu", "bbh", "gsm8k")})
            for model in range(4)
        }
        last = [one for one in balance(models) if one.model == "3" and one.verdict == "worse"]
        for why in flagged:
            flagged[why] += any(one.why == why for one in last)
    assert max(flagged.values()) <= 0.05 * 60 + 3, flagged


@pytest.fixture
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "DRAWS", 500)  # of intervals alone: McNemar's test is exact


def chain(**maths: Sequence[float]) -> dict[str, dict[str, list[Record]]]:
    return {model: asked(gsm8k=scores) for model, scores in maths.items()}


@pytest.mark.parametrize(
    ("models", "max_drop", "against"),
    [
        (chain(sft=[1] * 100, aligned=[0] * 20 + [1] * 80), 0.1, ["sft"]),
        (chain(sft=[1] * 100, aligned=[0] * 20 + [1] * 80), 0.2, []),
        (chain(sft=[1] * 100, aligned=[0] * 4 + [1] * 96), 0.01, []),
        (chain(pretrain=[1] * 100, sft=[0] * 15 + [1] * 85, aligned=[0] * 18 + [1] * 82), 0.1, ["pretrain"]),
        (chain(pretrain=[1] * 100, sft=[0] * 20 + [1] * 80, aligned=[0] * 18 + [1] * 82), 0.1, []),
    ],
    ids=["a drop", "no more than allowed", "within noise", "since the best", "the other model is no better"],
)
def test_what_keeps_the_aligned_model_back(
    models: Mapping[str, Mapping[str, list[Record]]], max_drop: float, against: list[str]
) -> None:
    assert [one.against for one in closing(balance(models), "aligned", "sft", max_drop)] == against


def test_the_alignment_tax_is_one_line() -> None:
    good = {name: [1.0] * 100 for name in ("mbpp", "bbh")} | {"gsm8k": [0.0] * 100}
    after = good | {"mbpp": [0.0] * 10 + [1.0] * 90, "gsm8k": [0.0] * 50 + [1.0] * 50}
    found = balance({"sft": asked(**good), "aligned": asked(**after)})
    (code,) = [one for one in found if one.ability == "code"]
    assert told(code).startswith("code 90.0 % after 100.0 %: -10.0 points (-16.0 to -")
    assert alignment_tax(found, "sft", "aligned") == (
        f"Alignment tax, sft to aligned: {told(code)}. Better: maths. No difference beyond noise: reasoning."
    )
    assert alignment_tax(found, "pretrain", "aligned") == ""
    none = balance({"sft": asked(**good), "aligned": asked(**good)})
    assert alignment_tax(none, "sft", "aligned").startswith("Alignment tax, sft to aligned: none beyond noise. No diff")


def test_an_ability_with_too_few_sources_is_named_where_a_drop_is_bounded() -> None:
    def few(score: float) -> dict[str, list[Record]]:
        return {"gsm8k": rows([score] * 40, of_source=10)} | asked(bbh=[1.0] * 30)

    found = balance({"sft": few(1.0), "aligned": few(0.0)})
    assert [(one.ability, one.verdict) for one in found] == [("reasoning", "same"), ("maths", "cannot be told")]
    assert closing(found, "aligned", "sft", 0.02) == []
    assert untold(found, "aligned", "sft") == ["maths (40 items of 4 sources)"]
    assert untold(found, "aligned", "pretrain") == []
    assert alignment_tax(found, "sft", "aligned").endswith(
        "No difference beyond noise: reasoning. Too few sources to tell anything: maths."
    )


def test_the_best_of_several_needs_more_sources() -> None:
    """Six sources tell a loss of one model against another (p = 1/32), and not against the best of two."""

    def of_six(score: float) -> dict[str, list[Record]]:
        return {"gsm8k": rows([score] * 60, of_source=10)}

    found = balance({"pretrain": of_six(1.0), "sft": of_six(0.0), "aligned": of_six(0.0)})
    assert [(one.against, one.why, one.verdict) for one in found if one.model == "aligned"] == [
        ("sft", "before", "same"), ("pretrain", "best", "cannot be told"),
    ]  # fmt: skip


def test_a_floor_holds_for_each_benchmark_of_an_ability() -> None:
    found = table({"aligned": asked(gsm8k=[1, 1, 0, 0], math=[0, 0, 0, 1])})
    assert below(found, "aligned", {"maths": 0.25}) == []
    assert below(found, "aligned", {"maths": 0.3, "code": 0.0}) == [
        "maths: math 25.0 % is under 30 %", "code was not measured",
    ]  # fmt: skip
    assert below([Row("maths", "gsm8k", {"aligned": None})], "aligned", {"maths": 0.1}) == ["maths was not measured"]

"""Mixtures: the published tables, caps, whose turn it is, and phases that go on where others ended."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from contract.mixture import (
    MOST_WEIGHT,
    PRESETS,
    STEPS,
    capped,
    counts,
    epochs_of,
    known_steps,
    of_pretrain,
    schedule,
    share_of_draws,
    shares_of,
    split_steps,
    weights_of,
)
from contract.settings.training import Mixture, Phase, Pretrain

GPT3 = {"crawl": (0.60, 0.44), "webtext2": (0.22, 2.9), "books1": (0.08, 1.9), "books2": (0.08, 0.43), "wikipedia": (0.03, 3.4)}  # fmt: skip
LLAMA = {
    "crawl": (0.67, 1.10), "c4": (0.15, 1.06), "github": (0.045, 0.64), "wikipedia": (0.045, 2.45), "books": (0.045, 2.23),
    "arxiv": (0.025, 1.06), "stackexchange": (0.02, 1.03),
}  # fmt: skip
WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 1000), min_size=1, max_size=9)


@pytest.mark.parametrize(("name", "tokens", "table"), [("gpt3", 300e9, GPT3), ("llama", 1.4e12, LLAMA)])
def test_from_sizes_and_proportions_follow_the_published_epochs(name, tokens, table):
    preset = PRESETS[name]
    assert preset.tokens == tokens
    assert {source: (row.proportion, row.epochs) for source, row in preset.sources.items()} == table
    sizes = {source: row.size for source, row in preset.sources.items()}
    proportions = {source: row.proportion for source, row in preset.sources.items()}
    for source, epochs in epochs_of(proportions, sizes, tokens).items():
        assert abs(epochs - table[source][1]) <= 0.02, source
    assert Mixture(preset=name).named() == proportions


def test_sizes_that_no_paper_states_are_those_of_real_text():
    """LLaMA's table has sizes on disk: a derived size in tokens must leave a token as many bytes as text and code have."""
    unit = {"TB": 1e12, "GB": 1e9}
    for source, row in PRESETS["llama"].sources.items():
        number, name = row.stated.split()
        assert 2.5 < float(number) * unit[name] / row.size < 4.5, source
    stated = {source: float(row.stated.split()[0]) * 1e9 for source, row in PRESETS["gpt3"].sources.items()}
    for source, row in PRESETS["gpt3"].sources.items():
        assert row.derived is (row.size != stated[source])
        assert 0.8 < row.size / stated[source] < 1.2, source


def test_shares_follow_proportions_epochs_or_the_rows():
    rows = {"crawl": 600, "code": 100, "books": 0}
    assert shares_of(Mixture(), rows) == {"crawl": Fraction(6, 7), "code": Fraction(1, 7)}
    by_proportion = shares_of(Mixture(proportions={"crawl": 0.1, "code": 0.9, "books": 0}), rows)
    assert by_proportion == {"crawl": Fraction(1, 10), "code": Fraction(9, 10)}
    assert shares_of(Mixture(epochs={"crawl": 0.5, "code": 3}), rows) == {
        "crawl": Fraction(1, 2),
        "code": Fraction(1, 2),
    }
    assert shares_of(Mixture(epochs={"code": 3}), rows) == {"code": 1}, "what is not named is not read"


def test_a_source_without_rows_is_refused_with_those_that_there_are():
    with pytest.raises(InputError) as refused:
        shares_of(Mixture(proportions={"crawl": 0.5, "books": 0.25, "wiki": 0.25}), {"crawl": 1200, "books": 0})
    assert str(refused.value) == (
        "pretrain: a mixture names books, wiki, of which there is no row; the corpus has books (0 rows), crawl (1,200 rows); "
        "name one of these, or see in the funnel why nothing is left"
    )
    with pytest.raises(InputError, match="there is no row to draw"):
        schedule([(1, Mixture(), {})], 1)


def test_what_a_capped_source_cannot_give_goes_to_the_others_in_proportion():
    shares = {"a": Fraction(1, 2), "b": Fraction(1, 4), "c": Fraction(1, 4)}
    assert capped(shares, {"a": 100, "b": 100, "c": 100}, 100) == {"a": 50, "b": 25, "c": 25}
    assert capped(shares, {"a": 40, "b": 100, "c": 100}, 100) == {"a": 40, "b": 30, "c": 30}
    assert capped(shares, {"a": 10, "b": 100, "c": 30}, 100) == {"a": 10, "b": 60, "c": 30}, (
        "again, for c is over only then"
    )
    assert capped(shares, {"a": 50, "b": 25, "c": 25}, 100) == {"a": 50, "b": 25, "c": 25}, "as much as there is"
    with pytest.raises(
        InputError, match=r"max_epochs leaves 99 rows of a, b, c, and 100 are to be drawn; raise max_epochs, lower"
    ):
        capped(shares, {"a": 50, "b": 25, "c": 24}, 100)


@given(weights=WEIGHTS, left=st.lists(st.integers(0, 500), min_size=9, max_size=9), budget=st.integers(1, 3000))
def test_no_cap_is_exceeded_and_the_budget_is_met(weights, left, budget):
    total = sum(weights.values())
    shares = {source: Fraction(weight, total) for source, weight in weights.items()}
    limits = dict(zip(weights, left, strict=False))
    if sum(limits.values()) < budget:
        with pytest.raises(InputError, match="max_epochs leaves"):
            capped(shares, limits, budget)
        return
    draws = capped(shares, limits, budget)
    assert sum(draws.values()) == budget
    assert all(0 <= draws[source] <= limits[source] for source in weights)
    free = [source for source in weights if draws[source] < limits[source]]
    for source in weights:
        for other in free:
            least, most = (draws[source] - 1) / weights[source], (draws[other] + 1) / weights[other]
            assert least <= most, "only a cap makes a share smaller"


@given(weights=WEIGHTS, n=st.integers(0, 3000))
def test_after_any_number_of_draws_each_source_has_had_its_share(weights, n):
    ordered = weights_of({source: Fraction(weight) for source, weight in weights.items()})
    total = sum(weight for _, weight in ordered)
    now, later = counts(ordered, n), counts(ordered, n + 1)
    assert sum(now.values()) == n
    assert sorted(later[source] - now[source] for source in now)[-2:] in ([1], [0, 1]), "a draw is one source's"
    for source, weight in ordered:
        assert abs(now[source] - n * weight / total) < 3
    assert counts(ordered, total * 5) == {source: 5 * weight for source, weight in ordered}


def test_weights_are_exact_or_as_near_as_64_bits_allow():
    assert weights_of({"b": Fraction(1, 4), "a": Fraction(1, 4), "c": Fraction(1, 2)}) == (("c", 2), ("a", 1), ("b", 1))
    huge = weights_of({"a": 10**15 + 1, "b": 3 * 10**15, "c": 1})
    assert sum(weight for _, weight in huge) <= MOST_WEIGHT
    assert huge[0][1] / huge[1][1] == pytest.approx(3, rel=1e-8)
    assert huge[2] == ("c", 1)
    exact = (10**18 + 7) * 2_000_000_011 // MOST_WEIGHT
    assert share_of_draws(10**18 + 7, 2_000_000_011, MOST_WEIGHT) == exact


def test_the_default_reads_every_source_once_in_an_epoch():
    made = schedule([(7, Mixture(), {"crawl": 60, "code": 10})], 10)
    assert made.drawn(7) == {"crawl": 60, "code": 10}
    assert made.epochs(7) == {"crawl": 1.0, "code": 1.0}
    assert made.steps == 7


def test_phases_go_on_where_those_before_them_ended():
    rows = {"crawl": 100, "code": 50}
    general, best = Mixture(proportions={"crawl": 0.9, "code": 0.1}), Mixture(proportions={"crawl": 0.2, "code": 0.8})
    made = schedule([(10, general, rows), (5, best, rows)], 10)
    assert [(one.first, one.last) for one in made.stretches] == [(0, 10), (10, 15)]
    assert made.stretches[1].before == {"crawl": 90, "code": 10}
    assert (made.drawn(0), made.drawn(10)) == ({"crawl": 0, "code": 0}, {"crawl": 90, "code": 10})
    assert made.drawn(15) == made.drawn(99) == {"crawl": 100, "code": 50}
    assert made.epochs(15) == {"crawl": 1.0, "code": 1.0}
    assert [made.at(step).first for step in (0, 9, 10, 14, 15)] == [0, 0, 10, 10, 10]


def test_draws_of_sequences_of_another_length_are_converted_to_epochs():
    short, long = {"crawl": 100}, {"crawl": 25}
    made = schedule([(3, Mixture(), short), (1, Mixture(), long)], 10)
    assert made.stretches[1].before == {"crawl": 8}, "30 of 100 rows: 7.5 of 25, and the one that was begun"
    assert made.epochs(4) == {"crawl": pytest.approx(0.3 + 0.4)}


def test_a_cap_counts_from_the_first_step():
    rows = {"crawl": 100, "code": 10}
    most = Mixture(proportions={"crawl": 0.5, "code": 0.5}, max_epochs=2)
    made = schedule([(2, most, rows), (4, most, rows)], 10)
    assert made.drawn(2) == {"crawl": 10, "code": 10}
    assert made.drawn(6) == {"crawl": 40, "code": 20}
    spent = schedule([(4, most, rows), (2, most, rows)], 10)
    assert spent.drawn(6) == {"crawl": 40, "code": 20}, "the second phase has none left"
    assert spent.stretches[1].weights == (("crawl", 1),)
    with pytest.raises(InputError, match="max_epochs leaves 20 rows of code, and 30 are to be drawn"):
        schedule([(3, Mixture(epochs={"code": 1}, max_epochs=2), rows)], 10)


def test_how_many_steps_a_recipe_means():
    assert known_steps(Pretrain(), 2048) == STEPS == 10_000
    assert known_steps(Pretrain(steps=7), 2048) == 7
    assert known_steps(Pretrain(tokens=1_000_000, batch=10), 1000) == 100
    assert known_steps(Pretrain(tokens=1_000_001, batch=10), 1000) == 101
    by_epochs = Mixture(epochs={"crawl": 2, "code": 0.5})
    assert known_steps(Pretrain(mixture=by_epochs), 2048) is None
    assert known_steps(Pretrain(mixture=by_epochs, phases=(Phase(share=1),)), 2048) == STEPS
    made = of_pretrain(Pretrain(mixture=by_epochs, batch=10), 2048, {"crawl": 100, "code": 50})
    assert made.steps == 22, "225 rows, of which the last 5 fill no step"
    assert of_pretrain(Pretrain(mixture=by_epochs), 2048, {"crawl": 1, "code": 1}).steps == 1
    with pytest.raises(InputError, match="names code, of which there is no row"):
        of_pretrain(Pretrain(mixture=by_epochs), 2048, {"crawl": 1})


def test_steps_are_split_by_share():
    assert split_steps([0.9, 0.1], 1000) == [900, 100]
    assert split_steps([0.333, 0.333, 0.333], 10) == [3, 4, 3]
    assert split_steps([0.5, 0.5], 1) == [1, 0]
    phases = (Phase(share=0.75), Phase(share=0.25, mixture=Mixture(epochs={"code": 1})))
    made = of_pretrain(Pretrain(steps=8, batch=2, phases=phases), 64, {"crawl": 50, "code": 50})
    assert made.drawn(6) == {"crawl": 6, "code": 6}, "a phase that names no mixture has pretrain's"
    assert made.drawn(8) == {"crawl": 6, "code": 10}


PAGE = (Path(__file__).parents[2] / "docs" / "mixture.md").read_text()


def test_the_page_has_the_tables_and_recipes_that_are_taken():
    for preset in PRESETS.values():
        for source, row in preset.sources.items():
            size = f"{row.size / 1e9:.3g} B" + (", from the epochs" if row.derived else "")
            assert (
                f"| {source} | {row.proportion * 100:.3g} % | {row.epochs:.3g} | {size} |".replace("1.1 |", "1.10 |")
                in PAGE
            )
    assert f"steps is | {STEPS:,}" in PAGE.replace("nothing |", "steps is |")
    recipes = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)]
    assert [Pretrain.model_validate(recipe["pretrain"]).tokens for recipe in recipes] == [5 * 10**9] * 2
    annealing = of_pretrain(
        Pretrain.model_validate(recipes[1]["pretrain"] | {"tokens": None, "steps": 1000, "batch": 10}),
        2048, {"crawl": 9000, "code": 700, "encyclopaedia": 250},
    )  # fmt: skip
    assert annealing.drawn(900) == {"crawl": 7650, "code": 900, "encyclopaedia": 450}
    assert annealing.drawn(1000) == {"crawl": 7950, "code": 1200, "encyclopaedia": 850}

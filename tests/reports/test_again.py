"""A resolved recipe becomes overrides of an offered one, and these make the same recipe again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import offered
from contract.recipe import load, parse
from reports.again import Again, again, differences, in_one_line

CHANGES = {
    "filter.min_words": 7, "pretrain.optim.lr": 1e-5, "pretrain.steps": None, "name": "my: run # 'x'",
    "crawl.blocklists": ["/a,b", "/c d"], "filter.gopher_repetition.top_ngram_char_fraction": {2: 0.5},
    "curate.sources": {"books": {"uri": "/books", "correct": True}}, "ablate.variants": {"a": [], "b": ["ppo.steps=3"]},
    "tokenizer.special_tokens": {"pad": "<päd>"}, "minhash_sign.preset": None, "sft.engine.compile": True,
    "pretrain.phases": [{"share": 0.5}, {"share": 0.5, "mixture": {"proportions": {"crawl": 1.0}}}],
}  # fmt: skip


@given(st.sets(st.sampled_from(sorted(CHANGES))), st.sampled_from(["tiny", "base", "sample", "large"]))
def test_the_lines_make_the_same_recipe(changed, name):
    recipe = load("tiny", [f"{key}={in_one_line(CHANGES[key])}" for key in changed])
    lines = list(differences(recipe, load(name)))
    assert load(name, lines) == recipe
    assert all("\n" not in line for line in lines)


def test_only_what_differs_becomes_a_line():
    assert list(differences(load("tiny", ["filter.min_words=7"]), load("tiny"))) == ["filter.min_words=7"]
    assert list(differences(load("tiny"), load("tiny"))) == []


def test_the_nearest_offered_recipe_is_chosen(monkeypatch):
    monkeypatch.setattr(offered, "DEFAULT_RECIPE", "tiny")
    recipe = load("tiny", ["ppo.steps=2", "snapshots=[A-2024-10]"])
    assert again(recipe) == Again("tiny", ("ppo.steps=2",), "A-2024-10")
    two = load("base", ["snapshots=[A-2024-10, B-2024-12]"])
    assert again(two) == Again("base", ("snapshots=[A-2024-10, B-2024-12]",), "")


def test_stores_that_are_the_same_make_no_line(tmp_path, monkeypatch):
    file = tmp_path / "own.yaml"
    file.write_text(f"store: {tmp_path}/store")
    monkeypatch.setattr(offered, "DEFAULT_RECIPE", str(file))
    recipe = parse(f"store: file://{tmp_path}/store/", "here")
    assert again(recipe) == Again(str(file), (), "")


def test_offered_recipes_that_cannot_be_read_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(offered, "RECIPES", tmp_path)
    monkeypatch.setattr(offered, "DEFAULT_RECIPE", str(tmp_path / "gone.yaml"))
    assert again(load("tiny")) is None


@pytest.mark.parametrize(
    "value", [0.1, 1e-7, 1e30, None, True, "yes", "1", "", "a\nb", "ü: {", [], {}, [[1]], {"a": [None]}]
)
def test_a_value_in_one_line_is_read_back(value):
    from contract import plainyaml

    line = in_one_line(value)
    assert "\n" not in line
    assert plainyaml.load(line) == value

"""The thresholds of `filter` and the rules that their types carry: none is without the other, and each is bounded."""

from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from contract.schema import Drop
from contract.settings.base import Count, Fraction, NotNegative, Positive, Real
from contract.settings.filter import (
    C4,
    RULE_SETS,
    RULES,
    DropsIf,
    Filter,
    GopherQuality,
    GopherRepetition,
    RuleSet,
    declared_rules,
)

SECTIONS: list[type] = [Filter, *(type(section) for _, section in Filter() if isinstance(section, RuleSet))]
THRESHOLDS = [
    (section, name)
    for section in SECTIONS
    for name, field in section.model_fields.items()
    if name != "enabled" and not isinstance(field.default, RuleSet)
]


class Shouting(RuleSet):
    """A rule set of one threshold and of one table."""

    max_exclamation_ratio: Annotated[NotNegative, DropsIf("exclamation_ratio", ">", "shouting", "a paper")] = 0.1
    min_pairs: Annotated[dict[int, Fraction], DropsIf("pair_{n}", "<", "few_pairs", "a book", "kept text")]


def test_a_rule_is_made_from_its_threshold() -> None:
    first, small, large = declared_rules(
        Shouting(max_exclamation_ratio=0.2, min_pairs={20: 0.5, 3: 0.25}), "shouting_set"
    )
    assert (first.score, first.comparison, first.limit, first.reason) == ("exclamation_ratio", ">", 0.2, "shouting")
    assert (first.rule_set, first.setting) == ("shouting_set", "shouting_set.max_exclamation_ratio")
    assert (first.source, first.measured_on) == ("a paper", "extracted text")
    assert [(one.score, one.limit, one.setting) for one in (small, large)] == [
        ("pair_3", 0.25, "shouting_set.min_pairs.3"),
        ("pair_20", 0.5, "shouting_set.min_pairs.20"),
    ]
    assert (small.reason, small.source, small.measured_on) == ("few_pairs", "a book", "kept text")


@pytest.mark.parametrize(("section", "name"), THRESHOLDS)
def test_each_threshold_carries_one_rule(section: type[RuleSet], name: str) -> None:
    assert [type(one) for one in section.model_fields[name].metadata].count(DropsIf) == 1
    assert any(rule.setting.endswith(name) or f".{name}." in rule.setting for rule in RULES)


@pytest.mark.parametrize(("section", "name"), THRESHOLDS)
def test_each_threshold_is_bounded(section: type[RuleSet], name: str) -> None:
    """tests/contract/recipe_schema.json leaves thresholds out: docs/filters.md holds their defaults, this their bounds."""
    above_zero = Annotated[Real, Field(gt=0, le=1e12)]
    shared = [TypeAdapter(kind).json_schema() for kind in (Fraction, NotNegative, Count, Positive, above_zero)]
    schema = section.model_json_schema()["properties"][name]
    one = schema.get("additionalProperties", schema)
    bounds = {key: value for key, value in one.items() if key not in ("default", "title", "description")}
    assert bounds in shared


def test_a_rule_set_that_is_off_has_no_rule() -> None:
    sets = {rule.rule_set for rule in Filter().rules()}
    assert sets >= {"gopher_repetition", "length", "gopher_quality", "lines", "fineweb"}
    assert sets.isdisjoint({"c4", "mc4", "bloom"})
    without = Filter.model_validate({"fineweb": {"enabled": False}, "c4": {"enabled": True}})
    assert {rule.rule_set for rule in without.rules()} == sets - {"fineweb"} | {"c4"}


def test_a_threshold_that_no_document_can_break_is_no_rule() -> None:
    settings = Filter.model_validate({"min_words": 0, "gopher_quality": {"min_stop_words": 0}})
    assert {rule.setting for rule in Filter().rules()} - {rule.setting for rule in settings.rules()} == {
        "min_words",
        "gopher_quality.min_stop_words",
    }
    zero = Filter.model_validate({"fineweb": {"min_punctuated_line_fraction": 0}, "max_removed_word_fraction": 0})
    assert len(zero.rules()) == len(Filter().rules()), "0 can be reached, and passed"


def test_a_recipe_that_sets_one_n_keeps_the_others() -> None:
    table = {"duplicate_ngram_char_fraction": {"6": 0.5}}
    made = GopherRepetition.model_validate(table)
    limits = {rule.score: rule.limit for rule in Filter(gopher_repetition=made).rules()}
    assert (limits["duplicate_5grams"], limits["duplicate_6grams"], limits["duplicate_10grams"]) == (0.15, 0.5, 0.1)


def test_a_reason_belongs_to_one_rule_set_and_to_no_other_stage() -> None:
    assert {(rule.reason, rule.rule_set) for rule in RULES} == set(RULE_SETS.items())
    assert set(RULE_SETS).isdisjoint(map(str, Drop))
    assert RULE_SETS["too_many_words"] == "length"
    assert RULE_SETS["lines_removed"] == "lines"
    assert RULE_SETS["bloom_perplexity"] == "bloom"


def test_the_mean_word_length_has_a_range() -> None:
    assert GopherQuality(min_mean_word_chars=4, max_mean_word_chars=4).max_mean_word_chars == 4
    with pytest.raises(ValidationError, match=r"min_mean_word_chars 5\.0 is above max_mean_word_chars 4\.0"):
        GopherQuality(min_mean_word_chars=5, max_mean_word_chars=4)


def test_a_setting_that_is_no_threshold_is_in_the_identity_too() -> None:
    """The rules speak for thresholds and switches; anything else that a later version adds must not be forgotten."""

    class Wider(Filter):
        flag: bool = False

    assert [key for key, _ in Wider().differences(Wider(), "filter.")] == ["filter.rules"]
    assert dict(Wider(flag=True).differences(Wider(), "filter."))["filter.flag"] is True
    changed = Wider(min_words=7, c4=C4(enabled=True, min_sentences=2)).differences(Wider(), "filter.")
    assert [key for key, _ in changed] == ["filter.rules"]

"""What people's votes say of them: known shares, known habits, and the one who votes against the truth is left out."""

import datetime
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from contract.conversation import Turn
from contract.feedback import Item, Reply, Vote, by_item, compared
from contract.settings.feedback import Trust
from evals.annotators import Annotator, comparisons, each, left_out, measure, opinions, weights

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


def make_items(count: int, gold: tuple[int, ...] = (), replies: int = 2) -> dict[str, Item]:
    written = tuple(Reply(f"reply {number}", f"model-{number}", 1.0) for number in range(replies))
    return {f"{at:032x}": Item(f"{at:032x}", 1, (Turn("user", "?"),), written, gold) for at in range(count)}


def vote(item: str, annotator: str, ranks: tuple[int, ...], **changes: Any) -> Vote:
    when = NOW + datetime.timedelta(seconds=changes.pop("at", 0))
    values = {"shown": tuple(range(max(len(ranks), 2))), "showing": 0, "when": when, "round": "r"} | changes
    return Vote(item=item, annotator=annotator, ranks=ranks, **values)


def person(name: str, people: tuple[Annotator, ...]) -> Annotator:
    return next(one for one in people if one.name == name)


def test_a_ranking_says_something_of_every_two_replies_and_where_they_stood() -> None:
    found = opinions([vote("0" * 32, "ann", (2, 1, 2), shown=(2, 0, 1))])
    assert [(one.one, one.other, one.prefers, one.first) for one in found] == [
        (0, 1, -1, 1),
        (0, 2, 0, -1),
        (1, 2, 1, -1),
    ]
    assert opinions([vote("0" * 32, "ann", (), skipped=True), vote("0" * 32, "bob", (), all_bad=True)]) == []


def test_shares_are_those_of_the_votes() -> None:
    items = make_items(10, gold=(1, 2))
    votes = [vote(item, name, (1, 2), seconds=4.0) for item in items for name in ("ann", "bob")]
    votes += [vote(item, "cat", (1, 2) if at < 4 else (2, 1), seconds=1.0 + at) for at, item in enumerate(items)]
    found = measure(items, votes)
    ann, cat = person("ann", found.annotators), person("cat", found.annotators)
    assert (cat.agreement.value, cat.agreement.count, cat.gold.value) == (0.4, 10, 0.4)
    assert (ann.agreement.value, ann.agreement.count) == (1.0, 4), "where bob and cat differ there is no majority"
    assert (ann.gold.value, ann.votes, ann.seconds, cat.seconds) == (1.0, 10, 4.0, 5.5)
    assert cat.agreement.low < 0.4 < cat.agreement.high
    assert math.isnan(ann.consistency.value)
    kappas = {pair[:2]: pair[2] for pair in found.kappas}
    assert (kappas["ann", "cat"].value, kappas["ann", "cat"].count) == (pytest.approx((0.4 - 0.5) / (1 - 0.5)), 10)
    assert kappas["ann", "bob"].value == pytest.approx(1)
    # 30 answers, in both directions 60, of which 30 are -1: 6 items have 4 unlike pairs of answers in each direction
    assert found.preference.value == pytest.approx(1 - 59 * (2 * 6 * 4 / 2) / (2 * 30 * 30))
    assert found.preference.count == 10


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_alpha_and_kappa_do_not_depend_on_which_reply_is_the_first(share: float) -> None:
    """However often the same model's replies are the first ones, and win: the items are turned, and nothing changes."""
    drawn = random.Random(1)
    items, votes = simulated(3, {"ann": 0.9, "bob": 0.8, "cat": 0.85}, 60)
    turned = {item for item in items if drawn.random() < share}
    other = [one.model_copy(update={"ranks": one.ranks[::-1]}) if one.item in turned else one for one in votes]
    one, two = measure(items, votes), measure(items, other)
    assert two.preference.value == pytest.approx(one.preference.value)
    assert [pair[2].value for pair in two.kappas] == pytest.approx([pair[2].value for pair in one.kappas])


def test_ranks_and_scores_have_an_alpha_of_their_own() -> None:
    items = make_items(6, replies=3)
    votes = [
        vote(item, name, ranks, scores={"wit": (1, 3, None) if at % 2 else (5, 2, 4)})
        for name in ("ann", "bob")
        for at, (item, ranks) in enumerate(zip(items, [(1, 2, 3), (3, 2, 1)] * 3, strict=True))
    ]
    found = measure(items, votes)
    assert (found.ranks.value, found.ranks.count) == (pytest.approx(1), 18)
    assert (found.scores["wit"].value, found.scores["wit"].count) == (pytest.approx(1), 15)


def test_a_second_showing_measures_consistency_and_counts_once_elsewhere() -> None:
    items = make_items(4)
    votes = [vote(item, name, (1, 2)) for item in items for name in ("ann", "bob")]
    again = [(1, 2), (1, 2), (2, 1), (1, 1)]
    votes += [vote(item, "ann", ranks, showing=1, at=9) for item, ranks in zip(items, again, strict=True)]
    found = measure(items, list(reversed(votes)))
    ann = person("ann", found.annotators)
    assert (ann.consistency.value, ann.consistency.count, found.consistency.value) == (0.5, 4, 0.5)
    assert ann.agreement.value == 1.0
    assert (ann.votes, ann.agreement.count) == (8, 4)


def test_who_prefers_what_stands_first_is_seen() -> None:
    items = make_items(20)
    votes = []
    for at, item in enumerate(items):
        shown = (0, 1) if at % 2 else (1, 0)
        votes.append(vote(item, "ann", (1, 2) if shown[0] == 0 else (2, 1), shown=shown))
        votes.append(vote(item, "bob", (1, 2), shown=shown))
    found = measure(items, votes)
    assert [one.first.value for one in found.annotators] == [1.0, 0.5]
    assert person("ann", found.annotators).first.low > 0.5
    assert found.first.value == 0.75


def simulated(seed: int, right: dict[str, float], count: int = 120) -> tuple[dict[str, Item], list[Vote]]:
    drawn = random.Random(seed)
    items = make_items(count)
    votes = [
        vote(item, name, (1, 2) if drawn.random() < share else (2, 1))
        for item in items
        for name, share in right.items()
    ]
    return items, votes


@pytest.mark.parametrize("seed", range(5))
def test_the_one_who_votes_against_the_truth_is_left_out_and_nobody_else(seed: int) -> None:
    items, votes = simulated(seed, {"good": 0.95, "fair": 0.8, "weak": 0.65, "bad": 0.1})
    gone, people = left_out(items, votes, Trust())
    assert list(gone) == ["bad"]
    assert "agreement with the others" in gone["bad"]
    assert people == each(items, [one for one in votes if one.annotator != "bad"])
    found = weights(people)
    assert min(found["good"], found["fair"]) > found["weak"] > 0


def test_people_are_left_out_by_gold_by_consistency_and_by_time() -> None:
    items = make_items(40, gold=(1, 2))
    votes = [vote(item, "ann", (2, 1), seconds=0.5) for item in items]
    votes += [vote(item, "ann", (1, 2), showing=1, at=1, seconds=0.5) for item in items]
    assert "gold items 0%" in left_out(items, votes, Trust())[0]["ann"]
    trust = Trust(min_gold=0.0, min_consistency=0.5)
    assert "consistency 0%" in left_out(items, votes, trust)[0]["ann"]
    assert left_out(items, votes, Trust(min_gold=0.0))[0] == {}
    assert left_out(items, votes, Trust(min_gold=0.0, min_seconds=2))[0] == {"ann": "median time 0.5 s, below 2 s"}


def of_answers(answers: dict[str, str], gold: int = 0) -> tuple[dict[str, Item], list[Vote]]:
    """name -> the reply that the person prefers of each item, `.` where the person did not vote. gold: so many items
    have the reply 0 as the best known one."""
    count = max(map(len, answers.values()))
    items = {**make_items(count), **make_items(gold, gold=(1, 2))}
    votes = [
        vote(item, name, (1, 2) if said == "0" else (2, 1))
        for name, all_said in answers.items()
        for item, said in zip(sorted(items), all_said, strict=False)
        if said != "."
    ]
    return items, votes


@pytest.mark.parametrize("liar", ["anna", "zed"])
def test_of_two_people_who_disagree_nobody_goes_and_gold_tells_who_lies(liar: str) -> None:
    answers = {name: ("1" if name == liar else "0") * 40 for name in ("anna", "zed")}
    gone, people = left_out(*of_answers(answers), Trust())
    assert gone == {}
    assert weights(people) == {"anna": 0.1, "zed": 0.1}
    gone, people = left_out(*of_answers(answers, gold=20), Trust())
    assert list(gone) == [liar]
    assert "gold items 0%" in gone[liar]
    assert weights(people) == {one: 1.0986 for one in answers if one != liar}


def test_nobody_goes_for_what_one_other_person_says() -> None:
    """Bob shares 40 items with a liar and a few with Cat: without the liar, too little is known of Bob."""
    bob_errs = {"bob": "0" * 40, "liar": "1" * 40, "cat": "1" * 4}
    assert left_out(*of_answers(bob_errs), Trust())[0] == {}
    assert list(left_out(*of_answers(bob_errs | {"cat": "1" * 5}), Trust())[0]) == ["bob"]


def test_people_who_are_equally_bad_go_together_unless_nobody_is_left() -> None:
    honest, lies = dict.fromkeys(("one", "two", "three"), "0" * 20), {"x": "1" * 20, "b": "1" * 20}
    assert set(left_out(*of_answers(honest | lies), Trust())[0]) == {"x", "b"}
    # Of each item two of three agree, who are other two each time: all are right in a third of their pairs of answers.
    turns = {"a": "110" * 40, "b": "101" * 40, "c": "011" * 40}
    items, votes = of_answers(turns)
    assert all(one.agreement.high < 0.5 for one in each(items, votes))
    assert left_out(items, votes, Trust())[0] == {}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("people", [2, 3, 4, 6])
def test_one_liar_among_any_number_is_left_out_where_it_can_be_told(people: int, seed: int) -> None:
    names = [f"p{number}" for number in range(people)]
    liar = random.Random(seed).choice(names)
    items, votes = simulated(seed, {name: 0.1 if name == liar else 0.9 for name in names})
    assert list(left_out(items, votes, Trust())[0]) == ([liar] if people > 2 else [])
    known = {key: replace(item, gold=(1, 2)) if at < 24 else item for at, (key, item) in enumerate(items.items())}
    assert list(left_out(known, votes, Trust())[0]) == [liar]
    assert left_out(*simulated(seed, dict.fromkeys(names, 0.9)), Trust())[0] == {}


def test_weights_are_log_odds_within_bounds() -> None:
    items, votes = simulated(0, {"one": 1.0, "same": 1.0, "never": 0.0}, 400)
    found = weights(each(items, [one for one in votes if one.annotator != "never"]))
    assert found == {"one": 4.0, "same": 4.0}
    against = weights(each(items, votes))
    assert against["never"] == 0.1
    assert weights(each(items, [one for one in votes if one.annotator == "one"])) == {"one": round(math.log(3), 4)}
    few = weights(each(*of_answers({"ann": "000", "bob": "001"})))
    assert few == dict.fromkeys(("ann", "bob"), round(math.log((2 + 3) / (1 + 1)), 4))


def test_one_disagreement_does_not_erase_a_round() -> None:
    """Anna and Bob share one item, on which they differ; each of the other 40 items still makes a pair."""
    items, votes = of_answers({"anna": "0" * 20 + "." * 20 + "0", "bob": "." * 20 + "1" * 20 + "1"})
    gone, people = left_out(items, votes, Trust())
    given = weights(people)
    assert gone == {}
    assert given == dict.fromkeys(("anna", "bob"), round(math.log(3 / 2), 4))
    found = [one for key, own in by_item(votes).items() for one in compared(items[key], own, given.__getitem__)]
    assert [one.margin for one in found] == [1.0] * 40


def test_votes_compare_the_models_that_wrote_the_replies() -> None:
    items = make_items(1, replies=3)
    [item] = items
    found = comparisons(items, [vote(item, "ann", (1, 2, 2)), vote("f" * 32, "ann", (1, 2))])
    assert [(one.one, one.other, one.result, one.cluster) for one in found] == [
        ("model-0", "model-1", 1.0, item),
        ("model-0", "model-2", 1.0, item),
        ("model-1", "model-2", 0.5, item),
    ]


def test_a_person_compares_models_once_for_an_item_and_a_model_that_votes_never() -> None:
    items = make_items(2)
    one, two = items
    votes = [vote(one, "ann", (1, 2)), vote(one, "ann", (2, 1), showing=1), vote(two, "ann", (1, 1))]
    votes += [vote(one, "judge:m-1", (1, 2)), vote(one, "judge:m-1", (1, 2), showing=1)]
    found = comparisons(items, votes)
    assert [(one.result, one.weight) for one in found] == [(1.0, 0.5), (0.0, 0.5), (0.5, 1.0)]

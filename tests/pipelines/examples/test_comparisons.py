"""Every shape of comparisons by a known answer, and the pairs of a ranking."""

import time
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.conversation import Preference, Turn
from contract.examples import Unusable
from pipelines.examples.comparisons import (
    Ranking,
    Reply,
    by_votes,
    comparisons,
    gathered,
    pairs_of,
    parse_dialogue,
    rating,
    weighted,
)
from pipelines.examples.shapes import shape_of

ASKED = (Turn("user", "a"),)
USER = {"role": "user", "content": "a"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(row: Any, **weights: float) -> tuple[str, list[Ranking]]:
    shape = shape_of(row, comparisons(weights))
    return shape.name, list(shape.parse(row))


def ranked(*replies: tuple[str, float], rated: bool = False, turns: Any = ASKED) -> list[Ranking]:
    return [Ranking(turns, tuple(Reply(*one) for one in replies), rated)]


BEST_FIRST = (("b", 0.0), ("c", -1.0))


@pytest.mark.parametrize(
    ("row", "name", "found"),
    [
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
            "chosen and rejected dialogues",
            ranked(*BEST_FIRST),
        ),
        ({"chosen": [USER, said("b")], "rejected": [USER, said("c")]}, "chosen and rejected dialogues", ranked(*BEST_FIRST)),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "prompt, chosen and rejected", ranked(*BEST_FIRST)),
        ({"prompt": [USER], "chosen": [said("b")], "rejected": [said("c")]}, "prompt, chosen and rejected", ranked(*BEST_FIRST)),
        ({"prompt": "a", "chosen": [USER, said("b")], "rejected": [USER, said("c")]}, "prompt, chosen and rejected", ranked(*BEST_FIRST)),
        (
            {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}},
            "prompt, chosen and rejected",
            ranked(*BEST_FIRST),
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 8, "score_rejected": "6.5"},
            "prompt, chosen and rejected",
            ranked(("b", 8.0), ("c", 6.5), rated=True),
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 6, "score_rejected": 6},
            "prompt, chosen and rejected",
            ranked(*BEST_FIRST),
        ),
        (
            {"question": "a", "accepted": "b", "rejected": ["c", "d"]},
            "log of accepted and rejected",
            ranked(("b", 1.0), ("c", 0.0), ("d", 0.0)),
        ),
        ({"question": "a", "accepted": "b", "rejected": "c"}, "log of accepted and rejected", ranked(("b", 1.0), ("c", 0.0))),
        ({"prompt": "a", "responses": ["b", "c"]}, "replies, scored or best first", ranked(*BEST_FIRST)),
        (
            {"prompt": "a", "responses": ["c", "b"], "ranks": [2, 1]},
            "replies, scored or best first",
            ranked(("c", -2.0), ("b", -1.0)),
        ),
        (
            {"prompt": "a", "completions": ["c", "b"], "scores": [1, 2.5]},
            "replies, scored or best first",
            ranked(("c", 1.0), ("b", 2.5), rated=True),
        ),
        (
            {"input": "a", "outputs": [{"response": "b", "score": 3}, {"response": "c", "score": "1"}, {"response": "d"}]},
            "replies, scored or best first",
            ranked(("b", 3.0), ("c", 1.0), rated=True),
        ),
        (
            {"instruction": "a", "completions": [
                {"response": "b", "overall_score": 1, "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "4"}, "verbosity": {"Rating": "1"}}},
                {"response": "c", "overall_score": 9, "annotations": {"helpfulness": {"Rating": "2"}, "honesty": {"Rating": "N/A"}}},
            ]},
            "replies, scored or best first",
            ranked(("b", 4.5), ("c", 2.0), rated=True),
        ),
        (
            {"question": "a", "answers": [{"text": "b", "votes": 3, "accepted": True}, {"text": "c", "votes": 0}, {"text": "d", "votes": -4}]},
            "answers by votes",
            ranked(("b", 3.0), ("c", 0.0), ("d", -1.0), rated=True),
        ),
        (
            {"title": "a", "body": "e", "answers": [{"body": "b", "pm_score": 5, "selected": True}, {"body": "c", "pm_score": 0}]},
            "answers by votes",
            ranked(("b", 5.0), ("c", 0.0), rated=True, turns=(Turn("user", "a\n\ne"),)),
        ),
        (
            {"prompt": "a", "response": "b", "helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 0, "verbosity": 1},
            "one rated reply a row",
            [Ranking(ASKED, (Reply("b", 11 / 3),), rated=True, open=True)],
        ),
    ],
)  # fmt: skip
def test_shapes_by_known_answers(row: dict[str, Any], name: str, found: list[Ranking]) -> None:
    assert read(row) == (name, found)


def test_a_tree_gives_a_ranking_wherever_replies_were_ranked() -> None:
    def node(text: str, role: str, *replies: Any, rank: int | None = None, deleted: bool = False) -> dict[str, Any]:
        return {"text": text, "role": role, "replies": list(replies), "rank": rank, "deleted": deleted}

    later = node("d", "prompter", node("e", "assistant", rank=1), node("f", "assistant", rank=0))
    tree = node(
        "a",
        "prompter",
        node("c", "assistant", rank=1),
        node("b", "assistant", later, rank=0),
        node("x", "assistant", rank=2, deleted=True),
        node("y", "assistant"),
    )
    first, second = read({"message_tree_id": "1", "prompt": tree})[1]
    assert first == ranked(("c", -1.0), ("b", 0.0))[0]
    assert [turn.text for turn in second.prompt] == ["a", "b", "d"]
    assert [turn.role for turn in second.prompt] == ["user", "assistant", "user"]
    assert second.replies == (Reply("e", -1.0), Reply("f", 0.0))
    with pytest.raises(Unusable, match="one reply"):
        read({"message_tree_id": "1", "prompt": node("a", "prompter", node("b", "assistant", rank=0))})


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: d"}, "prompts differ"),
        (
            {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"},
            "prompts differ",
        ),
        ({"chosen": "Human: a\n\nAssistant: ", "rejected": "Human: a\n\nAssistant: b"}, "empty text: reply"),
        ({"chosen": "Human: a", "rejected": "Human: a\n\nAssistant: d"}, "not a dialogue: .*ends with a reply"),
        ({"chosen": "So. \n\nHuman: a\n\nAssistant: b", "rejected": "x"}, "not a dialogue: .*ends with a reply"),
        ({"chosen": "Human: a\n\nAssistant: b"}, "missing text: rejected"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "not a text: chosen"),
        ({"prompt": "a", "response": "b"}, "missing text: score"),
        ({"question": "a", "answers": [{"text": "b"}]}, "missing text: votes"),
        ({"message_tree_id": "1", "prompt": {"role": "prompter"}}, "not a dialogue: a message of the tree has no text"),
        ({"x": 1}, "unknown shape: keys x"),
    ],
)
def test_why_a_comparison_cannot_be_used(row: dict[str, Any], what: str) -> None:
    with pytest.raises(Unusable, match=f"^{what}"):
        read(row)


def test_a_dialogue_has_an_end() -> None:
    assert len(parse_dialogue("\n\nHuman: a\n\nAssistant: b" * 500)) == 1000
    with pytest.raises(Unusable, match=r"^not a dialogue: more than 1,000 turns"):
        parse_dialogue("\n\nHuman: a\n\nAssistant: b" * 501)


def test_dialogues_as_text() -> None:
    assert parse_dialogue("\n\nHuman: a\n\nb\n\nAssistant: c")[0].text == "a\n\nb"
    assert parse_dialogue(" \n\nHuman: a Human: b\n\nAssistant: c") == (
        Turn("user", "a Human: b"),
        Turn("assistant", "c"),
    )


def test_pairs_of_three_replies() -> None:
    found = pairs_of(ranked(("b", 2.0), ("c", 3.0), ("d", 3.0), rated=True)[0], 36)
    assert found == [Preference(ASKED, "c", "b", "", 3.0, 2.0), Preference(ASKED, "d", "b", "", 3.0, 2.0)]
    assert pairs_of(ranked(*BEST_FIRST)[0], 36) == [Preference(ASKED, "b", "c")]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=2, max_size=9), st.integers(1, 50))
def test_every_two_replies_that_differ_are_a_pair(replies: list[tuple[int, int]], most: int) -> None:
    distinct = sorted({(str(text), float(score)) for text, score in replies})
    expected = {
        (max(one, other, key=lambda reply: reply[1]), min(one, other, key=lambda reply: reply[1]))
        for one, other in combinations(distinct, 2)
        if one[0] != other[0] and one[1] != other[1]
    }
    ranking = ranked(*((str(text), float(score)) for text, score in replies), rated=True)[0]
    if not expected:
        with pytest.raises(Unusable, match=r"replies (tie|are equal)"):
            pairs_of(ranking, most)
        return
    found = [((one.chosen, one.chosen_score), (one.rejected, one.rejected_score)) for one in pairs_of(ranking, most)]
    assert len(found) == len(set(found)) == min(most, len(expected))
    assert set(found) <= expected
    assert most < len(expected) or set(found) == expected


def test_of_very_many_replies_some_are_drawn() -> None:
    replies = [Reply(f"reply {at}", at) for at in range(20_000)]
    began = time.process_time()
    found = pairs_of(Ranking(ASKED, tuple(replies)), 4950)
    assert time.process_time() - began < 5
    assert len(found) == 4950, "all pairs of a hundred replies"
    assert found == pairs_of(Ranking(ASKED, tuple(replies)), 4950)
    rows = [(str(at), Ranking(ASKED, (reply,), open=True), "") for at, reply in enumerate(replies[:250])]
    assert [len(one.replies) for _, one, _ in gathered(rows) if isinstance(one, Ranking)] == [100, 100, 50]


def test_what_gives_no_pair_is_named() -> None:
    for replies, why in (
        ([("b", 1.0)], "one reply"),
        ([("b", 1.0), ("b", 2.0)], "replies are equal"),
        ([("b", 1.0), ("c", 1.0)], "replies tie"),
    ):
        with pytest.raises(Unusable, match=f"^{why}$"):
            pairs_of(ranked(*replies)[0], 9)


def test_criteria_are_weighed() -> None:
    assert weighted({"helpfulness": 4, "correctness": 2, "verbosity": 9}, {}) == 3
    assert weighted({"helpfulness": 4, "verbosity": 1}, {"helpfulness": 3, "verbosity": 1}) == 3.25
    assert weighted({"verbosity": 9}, {}) is None
    assert weighted({"helpfulness": 4}, {"style": 1}) is None
    assert weighted({"helpfulness": 4}, {"helpfulness": 0}) is None
    assert rating({"ratings": {"honesty": 2}, "score": 9}, {}) == 2
    assert rating({"fine-grained_score": 3.5}, {}) == 3.5
    assert rating({"rank": 2}, {}) == -2
    assert rating({"text": "b"}, {}) is None


def test_scores_by_votes() -> None:
    assert [by_votes(votes, False) for votes in (-3, 0, 1, 2, 6, 7, 100)] == [-1, 0, 1, 2, 3, 3, 7]
    assert by_votes(7, True) == 4
    assert by_votes(-1, True) == -1


def test_rows_with_one_prompt_are_gathered_if_they_follow_each_other() -> None:
    def one(text: str, score: float, prompt: str = "a") -> Ranking:
        return Ranking((Turn("user", prompt),), (Reply(text, score),), rated=True, open=True)

    closed, bad = ranked(*BEST_FIRST)[0], Unusable(shape_reason())
    rows = [("1", one("b", 1), ""), ("2", one("c", 2), ""), ("3", one("d", 3, "x"), ""), ("4", bad, "s"),
            ("5", one("e", 1, "x"), ""), ("6", closed, ""), ("7", one("f", 0), "")]  # fmt: skip
    found = list(gathered(rows))
    assert [place for place, _, _ in found] == ["1", "3", "4", "5", "6", "7"]
    assert isinstance(found[0][1], Ranking)
    assert found[0][1].replies == (Reply("b", 1), Reply("c", 2))
    assert found[2][1:] == (bad, "s")


def shape_reason() -> Any:
    from contract.schema import Drop

    return Drop.NOT_JSON

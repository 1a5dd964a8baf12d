"""Pairs of one prompt become one ranking, wherever they stand."""

import pyarrow as pa

from contract.conversation import Preference, Turn
from training.data.examples import Examples
from training.data.rankings import MOST_REPLIES, Ranking, Rankings, by_prompt, ranking_of

ASKED = (Turn("user", "q"),)


def pair(prompt: str, chosen: str, rejected: str) -> Preference:
    return Preference((Turn("user", prompt),), chosen, rejected)


def table(pairs: list[Preference]) -> Examples[Preference]:
    rows = [{"prompt": one.prompt[0].text, "chosen": one.chosen, "rejected": one.rejected} for one in pairs]
    return Examples(pa.Table.from_pylist(rows), lambda row: pair(row["prompt"], row["chosen"], row["rejected"]))


def test_each_reply_stands_once_with_its_score_and_all_its_pairs() -> None:
    some = [
        Preference(ASKED, "a", "b", "chat", 5.0, 3.0),
        Preference(ASKED, "a", "c", "chat", 5.0, 1.0),
        Preference(ASKED, "b", "c", "chat", 3.0, 1.0),
        Preference(ASKED, "a", "b", "chat", 5.0, 3.0),
    ]
    pairs = ((0, 1), (0, 2), (1, 2))
    assert ranking_of(some) == Ranking(ASKED, ("a", "b", "c"), (5.0, 3.0, 1.0), pairs, "chat", (1.0, 1.0, 1.0))


def test_pairs_keep_their_weights() -> None:
    some = [Preference(ASKED, "a", "b", weight=0.25), Preference(ASKED, "c", "b", weight=2.0)]
    assert ranking_of(some).weighted == [(0, 1, 0.25), (2, 1, 2.0)]
    assert Ranking(ASKED, ("a", "b"), (None, None), ((0, 1),)).weighted == [(0, 1, 1.0)]


def test_pairs_of_more_replies_than_fit_are_left_out() -> None:
    found = ranking_of([Preference(ASKED, "best", f"other {number}") for number in range(MOST_REPLIES + 4)])
    assert len(found.replies) == MOST_REPLIES
    assert found.pairs == tuple((0, number) for number in range(1, MOST_REPLIES))
    late = [Preference(ASKED, f"a{number}", f"b{number}") for number in range(5)]
    assert ranking_of([*late, Preference(ASKED, "b0", "b1")]).pairs[-1] == (1, 3), (
        "a later pair of known replies counts"
    )
    assert len(ranking_of(late).replies) == 8


def test_pairs_of_a_prompt_are_found_wherever_they_stand() -> None:
    pairs = [pair("p", "a", "b"), pair("q", "c", "d"), pair("p", "b", "e"), pair("r", "f", "g")]
    assert by_prompt(pairs) == [[0, 2], [1], [3]]
    found = Rankings(table(pairs))
    assert (len(found), found.numbers) == (3, [0, 1, 3])
    assert found[0].replies == ("a", "b", "e")
    assert [one.replies[0] for one in found] == [one.replies[0] for one in found[:]] == ["a", "c", "f"]
    assert found[1:] == [found[1], found[2]]
    left = found.without({0})
    assert (list(left), left.numbers) == ([found[1], found[2]], [1, 3])
    assert left.without({1}).numbers == [1]

"""Gold items are the rankings of a file of comparisons, whatever its shape, and another round draws others."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.conversation import Turn
from contract.errors import InputError
from contract.settings.training import Sample
from pipelines.examples.comparisons import Ranking, Reply, ordered
from pipelines.examples.gold import item_of, read_gold

ASKED = (Turn("user", "How?"),)


def written(folder: Path, rows: list[Any]) -> str:
    path = folder / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_of_several_shapes_become_items_with_known_ranks(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "chosen": "good", "rejected": "bad"},
        {"question": "b", "accepted": "yes", "rejected": ["no", "never"]},
        {"prompt": "c", "replies": ["best", "middle", "worst"]},
        {"prompt": "d", "chosen": "same", "rejected": "same"},
        {"prompt": "e"},
    ]
    found = {one.prompt[0].text: one for one in read_gold(Sample(round=3, gold=written(tmp_path, rows)))}
    ranked = {asked: {r.text: g for r, g in zip(one.replies, one.gold, strict=True)} for asked, one in found.items()}
    assert ranked == {
        "a": {"good": 1, "bad": 2},
        "b": {"yes": 1, "no": 2, "never": 2},
        "c": {"best": 1, "middle": 2, "worst": 3},
    }
    assert {one.round for one in found.values()} == {3}
    assert {reply.model for one in found.values() for reply in one.replies} == {"gold"}


def test_a_round_draws_its_own_items_and_no_more_than_asked(tmp_path: Path) -> None:
    uri = written(tmp_path, [{"prompt": str(at), "chosen": "good", "rejected": "bad"} for at in range(200)])
    one, same, two = (read_gold(Sample(gold=uri, gold_items=15, round=number)) for number in (1, 1, 2))
    assert (len(one), len({item.id for item in one}), one == same) == (15, 15, True)
    assert len({item.id for item in one} & {item.id for item in two}) < 8
    assert read_gold(Sample()) == []


def test_where_a_reply_stands_says_nothing_of_its_rank() -> None:
    first = [item_of(ordered(ASKED, (f"good {at}", f"bad {at}")), 1) for at in range(200)]
    assert 70 < sum(one is not None and one.gold == (1, 2) for one in first) < 130


def test_of_many_replies_four_are_taken_and_ties_stay_ties() -> None:
    many = item_of(ordered(ASKED, [f"reply {at}" for at in range(9)]), 1)
    assert many is not None
    assert sorted(many.gold) == [1, 2, 3, 4]
    places = [int(reply.text.split()[1]) for reply in many.replies]
    assert [sorted(places).index(place) + 1 for place in places] == [*many.gold]
    assert item_of(Ranking(ASKED, (Reply("a", 1.0), Reply("b", 1.0))), 1) is None
    assert item_of(Ranking(ASKED, (Reply("a", 1.0), Reply("a", 0.0), Reply("", -1.0))), 1) is None


@pytest.mark.parametrize(("rows", "said"), [([{"prompt": "a"}], "ranks no two replies"), (None, "no such file")])
def test_a_file_that_ranks_nothing_is_refused(tmp_path: Path, rows: Any, said: str) -> None:
    uri = str(tmp_path / "none.jsonl") if rows is None else written(tmp_path, rows)
    with pytest.raises(InputError, match=rf"sample\.gold: .*{said}"):
        read_gold(Sample(gold=uri))

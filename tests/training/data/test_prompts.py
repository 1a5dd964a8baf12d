"""Prompts of a file or of pairs: which of them are learned from, which are measured on, and with which answers."""

import json
from typing import Any

import pytest

from contract.errors import InputError
from contract.kinds import Kind
from training.data.examples import distinct_prompts, read_pairs
from training.data.prompts import read_prompts


def written(folder: Any, rows: int) -> str:
    file = folder / "prompts.jsonl"
    made = [{"prompt": f"What is {row}?", "answer": str(row)} for row in range(rows - 1)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*made, {"prompt": "Who knows?"}]))
    return f"prompts.data={file}"


def test_a_tenth_of_a_file_is_held_out(align: Any, tmp_path: Any) -> None:
    file = written(tmp_path, 40)
    found = read_prompts(align("ppo", file, "ppo.eval_prompts=9"))
    learned = [found.training[row] for row in range(len(found.training))]
    measured = [found.heldout[row] for row in range(len(found.heldout))]
    assert (len(learned), len(measured)) == (36, 4)
    assert sorted(one.row for one in (*learned, *measured)) == list(range(40))
    asked = {one.prompt[0].text: one.answers for one in (*learned, *measured)}
    assert asked == {**{f"What is {row}?": (str(row),) for row in range(39)}, "Who knows?": ()}
    few = read_prompts(align("ppo", file, "ppo.eval_prompts=2"))
    assert len(few.heldout) == 2
    other = read_prompts(align("ppo", file, "ppo.eval_prompts=9", "ppo.seed=1"))
    assert [other.heldout[row].row for row in range(4)] != [one.row for one in measured]


def test_a_file_of_few_prompts_is_measured_on_itself(align: Any, tmp_path: Any) -> None:
    found = read_prompts(align("ppo", written(tmp_path, 5), "ppo.eval_prompts=3"))
    assert (len(found.training), len(found.heldout)) == (5, 3)


def test_rewards_of_known_answers_need_one(align: Any, tmp_path: Any) -> None:
    file = tmp_path / "plain.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What is {row}?"}) + "\n" for row in range(4)))
    with pytest.raises(InputError, match=r"^ppo\.reward: none of 4 prompts has a known answer; give the rows"):
        read_prompts(align("ppo", f"prompts.data={file}", "ppo.reward=answers"))
    assert len(read_prompts(align("ppo", f"prompts.data={file}", "ppo.reward=both")).training) == 4


def test_of_pairs_the_held_out_ones_are_measured_on(align: Any) -> None:
    job = align("ppo", "ppo.eval_prompts=5")
    found, heldout = read_prompts(job), read_pairs(job, Kind.HELDOUT_PAIRS)
    assert [found.heldout[row].prompt for row in range(5)] == [
        heldout[row].prompt for row in distinct_prompts(heldout, 5)
    ]
    assert len(found.heldout) == 5
    pairs = read_pairs(job, Kind.PAIRS)
    assert [found.training[row].row for row in range(len(found.training))] == distinct_prompts(pairs)
    assert found.training[3].prompt == pairs[found.training[3].row].prompt

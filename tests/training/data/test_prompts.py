"""Prompts of a file or of pairs: what a row may be, and which prompts are measured on."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from contract.conversation import Turn
from contract.errors import InputError
from contract.examples import Unusable
from contract.kinds import Kind
from contract.settings.training import Ppo
from training.data.examples import distinct_prompts, read_pairs
from training.data.prompts import parse_prompt, read_prompts


def job_of(settings: Ppo) -> Any:
    return SimpleNamespace(settings=settings, task=SimpleNamespace(stage="ppo"))


@pytest.mark.parametrize(
    ("row", "prompt", "answers"),
    [
        ({"prompt": " What? "}, (Turn("user", "What?"),), ()),
        ({"prompt": "What?", "answer": "A mill"}, (Turn("user", "What?"),), ("A mill",)),
        (
            {
                "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}],
                "answer": ["a", "b"],
            },
            (Turn("system", "Be brief."), Turn("user", "What?")),
            ("a", "b"),
        ),
    ],
)
def test_a_row_is_a_prompt_and_its_answers(row: Any, prompt: Any, answers: Any) -> None:
    assert parse_prompt(row) == (prompt, answers)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("What?", "not_an_object"),
        ({"question": "What?"}, "missing_text"),
        ({"prompt": " "}, "empty_text"),
        ({"prompt": 3}, "not_a_text"),
        ({"prompt": "a", "answer": 3}, "not_a_text"),
        ({"prompt": [{"role": "assistant", "content": "a"}]}, "not_a_dialogue"),
        ({"prompt": [{"role": "robot", "content": "a"}]}, "not_a_dialogue"),
        ({"prompt": []}, "not_a_dialogue"),
    ],
)
def test_what_is_no_prompt_has_a_reason(row: Any, reason: str) -> None:
    with pytest.raises(Unusable) as raised:
        parse_prompt(row)
    assert raised.value.reason.value == reason


def test_a_tenth_of_a_file_is_held_out_and_bad_rows_are_counted(tmp_path: Any) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [json.dumps({"prompt": f"What is {row}?", "answer": str(row)}) for row in range(40)]
    file.write_text("\n".join([*rows, "{", '{"prompt": 3}', '{"prompt": ""}']))
    found = read_prompts(job_of(Ppo(prompts=str(file), eval_prompts=9)))
    learned = [found.training[row] for row in range(len(found.training))]
    measured = [found.heldout[row] for row in range(len(found.heldout))]
    assert (len(learned), len(measured)) == (36, 4)
    assert sorted(one.row for one in (*learned, *measured)) == list(range(40))
    assert all(one.answers == (str(one.row),) and str(one.row) in one.prompt[0].text for one in (*learned, *measured))
    assert found.dropped == {"not_json": 1, "not_a_text": 1, "empty_text": 1}
    few = read_prompts(job_of(Ppo(prompts=str(file), eval_prompts=2)))
    assert len(few.heldout) == 2
    other = read_prompts(job_of(Ppo(prompts=str(file), eval_prompts=9, seed=1)))
    assert [other.heldout[row].row for row in range(4)] != [one.row for one in measured]


def test_a_file_of_few_prompts_is_measured_on_itself(tmp_path: Any) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"What is {row}?"}) for row in range(5)))
    found = read_prompts(job_of(Ppo(prompts=str(file), eval_prompts=3)))
    assert (len(found.training), len(found.heldout)) == (5, 3)


def test_a_file_without_a_prompt_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"question": "a"}\n')
    with pytest.raises(InputError, match=r"^ppo.prompts: .* holds no usable row \(.* missing text: prompt\)"):
        read_prompts(job_of(Ppo(prompts=str(file))))


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

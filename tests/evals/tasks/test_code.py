"""Programs that are made of outputs, and their grades from the real sandbox."""

import json
import os
from pathlib import Path

import pytest

from contract.errors import SetupError
from evals import sandbox
from evals.tasks.code import HUMANEVAL, MBPP, blocks, defines, humaneval_program, mbpp_program
from tests.conftest import DATA
from tests.evals.conftest import needs_sandbox

ROW = {
    "task_id": "t/0",
    "prompt": "import math\n\ndef half(n):\n    return n // 2\n\ndef area(r: float) -> float:\n    '''Area.'''\n",
    "canonical_solution": "    return math.pi * r * r",
    "test": "def check(candidate):\n    assert abs(candidate(2) - 12.566) < 0.01",
    "entry_point": "area",
}
ITEM = HUMANEVAL.read(ROW, "0")
MBPP_ROW = {
    "task_id": 11, "text": "Write a function to double.", "code": "def double(x):\n    return 2 * x", "test_setup_code": "",
    "test_list": ["assert double(2) == 4", "assert double(-1) == -2"], "challenge_test_list": [],
}  # fmt: skip
RIGHT = {
    "the body": "    return math.pi * r * r",
    "the body, with more behind it": "    return math.pi * r * r\n\ndef other():\n    assert False\n",
    "a fenced function": "Sure!\n```python\ndef area(r):\n    return math.pi * r * r\n```\nIt squares.",
    "a fenced function that calls the prompt's other one": "```\ndef area(r):\n    return math.pi * r * 2 * half(r)\n```",
    "a fenced body": "```python\n    return math.pi * r * r\n```",
    "the second of two blocks": "```python\nprint(1)\n```\n```python\ndef area(r):\n    return math.pi * r * r\n```",
    "an open fence": "```python\ndef area(r):\n    return math.pi * r * r\n",
    "the whole function, unfenced": "def area(r):\n    return math.pi * r * r",
    "behind a thought": "<think>def area</think>    return math.pi * r * r",
}


@needs_sandbox
@pytest.mark.parametrize("name", RIGHT)
def test_code_is_found_however_it_is_given(name: str) -> None:
    graded = HUMANEVAL.grade(ITEM, RIGHT[name])
    assert (graded.extracted, graded.score) == ("passed", 1)


@needs_sandbox
@pytest.mark.parametrize(
    "output", ["    return 0", "    return (", "    import sys\n    sys.exit(0)", "text without code"]
)
def test_code_that_does_not_pass_is_wrong(output: str) -> None:
    graded = HUMANEVAL.grade(ITEM, output)
    assert (graded.extracted, graded.score) == ("failed", 0)


def test_an_empty_output_has_no_code() -> None:
    assert humaneval_program(ITEM, " \n") is None
    assert HUMANEVAL.grade(ITEM, "").extracted is None
    assert mbpp_program(MBPP.read(MBPP_ROW, "0"), "[BEGIN]\n[DONE]") is None


@needs_sandbox
def test_mbpp_runs_the_published_tests() -> None:
    item = MBPP.read(MBPP_ROW, "0")
    outputs = [
        "def double(x):\n    return x + x\n[DONE]",
        "```python\ndef double(x):\n  return 2*x\n```",
        "[BEGIN]\ndef double(x):\n    return 4\n[DONE]",
    ]
    assert [MBPP.grade(item, one).score for one in outputs] == [1, 1, 0]


@needs_sandbox
@pytest.mark.skipif(not DATA.is_dir(), reason="the test data is not here")
def test_the_published_samples_of_humaneval_have_their_published_score() -> None:
    """OpenAI's example: six completions, of which those that return 1 pass: pass@1 is 0.5."""
    folder = DATA / "evals" / "humaneval"
    item = HUMANEVAL.read(json.loads((folder / "example_problem.jsonl").read_text()), "0")
    samples = [json.loads(line)["completion"] for line in (folder / "example_samples.jsonl").read_text().splitlines()]
    programs = [humaneval_program(item, one) or "" for one in samples]
    ended = sandbox.run_all(programs, sandbox.Limits(wall_s=3.0))
    assert [one.passed for one in ended] == [False, False, False, True, True, True]
    assert [one.ending for one in ended[:3]] == ["failed", "time", "failed"]


def test_without_a_sandbox_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._missing.cache_clear()
    touched = tmp_path / "touched"
    try:
        with pytest.raises(SetupError, match="bwrap was not found; install bubblewrap"):
            HUMANEVAL.grade(ITEM, f"    open({os.fspath(touched)!r}, 'w')\n    return math.pi * r * r")
    finally:
        sandbox._missing.cache_clear()
    assert not touched.exists()


def test_blocks_and_definitions() -> None:
    assert blocks("a\n```python\nx\n```\n```sh\ny\n```\n```\nz") == ["x\n", "z"]
    assert defines("def area(r):", "area")
    assert not defines("def area2(r):", "area")
    assert not defines("    def area(r):", "area")


def test_rows_without_tests_are_refused() -> None:
    with pytest.raises(ValueError, match="test_list is empty"):
        MBPP.read({**MBPP_ROW, "test_list": []}, "0")

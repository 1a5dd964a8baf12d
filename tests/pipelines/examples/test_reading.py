"""Files of examples, good and bad: every row comes out, as an example or as a reason with its place."""

import gzip
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.conversation import Example, Turn
from contract.errors import InputError
from contract.examples import Unusable
from contract.settings.examples import ChatSource, Instructions, Preferences, Prompts, Template
from pipelines.examples.comparisons import comparisons
from pipelines.examples.reading import inspect, listed, read_chats, read_pairs, read_prompts
from pipelines.examples.shapes import CHATS, PROMPTS

GOOD = {"instruction": "a", "output": "b"}


def found_in(settings: Any) -> tuple[list[Any], list[tuple[str, str]], Counter[str]]:
    """(the examples, each unusable row's place and what is wrong with it, the shapes) of what a recipe names."""
    shapes: Counter[str] = Counter()
    read: Any = {Instructions: read_chats, Preferences: read_pairs, Prompts: read_prompts}[type(settings)]
    rows = list(read(settings, shapes))
    bad = [(row.place, str(row.found)) for row in rows if isinstance(row.found, Unusable)]
    return [row.found for row in rows if not isinstance(row.found, Unusable)], bad, shapes


def chats(path: Path, **more: Any) -> tuple[list[Example], list[tuple[str, str]], Counter[str]]:
    return found_in(Instructions(data=str(path), **more))


def test_bad_rows_are_named_with_file_and_line(tmp_path: Path) -> None:
    lines = ["{", '"text"', '{"instruction": "a"}', '{"instruction": 1, "output": "b"}', '{"x": 1}', "[" * 100_000]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join([*lines, "", json.dumps(GOOD)]).encode() + b"\n{\xff}\n")
    found, bad, shapes = chats(path)
    assert [one.turns for one in found] == [(Turn("user", "a"), Turn("assistant", "b"))]
    assert bad == [
        ("a.jsonl line 1", "not json"),
        ("a.jsonl line 2", "not an object"),
        ("a.jsonl line 3", "missing text: output"),
        ("a.jsonl line 4", "not a text: instruction"),
        ("a.jsonl line 5", "unknown shape: keys x"),
        ("a.jsonl line 6", "not json"),
        ("a.jsonl line 9", "not utf8: byte 1"),
    ]
    assert shapes == {"alpaca": 1}
    snippets = [row.snippet for row in read_chats(Instructions(data=str(path)), Counter())]
    assert snippets[:3] == ["{\n", '"text"\n', '{"instruction": "a"}\n']
    assert max(map(len, snippets)) == 200


@pytest.mark.parametrize(
    "form", ["lines", "array", "gzip", "zst", "zst array", "parquet", "folder", "bom", "bom array"]
)
def test_every_form_of_file_reads_the_same(tmp_path: Path, form: str) -> None:
    rows = [{"text": f"q{at}", "label": f"a{at}"} for at in range(5)]
    data = json.dumps(rows) if "array" in form else "".join(json.dumps(row) + "\n" for row in rows)
    coded = b"\xef\xbb\xbf" * ("bom" in form) + data.encode()
    name = {"gzip": "rows.jsonl.gz", "parquet": "rows.parquet"}.get(
        form, "rows.json.zst" if "zst" in form else "rows.json"
    )
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif "zst" in form:
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(coded)
    else:
        path.write_bytes(gzip.compress(coded) if form == "gzip" else coded)
    for other in ("LICENSE", "notes.txt", ".hidden.json", "old.jsonl.bak"):
        (path.parent / other).write_text("free")
    found, bad, shapes = chats(path.parent if form == "folder" else path)
    assert [one.turns[1].text for one in found] == ["a0", "a1", "a2", "a3", "a4"]
    assert (bad, shapes) == ([], {"classification": 5})
    [first, *_] = read_chats(Instructions(data=str(path)), Counter())
    assert first.place == f"{name} {'line' if form in ('lines', 'gzip', 'zst', 'folder', 'bom') else 'row'} 1"


def test_a_folder_of_several_shapes_and_tasks(tmp_path: Path) -> None:
    for name, row in {
        "1.jsonl": GOOD,
        "maths/2.jsonl": {"question": "c", "answer": "d"},
        "maths/deep/3.jsonl": {"prompt": "e", "completion": "f", "task": "sums"},
        "maths/in/4.jsonl": {"question": "g", "answer": "h"},
    }.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
    found, bad, shapes = chats(tmp_path / "in")
    assert [(one.turns[0].text, one.task) for one in found] == [
        ("a", ""), ("c", "maths"), ("e", "sums"), ("g", "maths"),
    ]  # fmt: skip
    assert not bad
    assert listed(shapes) == " (question/answer 2, alpaca 1, prompt/completion 1)"
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "5.txt").write_text("{}")
    with pytest.raises(
        InputError, match=r"^instructions\.data: .*/none: none of its 1 files ends in .jsonl, .json or .parquet,"
    ):
        chats(tmp_path / "none")


def test_a_mixture_of_sources(tmp_path: Path) -> None:
    for name in "xy":
        rows = [{**GOOD, "instruction": f"{name}{at}", "task": "own"} for at in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {
        "one": {"data": str(tmp_path / "x.jsonl"), "max_examples": 2},
        "two": {"data": str(tmp_path / "y.jsonl"), "task": "fixed", "max_examples": 1},
    }
    found, _, shapes = found_in(Instructions.model_validate({"sources": sources}))
    assert [(one.turns[0].text, one.task) for one in found] == [("x0", "own"), ("x1", "own"), ("y0", "fixed")]
    assert shapes == {"alpaca": 3}
    (tmp_path / "z.jsonl").write_text(json.dumps(GOOD))
    sources = {"three": {"data": str(tmp_path / "z.jsonl")}}
    [only], _, _ = found_in(Instructions.model_validate({"sources": sources}))
    assert only.task == "three"


def test_a_damaged_or_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with pytest.raises(InputError, match=r"^instructions\.data: .*a.jsonl.gz: no such file or folder"):
        chats(path)
    packed = gzip.compress(b"".join(json.dumps({**GOOD, "input": str(at)}).encode() + b"\n" for at in range(999)))
    for damaged in (packed[:-20], packed[:10] + b"\xff" * 20):
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match=rf"^instructions\.data: file://{path}: damaged at row \d+ \(.*fetch it again"
        ):
            chats(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="damaged at row 1"):
        chats(path)


def test_templates_and_worked_examples(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"question": f"q{at}", "answer": f"a{at}", "why": f"w{at}" if at % 2 else ""} for at in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    templates = [
        {"prompt": "{question}", "reply": "{answer}"},
        {"prompt": "{question} Think!", "reply": "{why} So {answer}."},
    ]
    source = {"data": str(path), "templates": templates, "shots": [0, 2]}
    found, bad, shapes = found_in(Instructions.model_validate({"sources": {"sums": source}}))
    assert shapes == {"templates": 40}
    assert bad == [(f"a.jsonl line {at}", "worked example") for at in range(1, 9)]
    assert len(found) == 32
    assert {one.task for one in found} == {"sums"}
    shown = {f"q{at}" for at in range(8)}
    for at, one in enumerate(found, 8):
        assert one.turns[one.shots].text.split(" ")[0] == f"q{at}"
        assert {turn.text.split(" ")[0] for turn in one.turns[: one.shots : 2]} <= shown
        assert ("Think!" in one.turns[-2].text) == one.turns[-1].text.endswith(f"So a{at}.")
    assert {one.shots for one in found} == {0, 4}
    assert {"Think!" in one.turns[-2].text for one in found} == {True, False}


def test_worked_examples_are_of_the_same_task(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"question": f"{task} {at}", "answer": "a", "task": task} for at in range(20) for task in ("one", "two")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, bad, _ = found_in(Instructions(sources={"all": ChatSource(data=str(path), shots=(2,))}))
    assert [place for place, _ in bad] == [f"a.jsonl line {at}" for at in range(1, 17)], "eight of each task"
    assert len(found) == 24
    assert all({turn.text.split()[0] for turn in one.turns[::2]} == {one.task} for one in found)


KEYS = sorted(
    {key for shape in (*CHATS, *PROMPTS, *comparisons({})) for keys in shape.needs for key in keys}
    | {"system", "tools", "history", "context", "labels", "options", "task", "scores", "ranks", "rank", "helpfulness"}
    | {"role", "from", "content", "value", "tool_calls", "function_call", "function", "name", "arguments", "type"}
    | {"text", "body", "title", "votes", "pm_score", "replies", "annotations", "Rating", "score", "answer", "selected"}
)
"""Every key that a reader looks at."""
TEXTS = ("a", "b", "user", "assistant", "human", "gpt", "text", "5", "", "\ud800", "[[", '{"name": 1}', "\n\nHuman: a")
LEAVES = st.sampled_from([None, True, 0, 1, 2.5, -1, *TEXTS])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6) | VALUES, min_size=1, max_size=20))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_row_stops_the_reading(rows: list[Any]) -> None:
    """Whatever stands at a key, a row is an example whose texts can be stored, or it has a reason."""
    template = Template(prompt="{text} {score}", reply="{answer}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        for made in (
            Instructions(data=str(path)),
            Instructions(sources={"a": ChatSource(data=str(path), templates=(template,), shots=(0, 2))}),
            Preferences(data=str(path)),
            Prompts(data=str(path)),
        ):
            for one in found_in(made)[0]:
                turns = one.turns if isinstance(one, Example) else (*one.prompt, Turn("assistant", one.chosen))
                assert all(turn.text.encode() and turn.role for turn in turns)


def test_quality_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n" + "".join(json.dumps({**GOOD, "input": str(at), "stars": at}) + "\n" for at in range(9)))
    settings = Instructions.model_validate({"data": str(path), "select": {"quality_key": "stars"}})
    found, bad, _ = found_in(settings)
    assert [one.quality for one in found] == [*range(9)]
    assert bad == [("a.jsonl line 1", "unknown shape: keys ")]


def test_comparisons_of_several_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"prompt": "a", "response": "b", "helpfulness": 4, "task": "t"},
        {"prompt": "a", "response": "c", "helpfulness": 2, "task": "t"},
        {"prompt": "d", "response": "e", "helpfulness": 1},
        {"prompt": "f", "chosen": "g", "rejected": "h"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, bad, shapes = found_in(Preferences(data=str(path)))
    assert [(one.chosen, one.rejected, one.task, one.chosen_score, one.rejected_score) for one in found] == [
        ("b", "c", "t", 4.0, 2.0),
        ("g", "h", "", None, None),
    ]
    assert bad == [("a.jsonl line 3", "one reply")]
    assert shapes == {"one rated reply a row": 3, "prompt, chosen and rejected": 1}


def test_prompts_need_no_reply(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"Who?"\n{"prompt": "What?", "task": "t"}\n{"instruction": "Why?", "output": "So."}\n3\n')
    found, bad, _ = found_in(Prompts(data=str(path)))
    assert [(one.turns, one.task) for one in found] == [
        ((Turn("user", "Who?"),), ""),
        ((Turn("user", "What?"),), "t"),
        ((Turn("user", "Why?"),), ""),
    ]
    assert bad == [("a.jsonl line 4", "not an object")]
    assert found_in(Prompts()) == ([], [], {})
    assert len(found_in(Prompts(data=str(path), max_examples=1))[0]) == 1


def test_a_file_is_described_before_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(["{}", json.dumps(GOOD), "{", json.dumps(GOOD), "7"]))

    def told() -> str:
        shapes: Counter[str] = Counter()
        return inspect(
            "instructions.data", "a.jsonl", read_chats(Instructions(data=str(path)), shapes), shapes, "alpaca"
        )

    assert told() == (
        "instructions.data: 2 usable rows (alpaca 2), 3 unusable, the first: a.jsonl line 1: unknown shape: keys "
    )
    path.write_text(json.dumps(GOOD))
    assert told() == "instructions.data: 1 usable rows (alpaca 1)"
    path.write_text("{}")
    with pytest.raises(
        InputError,
        match=r"^instructions\.data: a.jsonl holds no usable row \(a.jsonl line 1: unknown shape: keys \); allowed: alpaca$",
    ):
        told()
    path.write_text("\n")
    with pytest.raises(InputError, match=r"holds no usable row \(it is empty\)"):
        told()
    path.write_text("\n".join([json.dumps(GOOD)] * 9 + ["{}"]))
    shown = Instructions(sources={"a": ChatSource(data=str(path), shots=(2,))})
    assert inspect("k", "a", read_chats(shown, Counter()), {}, "alpaca") == (
        "k: 1 usable rows, 1 unusable, the first: a.jsonl line 10: unknown shape: keys "
    ), "worked examples are usable, but for nothing else"
    path.write_text("\n".join([json.dumps(GOOD)] * 8))
    with pytest.raises(InputError, match=r"holds no usable row \(all of them are worked examples, see `shots`\)"):
        inspect("k", "a", read_chats(shown, Counter()), {}, "alpaca")


REAL_CHATS = {
    "sft/fastchat/dummy_conversation.json": ("sharegpt", 500, 500),
    "sft/gpteacher/codegen-instruct.json": ("alpaca", 4535, 4535),
    "sft/llama-factory/alpaca_en_demo.json": ("alpaca", 999, 999),
    "sft/llama-factory/alpaca_zh_demo.json": ("alpaca", 1000, 1000),
    "sft/self-instruct/seed_tasks.jsonl": ("self-instruct", 175, 175),
    "tooluse/llama-factory/glaive_toolcall_en_demo.json": ("sharegpt", 300, 300),
    "evals/gsm8k/train.jsonl": ("question/answer", 7473, 7473),
}


@pytest.mark.parametrize("name", REAL_CHATS)
def test_real_chats(data_dir: Path, name: str) -> None:
    shape, rows, usable = REAL_CHATS[name]
    found, bad, shapes = chats(data_dir / name)
    assert (len(found), bad, shapes) == (usable, [], {shape: rows})


def test_real_dialogues_with_tools(data_dir: Path) -> None:
    found, _, _ = chats(data_dir / "tooluse" / "llama-factory" / "glaive_toolcall_en_demo.json")
    roles = Counter(turn.role for one in found for turn in one.turns)
    assert roles["tool"] == sum(
        turn.text.count("<tool_call>") for one in found for turn in one.turns if turn.role == "assistant"
    )
    assert roles["tool"] > 100


def test_real_preferences(data_dir: Path) -> None:
    found, bad, shapes = found_in(Preferences(data=str(data_dir / "pref" / "hh-rlhf")))
    assert len(found) + len(bad) == 2312 + 2354
    assert Counter(why.split(":")[0] for _, why in bad) == {
        "empty text": 8, "prompts differ": 14, "replies are equal": 2,
    }  # fmt: skip
    assert {one.task for one in found} == {"helpful-base", "harmless-base"}
    assert all(one.prompt[-1].role == "user" and one.chosen and one.chosen != one.rejected for one in found)
    found, bad, shapes = found_in(Preferences(data=str(data_dir / "pref" / "oasst")))
    assert (len(found), bad, shapes) == (754, [], {"tree of ranked replies": 100}), "the pairs that people ranked"

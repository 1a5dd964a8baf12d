"""Order of rows, packed tokens, file formats good and bad, and the examples made by rule."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training.data.synthetic import sentences, synthetic_instructions, synthetic_preferences

from contract.conversation import Turn
from contract.errors import InputError
from contract.manifest import File
from training.data.reading import (
    ALPACA,
    HH_RLHF,
    Bad,
    Document,
    TokenData,
    Unusable,
    documents,
    parse_alpaca,
    parse_dialogue,
    parse_hh,
    read_examples,
    rows_of,
    share_of,
)
from training.engine.job import Job

TEXT = (
    "A heading without an end\nThe mill grinds corn every day. It stands by the river! Who built it? Nobody knows that now. "
    "The oldest letter names a baker. He came from the harbour in winter. The stones were brought by ship."
)
PAGES = [Document(f"{index:032x}", "" if index % 3 == 0 else f"Mill {index}", TEXT) for index in range(30)]


@given(count=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 5))
def test_every_epoch_shows_every_row_once(count: int, batch: int, seed: int) -> None:
    steps = -(-3 * count // batch)
    order = [row for step in range(steps) for row in rows_of(step, batch, count, seed)]
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert rows_of(steps - 1, batch, count, seed) == order[-batch:], "any step can be asked for alone"


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = rows_of(0, 50, 50, 1), rows_of(1, 50, 50, 1)
    assert first != second
    assert first != rows_of(0, 50, 50, 2)
    assert rows_of(2, 4, 6, 7) == [2, 1, 4, 5], "a run that goes on after an upgrade reads what it would have read"


def test_shares_of_all_processes_make_the_batch() -> None:
    rows = rows_of(3, 12, 100, 0)
    assert [row for rank in range(4) for row in share_of(rows, rank, 4)] == rows


def test_packed_tokens_mask_only_the_padding(make_job: Callable[..., Job]) -> None:
    job = make_job("pretrain")
    data = TokenData(job, "tokens", seed=5)
    manifest = job.manifest("pack")
    assert len(data) == sum(file.rows for file in manifest.of("tokens"))
    everything = data.rows(list(range(len(data))))
    assert everything.tokens.shape == (len(data), 64)
    shards = data._shards
    assert everything.count == sum(shard.used for shard in shards) - len(data), "all but the first token of a sequence"
    last = len(shards[0].tokens) - 1
    used = shards[0].used - 64 * last
    assert everything.mask[last].tolist() == [1.0] * (used - 1) + [0.0] * (64 - used)


def test_packed_rows_against_their_shards(make_job: Callable[..., Job]) -> None:
    data = TokenData(make_job("pretrain"), "heldout_tokens")
    expected = []
    for shard in data._shards:
        for at, row in enumerate(shard.tokens):
            expected.append((row.tolist(), min(64, shard.used - 64 * at)))
    assert len(data) == len(expected)
    assert 0 < min(used for _, used in expected) < 64
    batch = data.rows(list(range(len(expected)))[::-1])
    assert batch.tokens.dtype == torch.int64
    assert batch.tokens.tolist() == [row for row, _ in expected[::-1]]
    assert batch.mask.sum(1).tolist() == [used - 1 for _, used in expected[::-1]]
    assert batch.count == sum(used - 1 for _, used in expected)
    part = data.batch(1, 4, 1, 2)
    rows = rows_of(1, 4, len(data), 0)
    assert part.tokens.tolist() == [expected[row][0] for row in rows[2:]]
    assert part.count == sum(expected[row][1] - 1 for row in rows)


def shards_of(monkeypatch: pytest.MonkeyPatch, *shards: tuple[int, int]) -> Job:
    """A job whose pack lists shards of that many sequences of four tokens, so many tokens of which are used."""
    opened = {at: SimpleNamespace(tokens=np.full((rows, 4), at), used=used) for at, (rows, used) in enumerate(shards)}
    monkeypatch.setattr("training.data.reading.open_shard", opened.__getitem__)
    manifest = SimpleNamespace(of=lambda kind: list(opened), path="pack/manifest.json")
    store = SimpleNamespace(full=lambda path: f"s3://bucket/{path}")
    return SimpleNamespace(manifest=lambda stage: manifest, download=lambda file: file, store=store)  # type: ignore[return-value]


def test_a_sequence_of_one_token_predicts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TokenData(shards_of(monkeypatch, (2, 5), (1, 2)), "tokens")
    assert len(data) == 3
    batch = data.rows([0, 1, 2])
    assert batch.tokens[:, 0].tolist() == [0, 0, 1]
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert (batch.count, data.batch(0, 3).count) == (4, 4)


def test_an_empty_corpus_is_refused_and_nothing_held_out_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    job = shards_of(monkeypatch)
    with pytest.raises(InputError, match=r"s3://bucket/pack/manifest.json: lists no token; the corpus is empty"):
        TokenData(job, "tokens")
    assert len(TokenData(job, "heldout_tokens")) == 0


def test_a_batch_is_the_same_however_many_processes_read_it(make_job: Callable[..., Job]) -> None:
    data = TokenData(make_job("pretrain"), "tokens", seed=5)
    for step in (0, 7):
        whole = data.batch(step, 8)
        halves = [data.batch(step, 8, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([half.tokens for half in halves]), whole.tokens)
        assert whole.count == halves[0].count == halves[1].count == int(whole.mask.sum())


def test_documents_come_with_their_titles(make_job: Callable[..., Job]) -> None:
    job = make_job("sft")
    found = list(documents(job, job.manifest("mix"), "heldout"))
    assert len(found) == 40
    assert found[3].title == "Note 3"
    assert found[3].text.startswith("The ")


def test_documents_of_several_files_in_order(make_job: Callable[..., Job]) -> None:
    job = make_job("sft")
    rows = [{"id": str(at), "title": (None, " x ")[at % 2], "text": f" t{at}", "other": 1} for at in range(600)]
    kinds: list[str] = []
    files: list[File] = []
    for name, part in (("a", rows[:500]), ("b", rows[500:])):
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part), sink)
        job.store.write_bytes(f"{name}.parquet", sink.getvalue())
        files.append(File(path=f"{name}.parquet", kind="documents", bytes=len(sink.getvalue()), rows=len(part)))
    found = list(documents(job, SimpleNamespace(of=lambda kind: kinds.append(kind) or files)))  # type: ignore[arg-type]
    assert found == [Document(str(at), ("", "x")[at % 2], f" t{at}") for at in range(600)]
    assert kinds == ["documents"]
    with pytest.raises(FrozenInstanceError):
        found[0].text = "another"  # type: ignore[misc]


def test_alpaca_rows() -> None:
    assert parse_alpaca({"instruction": "Add.", "input": "1, 2", "output": "3 "}) == [
        Turn("user", "Add.\n\n1, 2"),
        Turn("assistant", "3"),
    ]
    assert parse_alpaca({"instruction": "Hi", "output": "Hello"})[0] == Turn("user", "Hi")


def test_hh_rlhf_rows_share_their_prompt() -> None:
    prompt = "\n\nHuman: Who?\n\nAssistant: Me.\n\nHuman: Why?\n\nAssistant:"
    found = parse_hh({"chosen": prompt + " Because.", "rejected": prompt + " No."})
    assert found.prompt == (Turn("user", "Who?"), Turn("assistant", "Me."), Turn("user", "Why?"))
    assert (found.chosen, found.rejected) == ("Because.", "No.")
    assert parse_dialogue("\n\nHuman: a\n\nb\n\nAssistant: c")[0].text == "a\n\nb"


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    good = json.dumps({"instruction": "a", "output": "b"})
    lines = [
        "{",
        '"text"',
        '{"instruction": "a"}',
        '{"instruction": 1, "output": "b"}',
        '{"instruction": "a", "output": " "}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "", good]))
    found, bad = read_examples(str(tmp_path / "a.jsonl"), parse_alpaca, ALPACA)
    assert found == [[Turn("user", "a"), Turn("assistant", "b")]]
    assert bad.reasons == Counter(
        not_json=1, not_an_object=1, output_is_missing=1, instruction_is_no_text=1, output_is_empty=1
    )
    assert bad.first.endswith("a.jsonl line 1: not json")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "not_an_object"),
        ({"output": "b"}, "instruction_is_missing"),
        ({"instruction": None, "output": "b"}, "instruction_is_missing"),
        ({"instruction": "\n", "output": "b"}, "instruction_is_empty"),
        ({"instruction": "a", "input": 3, "output": "b"}, "input_is_no_text"),
        ({"instruction": "a", "input": None, "output": ["b"]}, "output_is_no_text"),
    ],
)
def test_why_an_instruction_cannot_be_used(row: object, reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        parse_alpaca(row)


def test_an_absent_input_is_no_input() -> None:
    for extra in ({}, {"input": None}, {"input": " "}):
        assert parse_alpaca({"instruction": " a ", "output": "b", **extra})[0] == Turn("user", "a")


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("Human: a\n\nAssistant: b", "Human: a\n\nAssistant: b ", "replies_are_equal"),
        ("Human: a\n\nAssistant: b", "Human: c\n\nAssistant: d", "prompts_differ"),
        ("Human: a\n\nAssistant: b", "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "prompts_differ"),
        ("Human: a\n\nAssistant: ", "Human: a\n\nAssistant: b", "empty_reply"),
        ("Human: a\n\nAssistant: b\n\nHuman: c", "Human: a\n\nAssistant: d", "not_a_dialogue_that_ends_with_a_reply"),
        ("So. \n\nHuman: a\n\nAssistant: b", "Human: a\n\nAssistant: d", "not_a_dialogue_that_ends_with_a_reply"),
        ("Assistant: b", "Assistant: d", "not_a_dialogue_that_ends_with_a_reply"),
    ],
)
def test_why_a_comparison_cannot_be_used(chosen: str, rejected: str, reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}$"):
        parse_hh({"chosen": chosen, "rejected": rejected})


def test_the_shortest_dialogue_and_a_name_inside_a_line() -> None:
    assert parse_dialogue(" \n\nHuman: a Human: b\n\nAssistant: c") == [
        Turn("user", "a Human: b"),
        Turn("assistant", "c"),
    ]


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    good = [json.dumps({"instruction": f"q{at}", "output": "b"}) for at in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(["{}", *good[:2], "{}", *good[2:]]))
    for limit, bad in ((1, 1), (2, 1), (3, 2), (5, 2), (9, 2), (None, 2)):
        found, wrong = read_examples(str(tmp_path / "a.jsonl"), parse_alpaca, ALPACA, limit)
        assert [turns[0].text for turns in found] == [f"q{at}" for at in range(5)][:limit]
        assert wrong.reasons == {"instruction_is_missing": bad}
        assert wrong.first.endswith("a.jsonl line 1: instruction is missing")


def test_only_the_first_bad_row_is_told() -> None:
    bad = Bad()
    for where in ("one", "two"):
        bad.add(where, "not_an_object")
    assert (bad.first, bad.reasons) == ("one: not an object", {"not_an_object": 2})


def test_which_files_of_a_folder_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("1.jsonl", "2.json", "3.jsonl.gz", "deep/4.json.gz", "5.txt", "6.jsonl.bak", "7jsonl")
    ):
        data = json.dumps([{"instruction": f"q{number + 1}", "output": "a"}]).encode()
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found, _ = read_examples(str(tmp_path / "in"), parse_alpaca, ALPACA)
    assert sorted(turns[0].text for turns in found) == ["q1", "q2", "q3", "q4"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "5.txt").write_text("{}")
    with pytest.raises(InputError, match=r"the folder holds no file named .json"):
        read_examples(str(tmp_path / "none"), parse_alpaca, ALPACA)


def test_an_array_names_its_bad_item_or_that_it_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(' \n[{"instruction": "a", "output": "b"}, 7, {}]')
    found, bad = read_examples(str(path), parse_alpaca, ALPACA)
    assert len(found) == 1
    assert bad.first.endswith("a.json item 1: not an object")
    assert bad.reasons == {"not_an_object": 1, "instruction_is_missing": 1}
    path.write_text('[{"instruction": "a", "output": "b"},')
    with pytest.raises(InputError, match=r"a.json: not valid JSON \(.*allowed: JSONL or one JSON array"):
        read_examples(str(path), parse_alpaca, ALPACA)
    path.write_text("\n")
    with pytest.raises(InputError, match=r"holds no usable row \(it is empty\)"):
        read_examples(str(path), parse_alpaca, ALPACA)


@pytest.mark.parametrize("form", ["lines", "array", "gzip", "folder"])
def test_every_form_of_file_reads_the_same(tmp_path: Path, form: str) -> None:
    rows = [{"instruction": f"q{index}", "output": f"a{index}"} for index in range(5)]
    data = json.dumps(rows) if form == "array" else "".join(json.dumps(row) + "\n" for row in rows)
    path = tmp_path / "in" / ("rows.json" if form == "array" else "rows.jsonl.gz" if form == "gzip" else "rows.jsonl")
    path.parent.mkdir()
    path.write_bytes(gzip.compress(data.encode()) if form == "gzip" else data.encode())
    (path.parent / "LICENSE").write_text("free")
    found, bad = read_examples(str(path.parent if form == "folder" else path), parse_alpaca, ALPACA)
    assert [turns[1].text for turns in found] == ["a0", "a1", "a2", "a3", "a4"]
    assert not bad.reasons


def test_an_unusable_file_names_the_first_bad_line_and_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "no dialogue"}\n')
    with pytest.raises(
        InputError, match=r"line 2: not a dialogue that ends with a reply\); allowed: .*chosen.*rejected"
    ):
        read_examples(str(path), parse_hh, HH_RLHF)
    with pytest.raises(InputError, match="no such file"):
        read_examples(str(tmp_path / "none.jsonl"), parse_hh, HH_RLHF)
    path.write_bytes(gzip.compress(b"{}" * 1000)[:-20])
    with pytest.raises(InputError, match=f"^file://{path}: damaged gzip"):
        read_examples(str(path), parse_hh, HH_RLHF)
    path.write_bytes(gzip.compress(b"{}" * 1000)[:10] + b"\xff" * 20)
    with pytest.raises(InputError, match="damaged gzip"):
        read_examples(str(path), parse_hh, HH_RLHF)


def test_real_preference_files(data_dir: Path) -> None:
    found, bad = read_examples(str(data_dir / "pref" / "hh-rlhf"), parse_hh, HH_RLHF)
    assert len(found) + bad.reasons.total() == 2312 + 2354
    assert len(found) > 4500, bad.reasons
    assert all(one.prompt[-1].role == "user" and one.chosen and one.chosen != one.rejected for one in found)


def test_real_instruction_files(data_dir: Path) -> None:
    found, bad = read_examples(str(data_dir / "sft" / "llama-factory" / "alpaca_en_demo.json"), parse_alpaca, ALPACA)
    assert len(found) + bad.reasons.total() == 999
    assert len(found) > 990


def test_sentences_leave_headings_out() -> None:
    assert sentences(TEXT)[:3] == ["The mill grinds corn every day.", "It stands by the river!", "Who built it?"]


def test_synthetic_instructions_answer_with_the_corpus_itself() -> None:
    made = list(synthetic_instructions(PAGES, 1))
    assert made == list(synthetic_instructions(iter(PAGES), 1))
    assert made != list(synthetic_instructions(PAGES, 2))
    assert 60 < len(made) <= 90
    for ask, reply in made:
        assert (ask.role, reply.role) == ("user", "assistant")
        assert reply.text in TEXT
        assert reply.text not in ask.text
    assert len({ask.text.split("{")[0].split(".")[0] for ask, _ in made}) > 5, "varied wording"


def test_synthetic_preferences_spoil_the_true_reply() -> None:
    made = list(synthetic_preferences(PAGES, 1))
    assert made == list(synthetic_preferences(PAGES, 1))
    kinds: Counter[str] = Counter()
    for one in made:
        assert one.chosen in TEXT
        assert one.rejected != one.chosen
        if sorted(one.rejected.split()) == sorted(one.chosen.split()):
            kinds["shuffled"] += 1
        elif one.chosen.startswith(one.rejected):
            kinds["truncated"] += 1
        else:
            kinds["repeated"] += 1
            assert len(one.rejected.split()) == len(one.chosen.split())
    assert all(kinds[one] >= 10 for one in ("shuffled", "truncated", "repeated"))

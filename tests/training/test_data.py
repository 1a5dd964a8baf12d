"""Order of rows, packed tokens, file formats good and bad, and the examples made by rule."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import InputError
from training.chat import Turn
from training.data import (
    ALPACA,
    HH_RLHF,
    Document,
    TokenData,
    documents,
    parse_alpaca,
    parse_dialogue,
    parse_hh,
    read_examples,
    rows_of,
    sentences,
    share_of,
    synthetic_instructions,
    synthetic_preferences,
)
from training.job import Job

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
    with pytest.raises(InputError, match="damaged gzip"):
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

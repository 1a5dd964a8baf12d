"""Shards against their definition: every document's tokens, then end-of-text, and nothing lost between files."""

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest

from contract.__main__ import main
from contract.chat import SPECIAL_TOKENS, dump_special_tokens
from contract.documents import parts_of
from contract.errors import InputError
from contract.kinds import Kind
from contract.manifest import Attempt, File, Rows
from contract.schema import DOCUMENTS
from contract.settings.corpus import Pack, Tokenizer
from contract.shards import (
    ShardFiles,
    in_store,
    read_ids,
    read_index,
    read_rows,
    read_rows_header,
    read_tokens,
    shards_of,
)
from contract.trace import row_lines
from pipelines.pack import load_tokenizer, pack
from pipelines.spark.tables import TableWriter
from pipelines.vocabulary.training import train

pytestmark = pytest.mark.usefixtures("without_spark")

TEXTS = [
    "the cat sat on the mat",
    "one <|endoftext|> two <|user|>",
    "caf\u00e9 \U0001f600",
    *[f"text {n} " * n for n in range(1, 30)],
]


def commit_tokenizer(run: Any) -> bytes:
    attempt = Attempt(run, run.task("tokenizer"))
    files = {"tokenizer": train_tokenizer(), "special_tokens": dump_special_tokens(SPECIAL_TOKENS)}
    for kind, data in files.items():
        run.store.write_bytes(attempt.path(f"{kind}.json"), data)
    attempt.commit(
        [File(path=attempt.path(f"{kind}.json"), kind=kind, bytes=len(data)) for kind, data in files.items()]
    )
    return files["tokenizer"]


def train_tokenizer() -> bytes:
    return train(TEXTS, Tokenizer(vocab_size=400), [*SPECIAL_TOKENS.values()]).to_str().encode()


def documents_file(store: Any, rows: list[dict[str, Any]], source: str = "") -> File:
    writer = TableWriter(store, "in.parquet", "documents", DOCUMENTS)
    for row in rows:
        writer.write(row)
    (file,) = writer.close()
    return file.model_copy(update={"source": source})


def opened(store: Any, shard: ShardFiles) -> tuple[list[tuple[str, list[int]]], dict[int, list[list[int]]]]:
    """((id, tokens) of each document, sequence length -> tokens of each row) of a shard."""
    read = {file.path: in_store(store, file) for file in shard.files}
    index = read_index(*read[shard.index.path], "i")
    tokens = read_tokens(read[shard.tokens.path][0], index, 0, index.tokens, "t").tolist()
    ids = read_ids(*read[shard.ids.path], range(index.documents), index, "d")
    found = [(key, tokens[start:end]) for key, (start, end) in zip(ids, pairwise(index.starts.tolist()), strict=True)]
    rows = {}
    for length, file in shard.rows.items():
        header = read_rows_header(*read[file.path], "r")
        assert (header.seq_len, header.rows, header.tokens) == (length, file.rows, index.tokens)
        own = read_rows(read[file.path][0], header, "r")
        rows[length] = [[t for at, n in own.pieces(row) for t in tokens[at : at + n]] for row in range(len(own))]
    assert [file.rows for file in (shard.tokens, shard.index, shard.ids)] == [index.documents] * 3
    return found, rows


@pytest.mark.parametrize(
    ("shard_tokens", "shards"), [(1, [1, 1, 1, 1]), (6, [2, 2]), (7, [3, 1]), (1000, [4])], ids=str
)
def test_a_shard_is_closed_once_it_has_its_tokens(
    shard_tokens: int, shards: list[int], tmp_store: Any, make_document: Any
) -> None:
    """Four documents of two tokens, each then with its end of text: three tokens."""
    file = documents_file(tmp_store, [make_document("~^", name=f"d{at}") for at in range(4)], "books")
    settings = Pack(seq_len=1024, shard_tokens=shard_tokens)
    output = pack(tmp_store, "out", settings, train_tokenizer(), 0, file, "00000-0123abcd")
    assert [len(opened(tmp_store, one)[0]) for one in output.shards] == shards
    assert [one.tokens.bytes for one in output.shards] == [2 * 3 * count for count in shards]
    assert [one.rows[1024].rows for one in output.shards] == [1] * len(shards)
    names = [f"out/tokens-00000-0123abcd-{at:05d}" for at in range(len(shards))]
    assert [[file.path for file in one.files] for one in output.shards] == [
        [f"{name}.bin", f"{name}.idx", f"{name}.ids", f"{name}-1024.rows"] for name in names
    ]
    listed = output.listed()
    assert [(file.part, file.source) for file in listed] == [
        (part, "books") for part in range(len(shards)) for _ in "four"
    ]
    assert [file.kind for file in listed[:4]] == ["tokens", "token_index", "token_ids", "rows"]
    assert [one.bytes for one in listed] == [len(tmp_store.read_bytes(one.path)) for one in listed]
    assert output.counts.bytes_read == 8
    assert output.metrics == {"filled": 12}


@pytest.mark.parametrize("packing", ["stream", "best_fit"])
def test_rows_of_several_lengths_are_cut_from_the_same_tokens(packing: str, tmp_store: Any, make_document: Any) -> None:
    """Long documents are split, and none is lost or cut at its head."""
    texts = ["".join(chr(200 + (at * 7 + n) % 500) for n in range(at)) for at in range(1, 60)]
    file = documents_file(tmp_store, [make_document(text) for text in texts])
    data = train_tokenizer()
    settings = Pack(seq_len=16, more_seq_lens=(8, 64), packing=packing)
    (shard,) = pack(tmp_store, "out", settings, data, 0, file, "n").shards
    documents, rows = opened(tmp_store, shard)
    tokenizer = load_tokenizer(data)
    assert [tokens for _, tokens in documents] == [[*tokenizer.encode(text).ids, 0] for text in texts]
    assert sorted(rows) == [8, 16, 64]
    flat = [token for _, tokens in documents for token in tokens]
    for length, cut in rows.items():
        assert all(len(row) <= length + 1 for row in cut)
        if packing == "stream":
            assert [token for row in cut for token in row[: None if row is cut[-1] else -1]] == flat
        else:
            whole = [tokens for _, tokens in documents if len(tokens) <= length + 1]
            assert len(whole) >= 4
            assert all(any(" ".join(map(str, one)) in " ".join(map(str, row)) for row in cut) for one in whole)


def test_memory_does_not_grow_with_a_shard(tmp_store: Any, make_document: Any) -> None:
    """The same documents as four shards and as one: what the worker holds at a time differs by less than a megabyte."""
    file = documents_file(tmp_store, [make_document(" ".join(map(str, range(at, at + 400)))) for at in range(3000)])
    data = train_tokenizer()

    def peak(shard_tokens: int) -> tuple[int, int]:
        settings = Pack(seq_len=64, more_seq_lens=(16,), packing="best_fit", shard_tokens=shard_tokens)
        tracemalloc.start()
        shards = pack(tmp_store, f"out-{shard_tokens}", settings, data, 0, file, "n").shards
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, len(shards)

    (small, many), (large, one) = peak(1_200_000), peak(1 << 32)
    assert (many, one) == (4, 1)
    assert large - small < 1 << 20, f"{small:,} bytes for {many} shards, {large:,} for one"


def test_stage(make_document: Any, make_corpus: Any, run_stage: Any, commit_mixture: Any) -> None:
    rows = [make_document(text) for text in TEXTS]
    run = make_corpus([[rows]], {"pack.seq_len": 1024, "pack.more_seq_lens": [128], "pack.shard_tokens": 300})
    tokenizer = load_tokenizer(commit_tokenizer(run))
    commit_mixture(run, {"documents": [rows[:20], rows[20:29]], "heldout": [rows[29:]]})
    (done,) = run_stage(run, "pack")
    totals = {}
    filled = places = 0
    for kind, expected in (("tokens", rows[:29]), ("heldout_tokens", rows[29:])):
        shards = shards_of(done, kind)
        read = [opened(run.store, shard) for shard in shards]
        found = [document for documents, _ in read for document in documents]
        assert found == [(row["id"], [*tokenizer.encode(row["text"]).ids, 0]) for row in expected]
        assert all(min(ids[:-1]) >= len(SPECIAL_TOKENS) for _, ids in found)
        assert all(sorted(rows) == [128, 1024] for _, rows in read)
        totals[kind] = sum(len(ids) for _, ids in found), sum(len(rows[1024]) for _, rows in read)
        filled += sum(len(row) for _, rows in read for row in rows[1024])
        places += sum(1025 * len(rows[1024]) for _, rows in read)
    assert len(done.of("tokens")) > 3
    assert done.rows == Rows(), "it judges no document"
    assert parts_of(done) == [], "shards are no parts of documents"
    size = sum(len(row["text"].encode()) for row in rows)
    assert done.metrics == {
        "tokens": totals["tokens"][0],
        "sequences": totals["tokens"][1],
        "documents": 29,
        "heldout_tokens": totals["heldout_tokens"][0],
        "heldout_sequences": 1,
        "heldout_documents": 3,
        "bytes": size,
        "bytes_per_token": size / sum(tokens for tokens, _ in totals.values()),
        "token_bytes": 2,
        "padding": 1 - filled / places,
    }


def test_nothing_to_pack(make_document: Any, make_corpus: Any, run_stage: Any, commit_mixture: Any) -> None:
    run = make_corpus([[[make_document("text")]]])
    commit_tokenizer(run)
    commit_mixture(run, {"heldout": [[make_document("text")]]})
    with pytest.raises(InputError, match=r"mix/.*manifest\.json lists no training documents; run mix again"):
        run_stage(run, "pack")


def test_a_token_leads_to_its_page(
    tmp_path: Any, resolve_run: Any, run_stage: Any, rows_of: Any, commit_mixture: Any, capsys: Any
) -> None:
    """From a token in a row, by what the command prints, to the record in the crawl file whose page holds it."""
    (tmp_path / "crawl").mkdir()
    words = [
        " ".join(f"In village {page}, mill {at} sold its flour to a baker." for at in range(30)) for page in range(6)
    ]
    with (tmp_path / "crawl" / "a.warc").open("wb") as file:
        for page, text in enumerate(words):
            html = f"<html><body><article><p>{text}</p></article></body></html>"
            http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{html}".encode()
            head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{page}\r\n"
            head += f"Content-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
            file.write(head.encode() + http + b"\r\n\r\n")
    run = resolve_run(tmp_path / "crawl", {"pack.seq_len": 1024, "pack.packing": "best_fit"})
    run_stage(run, "crawl")
    documents = sorted(rows_of(run.store, run_stage(run, "extract"), "documents"), key=lambda row: row["offset"])
    assert [document["text"] for document in documents] == words
    tokenizer = load_tokenizer(commit_tokenizer(run))
    commit_mixture(run, {"documents": [documents[:5]], "heldout": [documents[5:]]})
    (done,) = run_stage(run, "pack")

    (shard,) = shards_of(done, Kind.TOKENS)
    rows = opened(run.store, shard)[1][1024]
    row, place = len(rows) - 1, len(rows[-1]) - 2  # the last token of a text, before its end
    asked = ["trace", "--store", run.store.uri, shard.rows[1024].path, "--row", str(row)]
    capsys.readouterr()
    assert main(asked) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"row {row}: {len(rows[row]):,} tokens of {len(lines)} documents of mix"
    places = [[int(end.replace(",", "")) for end in line.split()[0].split("-")] for line in lines]
    assert [end for _, end in places] == [*[begin for begin, _ in places[1:]], len(rows[row])]
    (line,) = [line for line, (begin, end) in zip(lines, places, strict=True) if begin <= place < end]
    _, key, _, of, _, size, url, file, _, offset = line.split()
    (document,) = [one for one in documents if one["id"] == key]
    begin, end = (int(number.replace(",", "")) for number in of.split("-"))
    assert int(size.replace(",", "")) == len(tokenizer.encode(document["text"]).ids) + 1
    found = tokenizer.decode(rows[row][places[lines.index(line)][0] :][: end - begin - 1])
    assert document["text"].endswith(found)
    assert "".join(found.split()[-1:]) == document["text"].split()[-1]
    record = (tmp_path / "crawl" / file).read_bytes()[int(offset) :].partition(b"\r\n\r\nWARC/")[0].decode()
    assert f"WARC-Target-URI: {url}\r\n" in record
    assert f"{document['text']}</p>" in record

    for path, number, message in (
        (shard.rows[1024].path, len(rows), f"has {len(rows)} rows, and no rows {len(rows)} to {len(rows) + 1}"),
        (shard.tokens.path, 0, "is no file of rows that pack/"),
        ("pack/x.rows", 0, "is no file that a task of this store committed"),
    ):
        assert main(["trace", "--store", run.store.uri, path, "--row", str(number)]) == 65
        assert message in capsys.readouterr().err
    (heldout,) = shards_of(done, Kind.HELDOUT_TOKENS)
    (line,) = row_lines(run.store, run.store.full(heldout.rows[1024].path), 0)[1:]
    assert line.split()[6] == "http://a.example/5"

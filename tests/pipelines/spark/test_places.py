"""The index of what a task dropped and kept: every row is named once, in the order of its id and of its address."""

from itertools import pairwise

import pyarrow.parquet as pq

from contract.kinds import Kind
from contract.schema import ADDRESSES, PLACES
from contract.tables import read_rows
from pipelines.spark.documents import DocumentSink, IndexSink, Output
from pipelines.spark.places import listed, write_places


def test_each_dropped_and_kept_row_stands_where_the_index_says(tmp_store, make_document, monkeypatch):
    monkeypatch.setattr("pipelines.spark.places.GROUP_ROWS", 2)
    hosts = ["www.b.org", "a.org", "b.org", "c.com", "a.org"]
    rows = [make_document(f"text {at}", url=f"https://{host}/{at}") for at, host in enumerate(hosts)]
    rows[3]["url"] = None
    sink = DocumentSink(tmp_store, "score/x/all/attempt-1", "score", "00000-aa")
    for at, row in enumerate(rows):
        if at % 2:
            sink.keep(row, 6)
        else:
            sink.drop(row, "too_slow")
    output = sink.close()
    index = write_places(tmp_store, "score/x/all/attempt-1", listed(output, keeps=True), "00000-bb")
    assert [(file.kind, file.rows) for file in index.files] == [(Kind.PLACES, 5), (Kind.ADDRESSES, 4)]
    by_id, by_address = ([*read_rows(tmp_store, file.path)] for file in index.files)
    assert [row["id"].hex() for row in by_id] == sorted(row["id"] for row in rows)
    assert [row["address"] for row in by_address] == ["org,a)/1", "org,a)/4", "org,b)/2", "org,b,www)/0"]
    for place in by_id:
        held = [*read_rows(tmp_store, f"score/x/all/attempt-1/{place['file']}")][place["row"]]
        assert held["id"] == place["id"].hex()
        assert place["reason"] == held.get("reason")
        assert (place["reason"] is None) == place["file"].startswith("documents")
        assert place["language"] == "en"
    for file, schema in zip(index.files, (PLACES, ADDRESSES), strict=True):
        table = pq.ParquetFile(tmp_store.local(file.path))
        assert table.schema_arrow == schema
        assert table.metadata.num_row_groups == -(-file.rows // 2)
        first = [table.metadata.row_group(at).column(0).statistics for at in range(table.metadata.num_row_groups)]
        assert all(one.max <= other.min for one, other in pairwise(first)), "a reader prunes by it"


def test_only_the_first_scored_documents_are_listed(tmp_store, make_document):
    sink = DocumentSink(tmp_store, "extract/x/all/attempt-1", "extract", "00000-aa")
    sink.keep(make_document("kept"), 4)
    sink.drop(make_document("gone"), "extract_empty")
    output = sink.close()
    assert [file.kind for file in listed(output, keeps=False)] == [Kind.DROPS]
    assert [file.kind for file in listed(output, keeps=True)] == [Kind.DOCUMENTS, Kind.DROPS]


def test_a_drop_knows_its_language_whether_its_text_was_read_or_not(tmp_store, make_document):
    sink = DocumentSink(tmp_store, "filter/x/all/attempt-1", "filter", "00000-aa")
    for at in range(2):
        sink.keep(make_document(f"text {at}", language="de"), 6)
    [part] = sink.close().parts
    judge = IndexSink(tmp_store, "filter/x/all/attempt-1", "filter", "00001-aa")
    judge.drop({"row": 0}, "short")
    judge.keep(1, 6)
    judge.finish(part)
    [drops] = judge.close().files
    assert [row["language"] for row in read_rows(tmp_store, drops)] == ["de"]
    assert Output().files == []

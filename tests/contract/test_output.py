"""What a writer says of a file is what lies in the store."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.kinds import Kind
from contract.manifest import File
from contract.output import Writer, write_file
from contract.store import Store


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_size_and_checksum_are_those_of_the_bytes(tmp_path: Path, pieces: list[bytes]) -> None:
    store = Store(str(tmp_path))
    with Writer(store, "a/b") as writer:
        for number, piece in enumerate(pieces):
            assert writer.write(memoryview(piece)) == len(piece)
            assert writer.tell() == sum(map(len, pieces[: number + 1]))
    data = b"".join(pieces)
    assert store.read_bytes("a/b") == data
    file = writer.file(Kind.TOKENS, 3, part=2)
    assert file == File(
        path="a/b", kind=Kind.TOKENS, bytes=len(data), rows=3, sha256=hashlib.sha256(data).hexdigest(), part=2
    )
    assert write_file(store, "c", Kind.MODEL, data) == File(
        path="c", kind=Kind.MODEL, bytes=len(data), sha256=file.sha256
    )


def test_arrow_writes_its_tables_through_it(tmp_path: Path) -> None:
    store, table = Store(str(tmp_path)), pa.table({"a": list(range(100_000))})
    writer = Writer(store, "t.parquet")
    with pq.ParquetWriter(writer, table.schema) as parquet:
        parquet.write_table(table)
    assert not writer.closed, "who opened it closes it"
    writer.close()
    writer.close()
    data = (tmp_path / "t.parquet").read_bytes()
    assert pq.read_table(tmp_path / "t.parquet") == table
    assert writer.file(Kind.DROPS).sha256 == hashlib.sha256(data).hexdigest()
    assert writer.file(Kind.DROPS).bytes == len(data)


def test_a_closed_writer_writes_nothing_more(tmp_path: Path) -> None:
    writer = Writer(Store(str(tmp_path)), "a")
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"late")

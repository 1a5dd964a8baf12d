"""What a worker tells of a store that fails under it."""

import errno
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from contract.errors import StoreError
from contract.store import Store
from pipelines.job import Output, TableWriter, _Guarded, _Reader
from pipelines.schema import DOCUMENTS


class FullDisk(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_line(tmp_path: Path, make_document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    monkeypatch.setattr(Store, "open_output", lambda *_: pa.PythonFile(FullDisk(), "w"))

    def work(item: str, name: str) -> Output:
        writer = TableWriter(store, name, "documents", DOCUMENTS)
        writer.write(make_document(item))
        return Output(writer.close())

    (error,) = _Guarded(work, store.full("mix/attempt-1"))([(0, "text")])
    assert isinstance(error, StoreError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error).startswith(f"{store.uri}/mix/attempt-1: the disk is full")
    assert "\n" not in str(error)


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    def read(item: str, number: int) -> Iterator[pa.RecordBatch]:
        with Store(str(tmp_path)).open_input("folder") as source:
            yield pa.record_batch({"bytes": [source.read()]})

    (tmp_path / "folder").mkdir()
    numbers = pa.record_batch({"id": [0]})
    with pytest.raises(StoreError, match=r"^[^\n]*folder[^\n]*$"):
        list(_Reader(["folder"], read, "file:///store")(iter([numbers])))

    def broken(item: str, number: int) -> Iterator[pa.RecordBatch]:
        yield numbers
        raise OSError(5, "Input/output error")

    found = _Reader(["x"], broken, "file:///store/mix")(iter([numbers]))
    assert next(found) is numbers
    with pytest.raises(StoreError, match=r"^file:///store/mix: .*Input/output error"):
        next(found)

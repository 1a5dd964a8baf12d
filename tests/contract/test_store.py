"""The store does the same on a folder and on S3, creates once, and explains its failures in one line."""

import errno
import logging
import os
import pickle
import socket
import threading
import time
from pathlib import Path

import pytest

from contract.errors import RecipeError, SetupError, StoreError
from contract.store import Store, split_uri


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return request.getfixturevalue("s3_store") if request.param == "s3" else Store(str(tmp_path / "store"))


def test_files_are_written_listed_read_and_deleted(store: Store, tmp_path: Path) -> None:
    store.check()
    assert store.files() == []
    store.write_bytes("a/b/one.bin", b"1" * 10)
    store.write_bytes("a/two.bin", b"22")
    assert [(entry.path, entry.size) for entry in store.files("a")] == [("a/b/one.bin", 10), ("a/two.bin", 2)]
    assert all(entry.modified > 1e18 for entry in store.files())
    assert store.folders("a") == ["b"]
    with store.open_input("a/b/one.bin") as source:
        source.seek(8)
        assert source.read() == b"11"
    assert store.download("a/two.bin", tmp_path / "x" / "two").read_bytes() == b"22"
    store.delete("a/b")
    store.delete("a/absent")
    assert [entry.path for entry in store.files()] == ["a/two.bin"]
    assert store.exists("a/two.bin")
    assert not store.exists("a/b/one.bin")
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/b/one.bin")


def test_gzip_files_come_back_as_they_are(store: Store) -> None:
    store.write_bytes("a.gz", b"\x1f\x8bnot really")
    assert store.read_bytes("a.gz") == b"\x1f\x8bnot really"


def test_a_folder_is_uploaded_with_its_tree(store: Store, tmp_path: Path) -> None:
    (tmp_path / "up" / "deep").mkdir(parents=True)
    (tmp_path / "up" / "deep" / "file").write_bytes(b"x" * (9 << 20))
    store.upload(tmp_path / "up", "ckpt")
    assert [(entry.path, entry.size) for entry in store.files("ckpt")] == [("ckpt/deep/file", 9 << 20)]


def test_create_has_one_winner_whose_bytes_stand(store: Store) -> None:
    for round_ in range(3):
        results: dict[bytes, bool] = {}
        barrier = threading.Barrier(16)

        def race(
            data: bytes,
            path: str = f"race/{round_}",
            barrier: threading.Barrier = barrier,
            results: dict[bytes, bool] = results,
        ) -> None:
            own = Store(store.uri)
            barrier.wait()
            results[data] = own.create(path, data)

        threads = [threading.Thread(target=race, args=(f"writer {index}".encode(),)) for index in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [data for data, won in results.items() if won]
        assert len(results) == 16
        assert len(winners) == 1
        assert store.read_bytes(f"race/{round_}") == winners[0]
    assert [entry.path for entry in store.files()] == ["race/0", "race/1", "race/2"], "losers leave nothing behind"


def test_a_store_travels_to_workers_as_its_uri(store: Store) -> None:
    store.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("a") == b"1"


def test_paths_cannot_leave_the_store(store: Store) -> None:
    for path in ("../a", "/etc/passwd", "a/../../b"):
        with pytest.raises(StoreError, match="leaves the store"):
            store.write_bytes(path, b"")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://a/b", "scheme ftp:// is not supported"),
        ("s3://", "names no bucket"),
        ("file://data/x", "a file URI has no host; write file:///data/x"),
        ("s3://key:secret@bucket/x", "credentials in a URI are refused"),
    ],
)
def test_a_wrong_store_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Store(uri)
    assert "secret" not in str(caught.value)


def test_an_unreachable_store_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(
        StoreError, match=r"s3://bucket/x: the store cannot be reached; check AWS_ENDPOINT_URL"
    ) as caught:
        Store("s3://bucket/x").check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("silent", [False, True])
def test_who_waits_for_a_store_is_told_at_once_and_given_up_soon(
    silent: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens at the endpoint, or somebody who never answers."""
    caplog.set_level(logging.INFO, "contract")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if silent else 9
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(
            StoreError, match=r"^s3://bucket/x: the store cannot be reached; check AWS_ENDPOINT_URL[^\n]*$"
        ):
            Store("s3://bucket/x").reach()
        assert time.monotonic() - began < 20
    assert [one.getMessage() for one in caplog.records if one.name.startswith("contract")] == [
        f"asking s3://bucket/x at http://127.0.0.1:{port}"
    ]


def test_a_store_that_answers_is_asked_once(s3_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "contract")
    for _ in range(2):
        s3_store.reach()
        Store("s3://gristmill").folders()
    assert len([one for one in caplog.records if one.name.startswith("contract")]) == 1


def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(
        SetupError, match=r"^AWS_ENDPOINT_URL or AWS_REGION: Invalid endpoint: nonsense; write an endpoint as"
    ):
        Store("s3://bucket/x").reach()


def test_a_store_where_no_folder_can_be_made() -> None:
    with pytest.raises(StoreError, match=r"^file:///proc/x: access denied; check the folder's permissions[^\n]*$"):
        Store("/proc/x").check()


def test_a_missing_bucket_is_told(s3_store: Store) -> None:
    with pytest.raises(StoreError, match="the bucket does not exist; create it first"):
        Store("s3://nobody-made-this/x").create("a", b"")


def test_wrong_credentials_are_told(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if "7480" not in os.environ["AWS_ENDPOINT_URL"]:
        pytest.skip("moto accepts any secret; install Ceph's radosgw for this test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="access denied; check"):
        Store(s3_store.uri).check()


def test_a_conditional_put_that_meets_another_is_tried_again(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    client, calls = s3_store._s3, []
    put = client.put_object

    def conflicting(**arguments: object) -> object:
        calls.append(arguments)
        if len(calls) < 3:
            raise ClientError({"Error": {"Code": "ConditionalRequestConflict"}}, "PutObject")
        return put(**arguments)

    monkeypatch.setattr(client, "put_object", conflicting)
    assert s3_store.create("manifest.json", b"1")
    assert (len(calls), s3_store.read_bytes("manifest.json")) == (3, b"1")


@pytest.mark.parametrize("name", ["c#1", "what?", "50%", "a b"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = Store(str(tmp_path / name))
    assert Store(store.uri) == store
    store.write_bytes("x", b"1")
    assert (tmp_path / name / "x").read_bytes() == b"1"
    folder, file = split_uri(store.full("x"))
    assert folder.read_bytes(file) == b"1"


def test_a_full_disk_is_one_clear_line_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "my store"))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full; free space and run again, finished work is kept") as caught:
        store.create("a/manifest.json", b"{}")
    assert str(caught.value).endswith(f"goes with: python -m contract gc --store '{store.uri}' --delete")
    assert "\n" not in str(caught.value)
    assert store.files() == []


def test_a_file_uri_splits_into_folder_and_name() -> None:
    assert split_uri("s3://bucket/a/b.yaml") == (Store("s3://bucket/a"), "b.yaml")
    assert split_uri("/x/b.yaml") == (Store("/x"), "b.yaml")
    assert split_uri("b.yaml") == (Store("."), "b.yaml")
    assert split_uri("/b.yaml") == split_uri("file:///b.yaml") == (Store("/"), "b.yaml")

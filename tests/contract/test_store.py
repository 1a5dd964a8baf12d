"""The store does the same on a folder and on S3, creates once, and explains its failures in one line."""

import errno
import hashlib
import logging
import os
import pickle
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError
from pathlib import Path
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from contract.errors import RecipeError, SetupError, StoreError
from contract.store import Entry, Store, _endpoint, _region, _s3_client, explain, split_uri


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
    rounds = 1 if store.is_s3 else 3  # a client takes long to make
    for round_ in range(rounds):
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
    assert [entry.path for entry in store.files()] == [f"race/{one}" for one in range(rounds)], (
        "duplicates leave nothing"
    )


def test_a_store_travels_to_workers_as_its_uri(store: Store) -> None:
    store.write_bytes("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read_bytes("a") == b"1"


def test_paths_cannot_leave_the_store(store: Store) -> None:
    for path in ("../a", "/etc/passwd", "a/../../b"):
        with pytest.raises(StoreError, match="leaves the store"):
            store.write_bytes(path, b"")
        with pytest.raises(StoreError, match="leaves the store"):
            store.local(path)


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


@pytest.mark.parametrize(
    ("written", "uri"),
    [
        ("/a/../b/", "file:///b"),
        ("file:///a/b//", "file:///a/b"),
        ("file://", "file:///"),
        ("/", "file:///"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_a_store_has_one_uri(written: str, uri: str) -> None:
    store = Store(written)
    assert (store.uri, store.is_s3) == (uri, uri.startswith("s3:"))
    assert store.full("x/y") == f"{uri.rstrip('/')}/x/y"
    assert store.full("") == uri
    with pytest.raises(FrozenInstanceError):
        store.uri = "other"  # type: ignore[misc]


def test_a_bare_path_is_a_folder_here_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Store("a").uri == f"file://{tmp_path}/a"
    assert Store("~/a").uri == "file:///home/somebody/a"
    assert Store("s3").uri == f"file://{tmp_path}/s3"
    assert Store("odd:name").uri == f"file://{tmp_path}/odd:name"


def test_one_file_can_be_asked_for(store: Store) -> None:
    store.write_bytes("a/one", b"123")
    found = store.entry("a/one")
    assert found is not None
    assert (found.path, found.size, store.size("a/one")) == ("a/one", 3, 3)
    listed = store.files()[0].modified
    assert found.modified // 10**9 == listed // 10**9 > 1e9, "S3 tells fractions of a second in listings alone"
    assert (store.entry("a"), store.entry("b"), store.size("b")) == (None, None, 0)
    assert store.read("a/one") == (found, b"123")
    assert store.read("b") is None
    with pytest.raises(FrozenInstanceError):
        found.size = 4  # type: ignore[misc]


def test_listing_may_stay_in_one_folder(store: Store) -> None:
    for path in ("b/two", "b/c/three", "a", "b-side"):
        store.write_bytes(path, b"1")
    assert [entry.path for entry in store.files()] == ["a", "b-side", "b/c/three", "b/two"]
    assert [entry.path for entry in store.files("b")] == ["b/c/three", "b/two"]
    assert [entry.path for entry in store.files(recursive=False)] == ["a", "b-side"]
    assert [entry.path for entry in store.files("b", recursive=False)] == ["b/two"]
    assert store.files("absent") == store.folders("absent") == []
    store.write_bytes("ab/x", b"1")
    assert store.folders() == ["ab", "b"]


def test_the_store_says_what_time_it_is(store: Store) -> None:
    store.write_bytes("before", b"1")
    now = store.clock()
    before = store.entry("before")
    assert before
    assert before.modified / 1e9 <= now < before.modified / 1e9 + 60
    assert [entry.path for entry in store.files()] == ["before"], "the probe is gone"


def test_the_clock_is_the_stores_and_not_this_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "entry", lambda _, path: Entry(path, 5, 1_710_000_000_500_000_000))
    assert Store(str(tmp_path)).clock() == 1_710_000_000.5


def test_sizes_of_files_named_without_those_that_are_missing(store: Store) -> None:
    for number, name in enumerate(("in/a", "in/b/c", "in/not-asked")):
        store.write_bytes(name, b"x" * number)
    found = store.sizes("in", ["in/a", "in/b/c", "in/none"])
    assert {name: found.get(name) for name in ("in/a", "in/b/c", "in/none")} == {
        "in/a": 0,
        "in/b/c": 1,
        "in/none": None,
    }


def test_etags_are_those_below_the_prefix(s3_store: Store) -> None:
    below = Store(f"{s3_store.uri}/in")
    for path in ("in/a", "in/b/c", "inside"):
        s3_store.create(path, path.encode())
    tags = {path: hashlib.md5(path.encode()).hexdigest() for path in ("in/a", "in/b/c", "inside")}
    assert s3_store.etags() == tags
    assert s3_store.etags("in/b") == {"in/b/c": tags["in/b/c"]}
    assert below.etags() == {"a": tags["in/a"], "b/c": tags["in/b/c"]}
    bucket, _, name = s3_store.root.partition("/")
    assert Store(f"s3://{bucket}").etags(f"{name}/in/") == {f"{name}/{path}": tags[path] for path in ("in/a", "in/b/c")}


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "SlowDown", "Message": "slow"}}, "ListObjectsV2"),
        EndpointConnectionError(endpoint_url="http://a.test"),
    ],
)
def test_a_listing_that_fails_is_an_error_of_the_store(error: Exception) -> None:
    store = Store("s3://bucket/prefix")
    store.__dict__["_s3"] = Mock(get_paginator=Mock(return_value=Mock(paginate=Mock(side_effect=error))))
    with pytest.raises(StoreError, match=r"^s3://bucket/prefix/in: "):
        store.etags("in")


def test_a_created_file_is_whole_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, synced, link = Store(str(tmp_path)), [], os.link
    fsync = os.fsync

    def recording(handle: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{handle}")).name[:8], os.fstat(handle).st_size))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording)
    monkeypatch.setattr(os, "link", lambda one, other: (synced.append(("link", 0)), link(one, other)))
    assert store.create("folder/manifest", b"12345")
    assert synced[:2] == [(".create-", 5), ("link", 0)]
    assert {name for name, _ in synced[2:]} == {"manifest", "folder"}, "its name is on the disk before it counts"
    assert not store.create("folder/manifest", b"12345")
    assert [entry.path for entry in store.files()] == ["folder/manifest"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_the_umask_says_who_may_read_a_created_file(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        Store(str(tmp_path)).create("manifest", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "manifest").stat().st_mode) == mode


@pytest.mark.parametrize("code", [errno.EEXIST, errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_link_whose_answer_nfs_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    link = os.link

    def losing(one: str, other: str) -> None:
        link(one, other)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", losing)
    store = Store(str(tmp_path))
    assert store.create("a/manifest", b"mine")
    monkeypatch.setattr(os, "link", link)
    assert not store.create("a/manifest", b"later")
    assert {entry.path: store.read_bytes(entry.path) for entry in store.files()} == {"a/manifest": b"mine"}


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMLINK])
def test_a_link_that_was_not_made_is_the_stores_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError(code, "the server failed")))
    with pytest.raises(StoreError, match="the server failed"):
        Store(str(tmp_path)).create("a/manifest", b"mine")
    assert Store(str(tmp_path)).files() == []


def test_a_temporary_name_that_cannot_be_removed_takes_no_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", Mock(side_effect=OSError(errno.ESTALE, "stale")))
    assert Store(str(tmp_path)).create("manifest", b"mine")
    assert Store(str(tmp_path)).read_bytes("manifest") == b"mine"


def test_a_service_that_creates_a_file_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Mock()  # takes every put
    monkeypatch.setattr("contract.store._s3_client", lambda quick=False: client)
    monkeypatch.setattr(Store, "reach", Mock())
    monkeypatch.setattr(Store, "delete", deleted := Mock())
    with pytest.raises(
        StoreError, match=r"^s3://bucket/x: the service overwrites what .* If-None-Match: [*] on a put$"
    ):
        Store("s3://bucket/x").check()
    assert len({call.kwargs["Body"] for call in client.put_object.mock_calls}) == 2
    assert {call.kwargs["Key"] for call in client.put_object.mock_calls} == {f"x/{deleted.mock_calls[0].args[0]}"}


def refusing(*codes: str) -> Mock:
    """An S3 client whose puts end with these error codes, one after the other, and then well."""
    from botocore.exceptions import ClientError

    errors = [ClientError({"Error": {"Code": code}}, "PutObject") for code in codes]
    return Mock(**{"put_object.side_effect": [*errors, None]})


def s3(client: Mock, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, list[float]]:
    """A store of that client, and how long it waited each time."""
    store, waited = Store("s3://bucket/x"), []
    monkeypatch.setattr("contract.store.time.sleep", waited.append)
    monkeypatch.setitem(store.__dict__, "_s3", client)
    return store, waited


def test_puts_that_meet_others_wait_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store, waited = s3(refusing(*["ConditionalRequestConflict"] * 7), monkeypatch)
    assert store.create("a", b"1")
    assert waited == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5])
    store, waited = s3(refusing(*["ConditionalRequestConflict"] * 8), monkeypatch)
    with pytest.raises(StoreError, match="ConditionalRequestConflict"):
        store.create("a", b"1")
    assert len(waited) == 7


def test_a_put_that_is_refused_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    client = refusing("AccessDenied")
    store, waited = s3(client, monkeypatch)
    with pytest.raises(StoreError, match=r"^s3://bucket/x/a: access denied"):
        store.create("a", b"1")
    assert (client.put_object.call_count, waited) == (1, [])
    client.put_object.assert_called_with(Bucket="bucket", Key="x/a", Body=b"1", IfNoneMatch="*")


def test_a_retried_put_that_meets_its_own_first_try_has_won(monkeypatch: pytest.MonkeyPatch) -> None:
    for stands, won in ((b"1", True), (b"2", False)):
        store, _ = s3(refusing("PreconditionFailed"), monkeypatch)
        monkeypatch.setattr(Store, "read_bytes", lambda _, path, stands=stands: stands)
        assert store.create("a", b"1") == won


def test_a_broken_connection_is_the_stores_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import EndpointConnectionError

    client = Mock(**{"put_object.side_effect": EndpointConnectionError(endpoint_url="http://a")})
    store, _ = s3(client, monkeypatch)
    with pytest.raises(StoreError, match="the store cannot be reached"):
        store.create("a", b"1")


def test_a_defect_is_not_taken_for_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        Store(str(tmp_path)).create("a", b"1")


def test_syncing_leaves_no_file_open(tmp_store: Store) -> None:
    tmp_store.write_bytes("a/b", b"1")
    before = len(os.listdir("/proc/self/fd"))
    tmp_store.persist(["a/b"])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("quick", "seconds", "tries"), [(True, (5, 5), 3), (False, (10, 60), 9)])
def test_a_task_waits_longer_for_s3_than_a_person(quick: bool, seconds: tuple[int, int], tries: int) -> None:
    config = _s3_client(quick=True).meta.config if quick else Store("s3://bucket")._s3.meta.config
    assert (config.connect_timeout, config.read_timeout) == seconds
    assert config.retries["total_max_attempts"] == tries


def test_the_check_of_an_s3_store_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    store, written = Store("s3://bucket/a"), []
    monkeypatch.setattr(Store, "reach", lambda self: None)
    monkeypatch.setattr(Store, "delete", lambda self, path: written.remove(path))

    def create(self: Store, path: str, data: bytes, client: object) -> bool:
        if path in written:
            return False
        written.append(path)
        return True

    monkeypatch.setattr(Store, "_create_s3", create)
    store.check()
    assert written == [], "what was written is deleted"
    monkeypatch.setattr(Store, "_create_s3", Mock(side_effect=OSError("no")))
    with pytest.raises(StoreError, match=r"s3://bucket/a: no"):
        store.check()


def test_s3_needs_no_syncing() -> None:
    Store("s3://bucket/x").persist(["never asked for"])


def test_a_download_goes_to_a_new_folder_or_over_an_old_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.write_bytes("a", b"new")
    target = tmp_path / "deep" / "er" / "a"
    assert store.download("a", target) == target
    target.write_bytes(b"older and longer")
    assert store.download("a", target).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("set_", "endpoint", "region"),
    [
        ({}, None, "us-east-1"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_DEFAULT_REGION": "b"}, "http://a", "b"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://s3"}, "http://s3", "us-east-1"),
        ({"AWS_DEFAULT_REGION": "b", "AWS_REGION": "c"}, None, "c"),
    ],
)
def test_endpoint_and_region_come_from_the_environment(
    set_: dict[str, str], endpoint: str | None, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    assert (_endpoint(), _region()) == (endpoint, region)


def test_airflow_does_not_load_pyarrow_with_every_dag_file() -> None:
    script = "import sys, contract.store; print('pyarrow' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


def test_a_folder_that_cannot_be_written_fails_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=rf"^file://{tmp_path}/file/store: .*Not a directory"):
        Store(str(tmp_path / "file" / "store")).check()


def test_no_checksums_are_added_that_servers_other_than_amazons_refuse() -> None:
    names = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
    unset = {name: value for name, value in os.environ.items() if name not in names}

    def after_import(**given: str) -> list[str]:
        script = f"import os, contract.store; print(*(os.environ[name] for name in {names}))"
        return subprocess.check_output([sys.executable, "-c", script], env=unset | given, text=True).split()

    assert after_import() == ["when_required"] * 2
    assert after_import(**{names[0]: "when_supported"}) == ["when_supported", "when_required"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space"), "the disk is full; free space and run again, finished work is kept"),
        (PermissionError(errno.EACCES, "no"), "access denied; check the folder's permissions or the AWS_* credentials"),
        (OSError("SignatureDoesNotMatch"), "access denied; check the folder's permissions or the AWS_* credentials"),
        (OSError("Unable to locate credentials"), "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (OSError("code NoSuchBucket"), "the bucket does not exist; create it first"),
        (OSError("AWS NO_SUCH_BUCKET"), "the bucket does not exist; create it first"),
        (OSError("Read timed out"), "the store cannot be reached; check AWS_ENDPOINT_URL and the network"),
        (OSError(errno.EIO, "odd\nerror"), "[Errno 5] odd error"),
    ],
)
def test_what_failed_is_told_in_one_line_with_what_to_do(error: Exception, said: str) -> None:
    told = explain("s3://b/x", error)
    assert told.startswith(f"s3://b/x: {said}")
    assert "\n" not in told


def test_folders_that_link_to_themselves_and_to_each_other_are_listed_once(tmp_path: Path) -> None:
    """Followed wherever they lead, two links in a folder to itself would be 2^40 paths."""
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    for file in ("x", "a/x", "a/deep/x", "b/x"):
        (tmp_path / file).write_text("x")
    for link, target in (("self", "."), ("again", "."), ("a/up", ".."), ("a/b", "../b"), ("b/a", "../a")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "away").symlink_to(tmp_path / "a")
    assert [entry.path for entry in Store(str(tmp_path)).files()] == ["a/deep/x", "a/x", "b/x", "x"]
    outside = Store(str(tmp_path / "b")).files()
    assert [entry.path for entry in outside] == ["a/deep/x", "a/up/x", "a/x", "x"]
    assert Store(str(tmp_path)).files("nothing") == []


def test_a_range_of_an_open_file_is_read_up_to_its_end(tmp_store: Store) -> None:
    tmp_store.write_bytes("a", b"0123456789")
    with tmp_store.open_input("a") as source:
        assert tmp_store.read_range("a", source, 3, 4) == b"3456"
        assert tmp_store.read_range("a", source, 8, 4) == b"89"
    broken = Mock(read_at=Mock(side_effect=OSError("AWS Error UNKNOWN (HTTP status 503)")))
    with pytest.raises(StoreError, match=r"file:///.*/a: AWS Error UNKNOWN \(HTTP status 503\)"):
        tmp_store.read_range("a", broken, 0, 1)

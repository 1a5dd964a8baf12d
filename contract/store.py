"""The store holds every task's data, in a local folder or an S3-compatible service, behind one small class.

Data goes through `pyarrow.fs`, which streams and retries. Manifests must be created exactly once, so they go through
`create`: a hard link on a file system, a conditional put (`If-None-Match: *`) on S3. Endpoint and credentials
come from the usual AWS environment variables (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...), never from a URI.

pyarrow is imported inside the functions that use it: Airflow parses the DAG files, which import this module, every few
seconds without opening a store.
"""

import errno
import logging
import os
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import RecipeError, SetupError, StoreError
from contract.masking import masked, masked_words
from contract.printable import printable

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

COPY_CHUNK = 8 << 20
ATTEMPTS = 8
TASK_FOLDER = re.compile(r"/[a-z_]+/[0-9a-f]{40}(/|$)")
DENIED = (
    "ACCESS_DENIED",
    "AccessDenied",
    "InvalidAccessKeyId",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "SignatureDoesNotMatch",
)

# Several S3-compatible servers (Ceph among them) refuse the checksums that newer AWS SDKs add by default.
os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")


@dataclass(frozen=True)
class Entry:
    """One file. `path` is relative to the store; `modified` is a Unix time in nanoseconds, exact to the second."""

    path: str
    size: int
    modified: int


@dataclass(frozen=True)
class Store:
    """A root URI and the operations on paths below it. It connects at first use, so it can be pickled to workers.

    Paths are relative, with `/`. Every method raises StoreError with the full URI if the service fails, and
    FileNotFoundError if a path that must exist does not.
    """

    uri: str

    def __post_init__(self) -> None:
        scheme, separator, rest = self.uri.partition("://")
        if separator and scheme not in ("file", "s3"):
            message = f"store {self.uri}: scheme {scheme}:// is not supported; use a folder, file:// or s3://"
            raise RecipeError(masked_words(message))
        if scheme == "s3" and separator:
            if "@" in rest.partition("/")[0]:
                raise RecipeError(
                    "store: credentials in a URI are refused; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
                )
            if not rest.partition("/")[0]:
                raise RecipeError(f"store {self.uri}: names no bucket; write s3://bucket/prefix")
        elif separator and rest and not rest.startswith("/"):
            raise RecipeError(f"store {self.uri}: a file URI has no host; write file:///{rest} or the bare path {rest}")
        else:
            local = rest or "/" if separator else os.path.abspath(os.path.expanduser(self.uri))
            object.__setattr__(self, "uri", f"file://{os.path.normpath(local)}")
        object.__setattr__(self, "uri", self.uri.rstrip("/") if self.uri != "file:///" else self.uri)

    @property
    def is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    @property
    def root(self) -> str:
        """The root without its scheme: a local folder, or `bucket/prefix`."""
        return self.uri.partition("://")[2]

    def full(self, path: str) -> str:
        """The URI of a path, for messages and manifests."""
        return f"{self.uri.rstrip('/')}/{path}" if path else self.uri

    @cached_property
    def filesystem(self) -> "pafs.FileSystem":
        from pyarrow import fs as pafs

        if not self.is_s3:
            return pafs.LocalFileSystem()
        return pafs.S3FileSystem(
            region=_region(),
            endpoint_override=_endpoint(),
            connect_timeout=10,
            request_timeout=60,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        )

    @cached_property
    def _s3(self) -> Any:
        return _s3_client()

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def local(self, path: str) -> Path:
        """The path of a file in a store that is a local folder, for libraries that open files themselves."""
        return Path(self._at(path))

    def _at(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise StoreError(f"{path!r} leaves the store {self.uri}")
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    @contextmanager
    def _reported(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            from pyarrow import ArrowException

            if not isinstance(error, OSError | ArrowException):
                raise
            raise StoreError(explain(self.full(path), error, self.uri)) from error

    def check(self) -> None:
        """Check that the store can be written and refuses to create a file twice, before any work starts.

        Raises StoreError within seconds if the store cannot be reached, or if a second file replaces the first: then
        two attempts at a task would both win.
        """
        self.reach()
        probe = f".probe-{uuid.uuid4().hex}"
        with self._reported(""):
            if self.is_s3:
                client = _s3_client(quick=True)
                created = [self._create_s3(probe, data, client) for data in (b"first", b"second")]
            else:
                created = [self._create_local(probe, data) for data in (b"first", b"second")]
        with suppress(StoreError):  # `gc` removes it too
            self.delete(probe)
        if created != [True, False]:
            raise StoreError(
                f"{self.uri}: the service overwrites what it was asked to create once; "
                "commits need one that honours If-None-Match: * on a put"
            )

    def reach(self) -> None:
        """Raise StoreError within seconds if the service cannot be reached; any answer counts, even a refusal.

        Every other method retries for a minute, which is too long for a person who waits.
        """
        if self.is_s3:
            _reach(self.root.partition("/")[0], self.uri, _endpoint())

    def exists(self, path: str) -> bool:
        with self._reported(path):
            return bool(self._info(path).type.name != "NotFound")

    def size(self, path: str) -> int:
        """Bytes of a file, or 0 if it does not exist."""
        entry = self.entry(path)
        return entry.size if entry else 0

    def entry(self, path: str) -> Entry | None:
        """The file at a path, or None if it does not exist."""
        with self._reported(path):
            if self.is_s3:
                return self._object(path)
            info = self._info(path)
        return Entry(path, info.size, info.mtime_ns) if info.is_file else None

    def _object(self, path: str) -> Entry | None:
        """The object at a path by one request; pyarrow's own look-up lists the folder of this name if there is none."""
        try:
            with self.filesystem.open_input_file(self._at(path)) as source:
                return _entry(path, source)
        except FileNotFoundError:
            return None

    def read(self, path: str) -> tuple[Entry, bytes] | None:
        """A file and its content, or None if it does not exist: on S3 a request less than `entry` and `read_bytes`."""
        try:
            with self.open_input(path) as source, self._reported(path):
                content = bytes(source.read())
                entry = _entry(path, source) if self.is_s3 else self.entry(path)
        except FileNotFoundError:
            return None
        return (entry, content) if entry else None

    def files(self, prefix: str = "", recursive: bool = True) -> list[Entry]:
        """Files below a prefix, sorted by path; an empty list if the prefix does not exist."""
        with self._reported(prefix):
            infos = self._infos(prefix, recursive)
        files = (info for info in infos if info.is_file)
        return sorted(
            (Entry(info.path[len(self.root.rstrip("/")) + 1 :], info.size, info.mtime_ns) for info in files),
            key=lambda entry: entry.path,
        )

    def sizes(self, prefix: str, paths: Iterable[str]) -> dict[str, int]:
        """Path -> bytes of the given files, all below a prefix; missing files are left out.

        On a file system each file is opened, because NFS then asks its server; an NFS listing may come from a cache
        that misses the changes of other machines.
        """
        if self.is_s3:
            return {entry.path: entry.size for entry in self.files(prefix)}
        found: dict[str, int] = {}
        for path in paths:
            with suppress(FileNotFoundError), self._reported(path), open(self._at(path), "rb") as file:
                found[path] = os.fstat(file.fileno()).st_size
        return found

    def clock(self) -> float:
        """The store's own time as a Unix time in seconds, read off the modification time of a file written now."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, b"clock")
            entry = self.entry(probe)
        finally:
            with suppress(StoreError):  # `gc` removes it too
                self.delete(probe)
        if entry is None:
            raise StoreError(
                f"{self.full(probe)}: a file that was just written is gone; another program removes files there"
            )
        return entry.modified / 1e9

    def etags(self, prefix: str = "") -> dict[str, str]:
        """On S3, path -> ETag of every object whose path begins with `prefix`; one request lists a thousand objects."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = self._at(prefix).partition("/")
        begins = (
            f"{key}/" if key and not prefix else key
        )  # the store's own folder, not its siblings whose names begin alike
        skipped = len(self.root.partition("/")[2]) + 1 if "/" in self.root else 0
        pages = self._s3.get_paginator("list_objects_v2")
        with self._reported(prefix):
            try:
                return {
                    row["Key"][skipped:]: row["ETag"].strip('"')
                    for page in pages.paginate(Bucket=bucket, Prefix=begins)
                    for row in page.get("Contents", [])
                }
            except (ClientError, BotoCoreError) as error:
                raise OSError(str(error)) from error

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders directly below a prefix, sorted."""
        with self._reported(prefix):
            infos = self._infos(prefix, recursive=False)
        return sorted(info.base_name for info in infos if info.type.name == "Directory")

    def _info(self, path: str) -> "pafs.FileInfo":
        return self.filesystem.get_file_info(self._at(path))

    def _infos(self, prefix: str, recursive: bool) -> "list[pafs.FileInfo]":
        from pyarrow.fs import FileSelector

        if recursive and not self.is_s3:
            return list(self._walk(self._at(prefix)))
        selector = FileSelector(self._at(prefix), allow_not_found=True, recursive=recursive)
        return list(self.filesystem.get_file_info(selector))

    def _walk(self, folder: str) -> "Iterator[pafs.FileInfo]":
        """Everything below a local folder. Links come last; no folder is listed twice."""
        from pyarrow.fs import FileSelector

        folders, seen = [folder], set()
        links: list[str] = []
        while folders or links:
            current = folders.pop() if folders else links.pop(0)
            if (real := os.path.realpath(current)) in seen:
                continue
            seen.add(real)
            for info in sorted(
                self.filesystem.get_file_info(FileSelector(current, allow_not_found=True)), key=lambda info: info.path
            ):
                yield info
                if info.type.name == "Directory":
                    (links if os.path.islink(info.path) else folders).append(info.path)

    def open_input(self, path: str) -> "pa.NativeFile":
        """Return a seekable reader of a file's bytes as they are stored, even if the file is compressed."""
        with self._reported(path):
            return self.filesystem.open_input_file(self._at(path))

    def open_output(self, path: str) -> "pa.NativeFile":
        """Return a writer. On S3 the file appears when the writer is closed; elsewhere missing folders are made."""
        with self._reported(path):
            if not self.is_s3:
                os.makedirs(os.path.dirname(self._at(path)), exist_ok=True)
            return self.filesystem.open_output_stream(self._at(path), compression=None)

    def read_bytes(self, path: str) -> bytes:
        with self.open_input(path) as source, self._reported(path):
            return bytes(source.read())

    def read_range(self, path: str, source: "pa.NativeFile", start: int, size: int) -> bytes:
        """Read `size` bytes at `start` of a file that is open as `source`; fewer if the file ends before."""
        with self._reported(path):
            return bytes(source.read_at(size, start))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file, or overwrite it; use `create` for files that must never be overwritten."""
        with self._reported(path), self.open_output(path) as sink:
            sink.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Create a whole file, or change nothing and return False if it exists already. Never leaves part of a file."""
        with self._reported(path):
            return self._create_s3(path, data, self._s3) if self.is_s3 else self._create_local(path, data)

    def _create_local(self, path: str, data: bytes) -> bool:
        target = self._at(path)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except FileNotFoundError as error:  # /proc raises this; to a caller it would mean that a file is missing
            raise PermissionError(error.errno, "no folder can be made here", error.filename) from None
        temporary = f"{os.path.dirname(target)}/.create-{uuid.uuid4().hex}"
        with open(temporary, "xb") as file:  # `open` applies the umask, which decides who may read the file
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                made = _link(temporary, target)
            finally:
                with suppress(OSError):  # `gc` removes it too, and the target exists already
                    os.unlink(temporary)
        if made:
            self.persist([path])
        return made

    def _create_s3(self, path: str, data: bytes, client: Any) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = self._at(path).partition("/")
        for attempt in range(ATTEMPTS):
            try:
                client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code == "PreconditionFailed":
                    # A retried put may find the object of its own first try: equal bytes mean that it won.
                    return self.read_bytes(path) == data
                if code != "ConditionalRequestConflict" or attempt == ATTEMPTS - 1:
                    raise OSError(str(error)) from error
                time.sleep(min(0.1 * 2**attempt, 5))  # another writer is between its request and its answer
            except BotoCoreError as error:
                raise OSError(str(error)) from error
        raise AssertionError("the last attempt returns or raises")

    def persist(self, paths: Iterable[str]) -> None:
        """Sync files and their folders to the disk, so that they survive a power cut. S3 does so at every write."""
        if self.is_s3:
            return
        for path in sorted({*paths, *(os.path.dirname(path) for path in paths)}):
            with self._reported(path):
                handle = os.open(self._at(path), os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with everything below it; do nothing if the path does not exist.

        Raises StoreError for a path that leads out of the store through a link.
        """
        with self._reported(path):
            if not self.holds(os.path.dirname(path)):
                raise StoreError(f"{self.full(path)}: a link leads out of the store; remove that link")
            info = self._info(path)
            if info.is_file:
                self.filesystem.delete_file(info.path)
            elif info.type.name == "Directory":
                self.filesystem.delete_dir(info.path)

    def holds(self, path: str) -> bool:
        """Whether a path still lies within the store after its links are followed."""
        if self.is_s3:
            return True
        inside, place = os.path.realpath(self.root), os.path.realpath(self._at(path))
        return os.path.commonpath([inside, place]) == inside

    def upload(self, folder: Path, prefix: str) -> None:
        """Copy every file below a local folder to the same relative path below `prefix`."""
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            target = f"{prefix}/{file.relative_to(folder).as_posix()}"
            with file.open("rb") as source, self._reported(target), self.open_output(target) as sink:
                shutil.copyfileobj(source, sink, COPY_CHUNK)

    def download(self, path: str, target: Path) -> Path:
        """Copy one file to a local path and return that path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.open_input(path) as source, self._reported(path), target.open("wb") as sink:
            shutil.copyfileobj(source, sink, COPY_CHUNK)
        return target


def _entry(path: str, source: "pa.NativeFile") -> Entry:
    """An object of S3 that is open."""
    modified = datetime.fromisoformat(source.metadata()["Last-Modified"].decode())
    return Entry(path, source.size(), int(modified.timestamp()) * 10**9)


def _link(temporary: str, target: str) -> bool:
    """Hard-link `temporary` to `target`, which is atomic; return False if another file has that name.

    NFS may lose the answer to a link that it made; its second try then reports that the name exists, or that the server
    failed. So the file's link count decides. It is read through a new `open`, which NFS answers from the server and not
    from its cache.
    """
    try:
        os.link(temporary, target)
    except OSError as error:
        with open(temporary, "rb") as file:
            names = os.fstat(file.fileno()).st_nlink
        if names < 2 and not isinstance(error, FileExistsError):
            raise
        return names > 1
    return True


@lru_cache
def _reach(bucket: str, uri: str, endpoint: str | None) -> None:
    """`Store.reach`, cached: a process asks a reachable service only once."""
    from botocore import UNSIGNED
    from botocore.exceptions import BotoCoreError, ClientError

    log.info("asking %s at %s", printable(uri), printable(masked(endpoint or "Amazon S3")))
    try:
        _s3_client(quick=True, signature_version=UNSIGNED).head_bucket(Bucket=bucket)
    except BotoCoreError as error:
        raise StoreError(explain(uri, error)) from error
    except ClientError:  # the service answered, so it can be reached
        return


def _s3_client(quick: bool = False, **options: Any) -> Any:
    """An S3 client with timeouts and retries for a task, or, if `quick`, for a person who waits."""
    import boto3  # imported here, so that only S3 stores pay for it
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 2 if quick else ATTEMPTS},
        connect_timeout=5 if quick else 10,
        read_timeout=5 if quick else 60,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **options,
    )
    try:
        return boto3.client("s3", endpoint_url=_endpoint(), region_name=_region(), config=config)
    except ValueError as error:
        raise SetupError(f"AWS_ENDPOINT_URL or AWS_REGION: {error}; write an endpoint as http://host:port") from None


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _region() -> str:
    """A region even for servers that need none: without one pyarrow asks AWS, and hangs if AWS cannot be reached."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def split_uri(uri: str) -> tuple[Store, str]:
    """Split a file's URI into (a store of its folder, its name), to read a single file from anywhere."""
    folder, slash, name = uri.rstrip("/").rpartition("/")
    if folder in ("", "file:/", "file://"):
        return Store("/" if slash else "."), name
    return Store(folder), name


def explain(uri: str, error: Exception, store: str | None = None) -> str:
    """One line that says what a failed operation on a URI means and what to do about it.

    If `store` is not given, the store's URI is taken from `uri`, if that lies in a task's folder.
    """
    text = str(error).replace("\n", " ")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        below = TASK_FOLDER.search(uri)
        root = store or (uri[: below.start()] if below else None)
        return (
            f"{uri}: the disk is full; free space and run again, finished work is kept; "
            "what killed tasks left behind goes with: "
            f"python -m contract gc --store {shlex.quote(root) if root else 'STORE'} --delete"
        )
    if isinstance(error, PermissionError) or any(sign in text for sign in DENIED):
        return f"{uri}: access denied; check the folder's permissions or the AWS_* credentials ({text})"
    if "Unable to locate credentials" in text:
        return f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    if "NoSuchBucket" in text or "NO_SUCH_BUCKET" in text:
        return f"{uri}: the bucket does not exist; create it first ({text})"
    if any(
        sign in text
        for sign in ("NETWORK_CONNECTION", "Could not connect", "Connect timeout", "curlCode", "timed out", "timeout")
    ):
        return f"{uri}: the store cannot be reached; check AWS_ENDPOINT_URL and the network ({text})"
    return f"{uri}: {text}"

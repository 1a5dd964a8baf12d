"""Which crawl files a snapshot consists of, cut into segments. Their names and sizes are the root of every fingerprint.

A source is a Common Crawl mirror (it has `collinfo.json` and `crawl-data/<snapshot>/warc.paths.gz`) or a folder or store prefix.
A folder is one snapshot, named after the week of its newest file; listing it again gives the same answer until a file changes.
"""

import datetime
import gzip
import hashlib
import json
import re
import zlib
from dataclasses import asdict, dataclass

from contract import fetch
from contract.errors import InputError, StoreError
from contract.recipe import Recipe
from contract.stages import STAGES
from contract.store import Store, split_uri

CRAWL_FILE = re.compile(r"\.(warc|wet|arc)(\.gz)?$|\.warc\.wet(\.gz)?$")
SNAPSHOT_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]*-(\d{4})-(\d{2})\Z")


@dataclass(frozen=True)
class Source:
    """One crawl file. `name` identifies it within its snapshot; `size` is 0 where the listing does not say (Common Crawl)."""

    uri: str
    name: str
    size: int
    modified: int


@dataclass(frozen=True)
class Segment:
    """The unit that runs, fails and is cleared alone: some files of one snapshot."""

    snapshot: str
    index: int
    files: tuple[Source, ...]

    @property
    def partition(self) -> str:
        return f"{self.snapshot}.{self.index:05d}"


def snapshot_date(key: str) -> datetime.date:
    """The Monday of the ISO week that a snapshot's name ends in: CC-MAIN-2024-10 -> 2024-03-04. Raises InputError for other names."""
    match = SNAPSHOT_NAME.match(key)
    if not match:
        raise InputError(f"snapshot {key!r}: a name ends in year and ISO week, for example CC-MAIN-2024-10")
    try:
        return datetime.date.fromisocalendar(int(match[1]), int(match[2]), 1)
    except ValueError:
        raise InputError(f"snapshot {key!r}: there is no ISO week {match[2]} in {match[1]}") from None


def list_snapshots(source: str, patience_s: float = fetch.PATIENCE_S) -> list[str]:
    """The snapshots that a source offers, newest first. A source that cannot be reached is asked for `patience_s`."""
    if not is_common_crawl(source):
        return [_folder_snapshot(source, _folder_files(source))]
    try:
        names = [str(row["id"]) for row in json.loads(_mirror_get(source, "collinfo.json", patience_s))]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{source}/collinfo.json: is not Common Crawl's list of crawls ({error}); check crawl.source"
        ) from None
    # Common Crawl's earliest crawls are named otherwise and are ARC, which is refused anyway.
    return sorted((name for name in names if SNAPSHOT_NAME.match(name)), key=snapshot_date, reverse=True)


def list_segments(recipe: Recipe) -> list[Segment]:
    """Every segment of every snapshot of the recipe, or of the newest one where the recipe names none."""
    crawl = recipe.crawl
    snapshots = tuple(dict.fromkeys(recipe.snapshots)) or tuple(list_snapshots(crawl.source)[:1])
    segments: list[Segment] = []
    for snapshot in snapshots:
        snapshot_date(snapshot)
        files = _snapshot_files(crawl.source, snapshot)[: crawl.max_files]
        step = crawl.files_per_segment
        segments += [
            Segment(snapshot, start // step, tuple(files[start : start + step])) for start in range(0, len(files), step)
        ]
    if not segments:
        raise InputError(f"crawl.source {crawl.source}: lists no crawl files; check the source and the snapshot's name")
    return segments


def list_outside(recipe: Recipe) -> dict[str, str]:
    """Size and time of every file that a recipe names beside the crawl: `stage.key` -> what identifies its content.

    Raises InputError naming the key of a file that does not exist, or of a folder without files.
    """
    return {key: value for stage in STAGES for key, value in stage_outside(recipe, stage).items()}


def stage_outside(recipe: Recipe, stage: str) -> dict[str, str]:
    """`list_outside` for the files of one stage."""
    found: dict[str, str] = {}
    for key, uri in recipe.section(stage).outside().items():
        store, name = split_uri(uri)
        entries = [entry for entry in store.files(recursive=False) if entry.path == name] or store.files(name)
        if not entries:
            why = "holds no readable file" if store.exists(name) else "does not exist"
            raise InputError(f"{stage}.{key}: {uri} {why}; check the path, or leave the key out")
        listing = "".join(f"{entry.path}:{entry.size}:{entry.modified}\n" for entry in entries)
        found[f"{stage}.{key}"] = hashlib.sha256(listing.encode()).hexdigest()[:16]
    return found


def check_crawl_files(segment: Segment) -> None:
    """Raises InputError where a crawl file is gone or not what it was when the run was resolved. Common Crawl's never change."""
    for file in segment.files:
        if not file.size:
            continue
        store, name = split_uri(file.uri)
        now = next((entry for entry in store.files(recursive=False) if entry.path == name), None)
        if now is None:
            raise InputError(f"{file.uri}: the crawl file is gone; bring it back, or start a new run without it")
        if (now.size, now.modified) != (file.size, file.modified):
            raise InputError(f"{file.uri}: the crawl file changed since the run was resolved; start a new run")


def file_size(source: Source, retries: int = 8) -> int:
    """Bytes of a crawl file, asked for where the listing does not say; 0 where nobody tells."""
    if source.size:
        return source.size
    if source.uri.startswith(("http://", "https://")):
        return fetch.size(source.uri, retries)
    store, name = split_uri(source.uri)
    return store.size(name)


def dump_inputs(segments: list[Segment], outside: dict[str, str]) -> bytes:
    """What a run was resolved against, as JSON for the run's folder in the store."""
    return json.dumps({"segments": [asdict(segment) for segment in segments], "outside": outside}, indent=1).encode()


def load_inputs(data: bytes) -> tuple[list[Segment], dict[str, str]]:
    values = json.loads(data)
    segments = [
        Segment(row["snapshot"], row["index"], tuple(Source(**file) for file in row["files"]))
        for row in values["segments"]
    ]
    return segments, values["outside"]


def is_common_crawl(source: str) -> bool:
    """True for HTTP sources, and for S3 or file mirrors that hold a collinfo.json."""
    if source.startswith(("http://", "https://")):
        return True
    Store(source).reach()
    return Store(source).exists("collinfo.json")


def _mirror_get(source: str, path: str, patience_s: float = fetch.PATIENCE_S) -> bytes:
    if not source.startswith(("http://", "https://")):
        try:
            return Store(source).read_bytes(path)
        except FileNotFoundError:
            raise InputError(f"{source}/{path}: no such file; check crawl.source and the snapshot's name") from None
    if path == "collinfo.json" and source.rstrip("/") == "https://data.commoncrawl.org":
        return fetch.get("https://index.commoncrawl.org/collinfo.json", patience_s)
    return fetch.get(f"{source.rstrip('/')}/{path}", patience_s)


def _snapshot_files(source: str, snapshot: str) -> list[Source]:
    if is_common_crawl(source):
        listed = f"crawl-data/{snapshot}/warc.paths.gz"
        try:
            listing = gzip.decompress(_mirror_get(source, listed)).decode().split()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(
                f"{source}/{listed}: is not a gzipped list of paths ({error}); check crawl.source"
            ) from None
        return [Source(f"{source.rstrip('/')}/{path}", path, 0, 0) for path in listing]
    files = _folder_files(source)
    newest = _folder_snapshot(source, files)
    if snapshot != newest:
        raise InputError(
            f"{source} holds the snapshot {newest}, not {snapshot}; leave `snapshots` empty or name {newest}"
        )
    return files


def _folder_files(source: str) -> list[Source]:
    store = Store(source)
    try:
        entries = store.files()
    except StoreError as error:
        raise InputError(f"crawl.source {source}: cannot be listed: {error}") from error
    files = [
        Source(store.full(entry.path), entry.path, entry.size, entry.modified)
        for entry in entries
        if CRAWL_FILE.search(entry.path)
    ]
    if not files:
        what = (
            f"none of its {len(entries)} files ends in .warc, .wet or .arc (.gz or not)"
            if entries
            else "it is missing or empty"
        )
        raise InputError(f"crawl.source {source}: {what}; name a folder or prefix with WARC or WET files")
    return files


def _folder_snapshot(source: str, files: list[Source]) -> str:
    base = re.sub(r"[^A-Za-z0-9]+", "-", source.rstrip("/").rpartition("/")[2]).strip("-").upper() or "FOLDER"
    newest = datetime.datetime.fromtimestamp(max(file.modified for file in files) / 1e9, datetime.UTC).isocalendar()
    return f"{base}-{newest.year}-{newest.week:02d}"

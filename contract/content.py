"""What a file holds, told without a look at when it was written: a copied or touched file is the same file, a rewritten one is not.

On S3 an object's ETag tells, and listing brings it. Elsewhere the bytes do: all of a file up to a limit, of a larger one its first and
last 64 KiB and 16 stretches of 4 KiB between them, with the size that stands beside the digest. A crawl file that is written again differs
at its ends: gzip's header and its checksum, the records' dates, the length. One that is not yet complete has its length, its ends and
holes between them, where several connections fill it at once. It costs 18 reads a file, and they wait for the disk side by side.
"""

import datetime
import hashlib
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from contract.store import Entry, Store

END_BYTES = 64 << 10
STRETCHES, STRETCH_BYTES = 16, 4 << 10  # between the ends
WHOLE_BYTES = 64 << 20
"""Up to here a file that a person edits is read whole: an evaluation set or a list with one letter changed is another one."""
THREADS = 16
PIECE = 1 << 20
WARC_DATE = re.compile(rb"^WARC-Date:[ \t]*(\d{4})-(\d\d)-(\d\d)", re.IGNORECASE | re.MULTILINE)
FIRST_YEAR = 1991  # of the web: an earlier date is a clock that was never set


def digests(
    store: Store, entries: Sequence[Entry], prefix: str = "", whole_bytes: int = 2 * END_BYTES
) -> dict[str, str]:
    """What each file below `prefix` holds, by path. Files above `whole_bytes` are known by samples."""
    if store.is_s3:
        tags = store.etags(prefix)
        return {entry.path: tags.get(entry.path, "") for entry in entries}
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda entry: _digest(store, entry, whole_bytes), entries)
        return {entry.path: digest for entry, digest in zip(entries, found, strict=True)}


def _digest(store: Store, entry: Entry, whole_bytes: int) -> str:
    """32 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=16)
    with store.open_input(entry.path) as file:
        if entry.size <= whole_bytes:
            while piece := file.read(PIECE):
                found.update(piece)
        else:
            found.update(file.read(END_BYTES))
            for start in _stretches(entry.size):
                file.seek(start)
                found.update(file.read(STRETCH_BYTES))
            file.seek(entry.size - END_BYTES)
            found.update(file.read(END_BYTES))
    return found.hexdigest()


def _stretches(size: int) -> list[int]:
    """Where the stretches start, each around the centre of a sixteenth of what lies between a file's ends."""
    middle = size - 2 * END_BYTES
    centres = (END_BYTES + (2 * index + 1) * middle // (2 * STRETCHES) for index in range(STRETCHES))
    return [centre - STRETCH_BYTES // 2 for centre in centres]


def capture_date(store: Store, path: str) -> datetime.date | None:
    """The day that the first `WARC-Date` at a crawl file's head names, plain or in gzip; None where it names none."""
    with store.open_input(path) as file:
        head = file.read(END_BYTES)
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(head, END_BYTES)
        except zlib.error:
            return None
    found = WARC_DATE.search(head) if head.startswith(b"WARC/") else None
    if not found or int(found[1]) < FIRST_YEAR:
        return None
    try:
        return datetime.date(*map(int, found.groups()))
    except ValueError:
        return None

"""Decodes bodies in a child process that can be killed, because decoders in C read untrusted bytes.

Common Crawl stores bodies already decoded, so few pages go to the child.
"""

import json
from functools import lru_cache

from contract.guard import Guard, Outcome
from pipelines.warc.httpbody import TooLarge, Undecodable, decode_body, is_plain

SECONDS = 10.0  # of processor time; inflating 1 GiB takes four
OWN_MB = 192  # memory of the decoders themselves, without the bodies: Zstandard's window alone can take 128 MiB
WHOLE, CUT, TOO_LARGE, UNDECODABLE = b"w", b"c", b"l", b"u"  # the first byte of an answer


def decode_confined(body: bytes, transfer: str, content: str, limit: int) -> tuple[bytes, bool]:
    """`httpbody.decode_body` in the child. Raises Undecodable also if that takes too much time or memory, or dies."""
    if is_plain(body, transfer, content):
        return body, False
    reply = guard_for(limit).call(body, json.dumps([transfer, content, limit]))
    if reply.outcome is not Outcome.DONE:
        raise Undecodable(f"its decoder ended: {reply.outcome}, {reply.text}")
    mark, data = reply.data[:1], reply.data[1:]
    if mark == TOO_LARGE:
        raise TooLarge
    if mark == UNDECODABLE:
        raise Undecodable(data.decode("utf-8", "replace"))
    if mark not in (WHOLE, CUT):
        raise Undecodable("its decoder gave no valid answer")
    return data, mark == CUT


@lru_cache(maxsize=1)
def guard_for(limit: int) -> Guard:
    """This worker's child process, kept from task to task."""
    return Guard(_decode, SECONDS, OWN_MB + (6 * limit >> 20))


def _decode(body: bytes, note: str) -> bytes:
    transfer, content, limit = json.loads(note)
    try:
        data, cut = decode_body(body, transfer, content, limit)
    except TooLarge:
        return TOO_LARGE
    except Undecodable as error:
        return UNDECODABLE + str(error).encode("utf-8", "replace")
    return (CUT if cut else WHOLE) + data

"""Sends committed files to a browser, which saves them and never shows them: a few at once, in pieces."""

import threading
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Path
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from contract.store import Store
from reports.cockpit.page import Asking
from reports.cockpit.visitor import Refused
from reports.models import NAME, Download, stream

FileName = Annotated[str, Path(pattern=f"^{NAME.pattern}$")]
"""A file's name in an address."""
DOWNLOADS = threading.BoundedSemaphore(4)


class Attachment(StreamingResponse):
    """A file that a browser saves. Few are sent at once: each takes a thread of the server at times."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not DOWNLOADS.acquire(blocking=False):
            busy = PlainTextResponse("Too many files are being sent at this moment. Try again in a minute.\n", 503)
            return await busy(scope, receive, send)
        try:
            await super().__call__(scope, receive, send)
        finally:
            DOWNLOADS.release()


def attached(ask: Asking, store: Store, files: Sequence[Download], name: str) -> Response:
    """The file of this name as an answer. Raises Refused if none of these files has it, or if it is not offered."""
    found = next((one for one in files if one.name == name and one.offered), None)
    if found is None:
        raise Refused(404, f"There is no file {name} to download. The page lists those that there are.")
    headers = {
        "content-disposition": f'attachment; filename="{found.name}"',
        "content-length": str(found.bytes),
    }
    kind = "application/octet-stream"
    if ask.request.method == "HEAD":
        return Response(headers=headers, media_type=kind)
    return Attachment(stream(store, found.file), headers=headers, media_type=kind)

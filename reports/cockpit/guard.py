"""Stands before every route of the cockpit: who asks, from where, and what the browser may do with the answer."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import PlainTextResponse

from reports.cockpit.visitor import Admit, Refused

MAX_BODY = 1 << 16  # bytes of a form
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Sent with every answer. Plotly writes its own rules into a style element, so styles alone may be inline.

The referrer policy must not be `no-referrer`: with it, browsers send `Origin: null` with a form.
"""

App = Callable[[Any, Any, Any], Awaitable[None]]


class Guard:
    """An ASGI middleware: without a visitor no answer but 401, without the same origin no write."""

    def __init__(self, app: App, admit: Admit) -> None:
        self._app, self._admit = app, admit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._app
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        try:
            request = Request(scope)
            scope.setdefault("state", {})["visitor"] = await self._admit(request)
            check_method(request)
        except Refused as error:
            app = PlainTextResponse(f"{error}\n", error.status)
        await app(scope, receive, _with_headers(send))


def check_method(request: Request) -> None:
    """Raise Refused for a write that another site may have sent, or that is larger than a form."""
    if request.method in ("GET", "HEAD"):
        return
    if request.method != "POST":
        raise Refused(405, "Only GET and POST are answered here.")
    if not same_origin(request.headers):
        raise Refused(403, "This change was not sent by a page of this site. Load the page again and repeat it.")
    size = request.headers.get("content-length", "")
    chunked = "transfer-encoding" in request.headers  # then the length does not count
    if chunked or not size.isdecimal() or int(size) > MAX_BODY:
        raise Refused(413, f"A form has at most {MAX_BODY:,} bytes.")


def same_origin(headers: Any) -> bool:
    """Whether a browser sent a request from a page of this origin, by the headers that no page can set itself."""
    if site := headers.get("sec-fetch-site"):
        return bool(site == "same-origin")
    origin = urlsplit(headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == headers.get("host")


def _with_headers(send: Any) -> Any:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((name.encode(), text.encode()) for name, text in HEADERS.items()),
                *([] if b"cache-control" in own else [(b"cache-control", b"no-store")]),
            ]
        await send(message)

    return sent

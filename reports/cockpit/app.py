"""The cockpit's application: its pages, its files for the browser, and the guard before them."""

from importlib import import_module

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse

from contract.printable import printable
from reports.cockpit import rendering
from reports.cockpit.desk import Desk
from reports.cockpit.guard import Guard
from reports.cockpit.page import Asking, Page
from reports.cockpit.visitor import Admit

PAGES = (
    "run",
    "pages",
    "training",
    "models",
    "abilities",
    "rate",
    "new",
    "manifest",
    "card",
)  # fmt: skip
"""The modules of `reports/cockpit/pages`, in the order of the navigation."""
KEEP = "private, max-age=31536000, immutable"  # the address of a file changes with its content


def create(admit: Admit, desk: Desk | None = None) -> FastAPI:
    """The application. admit: tells whose request it is; desk: the threads in which pages are made."""
    app = FastAPI(title="Gristmill", docs_url=None, redoc_url=None, openapi_url=None)
    pages: list[Page] = [import_module(f"reports.cockpit.pages.{name}").page for name in PAGES]
    app.state.pages, app.state.desk = pages, desk or Desk()
    for page in pages:
        app.include_router(page.router)
    app.add_api_route("/", first, methods=["GET", "HEAD"])
    app.add_api_route("/static/{name}", static, methods=["GET", "HEAD"])
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(404, missing)
    app.add_middleware(Guard, admit=admit)
    return app


async def first(request: Request) -> Response:
    """The first page of the navigation."""
    return Asking(request).go(request.app.state.pages[0].name)


async def static(name: str) -> Response:
    """A file of static/, or Plotly's script."""
    if name not in rendering.files():
        raise HTTPException(404)
    return FileResponse(rendering.files()[name][0], headers={"cache-control": KEEP})


async def invalid(request: Request, error: Exception) -> Response:
    """Say which value of an address or a form is not allowed."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    said = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in found[:5])
    return Asking(request).sorry(
        422, f"The address or the form has a value that is not allowed. {printable(said)[:1000]}"
    )


async def missing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return Asking(request).sorry(status, "There is no such page.")

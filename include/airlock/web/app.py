"""The web application that Airflow's API server mounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.staticfiles import StaticFiles

from airlock import __version__
from airlock.core.errors import (
    AirlockError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from airlock.web import pages, rest, slack
from airlock.web.rendering import render

# What a page may load: its own style and images. No script, no frame, no request to anyone else.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_STATUS: list[tuple[type[AirlockError], int]] = [
    (NotFoundError, 404),
    (RefusedError, 403),
    (ConflictError, 409),
    (InvalidInputError, 400),
    (UnavailableError, 503),
]


def create_app() -> FastAPI:
    """The application: pages, REST, style."""
    app = FastAPI(
        title="Airlock",
        version=__version__,
        description="Releases of governed models: what is asked, by whom, why, and how it ended.",
        docs_url=None,  # the interactive pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.include_router(rest.router, prefix="/api")
    app.include_router(pages.router, include_in_schema=False)
    app.include_router(slack.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    app.middleware("http")(_with_headers)
    app.add_exception_handler(AirlockError, _airlock_error)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    return app


async def _with_headers(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.url.path.startswith(f"{request.scope.get('root_path', '')}/static/"):
        response.headers["Cache-Control"] = "public, max-age=3600"
    return response


def _airlock_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AirlockError)  # noqa: S101  # registered for nothing else
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    return _answer(request, status, error.what, error.where, error.fix)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException | StarletteHTTPException)  # noqa: S101  # registered for nothing else
    fix = "log in to Airflow, then come back" if error.status_code == 401 else ""  # noqa: PLR2004
    return _answer(request, error.status_code, str(error.detail), "", fix)


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for nothing else
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return _answer(request, 422, f"{where}: {problem['msg']}", "", "correct the field and send it again")


def _answer(request: Request, status: int, what: str, where: str, fix: str) -> Response:
    """The error as data for programs and as a page for people."""
    body = {"error": {"what": what, "where": where, "fix": fix}}
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    if path.startswith("/api") or "text/html" not in request.headers.get("accept", "text/html"):
        return JSONResponse(body, status_code=status)
    page = render("error.html.j2", root=request.scope.get("root_path", ""), status=status, **body["error"])
    return HTMLResponse(page, status_code=status)

"""The pages of `gax explore` as a web application that answers only browsers of this machine."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gax_batch import gz2
from gax_batch.errors import GaxError, UsageError
from gax_batch.export.formats import Format
from gax_batch.viewer import report
from gax_batch.viewer.explorer.filters import FIELDS, FLAGS, MEASURES, ORDERS, Filters
from gax_batch.viewer.explorer.survey import MOST_BY_NAME, SUFFIXES, ResultPage, Survey
from gax_batch.viewer.tree import BAR, BLOCK, RARE

HOSTS = ["127.0.0.1", "localhost"]
"""Names by which a browser of this machine requests the pages. A request with another name comes from a site
whose name resolves to this machine (DNS rebinding)."""

_PAGE = Path(__file__).parent / "page"
_BASE = Path(report.__file__).parent / "page"
_FILES = {
    "style.css": (_BASE, "text/css"),
    "explore.css": (_PAGE, "text/css"),
    "explore.js": (_PAGE, "text/javascript"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class SameOriginMiddleware:
    """Refuse requests that pages of other sites make, and restrict browsers to this origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of ASGI."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        asked = dict(scope["headers"])
        foreign = asked.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")
        # Links to a page are allowed from any site.
        if foreign and asked.get(b"sec-fetch-dest") != b"document":
            await PlainTextResponse("requested by another site\n", 403)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


class Pages:
    """The handlers of requests. None of them changes the catalog."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader([_PAGE, _BASE]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["count"] = lambda value: f"{value:,}"
        self._templates.filters["query"] = lambda values: urlencode(values)
        self._templates.globals.update(
            survey=survey,
            questions=gz2.QUESTIONS,
            answers=gz2.ANSWERS,
            in_words=gz2.in_words,
            flags=FLAGS,
            measures=MEASURES,
            orders=ORDERS,
            forms=list(SUFFIXES),
            most_by_name=MOST_BY_NAME,
            block=BLOCK,
            bar=BAR,
            rare=RARE,
        )

    def galaxies(self, request: Request) -> Response:
        """Return the form, the map and a page of galaxies."""
        values = _fields(request, FIELDS)
        filters, found, problem = Filters(), None, None
        try:
            filters = Filters.parse(_known(request))
            found = self._survey.find(filters, _whole_number(request, "page", 1))
        except UsageError as error:
            problem = str(error)
        return self._page(
            "explore.html", 200 if found else 400, **self._shown(filters, found, values, problem)
        )

    def galaxy(self, request: Request) -> Response:
        """Return the page of one galaxy."""
        values = _fields(request, FIELDS)
        detail = self._survey.detail(request.query_params.get("galaxy", ""))
        return self._page("galaxy.html", 200, detail=detail, values=values)

    def cutout(self, request: Request) -> Response:
        """Return the cutout of a galaxy."""
        data, kind = self._survey.pictures.get(request.query_params.get("galaxy", ""))
        return Response(data, media_type=kind, headers={"cache-control": "no-store"})

    def export(self, request: Request) -> Response:
        """Return all galaxies that match, the first of them, or the checked ones, as a file."""
        asked = request.query_params
        form = next((form for form in SUFFIXES if form == asked.get("format")), None)
        if form is None:
            raise UsageError(f"the format must be one of {', '.join(SUFFIXES)}")
        filters = Filters.parse({name: asked[name] for name in FIELDS if name in asked})
        ids: list[str] | None = None
        if asked.get("take") == "first":
            ids = self._survey.first(filters, _whole_number(request, "count", 10))
        elif asked.get("take") == "checked":
            ids = asked.getlist("galaxy")
        # The file has to outlive this call, since it is sent later.
        folder = tempfile.TemporaryDirectory(prefix="gax-")
        try:
            path = Path(folder.name) / f"galaxies.{SUFFIXES[form]}"
            self._survey.publish(filters, ids, Format(form), asked.get("columns", ""), path)
        except GaxError:
            folder.cleanup()
            raise
        done = BackgroundTask(folder.cleanup)
        return FileResponse(path, filename=f"galaxies-{self._survey.version}{path.suffix}", background=done)

    def file(self, request: Request) -> Response:
        """Return a style sheet or the script."""
        name = request.path_params["name"]
        if name not in _FILES:
            return PlainTextResponse("this file does not exist\n", 404)
        folder, kind = _FILES[name]
        return Response((folder / name).read_bytes(), media_type=kind)

    def failed(self, request: Request, error: Exception) -> Response:
        """Return the page that shows an error of this package."""
        status = 400 if isinstance(error, UsageError) else 502
        return self._page("problem.html", status, problem=str(error), values=_fields(request, FIELDS))

    def _shown(
        self, filters: Filters, found: ResultPage | None, values: dict[str, str], problem: str | None
    ) -> dict[str, Any]:
        uri, version = self._survey.catalog.uri, self._survey.version
        return {
            "filters": filters,
            "found": found,
            "values": values,
            "problem": problem,
            "python": filters.python(uri, version),
            "command": filters.command(uri, version),
        }

    def _page(self, name: str, status: int, **values: Any) -> Response:
        return HTMLResponse(self._templates.get_template(name).render(values), status)


def make_app(survey: Survey) -> Starlette:
    """Return the application."""
    pages = Pages(survey)
    return Starlette(
        routes=[
            Route("/", pages.galaxies),
            Route("/galaxy", pages.galaxy),
            Route("/cutout", pages.cutout),
            Route("/export", pages.export),
            Route("/files/{name}", pages.file),
        ],
        middleware=[Middleware(SameOriginMiddleware), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        exception_handlers={GaxError: pages.failed},
    )


def _known(request: Request) -> Mapping[str, str]:
    """Return the parameters of the request without the page's number. `Filters` refuses unknown ones."""
    return {name: value for name, value in request.query_params.items() if name != "page"}


def _fields(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """Return the fields that are filled in, unchanged."""
    asked = request.query_params
    return {name: asked[name] for name in names if asked.get(name, "").strip()}


def _whole_number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise UsageError(f"{name} is {text[:20]!r}, which is not a whole number from 1")
    return int(text)

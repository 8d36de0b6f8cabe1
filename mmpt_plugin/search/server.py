"""The server of the search page: the page's files, a JSON API over a collection, and its media."""

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmpt_plugin.errors import first_line
from mmpt_plugin.search.catalog import Catalog, UnknownVideo
from mmpt_plugin.search.collection import Collection
from mmpt_plugin.search.playable import EXCERPT_SECONDS, Excerpts

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = Path(__file__).parent / "page"
STATIC = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/player.js": ("player.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
    "/favicon.ico": ("favicon.svg", "image/svg+xml"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOCAL = ("127.0.0.1", "localhost")
MOST_MOMENTS, MOST_VIDEOS, MOST_LABELS = 100, 200, 100  # in one request
DECODERS = 2  # threads that make strips


def app(collection: Collection, *, hosts: Sequence[str] = ("*",)) -> Starlette:
    """The page and its API for one collection; a request for a host that is not in `hosts` is refused."""
    site = Site(Catalog(collection))
    routes = [Route(path, static(*about)) for path, about in STATIC.items()]
    routes += [
        Route(f"/api/{name}", getattr(site, name)) for name in ("status", "search", "similar", "videos", "video")
    ]
    routes += [Route("/api/classify", site.classify, methods=["POST"])]
    routes += [Route(f"/{name}", getattr(site, name)) for name in ("strip", "media", "excerpt")]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        site.close()

    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={
            HTTPException: on_http_error,
            UnknownVideo: on_unknown,
            ValueError: on_wrong,
            Exception: on_failure,
        },
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket for `serve`, on any free port if `port` is 0; ValueError if the address can't be used."""
    host = "127.0.0.1" if host == "localhost" else host
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"can't listen on {host}, port {port}: {reason}; choose another --host or --port") from error
    return listening


def serve(collection: Collection, listening: socket.socket) -> None:
    """Serve the page on a socket of `listen` until the process is interrupted."""
    # On this machine only, another host name in a request is a trick of another site to read the answers.
    hosts = LOCAL if listening.getsockname()[0] in LOCAL else ("*",)
    config = uvicorn.Config(
        app(collection, hosts=hosts), log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listening])


class Site:
    """The answers to the requests. Searches run in Starlette's threads, decoding in a few of its own."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.excerpts = Excerpts()
        self.decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="strip")
        self.encoder = ThreadPoolExecutor(1, thread_name_prefix="excerpt")

    def close(self) -> None:
        """End the threads and delete the excerpts."""
        self.decoders.shutdown(wait=False, cancel_futures=True)
        self.encoder.shutdown(wait=True, cancel_futures=True)
        self.excerpts.close()

    async def status(self, request: Request) -> Response:
        """GET: see `Catalog.status`."""
        return JSONResponse(await run_in_threadpool(self.catalog.status))

    async def search(self, request: Request) -> Response:
        """GET q, k, folder, min, max: moments that fit a sentence."""
        query = request.query_params
        found = await run_in_threadpool(self.catalog.search, query.get("q", ""), number_of(query), **filters(query))
        return JSONResponse({"moments": found})

    async def similar(self, request: Request) -> Response:
        """GET video, start, end, k, folder, min, max: moments similar to one."""
        query = request.query_params
        found = await run_in_threadpool(self.catalog.similar, *moment_of(query), number_of(query), **filters(query))
        return JSONResponse({"moments": found})

    async def classify(self, request: Request) -> Response:
        """POST {video, start, end, prompts: {label: [sentence]}}: labels and scores, highest first."""
        asked = await asked_of(request)
        labels = await run_in_threadpool(self.catalog.classify, *moment_of(asked), prompts_of(asked.get("prompts")))
        return JSONResponse({"labels": labels})

    async def videos(self, request: Request) -> Response:
        """GET folder, min, max: the first videos, and the number of all of them."""
        found = await run_in_threadpool(lambda: self.catalog.listed(**filters(request.query_params)))
        return JSONResponse({"videos": found[:MOST_VIDEOS], "total": len(found)})

    async def video(self, request: Request) -> Response:
        """GET video: the video, and whether browsers play its file."""
        return JSONResponse(await run_in_threadpool(self.catalog.video, request.query_params.get("video", "")))

    async def strip(self, request: Request) -> Response:
        """GET video, start, end: frames of the moment side by side, as JPEG."""
        picture = await in_threads(self.decoders, self.catalog.strip, *moment_of(request.query_params))
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    async def media(self, request: Request) -> Response:
        """GET video: the file, or a range of it, if browsers play it."""
        video = request.query_params.get("video", "")
        kind = await run_in_threadpool(self.catalog.media_type, video)
        path = await run_in_threadpool(self.catalog.path, video)
        if kind is None:
            raise HTTPException(415, f"browsers can't play {path.name}: ask for an excerpt")
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, no-cache"})

    async def excerpt(self, request: Request) -> Response:
        """GET video, start, end: a part of the video that all browsers play, at most EXCERPT_SECONDS long."""
        video, start, end = moment_of(request.query_params)
        about = await run_in_threadpool(self.catalog.about, video)
        path = await run_in_threadpool(self.catalog.path, video)
        end = min(end, start + EXCERPT_SECONDS, about.duration)
        file = await in_threads(self.encoder, self.excerpts.file, path, start, end)
        return FileResponse(file, media_type="video/mp4", headers={"Cache-Control": "private, no-cache"})


def static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """The answer with one of the page's files."""

    async def answer(_: Request) -> Response:
        return FileResponse(PAGE / name, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


async def in_threads(threads: Executor, call: Callable[..., T], *arguments: Any) -> T:
    """Call a function in one of these threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


def moment_of(asked: Any) -> tuple[str, float, float]:
    """The video, start and end that a request names."""
    start, end = (number(asked, name) for name in ("start", "end"))
    if start is None or end is None or not 0 <= start < end:
        raise ValueError("a moment needs a video, and a start that is before its end")
    return str(asked.get("video", "")), start, end


def number_of(query: QueryParams) -> int:
    """How many moments a request asks for."""
    k = query.get("k", "24")
    if not k.isdecimal() or not 1 <= int(k) <= MOST_MOMENTS:
        raise ValueError(f"k must be 1 to {MOST_MOMENTS}, got '{k}'")
    return int(k)


def filters(query: QueryParams) -> dict[str, Any]:
    """The arguments of `Collection.search` that limit it to some videos."""
    return {
        "folder": query.get("folder") or None,
        "min_duration": number(query, "min"),
        "max_duration": number(query, "max"),
    }


def number(asked: Any, name: str) -> float | None:
    """A number of a request; None if it is not given."""
    given = asked.get(name)
    if given is None or given == "":
        return None
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number, got '{given}'")
    return value


async def asked_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body."""
    try:
        asked = await request.json()
    except ValueError as error:
        raise ValueError("the request is not JSON") from error
    if not isinstance(asked, dict):
        raise ValueError("the request is not a JSON object")
    return asked


def prompts_of(given: Any) -> dict[str, list[str]]:
    """Labels and their sentences, checked."""
    if not isinstance(given, dict) or not 1 <= len(given) <= MOST_LABELS:
        raise ValueError(f"prompts must be an object of 1 to {MOST_LABELS} labels, each with a list of sentences")
    for label, sentences in given.items():
        if not isinstance(sentences, list) or not all(isinstance(one, str) and one.strip() for one in sentences):
            raise ValueError(f"label '{label}' needs a list of sentences")
    return given


class SecurityHeaders:
    """Adds HEADERS to all answers, and forbids keeping those without a rule of their own."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.inner(scope, receive, send_with_headers)


def answer_error(status: int, line: str) -> Response:
    """An error as JSON."""
    return JSONResponse({"error": line}, status_code=status)


async def on_http_error(_: Request, error: Exception) -> Response:
    """An unknown address, a wrong method."""
    assert isinstance(error, HTTPException)
    return answer_error(error.status_code, error.detail)


async def on_unknown(_: Request, error: Exception) -> Response:
    """A video that is not there."""
    return answer_error(404, str(error))


async def on_wrong(_: Request, error: Exception) -> Response:
    """What the request asks for is not possible."""
    return answer_error(400, first_line(error))


async def on_failure(_: Request, error: Exception) -> Response:
    """Anything else; the server writes the traceback to its log."""
    return answer_error(500, f"the server failed: {type(error).__name__}: {first_line(error)}")

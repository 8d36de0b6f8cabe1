"""Where the tests of stores keep collections: a folder, an S3 bucket that moto emulates, or a Milvus server."""

import contextlib
import logging
import os
import urllib.request
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

# What users set for a bucket; an endpoint without TLS needs AWS_ALLOW_HTTP.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


def kinds() -> list[object]:
    """The stores, for pytest's parametrize."""
    return ["folder", pytest.param("s3", marks=pytest.mark.slow), pytest.param("milvus", marks=pytest.mark.slow)]


@contextlib.contextmanager
def place(kind: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """A function that returns the URL of a collection that does not exist yet."""
    if kind == "folder":
        folder = request.getfixturevalue("tmp_path_factory").mktemp("stores")
        yield lambda: str(folder / uuid4().hex)
    elif kind == "s3":
        with bucket() as name:
            yield lambda: f"s3://{name}/{uuid4().hex}"
    else:
        port = request.getfixturevalue("milvus_port")
        yield lambda: f"milvus+http://127.0.0.1:{port}/c{uuid4().hex}"


@contextlib.contextmanager
def bucket() -> Iterator[str]:
    """The name of a bucket in this process; the environment variables lead LanceDB to it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
    try:
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/videos", method="PUT"), timeout=60)
        yield "videos"
    finally:
        server.stop()
        os.environ.clear()
        os.environ.update(before)

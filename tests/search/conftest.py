"""A Milvus server for the tests that ask for one."""

import os

import pytest

from tests.search import milvus_server


@pytest.fixture(scope="module")
def milvus_port(tmp_path_factory):
    if reason := milvus_server.why_not():
        (pytest.fail if os.environ.get("MILVUS_TESTS") == "required" else pytest.skip)(reason)
    with milvus_server.running(tmp_path_factory.mktemp("milvus")) as port:
        yield port

"""The server of the search page: its answers are the collection's, and it serves the collection's videos only."""

import io
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.cli import main
from mmpt_plugin.search import Collection
from mmpt_plugin.search import collection as collection_module
from mmpt_plugin.search.indexing import indexing, is_indexing
from mmpt_plugin.search.playable import CELL, STRIP_FRAMES, Excerpts, media_type, played_as
from mmpt_plugin.video.decode import Formats, VideoError, probe, read_frames
from tests.conftest import PLUGIN, ROOT
from tests.search.served import HAS_X265, SCRIPT, make_collection, write, write_model

pytest.importorskip("lancedb")
pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from mmpt_plugin.search import server

SENTENCE = "chop the tomato on the board"
TOY, OLD = "Videos/2025/toy.mp4", "Videos/2026/old.avi"


@pytest.fixture(scope="module")
def collection(kitchen, tmp_path_factory):
    return make_collection(kitchen, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(collection):
    with TestClient(server.app(collection)) as client:
        yield client


def spans(moments):
    return [(one["video"], one["start"], one["end"]) for one in moments]


def test_a_search_has_the_moments_of_the_collection(client, collection):
    answer = client.get("/api/search", params={"q": SENTENCE, "k": 5}).json()["moments"]
    expected = collection.search(SENTENCE, 5)
    assert spans(answer) == [(one.video, one.start, one.end) for one in expected]
    assert [one["score"] for one in answer] == pytest.approx([one.score for one in expected])
    assert [one["strength"] for one in answer] == pytest.approx([one.strength for one in expected])
    first = answer[0]
    assert f"{first['folder']}/{first['name']}" == first["video"]
    assert first["duration"] == collection.videos()[first["video"]].duration


def test_a_folder_and_a_length_limit_a_search_and_the_list_of_videos(client):
    def found(**filters):
        moments = client.get("/api/search", params={"q": SENTENCE, **filters}).json()["moments"]
        listed = client.get("/api/videos", params=filters).json()
        assert listed["total"] == len(listed["videos"])
        assert {one["video"] for one in moments} == {one["video"] for one in listed["videos"]}
        return {one["name"] for one in listed["videos"]}

    assert found(folder="Videos/2025") == {"toy.mp4"}
    assert found(max=12) >= {"old.avi", SCRIPT}
    assert found(min=12) == {"toy.mp4"}
    assert found(min=12, folder="Videos/2026") == set()


def test_similar_moments_do_not_overlap_the_one_that_was_asked_for(client, collection):
    asked = {"video": TOY, "start": 4, "end": 10}
    answer = client.get("/api/similar", params=asked | {"k": 100}).json()["moments"]
    expected = collection.similar(collection.at(TOY, 7.0), 100)
    assert spans(answer) == [(one.video, one.start, one.end) for one in expected]
    assert not [one for one in answer if one["video"] == TOY and one["start"] < 10 and one["end"] > 4]


def test_labels_have_prompts_of_ones_own(client, collection):
    prompts = {"cutting": ["chop the tomato", "slice it"], "stirring": ["stir the pot"]}
    asked = {"video": TOY, "start": 4, "end": 10, "prompts": prompts}
    answer = client.post("/api/classify", json=asked).json()["labels"]
    expected = collection.classify(collection.at(TOY, 7.0), prompts)
    assert [(one["label"], one["score"]) for one in answer] == list(expected.items())


def test_the_status_counts_videos_moments_and_folders(client, collection):
    status = client.get("/api/status").json()
    videos = collection.videos()
    assert status["videos"] == len(videos)
    assert status["moments"] == sum(len(collection.store.rows(video).starts) for video in videos)
    assert status["folders"] == [
        {"folder": "Videos", "videos": len(videos)},
        {"folder": "Videos/2025", "videos": 1},
        {"folder": "Videos/2026", "videos": len(videos) - 1},
    ]
    assert status["indexing"] is False


def test_the_status_says_when_indexing_is_under_way(client, collection):
    with indexing(collection.url), indexing(collection.url):
        assert client.get("/api/status").json()["indexing"] is True
    assert client.get("/api/status").json()["indexing"] is False


def test_indexing_is_under_way_while_videos_are_computed(collection, tmp_path, monkeypatch):
    """Not for an address without a folder, such as a bucket."""
    computed = collection_module.outcomes
    seen = []

    def watched(*given, **options):
        seen.append(is_indexing(collection.url))
        return computed(*given, **options)

    monkeypatch.setattr(collection_module, "outcomes", watched)
    new = write(tmp_path / "new.mp4", "libx264", seconds=2, sound=None)
    collection.index([new])
    assert seen == [True]
    assert not is_indexing(collection.url)
    assert not is_indexing("s3://bucket/name")
    collection.store.remove([video for video in collection.videos() if video.endswith("/new.mp4")])


def test_an_empty_collection_has_a_status_and_no_moments(kitchen, tmp_path):
    empty = Collection.create(tmp_path / "c", model=write_model(kitchen, tmp_path / "m"))
    with TestClient(server.app(empty)) as client:
        assert client.get("/api/status").json()["videos"] == 0
        assert client.get("/api/search", params={"q": SENTENCE}).json() == {"moments": []}
        assert client.get("/api/videos").json() == {"videos": [], "total": 0}


@pytest.mark.parametrize(
    ("address", "status", "line"),
    [
        ("/api/search?q=", 400, "the sentence is empty"),
        ("/api/search?q=x&k=0", 400, "k must be 1 to 100, got '0'"),
        ("/api/search?q=chop&k=many", 400, "k must be 1 to 100, got 'many'"),
        ("/api/search?q=chop&min=long", 400, "min must be a number, got 'long'"),
        ("/api/search?q=chop&max=inf", 400, "max must be a number, got 'inf'"),
        ("/api/search?q=chop&folder=gone", 400, "has no videos in folder 'gone'"),
        ("/api/similar?video=gone.mp4&start=1&end=2", 404, "no video 'gone.mp4' in this collection"),
        ("/api/similar?video=gone.mp4", 400, "a moment needs a video, and a start"),
        (f"/strip?video={TOY}&start=5&end=4", 400, "a moment needs a video, and a start that is before its end"),
        (f"/strip?video={TOY}&start=-5&end=4", 400, "a moment needs a video, and a start that is before its end"),
        (f"/excerpt?video={OLD}&start=90&end=95", 400, "old.avi has no part from 90 to 10 s"),
        (f"/media?video={OLD}", 415, "browsers can't play old.avi"),
        ("/api/classify", 405, "Method Not Allowed"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_an_error_is_json_with_one_line(client, address, status, line):
    answer = client.get(address)
    assert answer.status_code == status
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("{", "the request is not JSON"),
        ("[]", "the request is not a JSON object"),
        (json.dumps({"video": TOY, "start": 0, "end": 6}), "prompts must be an object of 1 to 100 labels"),
        (
            json.dumps({"video": TOY, "start": 0, "end": 6, "prompts": {"a": "b"}}),
            "label 'a' needs a list of sentences",
        ),
        (json.dumps({"video": TOY, "start": 0, "end": 6, "prompts": {"a": []}}), "label 'a' needs one or more"),
        (json.dumps({"video": [], "start": {}, "end": 6}), "start must be a number"),
    ],
)
def test_a_wrong_body_is_an_error_of_one_line(client, body, line):
    answer = client.post("/api/classify", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(line)


def test_a_failure_is_json_too(collection, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no memory\nat line 3")

    monkeypatch.setattr(collection, "search", fails)
    with TestClient(server.app(collection), raise_server_exceptions=False) as client:
        answer = client.get("/api/search", params={"q": SENTENCE})
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed: RuntimeError: no memory"}


@pytest.mark.parametrize(
    "video",
    ["../../etc/passwd", "/etc/passwd", "Videos/../../model/config.json", f"{TOY}/../toy.mp4", "Videos/2025", "", "\0"],
)
@pytest.mark.parametrize("address", ["/media", "/strip", "/excerpt", "/api/video"])
def test_only_the_videos_of_the_collection_are_served(client, video, address):
    answer = client.get(address, params={"video": video, "start": 0, "end": 2})
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("no video '")


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/server.py", "/page/../server.py", "//etc/passwd"])
def test_an_address_is_not_a_path(client, path):
    assert client.get(path).status_code == 404


def test_a_video_is_served_in_ranges(client, collection):
    content = collection.videos()[TOY].path(TOY).read_bytes()
    whole = client.get("/media", params={"video": TOY})
    assert (whole.content, whole.headers["content-type"]) == (content, "video/mp4")
    part = client.get("/media", params={"video": TOY}, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert part.content == content[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"


def test_a_file_that_is_gone_is_named(client, collection):
    path = collection.videos()[OLD].path(OLD)
    path.rename(path.with_suffix(".away"))
    try:
        answer = client.get("/strip", params={"video": OLD, "start": 0, "end": 2})
    finally:
        path.with_suffix(".away").rename(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == f"{path} is no longer there: run mmpt index again"


def test_a_strip_has_frames_from_all_over_the_moment(client):
    """Seconds 2 to 6 of a video of brightness 20 t: frames at 2.5, 3.5, 4.5 and 5.5."""
    answer = client.get("/strip", params={"video": f"Videos/2026/{SCRIPT}", "start": 2, "end": 6})
    assert answer.headers["content-type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (CELL[0] * STRIP_FRAMES, CELL[1])
    cells = np.split(np.asarray(picture, dtype=float), STRIP_FRAMES, axis=1)
    assert [cell.mean() for cell in cells] == pytest.approx([40, 60, 80, 100], abs=5)


def test_whether_browsers_play_a_file_is_told(client):
    assert client.get("/api/video", params={"video": TOY}).json()["plays"] is True
    about = client.get("/api/video", params={"video": OLD}).json()
    assert about["plays"] is False
    assert (about["name"], about["folder"], about["duration"]) == ("old.avi", "Videos/2026", 10.0)


@pytest.mark.parametrize(
    "name", ["old.avi", pytest.param("phone.mp4", marks=pytest.mark.skipif(not HAS_X265, reason="no libx265"))]
)
def test_an_excerpt_plays_everywhere_and_begins_and_ends_where_it_should(client, tmp_path, name):
    asked = {"video": f"Videos/2026/{name}", "start": 3, "end": 7}
    answer = client.get("/excerpt", params=asked)
    assert answer.headers["content-type"] == "video/mp4"
    (tmp_path / "e.mp4").write_bytes(answer.content)
    assert played_as(tmp_path / "e.mp4") == "video/mp4"
    assert probe(tmp_path / "e.mp4").duration == pytest.approx(4, abs=0.15)
    shown = read_frames(tmp_path / "e.mp4", [0.05, 1.05, 3.85], height=64)
    assert [frame.mean() for frame in shown] == pytest.approx([60, 80, 120], abs=5)
    part = client.get("/excerpt", params=asked, headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.content) == (206, answer.content[:10])


def test_excerpts_are_limited_and_the_least_recently_used_go_first(tmp_path):
    video = write(tmp_path / "v.avi", "mpeg4", seconds=6, sound=None)
    excerpts = Excerpts(limit=0)
    try:
        first = excerpts.file(video, 0.0, 2.0)
        excerpts.limit = 3 * first.stat().st_size - 1
        second = excerpts.file(video, 2.0, 4.0)
        assert excerpts.file(video, 0.0, 2.0) == first  # used again
        assert {first, second} == set(excerpts.folder.iterdir())
        third = excerpts.file(video, 4.0, 6.0)
        assert {first, third} == set(excerpts.folder.iterdir())
    finally:
        excerpts.close()
    assert not excerpts.folder.exists()


def test_an_excerpt_that_fails_leaves_no_file(tmp_path):
    (tmp_path / "v.avi").write_text("no video")
    excerpts = Excerpts()
    with pytest.raises(VideoError, match="v.avi can't be decoded"):
        excerpts.file(tmp_path / "v.avi", 0.0, 2.0)
    assert not list(excerpts.folder.iterdir())
    excerpts.close()


@pytest.mark.parametrize(
    ("container", "video", "audio", "pixels", "kind"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac", "yuv420p", "video/mp4"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "h264", None, "yuvj420p", "video/mp4"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac", "yuv420p10le", None),
        ("mov,mp4,m4a,3gp,3g2,mj2", "h264", "pcm_s16le", "yuv420p", None),
        ("mov,mp4,m4a,3gp,3g2,mj2", "hevc", "aac", "yuv420p", None),
        ("matroska,webm", "vp9", "opus", "yuv420p", "video/webm"),
        ("matroska,webm", "h264", "aac", "yuv420p", "video/webm"),
        ("matroska,webm", "h264", "ac3", "yuv420p", None),
        ("avi", "h264", None, "yuv420p", None),
        ("mpegts", "h264", "aac", "yuv420p", None),
    ],
)
def test_browsers_play_some_containers_and_codecs(container, video, audio, pixels, kind):
    assert media_type(Formats(container, video, pixels, audio)) == kind


def test_a_slow_search_does_not_hold_up_other_requests(collection, monkeypatch):
    begun, answered, in_time = threading.Event(), threading.Event(), []

    def slow(*_, **__):
        begun.set()
        in_time.append(answered.wait(20))
        return []

    monkeypatch.setattr(collection, "search", slow)
    with TestClient(server.app(collection)) as client:
        searching = threading.Thread(target=client.get, args=("/api/search?q=chop",))
        searching.start()
        assert begun.wait(60)
        assert client.get("/api/status").status_code == 200
        assert client.get("/").status_code == 200
        answered.set()
        searching.join(60)
    assert in_time == [True]


def test_the_page_may_load_nothing_from_elsewhere(client):
    for address in ("/", "/page.js", "/player.js", "/page.css", "/favicon.ico", "/favicon.svg", "/api/status", "/no"):
        answer = client.get(address)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "img-src", "media-src", "connect-src")} == {
            "'self'"
        }
        assert answer.headers["x-content-type-options"] == "nosniff"
    html = client.get("/").text
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=\"/)", html)
    for file in (PLUGIN / "search" / "page").iterdir():
        assert set(re.findall(r"https?://[\w.]+", file.read_text())) <= {"http://www.w3.org"}  # the namespace of SVG
        assert "innerHTML" not in file.read_text()


def test_all_files_of_the_page_are_served_and_installed(client):
    files = {path.name for path in (PLUGIN / "search" / "page").iterdir()}
    assert files == {name for name, _ in server.STATIC.values()}
    for address, (name, kind) in server.STATIC.items():
        answer = client.get(address)
        assert answer.content == (PLUGIN / "search" / "page" / name).read_bytes()
        assert answer.headers["content-type"].startswith(kind)
    assert '"search/page/*"' in (ROOT / "setup.py").read_text()


def test_on_this_machine_only_its_own_names_are_answered(collection):
    """The name of another site, which its script has pointed here, is refused."""
    with TestClient(server.app(collection, hosts=server.LOCAL), base_url="http://localhost:8000") as client:
        assert client.get("/api/status").status_code == 200
        assert client.get("/api/status", headers={"Host": "evil.example:8000"}).status_code == 400


def test_a_port_in_use_is_one_line(collection, capsys):
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", collection.url, "--port", str(port)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"mmpt serve: can't listen on 127.0.0.1, port {port}: Address already in use; choose another --host or --port"
    )


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_the_address_is_printed_and_another_host_is_warned_of(collection, capsys, monkeypatch, host, warned):
    served = []
    monkeypatch.setattr(server, "serve", lambda collection, listening: served.append(listening.getsockname()))
    assert main(["serve", collection.url, "--host", host, "--port", "0"]) == 0
    said = capsys.readouterr()
    assert said.out == f"http://127.0.0.1:{served[0][1]}\n"
    warning = f"warning: anyone who reaches {host} can search and watch these videos"
    assert [line for line in said.err.splitlines() if "warning" in line] == ([warning] if warned else [])


def test_a_collection_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "gone")]) == 2
    assert f"{tmp_path}/gone is not a collection" in capsys.readouterr().err
    assert Path(tmp_path / "gone").exists() is False

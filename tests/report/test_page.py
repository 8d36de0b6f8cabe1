"""The page of what was found: order, marks, frames, and nothing from outside the file."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.report import about_run, write_page
from mmpt_plugin.video.write import write_video

NUM_CLIPS = 7
GREY_A_SECOND = 25  # a frame at second t is grey t * 25


def clip(number: int, **changes):
    """One of seven clips: seconds 0-8 of video `v0`, `v1`, ..., the better the lower its number."""
    made = {"video_id": f"v{number}", "start": 0.0, "end": 8.0, "caption": f"caption {number}", "score": 9.0 - number}
    return made | changes


def example(number: int, **changes):
    """The query for a clip, with the first five found."""
    found = [clip(other) for other in range(5)]
    return {"text": f"caption {number}", "rank": number + 1, "right": clip(number), "found": found} | changes


def result(*examples):
    return {
        "task": "text_video_retrieval",
        "num_queries": 3 * NUM_CLIPS,
        "num_clips": NUM_CLIPS,
        "metrics": {"t2v_recall@1": 0.3125, "t2v_median_rank": 4.0},
        "untrained": {"t2v_recall@1": 0.125, "t2v_median_rank": 6.0},
        "chance": {"t2v_recall@1": 0.1429, "t2v_median_rank": 3.5},
        "examples": list(examples),
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(NUM_CLIPS):
        seconds = (np.full((64, 96, 3), second * GREY_A_SECOND, dtype=np.uint8) for second in range(8))
        write_video(folder / f"v{number}.mp4", seconds, fps=1)
    return folder


@pytest.fixture
def written(videos, tmp_path):
    def write(*examples, **changes) -> str:
        write_page(tmp_path / "index.html", title="Found", result=result(*examples) | changes, videos=videos)
        assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
        return (tmp_path / "index.html").read_text(encoding="utf-8")

    return write


class Reader(HTMLParser):
    """What a browser would fetch, and the text of each clip with its classes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.clips: list[tuple[set[str], str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "srcset", "data") if name in values]
        classes = set((values.get("class") or "").split())
        if "clip" in classes:
            self.clips.append((classes, ""))

    def handle_data(self, data):
        self.text += data
        if self.clips:
            classes, text = self.clips[-1]
            self.clips[-1] = (classes, f"{text} {data}")


def clips(page: str) -> list[tuple[set[str], str]]:
    return Reader(page).clips


def test_clips_stand_in_the_order_found_with_video_seconds_and_score(written):
    texts = [" ".join(text.split()) for _, text in clips(written(example(0)))]
    assert len(texts) == 5
    assert texts[1] == "2. caption 1 v1, 0–8 s, score 8.00"
    assert [text.split()[0] for text in texts] == ["1.", "2.", "3.", "4.", "5."]


def test_the_right_clip_is_marked_in_words_and_the_others_are_not(written):
    marked = ["the right clip" in text for _, text in clips(written(example(2)))]
    assert marked == [False, False, True, False, False]


def test_a_right_clip_beyond_those_found_is_shown_apart_with_its_rank(written):
    page = written(example(6))
    found = clips(page)
    assert [("apart" in classes, "the right clip" in text) for classes, text in found] == [(False, False)] * 5 + [
        (True, True)
    ]
    assert found[-1][1].split()[0] == "7."
    assert "Its own clip has rank 7." in page


def test_metrics_stand_beside_their_controls(written):
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", written(example(0)))
    assert cells == [
        *["metric", "this model", "untrained", "chance"],
        *["t2v_recall@1", "31.2 %", "12.5 %", "14.3 %"],
        *["t2v_median_rank", "4.0", "6.0", "3.5"],
    ]


def test_missing_videos_are_counted_on_the_page(written):
    assert "3 videos are missing" in written(example(0), missing_videos=3)
    assert "missing" not in written(example(0), missing_videos=0)


def test_strips_are_four_frames_spread_over_the_clip(written):
    """The middles of the quarters of 0-8 s: 1, 3, 5 and 7 s."""
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', written(example(0)))
    assert len(pictures) == 5 * 4
    greys = []
    for picture in pictures[:4]:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            assert (opened.format, opened.height) == ("JPEG", 96)
            greys.append(np.asarray(opened).mean() / GREY_A_SECOND)
    assert greys == pytest.approx([1, 3, 5, 7], abs=0.2)


def test_a_clip_found_by_several_queries_is_decoded_once(written, monkeypatch):
    decoded = []

    def counted(path, times, *, height):
        decoded.append(path.name)
        return [np.zeros((height, 8, 3), dtype=np.uint8) for _ in times]

    monkeypatch.setattr("mmpt_plugin.video.decode.read_frames", counted)
    written(example(0), example(6), example(6))
    assert sorted(decoded) == ["v0.mp4", "v1.mp4", "v2.mp4", "v3.mp4", "v4.mp4", "v6.mp4"]


def test_text_from_the_data_is_escaped(written):
    nasty = "<script>alert('&')</script>"
    page = written(example(0, text=nasty, right=clip(0, caption=nasty)))
    assert page.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;") == 2
    assert Reader(page).tags.count("script") == 1  # the page's own


TOMATO = {"action": "chop", "ingredient": "tomato"}


def test_clips_that_mean_the_same_are_marked_and_counted(written):
    found = [clip(0, meaning={"action": "fry", "ingredient": "egg"}), clip(1, meaning=TOMATO), clip(2, meaning=TOMATO)]
    page = written(example(2, found=found, right=found[2], meaning_rank=2), oracles={"action": {"t2v_recall@1": 0.5}})
    assert [classes - {"clip"} for classes, _ in clips(page)] == [set(), {"same"}, {"right"}]
    marks = [("means the same" in text, "the right clip" in text) for _, text in clips(page)]
    assert marks == [(False, False), (True, False), (False, True)]
    assert "Its own clip has rank 3. The first clip that means the same (chop, tomato) has rank 2." in page
    assert "<th>knows action</th>" in page
    assert "Several clips mean the same." in page


def test_without_meanings_the_page_does_not_speak_of_them(written):
    assert not re.search("mean(s|ing)?[ <]", Reader(written(example(0), example(6))).text)


def test_the_page_says_how_its_examples_were_chosen(written):
    halves = [example(0, half="better"), example(1, half="better"), example(6, half="worse")]
    page = Reader(written(*halves)).text
    better, worse = page.index("Found well: the better half"), page.index("Found badly: the worse half")
    assert better < page.index("“caption 0”") < page.index("“caption 1”") < worse < page.index("“caption 6”")
    assert "All 21 sentences are sorted by the rank of their own clip. The better half of them is cut into 2" in page
    assert "The worse half of them is cut into 1" in page
    by_meaning = [one | {"meaning_rank": 1, "right": one["right"] | {"meaning": TOMATO}} for one in halves]
    assert "sorted by the rank of the first clip that means the same, then of their own clip." in written(*by_meaning)


def test_examples_of_version_0_1_are_shown_without_a_rule(written):
    page = Reader(written(example(0), example(6))).text
    assert "2 of 21 sentences." in page
    assert "half" not in page


def test_numbers_from_the_file_are_numbers(written):
    for key in ("num_queries", "num_clips", "missing_videos"):
        with pytest.raises(ValueError, match="format code 'd'"):
            written(example(0), **{key: "<script>"})
    with pytest.raises(ValueError, match="format code 'd'"):
        written(example(0, rank="<script>"))


def test_every_text_of_the_file_is_escaped(written, videos, tmp_path):
    bad = "<script>alert(1)</script>"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "<b>.mp4").symlink_to(videos / "v0.mp4")
    strange = clip(0, video_id="<b>", caption=bad, meaning={bad: bad})
    one = example(0, text=bad, right=strange, found=[strange], meaning_rank=1, half="better")
    changes = {"metrics": {bad: 0.5}, "oracles": {bad: {bad: 0.5}}, "untrained": {}, "chance": {}}
    path = tmp_path / "index.html"
    write_page(path, title=bad, result=result(one) | changes, videos=tmp_path / "videos")
    page = path.read_text(encoding="utf-8")
    assert (Reader(page).tags.count("script"), Reader(page).tags.count("b")) == (1, 0)
    assert Reader(page).text.count(bad) == 7  # both titles, a metric, an oracle, a sentence, its meaning, its clip


def test_nothing_is_fetched_from_outside_the_file(written):
    page = written(example(0), example(6))
    assert all(address.startswith("data:image/jpeg;base64,") for address in Reader(page).addresses)
    assert not re.search(r"url\(|@import|https?:", page)
    assert not {"link", "iframe"} & set(Reader(page).tags)
    assert "<script src" not in page


def test_other_video_suffixes_are_found(videos, tmp_path):
    for path in videos.iterdir():
        (tmp_path / path.with_suffix(".mkv").name).symlink_to(path)
    write_page(tmp_path / "index.html", title="Found", result=result(example(0)), videos=tmp_path)
    assert len(clips((tmp_path / "index.html").read_text())) == 5


def test_videos_are_found_as_everywhere(videos, tmp_path):
    """A suffix in capitals, none at all, and two of one name in folders of their own."""
    places = {"v0": "v0.MP4", "v1": "v1", "x/v2": "x/v2.m4v", "y/v2": "y/v2.mpg", "v3": "v3.mp4", "v4": "y/v4.mp4"}
    for video_id, place in places.items():
        (tmp_path / "videos" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / place).symlink_to(videos / f"{video_id.removeprefix('x/').removeprefix('y/')}.mp4")
    found = [clip(number, video_id=video_id) for number, video_id in enumerate(places)]
    write_page(
        tmp_path / "index.html",
        title="Found",
        result=result(example(0, found=found)),
        videos=tmp_path / "videos",
    )
    assert len(clips((tmp_path / "index.html").read_text())) == len(places)


def test_a_missing_video_is_named_and_nothing_is_written(videos, tmp_path):
    astray = example(6, right=clip(6, video_id="nowhere"))
    with pytest.raises(ValueError, match=rf"no video 'nowhere' in {videos}"):
        write_page(tmp_path / "index.html", title="Found", result=result(astray), videos=videos)
    assert list(tmp_path.iterdir()) == []


def test_a_result_without_examples_is_refused(videos, tmp_path):
    with pytest.raises(ValueError, match="'text_video_retrieval' has no examples"):
        write_page(tmp_path / "index.html", title="Found", result=result(), videos=videos)


def test_sentences_and_clips_are_counted_apart(written):
    """MSVD has some forty sentences a clip."""
    page = written(example(1))
    assert "21 sentences retrieve their own clip among 7 clips" in page


def test_the_page_of_a_run_says_which_run_when_and_with_which_settings(tmp_path):
    run = tmp_path / "first <try>"
    run.mkdir()
    (run / "project.yaml").write_text("optimization: {lr: [0.001]}\nmodel: {_name: <b>}\n")
    (run / "train.log").write_text("2026-01-02 03:04:05 | INFO | begin\n2026-01-02 05:04:05 | INFO | end\n{}\n")
    (run / "curve.png").write_bytes(b"picture")
    page = about_run(run)
    text = Reader(page).text
    assert "Run first <try>, trained until 2026-01-02 05:04:05." in text
    assert "optimization.lr[0.001]" in text
    assert "model._name<b>" in text
    assert Reader(page).addresses == ["data:image/png;base64," + base64.b64encode(b"picture").decode()]


@pytest.mark.slow
def test_a_click_on_a_clip_plays_it_in_a_browser(videos, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("no browser at /usr/bin/chromium")
    folder = tmp_path / "a run"
    folder.mkdir()
    found = [clip(1, start=2.0, end=4.0), clip(2, video_id="gone")]
    (tmp_path / "my videos").mkdir()
    for number, name in ((1, "v1.mp4"), (2, "gone.mp4")):
        (tmp_path / "my videos" / name).symlink_to(videos / f"v{number}.mp4")
    one = example(0, found=found, right=found[0])
    write_page(folder / "index.html", title="Found", result=result(one), videos=tmp_path / "my videos")
    (tmp_path / "my videos" / "gone.mp4").unlink()
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((folder / "index.html").as_uri())
        page.locator("button.frames").first.click()
        page.wait_for_function("document.querySelector('video').currentTime >= 2.1")
        page.wait_for_function("document.querySelector('video').paused")
        assert page.evaluate("document.querySelector('video').currentTime") == pytest.approx(4, abs=0.5)
        page.locator("button.frames").click()
        page.get_by_text("This browser can't play ../my videos/gone.mp4").wait_for()
        browser.close()

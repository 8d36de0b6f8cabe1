"""The search page in a real browser, served by the real command: what a person sees, hears and types."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.search.served import HAS_X265, SCRIPT, make_collection

CHROMIUM = Path("/usr/bin/chromium")
REQUIRED = os.environ.get("BROWSER_TESTS") == "required"
SENTENCE = "chop the tomato on the board"
LOADED = "document.querySelectorAll('#results .bar').length > 0 && results.ariaBusy === 'false'"
PLAYING = "video.currentTime > 0 && !video.paused"

pytestmark = pytest.mark.slow

if not REQUIRED:
    pytest.importorskip("lancedb")
    pytest.importorskip("playwright")
    pytest.importorskip("axe_playwright_python")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)


@pytest.fixture(scope="module")
def collection(kitchen, tmp_path_factory):
    return make_collection(kitchen, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def site(collection):
    """The address of `mmpt serve`, which ends without an error when it is interrupted."""
    words = [Path(sys.executable).parent / "mmpt", "serve", collection.url, "--port", "0"]
    serving = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = serving.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address), serving.communicate()[1]
    yield address
    serving.send_signal(signal.SIGINT)
    _, errors = serving.communicate(timeout=60)
    assert (serving.returncode, errors.strip()) == (0, "")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser, site):
    """Opens pages; afterwards none of them has logged an error or asked another site."""
    contexts, errors, requests = [], [], []

    def opened(address="/", *, width=1200, height=900, expect_errors=False, **options):
        options = {"viewport": {"width": width, "height": height}, "base_url": site, "bypass_csp": True} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append(request.url))
        if not expect_errors:
            page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith((f"{site}/", "data:", "blob:"))] == []


def search(page, sentence=SENTENCE):
    page.fill("#q", sentence)
    page.keyboard.press("Enter")
    page.wait_for_function(LOADED)


def card(page, name):
    return page.locator(".card", has=page.get_by_text(name, exact=True)).first


def address_of(page):
    return page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")


def focused(page):
    return page.evaluate("[...document.querySelectorAll('.play')].indexOf(document.activeElement)")


def test_a_sentence_becomes_cards(new_page, record_property):
    """The time is printed; it is below 0.3 s on a machine with nothing else to do."""
    page = new_page()
    search(page)
    took = []
    for sentence in (SENTENCE, "stir the pot", "pour the milk"):
        page.fill("#q", sentence)
        began = time.perf_counter()
        page.keyboard.press("Enter")
        page.wait_for_function(f"title.textContent.startsWith('“{sentence}”') && {LOADED}")
        took.append(time.perf_counter() - began)
    record_property("search page, sentence to cards", f"{1000 * min(took):.0f} ms")
    assert min(took) < 2
    first = page.locator(".card").first
    assert re.fullmatch(r"\d:\d\d–\d:\d\d", first.locator(".time").inner_text())
    assert re.fullmatch(r"strength -?\d\.\d", first.locator(".strength").inner_text().strip())
    page.wait_for_function(
        "[...document.querySelectorAll('.card img')].slice(0, 2).every(i => i.naturalWidth === 1248)"
    )
    said = page.locator("#said").inner_text()
    assert re.fullmatch(rf"“{SENTENCE}”\s+\d+ moments in [\d.]+ s".replace(SENTENCE, "pour the milk"), said)


def test_a_moment_plays_from_its_start_and_stops_at_its_end(new_page):
    page = new_page("/?q=chop&folder=Videos/2025")
    page.wait_for_function(LOADED)
    moments = page.evaluate("fetch('/api/search?q=chop&folder=Videos/2025').then(r => r.json()).then(a => a.moments)")
    number = next(i for i, moment in enumerate(moments) if moment["start"] >= 6)
    start, end = moments[number]["start"], moments[number]["end"]
    page.evaluate("video.addEventListener('playing', () => { window.began ??= video.currentTime })")
    page.locator(".play").nth(number).click()
    page.wait_for_function("window.began !== undefined")
    assert start - 0.1 <= page.evaluate("window.began") <= start + 0.5
    page.wait_for_function(f"video.paused && video.currentTime > {start + 1}")
    assert page.evaluate("video.currentTime") == pytest.approx(end, abs=0.5)
    assert page.evaluate("video.videoWidth") == 224

    page.get_by_role("button", name="Whole video").last.click()  # goes on, past the end
    page.evaluate(f"video.currentTime = {end - 0.5}")
    page.wait_for_function(f"!video.paused && video.currentTime > {end + 0.3}")


def test_the_time_line_has_the_moments_of_the_video_and_plays_any_second(new_page):
    page = new_page("/?q=chop&folder=Videos/2025")
    page.wait_for_function(LOADED)
    number = page.locator(".card").count()
    page.locator(".play").first.click()
    page.wait_for_function(PLAYING)
    marks = page.locator("#rail button")
    assert marks.count() == number > 2
    other = marks.nth(number - 1 if "on" not in (marks.nth(number - 1).get_attribute("class") or "") else 0)
    name = other.get_attribute("aria-label")
    other.click()
    page.wait_for_function(f"document.querySelector('#rail .on')?.ariaLabel === {json.dumps(name)}")
    assert name.removeprefix("Play ") in page.locator("#player-where").inner_text()
    page.wait_for_function(PLAYING)
    duration = page.evaluate("video.duration")
    box = page.locator("#rail").bounding_box()
    page.evaluate("document.querySelectorAll('#rail button').forEach(b => b.remove())")  # they lie over the seconds
    page.locator("#rail").click(position={"x": box["width"] / 2, "y": 5})
    page.wait_for_function(f"Math.abs(video.currentTime - {duration / 2}) < 1 && !video.paused")
    assert address_of(page)["whole"] == "1"


@pytest.mark.parametrize(
    "name", ["old.avi", pytest.param("phone.mp4", marks=pytest.mark.skipif(not HAS_X265, reason="no libx265"))]
)
def test_what_the_browser_cannot_play_plays_as_an_excerpt(new_page, name):
    """Moments of 6 of 10 seconds, and the whole video, which is made in parts."""
    page = new_page(f"/?q=chop&play=Videos/2026/{name}@4-10")
    page.wait_for_function("video.readyState >= 2 && video.duration > 5.5 && video.duration < 6.5")
    page.wait_for_function(PLAYING)
    assert "/excerpt?" in page.evaluate("video.currentSrc")
    page.wait_for_function("document.querySelector('#now').textContent >= '0:05'")
    page.wait_for_function("video.ended")
    page.locator("#player-whole").click()
    page.evaluate("document.querySelectorAll('#rail button').forEach(b => b.remove())")
    page.locator("#rail").click(position={"x": 3, "y": 5})
    page.wait_for_function("video.duration > 9.5 && video.currentTime > 0.2 && !video.paused")
    assert page.locator("#player-note").is_hidden()


def test_a_file_that_cannot_be_played_at_all_says_why(new_page, collection):
    path = collection.videos()["Videos/2026/old.avi"].path("Videos/2026/old.avi")
    page = new_page(expect_errors=True)
    path.rename(path.with_suffix(".away"))
    try:
        card(page, "old.avi").locator(".play").click()
        page.wait_for_function("document.querySelector('#player-note').textContent.includes('is no longer there')")
    finally:
        path.with_suffix(".away").rename(path)


def test_all_of_it_works_with_the_keyboard(new_page):
    page = new_page("/?play=")
    page.wait_for_selector(".card")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_function(LOADED)
    columns = page.evaluate(
        "(tops => tops.filter(top => top === tops[0]).length)"
        "([...document.querySelectorAll('.card')].map(c => c.getBoundingClientRect().top))"
    )
    assert columns > 1
    places = []
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        places.append(focused(page))
    assert places == [0, 1, 1 + columns, columns, 0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function(PLAYING)
    page.keyboard.press("Escape")
    page.wait_for_function("!player.open && !new URLSearchParams(location.search).has('play')")
    assert focused(page) == 1
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "q"


def test_the_next_and_the_previous_moment_play_without_closing_the_player(new_page):
    page = new_page()
    search(page)
    page.locator(".play").first.click()
    page.wait_for_function(PLAYING)
    first = address_of(page)["play"]
    assert page.locator("#player-before").is_disabled()
    page.keyboard.press("n")
    page.wait_for_function("new URLSearchParams(location.search).get('play') !== " + json.dumps(first))
    second = address_of(page)["play"]
    page.wait_for_function(PLAYING)
    assert page.evaluate("video.currentSrc").find(second.split("@")[0].split("/")[-1][:3]) > 0
    page.get_by_role("button", name="Previous").click()
    page.wait_for_function("new URLSearchParams(location.search).get('play') === " + json.dumps(first))
    page.go_back()
    page.wait_for_function("!player.open")


def test_links_and_back_show_what_was_shown(new_page):
    page = new_page("/?q=stir+the+pot&folder=Videos%2F2026&max=60")
    page.wait_for_function(LOADED)
    assert page.input_value("#q") == "stir the pot"
    assert (page.input_value("#folder"), page.input_value("#length")) == ("Videos/2026", "-60")
    assert page.title() == "stir the pot – Video search"
    search(page)
    page.wait_for_function(f"title.textContent.startsWith('“{SENTENCE}”')")
    page.locator(".play").first.click()
    page.wait_for_function(PLAYING)
    link = page.url
    page.go_back()
    page.wait_for_function("!player.open")
    assert address_of(page)["q"] == SENTENCE
    page.go_back()
    page.wait_for_function("title.textContent.startsWith('“stir the pot”')")
    page.go_forward()
    page.wait_for_function(f"title.textContent.startsWith('“{SENTENCE}”')")

    other = new_page(link)
    other.wait_for_function(f"{LOADED} && player.open")
    other.wait_for_function(PLAYING)
    other.keyboard.press("Escape")
    other.wait_for_function("!player.open && !new URLSearchParams(location.search).has('play')")
    assert address_of(other) == {"q": SENTENCE, "folder": "Videos/2026", "max": "60"}


def test_similar_moments_and_filters_are_one_click_away(new_page):
    page = new_page()
    search(page)
    page.get_by_role("button", name="Similar to this").first.click()
    page.wait_for_function("title.textContent.startsWith('Similar to ')")
    assert address_of(page)["like"]
    page.select_option("#folder", "Videos/2025")
    page.wait_for_function("[...document.querySelectorAll('.where')].every(one => one.textContent === 'Videos/2025')")
    page.select_option("#length", "1200-")
    page.get_by_text("No video fits this folder and length.").wait_for()
    page.get_by_role("button", name="Search all videos").click()
    page.wait_for_function(LOADED)
    assert set(address_of(page)) == {"like"}


def test_a_filter_chosen_while_the_browser_goes_back_from_the_player_is_kept(new_page):
    page = new_page()
    page.evaluate("() => { const back = history.back.bind(history); history.back = () => setTimeout(back, 300) }")
    search(page)
    page.wait_for_function(LOADED)
    page.locator(".play").first.click()
    page.wait_for_function(PLAYING)
    page.keyboard.press("Escape")
    page.wait_for_function("!player.open")
    page.select_option("#length", "1200-")
    assert "play" in address_of(page)  # the browser has not gone back yet
    page.get_by_text("No video fits this folder and length.").wait_for()
    page.wait_for_timeout(500)  # nothing undoes it
    assert address_of(page) == {"q": SENTENCE, "min": "1200"}
    assert page.input_value("#length") == "1200-"
    page.go_back()
    page.wait_for_function(LOADED)
    assert address_of(page) == {"q": SENTENCE}
    assert page.locator("#player").is_hidden()


def test_labels_of_ones_own_are_scored_and_kept(new_page):
    page = new_page()
    search(page)
    page.locator(".play").first.click()
    page.locator("summary").click()
    page.fill("#prompts", "cutting: chop the tomato; slice it\nstirring: stir the pot\nmilk\n")
    page.get_by_role("button", name="Label", exact=True).click()
    page.wait_for_function("document.querySelectorAll('#label-scores li').length === 3")
    rows = [row.split() for row in page.locator("#label-scores li").all_inner_texts()]
    assert {label for label, _ in rows} == {"cutting", "stirring", "milk"}
    assert [float(score) for _, score in rows] == sorted((float(score) for _, score in rows), reverse=True)
    page.reload()
    page.wait_for_function("player.open")
    assert "cutting: chop" in page.input_value("#prompts")


def test_recent_sentences_are_kept_in_the_browser(new_page):
    page = new_page()
    search(page)
    search(page, "stir the pot")
    page.locator("#home").click()
    page.wait_for_function("!results.querySelector('.bar')")
    assert page.locator("#recent button").all_inner_texts() == ["stir the pot", SENTENCE, "clear"]
    page.get_by_role("button", name=SENTENCE).click()
    page.wait_for_function(f"title.textContent.startsWith('“{SENTENCE}”')")
    page.get_by_role("button", name="clear").click()
    assert page.locator("#recent").is_hidden()


def test_a_file_name_is_text_even_if_it_is_html(new_page):
    page = new_page()
    page.on("dialog", lambda dialog: pytest.fail("the name ran as a script"))
    item = card(page, SCRIPT)
    item.wait_for()
    item.locator(".play").click()
    page.wait_for_function(PLAYING)
    assert page.locator("#player-title").inner_text() == SCRIPT
    assert page.locator("script").count() == 1


def test_errors_and_an_empty_collection_are_told(new_page):
    page = new_page(expect_errors=True)
    page.wait_for_selector(".card")
    page.route("**/api/search*", lambda route: route.fulfill(status=400, json={"error": "<b>no</b> such word"}))
    page.fill("#q", "qqqqqqq")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="<b>no</b> such word").wait_for()
    assert page.locator(".card").count() == 0
    page.route("**/api/search*", lambda route: route.abort())
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="The server does not answer").wait_for()

    status = {"collection": "my.collection", "videos": 0, "moments": 0, "seconds": 0, "folders": [], "indexing": True}
    empty = new_page("about:blank")
    empty.route("**/api/status*", lambda route: route.fulfill(json=status))
    empty.route("**/api/videos*", lambda route: route.fulfill(json={"videos": [], "total": 0}))
    empty.goto("/")
    empty.get_by_text("mmpt index VIDEOS --collection my.collection").wait_for()
    empty.get_by_text("Indexing is under way").wait_for()
    status["videos"] = 1
    status["indexing"] = False
    empty.unroute("**/api/videos*")
    empty.wait_for_selector(".card")
    assert empty.locator("#indexing").is_hidden()
    assert empty.locator("#empty").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_the_page_is_accessible_and_fits_a_phone(new_page, scheme, width):
    """No violation of axe-core's rules, and no scrolling sideways, in any state."""
    from axe_playwright_python.sync_playwright import Axe

    page = new_page(width=width, height=740, color_scheme=scheme)
    axe = Axe()

    def check():
        violations = axe.run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("player.scrollWidth - player.clientWidth") == 0

    page.wait_for_selector(".card")
    check()
    search(page)
    search(page, "stir the pot and then pour the milk into it and stir again until it is all warm and brown")
    check()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) < 150) == (scheme == "dark")
    card(page, SCRIPT).locator(".play").click()
    page.wait_for_function(PLAYING)
    page.locator("summary").click()
    page.fill("#prompts", "a rather long label: of two; sentences\nanother\n")
    page.get_by_role("button", name="Label", exact=True).click()
    page.wait_for_function("document.querySelectorAll('#label-scores li').length === 2")
    check()
    page.keyboard.press("Escape")
    page.select_option("#length", "1200-")
    page.get_by_text("No video fits this folder and length.").wait_for()
    check()


def test_every_address_that_a_browser_asks_for_by_itself_is_there(site, browser):
    import httpx

    assert httpx.get(f"{site}/favicon.ico").status_code == 200
    for path in ("/../../../etc/passwd", "/media?video=../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
        with httpx.Client() as client:
            request = client.build_request("GET", f"{site}/")
            request.url = request.url.copy_with(raw_path=path.encode())  # httpx would remove the dots
            assert client.send(request).status_code == 404

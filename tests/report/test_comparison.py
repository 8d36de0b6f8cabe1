"""The page that compares runs: curves, differing settings, and metrics on the same data."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from mmpt_plugin.report import write_comparison
from mmpt_plugin.report.comparison import colour
from mmpt_plugin.report.runs import read_runs
from tests.report.test_curve import LOG

PROJECT = {
    "model": {"_name": "videoclip", "hidden_size": 32, "pretrained": None},
    "optimization": {"lr": [0.001], "max_epoch": 13},
    "common": {"log_file": "RUN/train.log", "user_dir": "RUN2"},
    "checkpoint": {"save_dir": "RUN"},
}
RESULT = {
    "task": "text_video_retrieval",
    "num_queries": 8,
    "data": {"annotations_sha256": "abc"},
    "metrics": {"t2v_recall@1": 0.25, "t2v_median_rank": 4.0},
    "untrained": {"t2v_recall@1": 0.05, "t2v_median_rank": 6.0},
    "chance": {"t2v_recall@1": 0.125, "t2v_median_rank": 4.5},
    "oracles": {"action": {"t2v_recall@1": 0.5, "t2v_median_rank": 2.0}},
}


class Tables(HTMLParser):
    """The cells of each table, line by line, and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def make(tmp_path):
    """Writes the folder of a run; `settings` are sections that update those of the project."""

    def made(name, *, log=LOG, metrics=None, **settings):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        project = {key: section | settings.get(key, {}) for key, section in PROJECT.items()}
        text = yaml.safe_dump(project).replace("RUN2", "plugin").replace("RUN", str(folder))
        (folder / "project.yaml").write_text(text)
        (folder / "train.log").write_text(log)
        if metrics is not None:
            (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return made


def compared(*folders) -> str:
    out = folders[0].parent / "new" / "page.html"
    write_comparison(out, folders)
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    return out.read_text(encoding="utf-8")


def test_only_settings_that_differ_are_shown(make):
    """A null is a setting that is not there; paths in a run's own folder are the same setting."""
    folders = [
        make("a", model={"hidden_size": 64, "temperature": None}),
        make("b", optimization={"lr": [0.001, 0.5]}, model={"dropout": "0.1"}),
    ]
    _, settings = Tables(compared(*folders)).tables
    assert settings == [
        ["key", "a", "b"],
        ["model.dropout", "–", "'0.1'"],
        ["model.hidden_size", "64", "32"],
        ["optimization.lr", "[0.001]", "[0.001, 0.5]"],
    ]


def test_runs_without_a_difference_say_so(make):
    page = compared(make("a"), make("b"))
    assert "None, except for the folder of the run." in page
    assert len(Tables(page).tables) == 1


def test_each_run_has_a_line_with_its_last_values(make):
    longer = LOG + '{"epoch": 2, "update": 1.5, "loss": "7.0", "num_updates": "20"}\n'
    overview, *_ = Tables(compared(make("a", metrics=RESULT), make("b", log=longer))).tables
    assert overview == [
        ["run", "updates", "training loss", "validation loss", "evaluated on"],
        ["a", "15", "12.250", "11.500", "text_video_retrieval"],
        ["b", "20", "7.000", "11.500", "no metrics.json"],
    ]


def test_metrics_on_the_same_data_are_in_one_table_with_the_controls_that_are_the_same(make):
    better = RESULT | {"metrics": {"t2v_recall@1": 0.5}, "untrained": {"t2v_recall@1": 0.06}}
    other = RESULT | {"data": {"annotations_sha256": "else"}}
    page = compared(make("a", metrics=RESULT), make("b", metrics=better), make("c", metrics=other))
    same, alone = Tables(page).tables[-2:]
    assert same == [
        ["metric", "a", "b", "chance", "knows action"],
        ["t2v_recall@1", "25.0 %", "50.0 %", "12.5 %", "50.0 %"],
        ["t2v_median_rank", "4.0", "–", "4.5", "2.0"],
    ]
    assert alone[0] == ["metric", "c", "untrained", "chance", "knows action"]
    titles = [f"text_video_retrieval, 8 queries, annotations {checksum}" for checksum in ("abc", "else")]
    assert re.findall("<h3>(.*?)</h3>", page) == titles


def test_results_of_all_benchmarks_are_a_table_each(make):
    results = {"benchmarks": {name: {"benchmark": name} | RESULT for name in ("youcook2", "didemo")}}
    page = compared(make("a", metrics=results), make("b", metrics=results))
    assert re.findall("<h3>(.*?)</h3>", page) == ["youcook2, 8 queries", "didemo, 8 queries"]
    assert [table[0][1:3] for table in Tables(page).tables[-2:]] == [["a", "b"], ["a", "b"]]


def test_without_any_metrics_the_page_says_so(make):
    assert "None of the runs has a metrics.json." in compared(make("a"), make("b"))


def test_curves_have_the_colours_of_the_runs(make):
    """The picture has three panels, one for each metric of the log, and both colours in the first."""
    page = compared(make("a"), make("b", log=LOG.replace("13.5", "9.5").replace("12.25", "9.25")))
    colours = re.findall(r'<i style="background:#(\w{6})">', page)
    assert [f"#{one}" for one in colours] == [colour(0, 2), colour(1, 2)]
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    loss, *others = np.split(pixels[:, : pixels.shape[1] // 3 * 3], 3, axis=1)
    for one in colours:
        assert (loss == tuple(bytes.fromhex(one))).all(axis=2).sum() > 50
    assert len(others) == 2


def test_runs_of_one_name_have_their_path(make):
    folders = [make("x/run"), make("y/run"), make("z")]
    assert [run.name for run in read_runs(folders)] == [str(folders[0]), str(folders[1]), "z"]


def test_everything_from_the_files_is_escaped(make):
    bad = "<script>alert('&')</script>"
    metrics = RESULT | {"task": bad, "metrics": {bad: 0.5}, "oracles": {bad: {bad: 0.5}}, "test_set": bad}
    folders = [
        make("<b>$x_{$", model={bad: bad}, metrics=metrics),
        make("_b"),
    ]
    page = compared(*folders)
    assert not {"script", "b"} & set(Tables(page).tags)
    assert "alert(&#x27;&amp;&#x27;)" in page
    assert Tables(page).tables[1][1][0] == f"model.{bad}"
    assert not re.search(r"https?:|@import|url\(", page)


def test_what_is_not_a_run_is_named(make, tmp_path):
    run = make("a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"^no run {tmp_path}/none$"):
        read_runs([run, tmp_path / "none"])
    with pytest.raises(ValueError, match=r"/empty is not the folder of a run, in which mmpt train writes project.yaml"):
        read_runs([run, tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"/train.log is not the folder of a run"):
        read_runs([run, run / "train.log"])
    with pytest.raises(ValueError, match=r"run .*/a/\.\./a is given twice"):
        read_runs([run, run / ".." / "a"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.log", None, r"no .*/b/train.log: train with common.log_format=json common.log_file=.*/b/train.log"),
        ("train.log", "only words", r"b/train.log has no training steps in fairseq's JSON format"),
        ("project.yaml", "a: [", r"b/project.yaml: not valid YAML: .*expected"),
        ("project.yaml", "- a", r"b/project.yaml is not a project: it has no sections"),
        ("metrics.json", "{", r"b/metrics.json: not valid JSON"),
        ("metrics.json", "[]", r"b/metrics.json is not a result of mmpt evaluate --json"),
        ("metrics.json", '{"task": "x"}', r"b/metrics.json is not a result of mmpt evaluate --json"),
    ],
)
def test_bad_files_are_named_in_one_line_and_nothing_is_written(make, tmp_path, file, content, message):
    folders = [make("a"), make("b")]
    if content is None:
        (folders[1] / file).unlink()
    else:
        (folders[1] / file).write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        write_comparison(tmp_path / "page.html", folders)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "page.html").exists()

"""Zero-shot retrieval on annotated clips of real features."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.embedding import Embedder, read_ahead
from mmpt_plugin.tasks import TextVideoRetrieval, TextVideoRetrievalConfig
from mmpt_plugin.tasks.benchmark import on_all_gpus
from mmpt_plugin.tasks.evaluate import evaluate
from mmpt_plugin.tasks.retrieval import better_and_worse
from mmpt_plugin.video.decode import read_squares
from tests.conftest import TINY_MODEL


def section(kitchen, **changes):
    return {
        "_name": "jsonl",
        "annotations": str(kitchen.root / "test_clips.jsonl"),
        "features": str(kitchen.features),
        "tokenizer": str(kitchen.root / "tokenizer"),
    } | changes


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VideoCLIP(VideoCLIPConfig(**TINY_MODEL)).eval()


def test_embeddings_are_the_models_own(kitchen, model):
    task = TextVideoRetrieval(TextVideoRetrievalConfig(dataset=section(kitchen), eval_chunk_size=4))
    embeddings = task.embed(model)
    clip = task.dataset.clips[5]
    rows = torch.from_numpy(np.load(kitchen.features / f"{clip.video_id}.npy").astype(np.float32))
    rows = rows[int(clip.start) : int(np.ceil(clip.end))]
    with torch.no_grad():
        np.testing.assert_allclose(embeddings.video[5], model.encode_video(rows[None])[0], atol=1e-5)
        model.tokenizer = task.tokenizer
        np.testing.assert_allclose(embeddings.text[5], model.encode_text([clip.caption])[0], atol=1e-5)


def test_a_result_stands_beside_its_controls(kitchen, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    project = {
        "task": {"_name": "text_video_retrieval", "dataset": section(kitchen), "examples": 3},
        "checkpoint": str(tmp_path / "model"),
    }
    result = evaluate(project)
    num_clips = len((kitchen.root / "test_clips.jsonl").read_text().splitlines())
    assert result["num_queries"] == num_clips
    assert result["metrics"].keys() == result["chance"].keys() == result["untrained"].keys()
    assert result["chance"]["t2v_recall@1"] == pytest.approx(1 / num_clips)
    assert len(result["checkpoint"]["sha256"]) == 64
    assert result["metrics"].keys() == result["oracles"]["action and ingredient"].keys()
    assert [len(example["found"]) for example in result["examples"]] == [5, 5, 5]
    for example in result["examples"]:
        assert example["right"]["caption"] == example["text"]
        if example["rank"] <= 5:
            assert example["found"][example["rank"] - 1] == example["right"]
    json.dumps(result)


class OneHot(Embedder):
    """Stands in for a model that knows the action and the ingredient of each clip, from the number in its row."""

    def __init__(self, codes) -> None:
        super().__init__(SimpleNamespace(feature_dim=1, max_video_len=4, max_text_len=78))
        self.codes = torch.nn.Parameter(codes)
        self.tokenizer = "its own"

    def encode_video(self, features, mask=None):
        return self.codes[features[:, 0, 0].long()]

    def tokenize(self, texts, tokenizer):
        return torch.tensor([int(text) for text in texts]), None

    def encode_text(self, text, mask=None):
        return self.codes[text]


MEANINGS = ["chop tomato", "chop tomato", "fry tomato", "chop tomato", "fry egg", "peel egg", "peel fish", "boil corn"]


@pytest.fixture
def numbered(tmp_path):
    """A task whose clip i has the caption `i`, and i as its only feature; the section of its data set takes changes."""
    (tmp_path / "features").mkdir()
    for number in range(len(MEANINGS)):
        np.save(tmp_path / "features" / f"v{number}.npy", np.full((4, 1), number, np.float16))

    def task(
        meaning=lambda text: {"meaning": dict(zip(("action", "ingredient"), text.split(), strict=True))}, **options
    ):
        lines = [
            {"video_id": f"v{number}", "start": 0, "end": 4, "caption": str(number), "remark": "ignored"}
            | meaning(text)
            for number, text in enumerate(MEANINGS)
        ]
        (tmp_path / "clips.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        files = {"annotations": str(tmp_path / "clips.jsonl"), "features": str(tmp_path / "features")}
        dataset = {"_name": "jsonl", "tokenizer": "none"} | files
        return TextVideoRetrieval(TextVideoRetrievalConfig(dataset=dataset, **options))

    return task


def test_a_model_that_knows_all_meanings_finds_every_meaning_but_not_every_clip(numbered):
    """Equal codes for equal meanings: the three chopped tomatoes tie, and ties count against the model."""
    codes = torch.eye(8)[[MEANINGS.index(text) for text in MEANINGS]]
    result = numbered().evaluate(OneHot(codes))
    assert result["metrics"]["t2v_recall@1"] == result["metrics"]["v2t_recall@1"] == 5 / 8
    assert result["metrics"]["t2v_meaning_recall@1"] == result["metrics"]["v2t_meaning_recall@1"] == 1
    assert result["oracles"]["action and ingredient"]["t2v_recall@1"] == pytest.approx(6 / 8)
    assert result["oracles"]["ingredient"]["t2v_recall@1"] == pytest.approx(4 / 8)
    assert result["chance"]["t2v_meaning_recall@1"] == pytest.approx((3 * 3 / 8 + 5 * 1 / 8) / 8)
    assert result["metrics"].keys() == result["chance"].keys()
    assert result["examples"][0]["right"]["meaning"].keys() == {"action", "ingredient"}


def test_a_text_is_a_meaning_too_and_without_meanings_nothing_is_said_of_them(numbered):
    model = OneHot(torch.eye(8)[[MEANINGS.index(text) for text in MEANINGS]])
    with_texts = numbered(lambda text: {"meaning": text}).evaluate(model)
    assert list(with_texts["oracles"]) == ["meaning"]
    assert with_texts["metrics"] == numbered().evaluate(model)["metrics"]
    without = numbered(lambda text: {}).evaluate(model)
    assert "oracles" not in without
    assert not [key for key in without["metrics"] | without["chance"] if "meaning" in key]
    assert without["metrics"].items() <= with_texts["metrics"].items()
    assert without["examples"][0].keys() == {"half", "rank", "text", "right", "found"}
    assert "meaning" not in without["examples"][0]["right"]


def test_as_many_examples_are_found_well_as_badly_and_the_best_come_first(numbered):
    """The codes of the last two sentences are swapped, and sentence 5 is nearer to clip 6 than to its own."""
    codes = torch.eye(8)[[MEANINGS.index(text) for text in MEANINGS]]
    task, model = numbered(examples=4), OneHot(codes)
    sentences = codes[[0, 1, 2, 3, 4, 5, 7, 6]]
    sentences[5] += 2 * codes[6]
    model.encode_text = lambda text, mask=None: sentences[text]
    examples = task.evaluate(model)["examples"]
    assert [example["half"] for example in examples] == ["better", "better", "worse", "worse"]
    # (rank by meaning, own rank) in order: 2 and 4 have (1, 1); 0, 1 and 3 (1, 3); 5 (2, 2); 6 and 7 (8, 8).
    assert [int(example["text"]) for example in examples] == [4, 1, 5, 7]
    assert [(example["meaning_rank"], example["rank"]) for example in examples] == [(1, 1), (1, 3), (2, 2), (8, 8)]


@pytest.mark.parametrize(
    ("size", "number", "expected"),
    [
        (8, 2, ([2], [6])),
        (8, 8, ([0, 1, 2, 3], [4, 5, 6, 7])),
        (5, 3, ([0, 2], [4])),
        (3, 10, ([0, 1], [2])),
        (100, 10, ([5, 15, 25, 35, 45], [55, 65, 75, 85, 95])),
        (1, 10, ([0], [])),
        (9, 0, ([], [])),
    ],
)
def test_examples_are_the_middles_of_equal_parts_of_each_half(size, number, expected):
    chosen = better_and_worse(list(range(size)), number)
    assert (chosen["better"], chosen["worse"]) == expected


class MeanColour(Embedder):
    """Stands in for a model of frames: a clip is the mean colour of its frames, a text its first word piece."""

    takes_frames = True

    def __init__(self) -> None:
        super().__init__(SimpleNamespace(feature_dim=None, max_video_len=4, max_text_len=78))
        self.weight = torch.nn.Parameter(torch.ones(3))

    def encode_video(self, features, mask=None):
        colours = features.float().mean(dim=(2, 3)) * self.weight
        return (colours * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def encode_text(self, text, mask=None):
        return text[:, 1:2].float().expand(-1, 3)


def test_a_model_of_frames_is_measured_as_one_of_features_is(kitchen):
    frames = {"features": None, "videos": str(kitchen.root / "videos"), "frames": {"num_frames": 4, "size": 16}}
    task = TextVideoRetrieval(TextVideoRetrievalConfig(dataset=section(kitchen, **frames), eval_chunk_size=4))
    result, embeddings = task.evaluate(MeanColour()), task.embed(MeanColour())
    assert result["num_queries"] == len(task.dataset.clips) == len(embeddings.text)
    assert result["data"].keys() == {"annotations_sha256", "videos_sha256"}
    clip = task.dataset.clips[5]
    times = [clip.start + (clip.end - clip.start) * part for part in (0.125, 0.375, 0.625, 0.875)]
    pictures = read_squares(kitchen.root / "videos" / f"{clip.video_id}.mp4", times, size=16)
    np.testing.assert_allclose(embeddings.video[5], np.stack(list(pictures)).mean(axis=(0, 1, 2)), rtol=1e-4)


def test_frames_for_a_model_of_features_are_an_error(kitchen, model):
    frames = {"videos": str(kitchen.root / "videos"), "frames": {"num_frames": 4, "size": 16}}
    task = TextVideoRetrieval(TextVideoRetrievalConfig(dataset=section(kitchen, **frames)))
    with pytest.raises(ValueError, match="the data set has frames, but the model expects features of width 512"):
        task.embed(model)


def test_videos_without_features_are_an_error_or_counted(kitchen, tmp_path):
    lines = (kitchen.root / "test_clips.jsonl").read_text()
    step = {"caption": "chop", "meaning": {"action": "chop", "ingredient": "tomato"}}
    gone = json.dumps({"video_id": "gone", "start": 0, "end": 4} | step) + "\n"
    (tmp_path / "clips.jsonl").write_text(lines + gone)
    changes = {"annotations": str(tmp_path / "clips.jsonl")}
    with pytest.raises(ValueError, match="1 videos have no features in .*: gone"):
        TextVideoRetrieval(TextVideoRetrievalConfig(dataset=section(kitchen, **changes)))
    task = TextVideoRetrieval(TextVideoRetrievalConfig(dataset=section(kitchen, **changes, allow_missing=True)))
    assert task.dataset.missing_videos == ["gone"]


CLIP = '{"video_id": "a", "start": 0, "end": 1, "caption": "x"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"clips.jsonl:1: not valid JSON"),
        ('{"video_id": "a", "start": 0, "end": 1}', r"clips.jsonl:1: 'caption' is missing"),
        ('{"video_id": "a", "start": 3, "end": 1, "caption": "x"}', r"clips.jsonl:1: 0 <= start < end must hold"),
        ("", "contain no clips"),
        (f'{CLIP}, "meaning": []}}', r"clips.jsonl:1: 'meaning' must be a text or an object of texts, .* got \[\]"),
        (f'{CLIP}, "meaning": null}}', "clips.jsonl:1: 'meaning' must be a text .* got null"),
        (f'{CLIP}, "meaning": {{"action": 3}}}}', "clips.jsonl:1: 'meaning' must be a text .* got {\"action\": 3}"),
        (f'{CLIP}, "meaning": " "}}', "clips.jsonl:1: 'meaning' must be a text"),
        (
            f'{CLIP}, "meaning": "x"}}\n{CLIP}}}',
            "clips.jsonl:2: the clip has no meaning, but the first clip has a mean",
        ),
        (
            f'{CLIP}}}\n{CLIP}, "meaning": "x"}}',
            "clips.jsonl:2: the clip has a meaning of meaning, but the first .* no ",
        ),
        (
            f'{CLIP}, "meaning": "x"}}\n{CLIP}, "meaning": "y"}}',
            "clips.jsonl:2: another caption of the same clip of 'a'",
        ),
    ],
)
def test_bad_annotations_are_named_with_their_line(kitchen, tmp_path, line, message):
    (tmp_path / "clips.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        TextVideoRetrieval(
            TextVideoRetrievalConfig(dataset=section(kitchen, annotations=str(tmp_path / "clips.jsonl")))
        )


def test_features_of_another_width_are_named(kitchen):
    task = TextVideoRetrieval(TextVideoRetrievalConfig(dataset=section(kitchen)))
    other = VideoCLIP(VideoCLIPConfig(**TINY_MODEL | {"feature_dim": 7}))
    with pytest.raises(ValueError, match="has features of width 512, but the model expects features of width 7"):
        task.embed(other)


def test_clips_are_read_ahead_but_not_far():
    """Two threads: four clips more than were taken, and the one in hand."""
    read, taken = [], []

    def one(number: int) -> int:
        read.append(number)
        return 10 * number

    for value in read_ahead(one, range(20), num_threads=2):
        taken.append(value)
        assert len(read) <= len(taken) + 4
    assert taken == [10 * number for number in range(20)]


def test_groups_come_back_in_order_from_several_devices_and_are_not_read_ahead():
    """Two devices take turns: the third group is read when the first two are done."""
    model, read = VideoCLIP(VideoCLIPConfig(**TINY_MODEL)), []

    def groups():
        for number in range(5):
            read.append(number)
            yield number

    def encode(model, number):
        return torch.full((2,), number)

    encoded = on_all_gpus(model, encode, groups(), devices=[torch.device("cpu")] * 2)
    assert next(encoded).tolist() == [0, 0]
    assert read == [0, 1]
    assert [one[0].item() for one in encoded] == [1, 2, 3, 4]

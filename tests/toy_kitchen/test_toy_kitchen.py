"""The toy dataset: deterministic, real files, loosely aligned, and consistent with its annotations."""

import json
from importlib import import_module

import numpy as np
import pytest

from mmpt_plugin.corpora.corpus import AnnotatedClip
from mmpt_plugin.shards.captions import check_captions, read_captions
from mmpt_plugin.tasks.meanings import Meanings
from mmpt_plugin.tokenizer import load_tokenizer
from mmpt_plugin.toy_kitchen import generate
from mmpt_plugin.toy_kitchen.drawing import FPS, frames
from mmpt_plugin.toy_kitchen.narration import NOUNS, describe_step, narrate
from mmpt_plugin.toy_kitchen.recipes import ACTIONS, DISHES, invent
from mmpt_plugin.toy_kitchen.sprites import INGREDIENTS
from mmpt_plugin.video.decode import probe

RECIPES = [invent(np.random.default_rng([0, i])) for i in range(300)]


def test_the_files_are_what_the_page_says(kitchen):
    train, test = ((kitchen.root / f"{split}.txt").read_text().split() for split in ("train", "test"))
    assert len(train) == 12
    assert len(test) == 6
    assert not set(train) & set(test)
    annotated = [json.loads(line) for line in (kitchen.root / "test_clips.jsonl").read_text().splitlines()]
    assert {clip["video_id"] for clip in annotated} == set(test)
    for clip in annotated:
        assert clip["meaning"]["action"] in ACTIONS
        assert clip["meaning"]["ingredient"] in INGREDIENTS
        assert any(noun in clip["caption"] for noun in NOUNS[clip["meaning"]["ingredient"]])
    for video in train + test:
        info = probe(kitchen.root / "videos" / f"{video}.mp4")
        assert (info.width, info.height, info.fps) == (224, 168, 10)
        assert 15 <= info.duration <= 60
        check_captions(read_captions(kitchen.root / "captions" / f"{video}.vtt"), where=video, duration=info.duration)


def test_equal_seeds_make_equal_files(tmp_path, kitchen):
    generate(tmp_path, num_train=12, num_test=6, num_workers=1)
    for folder in ("videos", "captions", "tokenizer"):
        for path in sorted((tmp_path / folder).iterdir()):
            assert path.read_bytes() == (kitchen.root / folder / path.name).read_bytes(), path.name


def test_a_complete_folder_is_left_as_it_is_and_another_is_not_mixed_in(kitchen):
    before = (kitchen.root / "videos" / "toy_0000.mp4").stat().st_mtime_ns
    generate(kitchen.root, num_train=12, num_test=6)
    assert (kitchen.root / "videos" / "toy_0000.mp4").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"holds another toy kitchen \(num_train 12, not 8; seed 0, not 1\): choose"):
        generate(kitchen.root, num_train=8, num_test=6, seed=1)


def test_what_a_killed_run_left_in_a_complete_folder_is_removed(tmp_path):
    generate(tmp_path, num_train=1, num_test=1, num_workers=1)
    whole = sorted(tmp_path.rglob("*"))
    (tmp_path / ".about.json.x.tmp").mkdir()
    (tmp_path / ".lock").touch()
    generate(tmp_path, num_train=1, num_test=1, num_workers=1)
    assert sorted(tmp_path.rglob("*")) == whole


def test_the_held_out_videos_do_not_depend_on_the_number_of_training_videos(tmp_path, kitchen):
    generate(tmp_path, num_train=1, num_test=6, num_workers=1)
    for name in ("test.txt", "test_clips.jsonl"):
        assert (tmp_path / name).read_text() == (kitchen.root / name).read_text()


def test_no_videos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="num_train and num_test must be at least 1"):
        generate(tmp_path, num_train=0)


def test_no_caption_and_no_annotation_has_an_unknown_word(kitchen):
    tokenizer = load_tokenizer(str(kitchen.root / "tokenizer"))
    rng = np.random.default_rng(0)
    texts = {caption.text for recipe in RECIPES for caption in narrate(recipe, rng)}
    texts |= {describe_step(step, rng) for recipe in RECIPES for step in recipe.steps}
    for text in texts:
        pieces = tokenizer.tokenize(text)
        assert tokenizer.unk_token not in pieces
        assert len(pieces) == len(text.split()), f"'{text}' has words that are not whole in the vocabulary"


def test_narration_leads_in_some_videos_and_lags_in_others():
    """The offset of a step's first mention of its ingredient, averaged over a video, goes both ways by seconds."""
    offsets = []
    for i, recipe in enumerate(RECIPES):
        captions = narrate(recipe, np.random.default_rng(i))
        mine = []
        for step in recipe.steps:
            near = [
                c.start - step.start for c in captions if step.ingredient in c.text and abs(c.start - step.start) < 8
            ]
            mine += near[:1]
        if mine:
            offsets.append(np.mean(mine))
    assert np.mean(np.array(offsets) < -1) > 0.05
    assert np.mean(np.array(offsets) > 1) > 0.1


def test_what_the_default_held_out_steps_allow_by_their_meaning():
    """The figures of the page about the data set."""
    steps = [step for i in range(80) for step in invent(np.random.default_rng([0, i])).steps]
    clips = [
        AnnotatedClip("v", step.start, step.end, "", {"action": step.action, "ingredient": step.ingredient})
        for step in steps
    ]
    meanings = Meanings(clips, np.arange(len(clips)))
    assert (len(clips), len(set(meanings.clips))) == (436, 186)
    reached = {
        name: [round(100 * values[f"t2v_recall@{k}"], 1) for k in (1, 5, 10)]
        for name, values in meanings.oracles().items()
    }
    assert reached == {
        "action": [2.3, 11.5, 22.9],
        "ingredient": [5.5, 27.1, 53.0],
        "action and ingredient": [42.7, 95.6, 100.0],
    }


def test_all_dishes_and_actions_occur():
    assert {recipe.dish for recipe in RECIPES} == set(DISHES)
    assert {step.action for recipe in RECIPES for step in recipe.steps} == set(ACTIONS)


def test_the_picture_moves_while_something_is_done():
    recipe = RECIPES[0]
    made = np.stack(list(frames(recipe, np.random.default_rng(0)))).astype(int)
    assert made.shape == (recipe.duration * FPS, 168, 224, 3)
    for step in recipe.steps:
        middle = int((step.start + step.end) / 2 * FPS)
        assert np.abs(made[middle] - made[middle - 2]).sum() > 0


def test_an_interrupted_folder_is_completed_and_only_with_its_own_settings(tmp_path, monkeypatch, kitchen):
    """Interrupted after the first videos: those are kept, and videos of another seed are not added."""

    class Interrupted:
        def __init__(self, *_, **__):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(import_module("mmpt_plugin.toy_kitchen.generate"), "ProcessPoolExecutor", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, num_train=1, num_test=1)
    first = tmp_path / "videos" / "toy_0000.mp4"
    first.write_bytes((kitchen.root / "videos" / "toy_0000.mp4").read_bytes())
    before = first.stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"holds another toy kitchen \(seed 0, not 1\)"):
        generate(tmp_path, num_train=1, num_test=1, seed=1)
    generate(tmp_path, num_train=1, num_test=1, num_workers=1)
    assert first.stat().st_mtime_ns == before
    assert (tmp_path / "test.txt").read_text() == "toy_0000\n"

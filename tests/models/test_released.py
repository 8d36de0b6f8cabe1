"""Checkpoints of OpenAI's CLIP, CLIP4Clip and CLIP2Video: recognized, loaded strictly, and equal to the recordings."""

import json
import math
import zipfile

import pytest
import torch

from mmpt_plugin.checkpoint import Module, read_torch_file, tensors
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.features.clip import PIXELS, load_clip
from mmpt_plugin.models import CLIP2Video, CLIPMean, CLIPTransformer, load_model
from mmpt_plugin.models.clip import attend
from mmpt_plugin.models.clip2video import DIFFERENCE, FRAME
from mmpt_plugin.models.released import new_names
from tests.models.released import (
    ABOUT,
    GOLDEN,
    LAYOUTS,
    SCALE,
    cases,
    clip_weights,
    frames,
    full_size,
    head_weights,
    small,
    text,
    write,
)

CLIP2VIDEO, CLIP4CLIP = cases("clip2video"), cases("clip4clip")
FAMILY = {
    **{f"clip2video/{name}": case for name, case in CLIP2VIDEO.items() if name != "K5/few_frames"},
    **{f"clip4clip/{name}": case for name, case in CLIP4CLIP.items() if not name.startswith("tightTransf")},
}
CLASSES = {"meanP": "clip_mean", "seqLSTM": "clip_lstm", "seqTransf": "clip_transformer", "K5": "clip2video"}
CLASSES["K7"] = "clip2video"
PRECISIONS = {"f32": (torch.float32, 5e-5), "f64": (torch.float64, 1e-12)}


def checkpoint(name):
    """The weights of a recorded case, such as clip2video/K5/full."""
    family, kind, _ = name.split("/")
    about = ABOUT[family]
    heads = about[kind]["shapes"] if family == "clip2video" else about["headers"][kind]["shapes"]
    return small(about, heads, position_scale=FAMILY.get(name, {}).get("position_scale", 1.0))


def loaded(folder, name, dtype=torch.float32):
    return precise(load_model(write(folder, checkpoint(name))), dtype)


def precise(model, dtype):
    """The model in this precision, the pixel statistics included."""
    model = model.to(dtype)
    for name, values in PIXELS["clip"]._asdict().items():
        getattr(model.backbone, f"pixel_{name}").copy_(torch.tensor(values, dtype=dtype))
    return model


def halves(vectors):
    """The two vectors of CLIP2Video, which divides them by the square root of 2."""
    return [half * math.sqrt(2) for half in vectors.chunk(2, dim=1)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FAMILY)
def test_similarities_equal_the_recordings(tmp_path, name, precision):
    """For clips with padding, CLIP2Video's own are wrong, and each clip alone is recorded too."""
    (dtype, tolerance), case = PRECISIONS[precision], FAMILY[name]
    model = loaded(tmp_path, name, dtype)
    assert model.model_type == CLASSES[name.split("/")[1]]
    with torch.inference_mode():
        similarity = math.exp(SCALE) * model.encode_text(*text(case)) @ model.encode_video(*frames(case, 64)).T
    expected = case.get(f"similarity_alone_{precision}", case[f"similarity_{precision}"])
    torch.testing.assert_close(similarity, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", [name for name in FAMILY if "clip2video" in name and "padd" not in name])
def test_both_halves_of_clip2video_equal_the_recordings(tmp_path, name, precision):
    (dtype, tolerance), case = PRECISIONS[precision], FAMILY[name]
    model = loaded(tmp_path, name, dtype)
    with torch.inference_mode():
        video, words = halves(model.encode_video(*frames(case, 64))), halves(model.encode_text(*text(case)))
    for half, own, their in zip(("global", "aligned"), video, words, strict=True):
        for kind, ours in (("video", own), ("text", their)):
            if (key := f"{half}_{kind}_{precision}") in case:
                torch.testing.assert_close(ours, case[key], atol=tolerance, rtol=0)
        similarity = case[f"similarity_{half}_{precision}"]
        torch.testing.assert_close(math.exp(SCALE) * their @ own.T, similarity, atol=tolerance, rtol=0)


@torch.inference_mode()
def stages(model, case):
    """What CLIP2Video computes on the way, under the names of the recordings, where they have it; ours and theirs."""
    block, (video, mask) = model.difference, frames(case, 64)
    both = mask[:, 1:] & mask[:, :-1]
    features = model.backbone.frames(video, mask)
    sentence, words = model.backbone.text(*text(case))
    tokens, seen = block.interleaved(features, mask)
    positions = block.position.weight[torch.arange(tokens.shape[1]) // 2]
    kinds = block.kind.weight[[FRAME if i % 2 == 0 else DIFFERENCE for i in range(tokens.shape[1])]]
    skipped = block.residual(model.skipping, features[:, ::2], mask[:, ::2])
    aligned = torch.cat([features, skipped], dim=1)
    real = text(case)[1]
    ours = {
        "sequence_output": sentence,
        "sequence_hidden": words[real],
        "frame_features": features,
        "difference_tokens": block.differences(features, both),
        "tdb_tokens": tokens - positions - kinds,
        "tdb_positions": positions,
        "tdb_types": kinds,
        "tdb_mask": seen.long(),
        "temporal_output": attend(block.temporal, tokens, seen),
        "tab_video_tokens": aligned,
        "assignment_video": (aligned @ model.alignment.assign).softmax(dim=-1),
        "assignment_text": (words @ model.alignment.assign).softmax(dim=-1)[real],
    }
    theirs = {stage: case[f"{stage}_f32"] for stage in ours if f"{stage}_f32" in case}
    of_words = {
        stage: value[real] for stage, value in theirs.items() if stage in ("sequence_hidden", "assignment_text")
    }
    return {stage: (ours[stage], value) for stage, value in (theirs | of_words).items()}


@pytest.mark.parametrize(("name", "number"), [("K5/stages", 12), ("K7/stages", 2)])
def test_every_stage_of_clip2video_equals_the_recording(tmp_path, name, number):
    """Of 7 centers, only what they change was recorded."""
    found = stages(loaded(tmp_path, f"clip2video/{name}"), CLIP2VIDEO[name])
    assert len(found) == number
    for stage, (ours, theirs) in found.items():
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0, msg=lambda m, s=stage: f"{s}: {m}")


@pytest.mark.parametrize("name", [name for name in FAMILY if "padding" not in name and "single_padded" not in name])
def test_losses_and_gradients_equal_the_recordings(tmp_path, name):
    """The recorded loss is the mean of both directions, ours their sum; CLIP2Video's is the mean over both halves."""
    case, weights = FAMILY[name], checkpoint(name)
    model = loaded(tmp_path, name, torch.float64)
    log_scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    video, words = model.encode_video(*frames(case, 64)), model.encode_text(*text(case))
    loss = NCE(NCEConfig(parts=2 if "clip2video" in name else 1))(log_scale.exp() * video, words) / 2
    torch.testing.assert_close(loss, case["training_loss_f64"], atol=1e-12, rtol=0)
    if "clip2video" in name:
        aligned = NCE(NCEConfig())(log_scale.exp() * halves(video)[1], halves(words)[1]) / 2
        torch.testing.assert_close(aligned, case["training_loss_aligned_f64"], atol=1e-12, rtol=0)
    loss.backward()
    names, parameters = new_names(weights), dict(model.named_parameters())
    for key, expected in case.items():
        if key.startswith("gradient_f64/"):
            old = key.removeprefix("gradient_f64/")
            ours = log_scale.grad if old == "clip.logit_scale" else parameters[names[old]].grad
            ours = ours.T if old == "weight_center" else ours
            torch.testing.assert_close(ours, expected, atol=1e-11, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", cases("half"))
def test_half_precision_is_as_near_as_the_originals_own(tmp_path, name):
    """Theirs differs from double precision by up to 0.02. The towers in half precision, as there; the whole model."""
    recorded, case = cases("half")[name]["similarity_f16"], FAMILY[name]
    model = loaded(tmp_path, name)
    for part in (model.backbone, model):
        part.half()
        with torch.inference_mode():
            video, words = model.encode_video(*frames(case, 64)), model.encode_text(*text(case))
        similarity = math.exp(SCALE) * words @ video.T
        torch.testing.assert_close(similarity, case["similarity_f64"].float(), atol=2.5e-2, rtol=0)
        torch.testing.assert_close(similarity, recorded, atol=2.5e-2, rtol=0)


@pytest.mark.parametrize("name", ["small", "archive"])
def test_clips_own_files_give_the_recorded_vectors(tmp_path, name):
    """A state dict, the TorchScript archive, and the archive as `clip`, from which training starts."""
    case, about = cases("openai_clip")[name], ABOUT["openai_clip"]["models"][name]
    state = write(tmp_path, clip_weights(about["shapes"])) if name == "small" else GOLDEN / "openai_clip" / "archive.pt"
    image = {"frames_seed": case["image_seed"], "length": 1, "input_ids": case["ids"]}
    size = about["sizes"]["image_resolution"]
    model = precise(load_model(state), torch.float64)
    assert model.model_type == "clip_mean"
    assert model.config.max_text_len == about["sizes"]["context_length"] - 2
    with torch.inference_mode():
        vectors = model.backbone.frames(*frames(image, size))[:, 0]
        words, _ = model.backbone.text(case["ids"], case["mask"].bool())
    torch.testing.assert_close(vectors, case["image_features_f64"], atol=1e-12, rtol=0)
    torch.testing.assert_close(words, case["text_features_f64"], atol=1e-12, rtol=0)
    assert not load_clip(str(state), key="model.clip")[0].training


def test_an_archive_is_read_without_running_its_code(tmp_path):
    """The recorded archive has no code any more, so `torch.jit.load` cannot open it."""
    path = GOLDEN / "openai_clip" / "archive.pt"
    with pytest.raises(RuntimeError):
        torch.jit.load(path)
    recorded = ABOUT["openai_clip"]["models"]["archive"]["state_dict"]
    found = {
        key: [str(value.dtype).removeprefix("torch."), list(value.shape)]
        for key, value in read_torch_file(path).items()
    }
    assert found == recorded


def test_any_scripted_module_gives_its_state_dict(tmp_path):
    """With nested and shared modules, as `torch.jit.save` writes it."""
    shared = torch.nn.Linear(2, 3)
    module = torch.nn.Sequential(shared, torch.nn.Sequential(torch.nn.BatchNorm1d(3)), torch.nn.Linear(3, 2))
    torch.jit.trace(module.eval(), torch.zeros(1, 2)).save(str(tmp_path / "traced.pt"))
    found = read_torch_file(tmp_path / "traced.pt")
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in module.state_dict().items())


def test_an_archive_that_would_grow_when_it_is_read_is_refused(tmp_path):
    """torch stores data uncompressed; a small compressed file could fill the memory."""
    path = GOLDEN / "openai_clip" / "archive.pt"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as compressed:
        for name in whole.namelist():
            compressed.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"a.pt is damaged, or not a torch file: archive/\S+ is compressed"):
        load_model(tmp_path / "a.pt")


def test_an_archive_cannot_call_anything(tmp_path):
    """A class of the archive's own only holds attributes; other names are refused, but for a few of torch's."""
    calls = b"cbuiltins\nopen\n(V" + str(tmp_path / "canary").encode() + b"\nVw\ntR."
    with (
        zipfile.ZipFile(GOLDEN / "openai_clip" / "archive.pt") as whole,
        zipfile.ZipFile(tmp_path / "a.pt", "w") as bad,
    ):
        for name in whole.namelist():
            bad.writestr(name, calls if name.endswith("/data.pkl") else whole.read(name))
    with pytest.raises(ValueError, match=r"a.pt is not read, because it contains objects other than weights"):
        load_model(tmp_path / "a.pt")
    assert not (tmp_path / "canary").exists()


def test_modules_that_contain_each_other_are_read_once():
    outer, inner = Module(), Module()
    outer.inner, inner.outer, inner.weight = inner, outer, torch.ones(1)
    assert [name for name, _ in tensors(outer)] == ["inner.weight"]


@pytest.mark.slow
def test_full_size_files_equal_the_recordings(tmp_path):
    """ViT-B/32, in the layouts of the released files."""
    case = cases("full")["full"]
    video, mask = frames(case, 224)
    with torch.inference_mode():
        clip = load_model(write(tmp_path, full_size("openai_clip")))
        vectors, (words, _) = clip.backbone.frames(video, mask), clip.backbone.text(*text(case))
        torch.testing.assert_close(vectors, case["image_features_f64"].float(), atol=1e-4, rtol=0)
        torch.testing.assert_close(words, case["text_features_f64"].float(), atol=1e-4, rtol=0)
        del clip
        for layout, original in (("clip4clip_meanP", "clip4clip"), ("clip2video_K5", "clip2video")):
            model = load_model(write(tmp_path, full_size(layout)))
            similarity = math.exp(SCALE) * model.encode_text(*text(case)) @ model.encode_video(video, mask).T
            expected = case[f"{original}_similarity_f64"].float()
            torch.testing.assert_close(similarity, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "tight" not in name])
def test_every_released_key_has_a_place(layout):
    """The new names are as many as the keys of the full-size layouts, and each is another one."""
    clip = [key for key, about in LAYOUTS["openai_clip"].items() if about[0] != "int64"]
    prefix = "" if layout == "openai_clip" else "clip."
    heads = (
        {} if not prefix else {key: torch.empty(about[1]) for key, about in LAYOUTS[layout].items() if key != "clip.*"}
    )
    names = new_names({f"{prefix}{key}": torch.empty(0) for key in clip} | heads)
    assert names.keys() == {f"{prefix}{key}" for key in clip} | heads.keys()
    assert len(set(names.values())) == len(names)


def test_a_released_file_says_how_its_frames_and_texts_are_read(tmp_path):
    config = load_model(write(tmp_path, checkpoint("clip4clip/seqTransf/full"))).config
    assert (config.sampling, config.max_video_len, config.max_text_len) == ("clip4clip", 12, 30)
    config = load_model(write(tmp_path, clip_weights(ABOUT["clip4clip"]["clip_shapes"]))).config  # OpenAI's, 40 places
    assert (config.sampling, config.max_video_len, config.max_text_len) == ("uniform", 12, 38)
    config = load_model(write(tmp_path, checkpoint("clip2video/K5/full"))).config
    assert (config.sampling, config.feature_framerate, config.num_centers) == ("clip2video", 2, 5)
    path = write(tmp_path, checkpoint("clip2video/K7/full"))
    config = load_model(path).config
    assert (config.sampling, config.feature_framerate, config.num_centers) == ("clip2video", 1, 7)
    assert load_model(path, feature_framerate=2).config.feature_framerate == 2


def test_more_frames_read_more_of_the_table_of_positions(tmp_path):
    weights = checkpoint("clip2video/K5/full")
    model = load_model(write(tmp_path, weights), max_video_len=40)
    assert torch.equal(model.difference.position.weight, weights["frame_position_embeddings.weight"])
    with pytest.raises(ValueError, match=r"41 positions cannot be copied from a text tower with 40"):
        load_model(write(tmp_path, weights), max_video_len=41)


def test_a_released_file_becomes_a_folder_and_a_start_of_training(tmp_path):
    model = loaded(tmp_path, "clip2video/K5/full")
    model.save_pretrained(tmp_path / "folder")
    again = load_model(tmp_path / "folder")
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    start = write(tmp_path, checkpoint("clip4clip/meanP/full"), "start.bin")
    trained = CLIPTransformer(CLIPTransformer.config_type(pretrained=str(start), num_temporal_layers=1))
    own = clip_weights(ABOUT["clip4clip"]["clip_shapes"])
    assert torch.equal(trained.backbone.clip.text_model.final_layer_norm.weight, own["ln_final.weight"])
    assert torch.equal(trained.position.weight, own["positional_embedding"][:12])


MEAN = "clip4clip/meanP/full"
TIGHT = head_weights(ABOUT["clip4clip"]["headers"]["tightTransf"]["shapes"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda: checkpoint(MEAN) | TIGHT, "tightTransf, which scores a text and a video together"),
        (lambda: checkpoint(MEAN) | {"clip.visual.conv2.weight": torch.zeros(1)}, "CLIP4Clip model with 3d patches"),
        (lambda: checkpoint(MEAN) | {"clip.visual.layer1.0.bn1.weight": torch.zeros(1)}, "a CLIP with a ResNet"),
        (lambda: checkpoint(MEAN) | {"extra": torch.zeros(1)}, "is not a whole checkpoint: unexpected extra"),
        (lambda: without(MEAN, "clip.ln_final.bias"), "is not a whole checkpoint: missing clip.ln_final.bias"),
        (
            lambda: without(MEAN, "clip.positional_embedding"),
            "is not a whole checkpoint: missing clip.positional_embedding",
        ),
        (
            lambda: without("clip2video/K5/full", "actionClip.resblocks.0.ln_1.weight"),
            "missing actionClip.resblocks.0.ln_1.weight",
        ),
        (lambda: checkpoint(MEAN) | {"clip.ln_final.bias": torch.zeros(3)}, "is (3,) instead of (128,)"),
        (lambda: checkpoint(MEAN) | {"clip.text_projection": torch.zeros(3)}, "text_projection has shape (3,)"),
        (
            lambda: checkpoint(MEAN) | {"clip.transformer.resblocks.0.attn.in_proj_bias": torch.zeros(4)},
            "in_proj_bias has shape (4,), expected query, key and value in rows",
        ),
        (
            lambda: checkpoint(MEAN) | {"clip.transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(8, 100)},
            "a transformer of width 100, expected a multiple of 64",
        ),
    ],
)
def test_what_is_not_such_a_checkpoint_is_one_line(tmp_path, weights, message):
    path = write(tmp_path, weights())
    with pytest.raises(ValueError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def without(name, *keys):
    return {key: value for key, value in checkpoint(name).items() if key not in keys}


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    path = write(tmp_path, checkpoint("clip4clip/seqTransf/full"))
    with pytest.raises(ValueError, match=r"contains a 'clip_transformer', not a 'clip2video'"):
        CLIP2Video.from_pretrained(path)
    assert isinstance(CLIPMean.from_pretrained(write(tmp_path, checkpoint(MEAN))), CLIPMean)


def test_damaged_and_foreign_archives_are_one_line(tmp_path):
    whole = (GOLDEN / "openai_clip" / "archive.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.pt is damaged, or not a torch file"):
        load_model(tmp_path / "cut.pt")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"other.pt is not a VideoCLIP checkpoint: it has no video_encoder"):
        load_model(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"model.clip: .*other.pt is not a CLIP of OpenAI's"):
        load_clip(str(tmp_path / "other.pt"), key="model.clip")


@pytest.mark.parametrize("length", [1, 2])
def test_clip2video_reads_clips_of_one_and_two_frames(tmp_path, length):
    """With fewer than three frames the original raises an error. Padding changes nothing, nor do other clips."""
    model, case = loaded(tmp_path, "clip2video/K5/full", torch.float64), CLIP2VIDEO["K5/full"]
    video, mask = frames(case, 64)
    mask[1, length:] = False
    with torch.inference_mode():
        batch, alone = model.encode_video(video, mask), model.encode_video(video[1:2, :length])
    torch.testing.assert_close(batch[1:2], alone, atol=1e-12, rtol=0)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("name", ["clip4clip/meanP/full", "clip4clip/seqLSTM/full", "clip4clip/seqTransf/full"])
def test_a_clip_without_frames_is_zeros_and_changes_no_other(tmp_path, name):
    model = loaded(tmp_path, name)
    video, mask = frames(FAMILY[name], 64)
    with torch.inference_mode():
        whole = model.encode_video(video, mask)
        mask[1] = False
        vectors = model.encode_video(video, mask)
    assert not vectors[1].any()
    torch.testing.assert_close(vectors[[0, 2, 3]], whole[[0, 2, 3]])


def test_clip2video_gives_finite_vectors_for_a_clip_without_frames(tmp_path):
    model, case = loaded(tmp_path, "clip2video/K5/full"), CLIP2VIDEO["K5/full"]
    video, mask = frames(case, 64)
    mask[1] = False
    with torch.inference_mode():
        assert model.encode_video(video, mask).isfinite().all()


def test_a_tokenizer_of_another_vocabulary_is_one_line(tmp_path):
    words = {f"w{number}</w>": number for number in range(298)} | {"<|startoftext|>": 298, "<|endoftext|>": 299}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match=r"has 300 word pieces, but model.vocab_size is 150"):
        load_model(write(tmp_path, checkpoint(MEAN)), tokenizer=tmp_path)

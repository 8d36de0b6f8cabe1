"""The part of `benchmarks.fidelity` on OpenAI's CLIP, CLIP4Clip and CLIP2Video."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.models import load_model
from mmpt_plugin.models.released import new_names
from mmpt_plugin.tokenizer import load_tokenizer, tokenize
from mmpt_plugin.video.sparse_frames import frames_of_seconds, listed_frames
from tests.metrics.conftest import CLIP_FAMILY
from tests.metrics.test_retrieval import RECORDED, TIES, both_directions
from tests.models.released import ABOUT, GOLDEN, SCALE, cases, clip_weights, frames, full_size, text, write
from tests.models.test_released import CLIP2VIDEO as CASES
from tests.models.test_released import FAMILY, PRECISIONS, checkpoint, halves, loaded, precise, stages
from tests.test_tokenizer import CASES as SENTENCES
from tests.video.test_sparse_frames import CLIP2VIDEO, CLIP4CLIP, WHOLE, Recorded

Row = tuple[str, str]
NAMES = {"meanP": "CLIP4Clip, meanP", "seqLSTM": "CLIP4Clip, seqLSTM", "seqTransf": "CLIP4Clip, seqTransf"}
NAMES |= {"K5": "CLIP2Video, 5 centers", "K7": "CLIP2Video, 7 centers"}


def rows() -> Iterator[Row]:
    """Every recorded quantity with its largest difference."""
    for part in (towers, similarities, inside, losses_and_gradients, half_precision, full, choices, metrics):
        yield from part()


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max())


@torch.inference_mode()
def towers() -> Iterator[Row]:
    for precision, (dtype, _) in PRECISIONS.items():
        image, sentence = 0.0, 0.0
        for name, case in cases("openai_clip").items():
            about = ABOUT["openai_clip"]["models"][name]
            with tempfile.TemporaryDirectory() as folder:
                path = write(Path(folder), clip_weights(about["shapes"])) if name == "small" else None
                model = precise(load_model(path or GOLDEN / "openai_clip" / "archive.pt"), dtype)
            shown = {"frames_seed": case["image_seed"], "length": 1, "input_ids": case["ids"]}
            vectors = model.backbone.frames(*frames(shown, about["sizes"]["image_resolution"]))[:, 0]
            image = max(image, difference(vectors, case[f"image_features_{precision}"]))
            words, _ = model.backbone.text(case["ids"], case["mask"].bool())
            sentence = max(sentence, difference(words, case[f"text_features_{precision}"]))
        yield f"OpenAI CLIP: image vectors, state dict and TorchScript archive, {precision}", f"{image:.1e}"
        yield f"OpenAI CLIP: text vectors, {precision}", f"{sentence:.1e}"


@torch.inference_mode()
def similarities() -> Iterator[Row]:
    for kind, title in NAMES.items():
        for precision, (dtype, _) in PRECISIONS.items():
            worst: dict[str, float] = {}
            for name, case in FAMILY.items():
                if name.split("/")[1] == kind:
                    with tempfile.TemporaryDirectory() as folder:
                        model = loaded(Path(folder), name, dtype)
                    video, words = model.encode_video(*frames(case, 64)), model.encode_text(*text(case))
                    pairs = {"padded" if "padd" in name else "not padded": ("similarity", video, words)}
                    if kind in ("K5", "K7") and "padd" not in name:
                        parts = zip(("global", "aligned"), halves(video), halves(words), strict=True)
                        pairs |= {f"{half} half": (f"similarity_{half}", v, t) for half, v, t in parts}
                    for what, (key, v, t) in pairs.items():
                        expected = case.get(f"{key}_alone_{precision}", case[f"{key}_{precision}"])
                        worst[what] = max(worst.get(what, 0), difference(math.exp(SCALE) * t @ v.T, expected))
            for what, value in worst.items():
                yield f"{title}: similarities of up to 20, {what}, {precision}", f"{value:.1e}"


def inside() -> Iterator[Row]:
    worst: dict[str, float] = {}
    for name in ("K5/stages", "K7/stages"):
        with tempfile.TemporaryDirectory() as folder:
            found = stages(loaded(Path(folder), f"clip2video/{name}"), CASES[name])
        for stage, (ours, theirs) in found.items():
            worst[stage] = max(worst.get(stage, 0), difference(ours, theirs))
    yield (
        f"CLIP2Video: {len(worst)} intermediate results (worst: {max(worst, key=worst.__getitem__)}), f32",
        (f"{max(worst.values()):.1e}"),
    )


def losses_and_gradients() -> Iterator[Row]:
    for kind, title in NAMES.items():
        loss, gradient, count = 0.0, 0.0, 0
        for name, case in FAMILY.items():
            if name.split("/")[1] != kind or ("clip2video" in name and "padd" in name):
                continue
            with tempfile.TemporaryDirectory() as folder:
                model = loaded(Path(folder), name, torch.float64)
            log_scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
            video, words = model.encode_video(*frames(case, 64)), model.encode_text(*text(case))
            criterion = NCE(NCEConfig(parts=2 if "clip2video" in name else 1, average_directions=True))
            value = criterion(log_scale.exp() * video, words)
            value.backward()
            loss = max(loss, difference(value.detach(), case["training_loss_f64"]))
            names, parameters = new_names(checkpoint(name)), dict(model.named_parameters())
            for key in (key.removeprefix("gradient_f64/") for key in case if key.startswith("gradient_f64/")):
                ours = log_scale.grad if key == "clip.logit_scale" else parameters[names[key]].grad
                assert ours is not None
                expected = case[f"gradient_f64/{key}"]
                gradient = max(gradient, difference(ours.T if key == "weight_center" else ours, expected))
                count += 1
        yield f"{title}: losses, f64", f"{loss:.1e}"
        yield f"{title}: {count} gradients, f64", f"{gradient:.1e}"


@torch.inference_mode()
def half_precision() -> Iterator[Row]:
    ours, theirs = 0.0, 0.0
    for name, recorded in cases("half").items():
        case = FAMILY[name]
        with tempfile.TemporaryDirectory() as folder:
            model = loaded(Path(folder), name).half()
        similarity = math.exp(SCALE) * model.encode_text(*text(case)) @ model.encode_video(*frames(case, 64)).T
        ours = max(ours, difference(similarity, case["similarity_f64"]))
        theirs = max(theirs, difference(recorded["similarity_f16"], case["similarity_f64"]))
    yield "CLIP4Clip and CLIP2Video in half precision: similarities, from double precision", f"{ours:.1e}"
    yield "- the original's own difference", f"{theirs:.1e}"


@torch.inference_mode()
def full() -> Iterator[Row]:
    case = cases("full")["full"]
    clips = frames(case, 224)
    with tempfile.TemporaryDirectory() as folder:
        model: Any = load_model(write(Path(folder), full_size("openai_clip")))
    worst = difference(model.backbone.frames(*clips), case["image_features_f64"])
    yield "ViT-B/32, openai clip: image vectors, f32", f"{worst:.1e}"
    worst = difference(model.backbone.text(*text(case))[0], case["text_features_f64"])
    yield "ViT-B/32, openai clip: text vectors, f32", f"{worst:.1e}"
    with tempfile.TemporaryDirectory() as folder:
        for layout, name in (("clip4clip_meanP", "clip4clip"), ("clip2video_K5", "clip2video")):
            model = load_model(write(Path(folder), full_size(layout)))
            similarity = math.exp(SCALE) * model.encode_text(*text(case)) @ model.encode_video(*clips).T
            worst = difference(similarity, case[f"{name}_similarity_f64"])
            yield f"ViT-B/32, {layout.replace('_', ' ')}: similarities, f32", f"{worst:.1e}"


def choices() -> Iterator[Row]:
    tokenizer = load_tokenizer(str(GOLDEN / "tokenizer"))
    wrong = sum(tokenize([case["text"]], tokenizer, max_tokens=1000)[0] != [case["ids"]] for case in SENTENCES)
    yield f"word pieces of {len(SENTENCES)} sentences that are hard to tokenize", f"{wrong} differ"
    read = [case for case in CLIP4CLIP["read"] + CLIP4CLIP["spans"] if isinstance(case[-1], list) and case[-1]]
    wrong = sum(
        frames_of_seconds(*(span or (0, min(WHOLE, count))), last=count - 1, fps=fps, rate=rate) != taken
        for count, fps, rate, *span, taken in read
    )
    yield f"CLIP4Clip: frames of {len(read)} videos and spans", f"{wrong} differ"
    wrong = sum(
        listed_frames(count, num_frames=most, feature_framerate=rate, rng=rng) != taken
        for part, moved in (("test", False), ("train", True))
        for count, rate, most, taken in CLIP2VIDEO[part]
        for rng in [Recorded(count) if moved else None]
        if taken
    )
    number = sum(bool(case[-1]) for case in CLIP2VIDEO["test"] + CLIP2VIDEO["train"])
    yield f"CLIP2Video: frames of {number} folders, in testing and in training", f"{wrong} differ"


def metrics() -> Iterator[Row]:
    worst = 0.0
    with np.load(CLIP_FAMILY / "inputs.npz", allow_pickle=False) as matrices:
        exact = {name: case for name, case in RECORDED.items() if name not in TIES}
        for name, case in exact.items():
            _, ours = both_directions(matrices[name].astype(np.float64), case)
            for side in ("t2v", "v2t"):
                pairs = {f"R{k}": 100 * ours[side][f"{side}_recall@{k}"] for k in (1, 5, 10)}
                pairs["MeanR"] = ours[side][f"{side}_mean_rank"]
                worst = max(worst, *(abs(case[side][key] - value) for key, value in pairs.items()))
    yield f"recall@1, 5 and 10 (percent) and mean rank of {len(exact)} matrices without ties", f"{worst:.1e}"


if __name__ == "__main__":
    for row in rows():
        print("| {} | {} |".format(*row))

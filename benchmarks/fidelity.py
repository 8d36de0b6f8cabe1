"""The largest difference to each quantity recorded from the original, for the table in docs/explanation/fidelity.md.

    python -m benchmarks.fidelity

The recordings, and the code that reads them, are in tests/.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import clip_fidelity
from mmpt_plugin import VideoCLIP
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.datasets.clip_sampling import overlapped_video_clips
from mmpt_plugin.features.s3d import S3D, read_words, word_ids
from mmpt_plugin.shards.mmpt_shards import read_mmpt_shards
from tests.datasets import test_clip_sampling_fidelity as sampling
from tests.fairseq_bridge import test_trajectory as trajectory
from tests.features import test_s3d as s3d
from tests.models.test_videoclip import CASES, GOLDEN, full_size_checkpoint, text_of
from tests.shards.test_caption_sources import GOLDEN as SHARDS
from tests.shards.test_deduplicate import RECORDED as DEDUPLICATED
from tests.shards.test_deduplicate import captions, deduplicate

Row = tuple[str, str]


def main() -> None:
    print("| recorded quantity | largest difference |\n| --- | --- |")
    for part in (model_outputs, gradients, full_size, s3d_outputs, data, clips, optimizer, clip_fidelity.rows):
        for quantity, value in part():
            print(f"| {quantity} | {value} |", flush=True)


def difference(ours: object, theirs: object) -> float:
    return float(np.abs(np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)).max())


def released() -> VideoCLIP:
    return VideoCLIP.from_pretrained(GOLDEN / "videoclip_released_layout.pt", num_attention_heads=2, max_video_len=8)


@torch.inference_mode()
def model_outputs() -> Iterator[Row]:
    for precision, model in (("f32", released()), ("f64", released().double())):
        worst: dict[str, float] = {}
        for name in ("full", "mixed", "edge", "short_T", "bsz1", "cls_masked"):
            case = CASES[name]
            options: dict[str, Any] = {"attend_to_cls": name != "cls_masked"}
            clip = case["vfeats"], case["vmasks"].bool()
            video = model.video_encoder.pool(model.video_encoder(*clip, **options), clip[1])
            text = model.encode_text(*text_of(case))
            pairs = {
                "pooled video": (video, "pooled_video"),
                "pooled text": (text, "pooled_text"),
                "scores, text @ video": (text @ video.T, "scores_t2v"),
            }
            for quantity, (ours, key) in pairs.items():
                worst[quantity] = max(worst.get(quantity, 0), difference(ours, case[f"{key}_{precision}"]))
            steps = model.encode_video_steps(*clip, **options)
            states = difference(steps, case[f"video_hidden_{precision}"][:, 1:-1])
            worst["every second's hidden state"] = max(worst.get("every second's hidden state", 0), states)
            for directions, key in (
                ("both", "MMContraLoss"),
                ("text_to_video", "T2VContraLoss"),
                ("video_to_text", "V2TContraLoss"),
            ):
                if f"{key}_{precision}" in case:
                    loss = NCE(NCEConfig(directions=directions))(video, text)
                    worst[f"loss, {directions}"] = max(
                        worst.get(f"loss, {directions}", 0), difference(loss, case[f"{key}_{precision}"])
                    )
        for quantity, value in worst.items():
            yield f"{quantity}, six mask shapes, {precision}", f"{value:.1e}"


def gradients() -> Iterator[Row]:
    model, recorded, case = released().double(), CASES["grad_mixed"], CASES["mixed"]
    video = model.encode_video(case["vfeats"], case["vmasks"].bool())
    NCE(NCEConfig())(video, model.encode_text(*text_of(case))).backward()
    parameters = dict(model.named_parameters())
    worst = max(
        difference(parameters[name.removeprefix("grad.")].grad, value)
        for name, value in recorded.items()
        if name != "loss"
    )
    yield "gradients of the loss, every parameter, f64", f"{worst:.1e}"


@torch.inference_mode()
def full_size() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, np.load(GOLDEN / "full" / "expected.npz") as recorded:
        model = VideoCLIP.from_pretrained(full_size_checkpoint(Path(folder)))
        case = {key: torch.from_numpy(recorded[key]) for key in ("caps", "cmasks")}
        clip = torch.from_numpy(recorded["vfeats_f16"]).float(), torch.from_numpy(recorded["vmasks"])
        video, text = model.encode_video(*clip), model.encode_text(*text_of(case))
        yield "full size: pooled video, f32", f"{difference(video, recorded['pooled_video']):.1e}"
        yield "full size: pooled text, f32", f"{difference(text, recorded['pooled_text']):.1e}"
        hidden = model.encode_video_steps(*clip)[1]
        yield "full size: a clip's hidden states, f32", f"{difference(hidden, recorded['video_hidden_row1'][1:-1]):.1e}"
        relative = difference(text @ video.T, recorded["scores_t2v"]) / np.abs(recorded["scores_t2v"]).max()
        yield "full size: scores, relative to the largest", f"{relative:.1e}"
        loss = NCE(NCEConfig())(video, text)
        yield "full size: loss, both", f"{difference(loss, recorded['MMContraLoss']):.1e}"


@torch.inference_mode()
def s3d_outputs() -> Iterator[Row]:
    model = S3D()
    model.load_state_dict({key: s3d.seeded(key, shape) for key, shape in s3d.SHAPES.items()})
    model.eval()
    with np.load(s3d.GOLDEN / "expected.npz") as recorded:
        mixed, embedding = 0.0, 0.0
        for number, about in enumerate(s3d.RECORDED["cases"]):
            video = np.random.RandomState(about["input_seed"]).random_sample(about["shape"]).astype(np.float32)
            states = model.mixed_5c_features(torch.from_numpy(video))
            mixed = max(mixed, difference(states, recorded[f"mixed_5c{number}"]))
            embedding = max(embedding, difference(model.fc(states), recorded[f"video_embedding{number}"]))
        yield "S3D: last layer, f32", f"{mixed:.1e}"
        yield "S3D: video embedding, f32", f"{embedding:.1e}"
        ids = word_ids(s3d.RECORDED["sentences"], read_words(s3d.GOLDEN / "s3d_dict_tiny.npy"))
        yield "S3D: word ids", "equal" if np.array_equal(ids, recorded["text_tokens"]) else "differ"
        text = model.encode_text(ids)
        yield "S3D: text embedding, f32", f"{difference(text, recorded['text_embedding']):.1e}"


def data() -> Iterator[Row]:
    wrong = 0
    for case in DEDUPLICATED:
        for previous, key in ((True, "overlap_stays_in_previous"), (False, "overlap_moves_to_current")):
            kept = deduplicate(captions(case["input"]), previous_keeps=lambda p=previous: p, unit="character")
            wrong += kept != captions(case[key])
    yield f"deduplicated captions, by character, {2 * len(DEDUPLICATED)} cases", f"{wrong} differ"
    texts = json.loads((SHARDS / "sharded_text_expected.json").read_text())
    with np.load(SHARDS / "sharded_video_expected.npz") as features:
        wrong = sum(
            video.tokens != texts[str(number)]["cap"] or not np.array_equal(video.features, features[str(number)])
            for number, video in enumerate(read_mmpt_shards(SHARDS, SHARDS))
        )
    yield "the original's shards: features and word pieces of 4 videos", f"{wrong} differ"


def clips() -> Iterator[Row]:
    worst: dict[str, float] = {}
    with np.load(GOLDEN / "sampling_distributions.npz") as recorded:
        for number, video in enumerate(sampling.VIDEOS):
            rng = np.random.default_rng(number)
            text, spoken, lengths = sampling.drawn(video, rng)
            start, stop = overlapped_video_clips(*spoken, lengths=lengths, rng=rng)
            ours = text | {"video_start": start, "video_end": stop, "video_tokens": stop - start}
            for name, values in ours.items():
                distance = sampling.distance(recorded, f"v{number}_overlapped_{name}", values)
                worst[name] = max(worst.get(name, 0), float(distance))
    for name, value in worst.items():
        yield f"overlapped clips: {name}, Kolmogorov-Smirnov over 100,000 draws, 6 videos", f"{value:.4f}"
    yield "- exceeded by chance once in a million", f"{sampling.LARGEST:.4f}"


def optimizer() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        made = trajectory.trainer(Path(folder), torch.float64)
        trajectory.double_norm(made)
        losses = [
            difference(made.train_step([trajectory.sample(step["case"])])["loss"], step["loss"])
            for step in trajectory.RECORDED["log"]
        ]
        weights = made.model.model.state_dict()
        worst = max(difference(value, trajectory.FINAL[name]) for name, value in weights.items())
    yield "8 updates through fairseq's trainer: losses, f64", f"{max(losses):.1e}"
    yield "8 updates through fairseq's trainer: final weights, f64", f"{worst:.1e}"


if __name__ == "__main__":
    main()

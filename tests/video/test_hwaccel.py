"""Hardware decodes to the frames that a CPU decodes to, and where there is none, one line says so."""

import av
import numpy as np
import pytest
import torch

from mmpt_plugin.features.extract import ExtractionFailed, extract
from mmpt_plugin.video.cache_frames import cache_frames
from mmpt_plugin.video.decode import SCALINGS, filtered, opened
from mmpt_plugin.video.frame_cache import FrameSettings
from mmpt_plugin.video.hwaccel import accelerator, check_hwaccel, on_own_gpu

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
RUNS = {
    "extract": lambda *paths, **options: extract(*paths, encoder={"_name": "s3d", "size": 32, "fps": 4}, **options),
    "cache_frames": lambda *paths, **options: cache_frames(*paths, settings=FrameSettings(size=32), **options),
}


@pytest.fixture
def video(tmp_path):
    return make_video(tmp_path / "v.mp4", "yuv420p")


def make_video(path, pixels):
    """Two seconds of coarse noise, whose sides are no multiple of 16."""
    noise = np.random.default_rng(0).integers(256, size=(20, 91, 159, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 318, 182, pixels
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.repeat(2, axis=0).repeat(2, axis=1))))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("hardware", "cpu"), [("nv12", "yuv420p"), ("p010le", "yuv420p10le")])
def test_frames_in_the_pixel_formats_of_hardware_become_those_of_a_cpu(tmp_path, hardware, cpu, scaling):
    path = make_video(tmp_path / "v.mp4", cpu)
    squares = []
    for other in (cpu, hardware):
        with opened(path) as (container, stream):
            frames = [frame.reformat(format=other) for frame in container.decode(stream)]
            squares.append(np.stack(list(filtered(frames, stream, SCALINGS[scaling](64)))))
    assert squares[0].shape == (20, 64, 64, 3)
    np.testing.assert_array_equal(*squares)


@WITHOUT_GPU
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_hardware_that_is_not_there_is_one_line_before_any_work(video, tmp_path, run):
    with pytest.raises(ValueError, match=r"^hwaccel cuda: FFmpeg can't decode with it on this machine: .*$"):
        run([video], tmp_path / "out", hwaccel="cuda")
    with pytest.raises(ValueError, match=r"^no hwaccel 'cudo'\. Did you mean 'cuda'\? Possible: \[.*'cuda'.*\]$"):
        run([video], tmp_path / "out", hwaccel="cudo")
    assert not (tmp_path / "out").exists()
    check_hwaccel(None)


@WITHOUT_GPU
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_video_is_decoded_by_the_hardware(video, tmp_path, monkeypatch, run):
    """Without a GPU, FFmpeg refuses; frames of another decoder would mean that it was not asked."""
    for module in ("features.extract", "video.cache_frames"):
        monkeypatch.setattr(f"mmpt_plugin.{module}.check_hwaccel", lambda hwaccel: None)
    with pytest.raises(ExtractionFailed, match=r"1 of 1 videos failed.*\n.*v\.mp4 can't be decoded: "):
        run([video], tmp_path / "out", hwaccel="cuda")


def test_a_process_decodes_on_the_gpu_that_it_computes_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [on_own_gpu(kind) for kind in (None, "cuda")] == [None, "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [on_own_gpu(kind) for kind in (None, "cuda", "qsv")] == [None, "cuda:1", "qsv"]
    assert [accelerator(kind).device_id for kind in ("cuda", "cuda:1")] == [0, 1]

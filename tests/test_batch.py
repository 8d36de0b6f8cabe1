"""Padding and masks, concatenated batches, and the random numbers of a cluster."""

import numpy as np
import pytest
import torch

from mmpt_plugin.batch import (
    NO_LABEL,
    Batch,
    Cluster,
    LabelledBatch,
    StepBatch,
    concatenate,
    length_mask,
    pad_text,
    pad_video,
)

TOKENS = np.array([11, 12, 13, 14])


def test_texts_have_special_tokens_around_them_and_padding_after():
    ids, mask = pad_text(np.array([1, 0]), np.array([2, 1]), TOKENS, cls_id=2, sep_id=3, pad_id=0)
    assert ids.tolist() == [[2, 12, 13, 3], [2, 11, 3, 0]]
    assert mask.tolist() == [[True] * 4, [True, True, True, False]]


def test_texts_may_begin_with_their_first_word():
    ids, mask = pad_text(np.array([1, 0]), np.array([2, 0]), TOKENS, cls_id=None, sep_id=3, pad_id=9)
    assert ids.tolist() == [[12, 13, 3], [3, 9, 9]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]


def test_videos_are_as_long_as_the_longest_or_longer_where_that_is_asked():
    clips = [torch.ones(1, 2), torch.ones(3, 2)]
    for length, width in ((0, 3), (2, 3), (5, 5)):
        video, mask = pad_video(clips, length=length)
        assert video.shape == (2, width, 2)
        assert mask.sum(dim=1).tolist() == [1, 3]
        assert torch.equal(video.sum(dim=2) > 0, mask)
    assert length_mask(np.array([0, 2]), 2).tolist() == [[False, False], [True, True]]


def test_a_clusters_draws_depend_on_its_seed_epoch_and_number_only():
    drawn = {
        Cluster(seed, epoch, number, (0,)).rng().random() for seed in (1, 2) for epoch in (1, 2) for number in (1, 2)
    }
    assert len(drawn) == 8
    assert Cluster(1, 2, 2, (5, 6)).rng().random() == Cluster(1, 2, 2, (0,)).rng().random()


def test_batches_are_joined_at_the_width_of_the_widest():
    def batch(width, video_id):
        mask = torch.ones(1, width, dtype=torch.bool)
        ones = torch.ones(1, width, dtype=torch.int64)
        return Batch(torch.ones(1, width, 2), mask, ones, mask, torch.tensor([video_id]))

    joined = concatenate([batch(1, 5), batch(3, 6)], pad_id=9)
    assert joined.video.sum(dim=2).tolist() == [[2, 0, 0], [2, 2, 2]]
    assert joined.video_mask.tolist() == [[True, False, False], [True] * 3]
    assert joined.text.tolist() == [[1, 9, 9], [1, 1, 1]]
    assert joined.video_ids.tolist() == [5, 6]


def test_seconds_added_to_a_batch_have_no_label():
    def batch(width):
        mask = torch.ones(1, width, dtype=torch.bool)
        return LabelledBatch(torch.ones(1, width, 2), mask, torch.zeros(1, width, dtype=torch.int64), torch.tensor([0]))

    assert concatenate([batch(1), batch(2)], pad_id=9).labels.tolist() == [[0, NO_LABEL], [0, 0]]


def test_videos_of_different_steps_are_not_joined():
    mask = torch.ones(1, 1, dtype=torch.bool)
    ids = torch.ones(1, 1, dtype=torch.int64)
    batch = StepBatch(torch.ones(1, 1, 2), mask, ids, mask, torch.ones(1, 1, 1), torch.tensor([0]))
    assert concatenate([batch], pad_id=0) is batch
    with pytest.raises(ValueError, match=r"dataset.batch_size must be 1"):
        concatenate([batch, batch], pad_id=0)

"""Schedules that end where training ends."""

import pytest

pytest.importorskip("fairseq")

from fairseq.optim import FairseqOptimizer
from omegaconf import OmegaConf

from mmpt_plugin.fairseq_bridge.schedule import WarmupCosine, fit_schedule, total_updates, warmup_cosine

LIMITS = {"batch_size": 1, "world_size": 1, "update_freq": [1], "max_epoch": 13, "max_update": 0}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 195),
        ({"max_update": 100}, 100),
        ({"max_update": 300}, 195),
        ({"max_epoch": 0, "max_update": 300}, 300),
        ({"max_epoch": 0}, 0),
        ({"world_size": 2}, 13 * 8),  # 15 clusters are 8 for each of two processes, one of them again
        ({"batch_size": 4}, 13 * 4),
        ({"world_size": 2, "batch_size": 2}, 13 * 4),
        ({"update_freq": [1, 4]}, 15 + 12 * 4),  # the last count is that of all later epochs
    ],
)
def test_updates_are_counted_as_fairseq_makes_them(changed, expected):
    assert total_updates(15, **LIMITS | changed) == expected


def fitted(total, *, warmup_fraction=0.0, **schedule):
    made = OmegaConf.create(schedule)
    fit_schedule(made, total, warmup_fraction=warmup_fraction)
    return made


def test_what_a_schedule_leaves_open_is_the_trainings_own(caplog):
    assert fitted(195, _name="polynomial_decay", warmup_updates=20).total_num_update == 195
    assert fitted(195, _name="polynomial_decay", total_num_update=0).total_num_update == 195
    assert fitted(195, _name="cosine", warmup_updates=20, lr_period_updates=-1).lr_period_updates == 175
    tenth = fitted(195, warmup_fraction=0.1, _name="cosine")
    assert (tenth.warmup_updates, tenth.lr_period_updates) == (20, 175)
    whole = fitted(7030, warmup_fraction=0.1, _name="warmup_cosine", total_num_update=0)
    assert (whole.warmup_updates, whole.total_num_update) == (703, 7030)
    assert fitted(195, _name="fixed") == {"_name": "fixed"}
    assert not caplog.text


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        ({"_name": "polynomial_decay", "total_num_update": 4}, "update 4 (lr_scheduler.total_num_update)"),
        ({"_name": "polynomial_decay", "total_num_update": 1000000}, "update 1000000 "),
        ({"_name": "warmup_cosine", "total_num_update": 6}, "update 6 (lr_scheduler.total_num_update)"),
        ({"_name": "cosine", "warmup_updates": 4, "lr_period_updates": 4}, "update 8 (lr_scheduler.lr_period_updates)"),
    ],
)
def test_a_given_length_that_differs_stays_and_is_said(schedule, end, caplog):
    assert fitted(12, **schedule) == schedule
    assert f"the learning-rate schedule ends at {end}" in caplog.text
    assert "training ends at update 12" in caplog.text


def test_a_rounded_length_is_not_worth_a_word(caplog):
    fitted(195, _name="polynomial_decay", total_num_update=196)
    fitted(195, _name="cosine", warmup_updates=20, lr_period_updates=175)
    assert not caplog.text


def test_a_training_shorter_than_its_warm_up_says_so(caplog):
    """A short trial of a long recipe."""
    assert fitted(10, _name="polynomial_decay", warmup_updates=10).total_num_update == 10
    assert fitted(10, _name="cosine", warmup_updates=20).lr_period_updates == 1
    for warmup in (10, 20):
        assert f"training has 10 updates, so it ends within the {warmup} of lr_scheduler.warmup_updates" in caplog.text


def test_a_short_training_has_one_update_of_warm_up_at_least():
    assert fitted(10, warmup_fraction=0.01, _name="polynomial_decay").warmup_updates == 1


@pytest.mark.parametrize(
    ("total", "schedule", "message"),
    [
        (0, {"_name": "polynomial_decay"}, "the number of updates is unknown: set optimization.max_epoch"),
        (10, {"_name": "cosine", "warmup_updates": 3, "warmup_fraction": 0.1}, "set only one of them"),
    ],
)
def test_what_can_not_be_fitted_is_named(total, schedule, message):
    fraction = schedule.pop("warmup_fraction", 0.0)
    with pytest.raises(ValueError, match=message):
        fitted(total, warmup_fraction=fraction, **schedule)


@pytest.mark.parametrize(
    ("updates", "share"),
    [
        (0, 0.0),  # of the first update
        (1, 1 / 703),
        (702, 702 / 703),
        (703, 0.975528),  # (1 + cos(pi / 10)) / 2: the rate falls from 0.9986
        (3515, 0.5),
        (7029, 4.99e-8),  # of the last update
        (7030, 0.0),
        (9000, 0.0),
    ],
)
def test_the_cosine_covers_the_whole_run(updates, share):
    """CLIP4Clip on MSR-VTT: 5 epochs of 1,406 updates."""
    assert warmup_cosine(updates, warmup=703, total=7030) == pytest.approx(share, rel=1e-3, abs=1e-12)


class Optimizer(FairseqOptimizer):
    def set_lr(self, lr):
        self.rate = lr


def test_each_update_has_the_rate_after_those_before_it():
    optimizer = Optimizer(None)
    schedule = WarmupCosine(OmegaConf.create({"lr": [8.0], "warmup_updates": 2, "total_num_update": 4}), optimizer)
    rates = [optimizer.rate]
    for updates in (1, 2, 3, 4):
        assert schedule.step_update(updates) == optimizer.rate
        rates.append(optimizer.rate)
    assert rates == pytest.approx([0, 4, 4, 8 * 0.1464466, 0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"total_num_update": 0}, "lr_scheduler.total_num_update must be positive, got 0"),
        ({"lr": [1.0, 2.0]}, r"warmup_cosine needs one optimization.lr, got \[1.0, 2.0\]"),
    ],
)
def test_a_schedule_without_an_end_or_of_several_rates_is_refused(changed, message):
    config = {"lr": [8.0], "warmup_updates": 2, "total_num_update": 4} | changed
    with pytest.raises(ValueError, match=message):
        WarmupCosine(OmegaConf.create(config), Optimizer(None))

"""What is refused when a class registers, in one line that names what is missing."""

from dataclasses import dataclass, make_dataclass

import pytest
from torch import nn

from mmpt_plugin import conformance, registry
from mmpt_plugin.models import EmbedderConfig, PretrainedEmbedder
from mmpt_plugin.registry import Registry


@dataclass(kw_only=True)
class Config:
    cluster_size: int = 3


class Complete(PretrainedEmbedder):
    def video_vectors(self, video, mask):
        return video.mean(dim=1)

    def text_vectors(self, ids, mask):
        return ids.float()


class WithoutText(PretrainedEmbedder):
    def video_vectors(self, video, mask):
        return video.mean(dim=1)


class Empty:
    def __init__(self, config):
        pass


class EmptySampler:
    def __init__(self, config, *, num_videos, seed):
        pass


class OtherArguments(EmptySampler):
    def clusters(self, epoch):
        return epoch


class OtherConstruction:
    def __init__(self, num_videos):
        pass

    def clusters(self, epoch, embed):
        return epoch


class NoForward(nn.Module):
    def __init__(self, config):
        super().__init__()


@pytest.mark.parametrize(
    ("kind", "cls", "message"),
    [
        ("model", NoForward, r"lacks forward\(batch\) \(see mmpt_plugin.protocols; the base class PretrainedEmbedder"),
        ("model", WithoutText, r"lacks text_vectors\(\), Config.feature_dim, Config.hidden_size, Config.max_video_len"),
        ("criterion", NoForward, r"lacks forward\(\*outputs, \*\*batch_fields\)"),
        ("task", Empty, r"lacks dataset\(split\), sampler\(dataset, \*, split, seed\) or evaluate\(model\)"),
        ("dataset", Empty, r"lacks __len__\(\), __getitem__\(cluster\)"),
        ("corpus", Empty, r"lacks clip\(video_id, start=0.0, end=None, \*, max_video_len\)"),
        ("sampler", EmptySampler, r"lacks clusters\(epoch, embed\) \(see mmpt_plugin.protocols\)"),
        ("sampler", OtherArguments, r"lacks clusters\(epoch, embed\) \(it has clusters\(self, epoch\)\)"),
        ("sampler", OtherConstruction, r"is built as OtherConstruction\(config, \*, num_videos, seed\), which its"),
        ("encoder", Empty, r"lacks __call__\(frames\)"),
        ("store", Empty, r"lacks exists\(\), create\(settings, \*, width\), settings\(\)"),
    ],
)
def test_what_a_class_lacks_is_named(kind, cls, message):
    with pytest.raises(
        ValueError, match=rf"^{kind} 'mine' \(tests.test_conformance.{cls.__name__}\) {message}"
    ) as error:
        Registry(kind).register("mine", dataclass=Config)(cls)
    assert "\n" not in str(error.value)


def test_a_config_is_a_dataclass():
    with pytest.raises(
        ValueError, match=r"^model 'mine' \(tests.test_conformance.Complete\): its config must be a data"
    ):
        Registry("model").register("mine", dataclass=dict)(Complete)


def test_a_complete_model_is_accepted_and_knows_its_name():
    Registry("model").register("mine", dataclass=EmbedderConfig)(Complete)
    assert (Complete.model_type, Complete.config_type) == ("mine", EmbedderConfig)


def test_a_model_of_version_0_1_is_accepted():
    """It overrides what callers call, sets its own config, and limits texts by positions."""

    class Old(PretrainedEmbedder):
        def __init__(self, config):
            super().__init__()
            self.config = config

        def encode_video(self, features, mask=None):
            return features

        def encode_text(self, text, mask=None):
            return text

    sizes = ("feature_dim", "hidden_size", "max_video_len", "max_position_embeddings")
    models = Registry("model")
    models.register("old", dataclass=make_dataclass("Old", [(name, int, 8) for name in sizes], kw_only=True))(Old)
    assert models.build({"_name": "old"}).max_text_tokens == 8


def test_a_model_that_can_only_be_trained_is_accepted_with_a_warning(caplog):
    plain = type("Plain", (NoForward,), {"forward": lambda self, batch: batch})
    Registry("model").register("mine", dataclass=Config)(plain)
    assert "can only be trained: derive it from PretrainedEmbedder" in caplog.text


def test_an_attribute_that_init_does_not_set_is_named_when_the_component_is_built():
    encoders = Registry("encoder")
    encoders.register("mine", dataclass=Config)(type("Mine", (Empty,), {"fps": 1, "__call__": lambda self, frames: 0}))
    with pytest.raises(
        ValueError, match=r"^encoder 'mine' \(Mine\) lacks the attribute size, feature_dim, fingerprint$"
    ):
        encoders.build({"_name": "mine"})


def test_properties_are_not_computed_by_the_check():
    def fail(self):
        raise AssertionError

    parts = dict.fromkeys(("fps", "size", "feature_dim", "fingerprint"), property(fail))
    conformance.check_instance("encoder", "mine", type("Mine", (), parts)())


def test_every_kind_has_a_protocol():
    assert conformance.PROTOCOLS.keys() == {kind.kind for kind in registry.REGISTRIES}


def test_two_classes_of_one_name_in_different_files_are_refused():
    """Also if the classes have equal names, as in two plugins that both define a `Model`."""
    kind = Registry("sampler")
    kind.register("mine", dataclass=Config)(type("Same", (OtherArguments,), {"clusters": lambda self, epoch, embed: 0}))
    other = type("Same", (OtherArguments,), {"clusters": lambda self, epoch, embed: 0, "__module__": "elsewhere"})
    with pytest.raises(ValueError, match="sampler 'mine' is already registered by tests.test_conformance"):
        kind.register("mine", dataclass=Config)(other)

from .retrieval_augmented import RetrievalAugmented as RetrievalAugmented
from .retrieval_augmented import RetrievalAugmentedConfig as RetrievalAugmentedConfig
from .uniform import Uniform as Uniform
from .uniform import UniformConfig as UniformConfig

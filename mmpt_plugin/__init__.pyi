from . import corpora as corpora
from . import criterions as criterions
from . import datasets as datasets
from . import features as features
from . import models as models
from . import registry as registry
from . import samplers as samplers
from . import tasks as tasks
from .batch import Batch as Batch
from .batch import Cluster as Cluster
from .models.pretrained import load_model as load_model
from .models.videoclip import VideoCLIP as VideoCLIP
from .registry import register_corpus as register_corpus
from .registry import register_criterion as register_criterion
from .registry import register_dataset as register_dataset
from .registry import register_encoder as register_encoder
from .registry import register_model as register_model
from .registry import register_sampler as register_sampler
from .registry import register_store as register_store
from .registry import register_task as register_task

__version__: str

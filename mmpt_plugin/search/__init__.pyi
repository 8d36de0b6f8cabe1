from .collection import Collection as Collection
from .collection import IndexReport as IndexReport
from .moments import Moment as Moment

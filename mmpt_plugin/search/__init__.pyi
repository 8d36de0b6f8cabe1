from .collection import Collection as Collection
from .moments import Moment as Moment
from .video_files import IndexReport as IndexReport

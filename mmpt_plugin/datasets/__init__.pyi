from .captioned_clips import CaptionedClips as CaptionedClips
from .captioned_clips import CaptionedClipsConfig as CaptionedClipsConfig
from .labelled_windows import LabelledWindows as LabelledWindows
from .labelled_windows import LabelledWindowsConfig as LabelledWindowsConfig
from .overlapped_clips import OverlappedClips as OverlappedClips
from .overlapped_clips import OverlappedClipsConfig as OverlappedClipsConfig
from .step_windows import StepWindows as StepWindows

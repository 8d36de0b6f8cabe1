"""Features and captions of many videos in few memory-mapped files."""

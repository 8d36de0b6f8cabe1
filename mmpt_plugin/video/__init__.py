"""Reading and writing video files, sparse frames, cached frames, and the map from video ids to files."""

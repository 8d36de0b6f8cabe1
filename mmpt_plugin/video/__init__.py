"""Pixels: video files in and out, sparse frames, cached frames, and the store that maps a video id to its file."""

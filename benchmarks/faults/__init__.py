"""Kills, failing writes and second processes: what they leave of each command's output, and what the next run makes."""

"""Arrays -> numbers; NumPy only."""

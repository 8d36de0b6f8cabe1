"""Evaluation metrics as pure NumPy functions: arrays -> numbers."""

"""Stores: where a collection keeps the vectors of its moments."""

"""Cycled data assimilation of simple models."""

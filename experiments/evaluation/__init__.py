"""Scores, tables, pictures and the report of an analysis."""

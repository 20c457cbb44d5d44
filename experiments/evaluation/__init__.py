"""Scores, tables, figures and the report of an analysis."""

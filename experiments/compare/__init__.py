"""The model and the classical methods on the same observations, over a season or more."""

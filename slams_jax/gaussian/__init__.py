"""Gaussian statistics of fields in space and time: priors, regressions, closed-form posteriors."""

from slams_jax.gaussian.columns import Columns, fit_columns
from slams_jax.gaussian.hybrid import HybridCovariance, absorbed, forecast_likelihood
from slams_jax.gaussian.modes import Coefficients, Modes
from slams_jax.gaussian.posterior import Absorbed, GaussianPosterior, Matrices, condition
from slams_jax.gaussian.prior import ChiSquared, GaussianPrior, chi_squared, fit_prior
from slams_jax.gaussian.regression import (
    ModalCovariance,
    ModalOperator,
    Regression,
    fit_regression,
)
from slams_jax.gaussian.spectrum import Spectrum

__all__ = [
    "Absorbed",
    "ChiSquared",
    "Coefficients",
    "Columns",
    "GaussianPosterior",
    "GaussianPrior",
    "HybridCovariance",
    "Matrices",
    "ModalCovariance",
    "ModalOperator",
    "Modes",
    "Regression",
    "Spectrum",
    "absorbed",
    "chi_squared",
    "condition",
    "fit_columns",
    "fit_prior",
    "fit_regression",
    "forecast_likelihood",
]

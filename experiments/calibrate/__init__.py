"""Guidance rules and solvers on problems whose posteriors are known."""

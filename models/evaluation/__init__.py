"""Splits, cross-validation and the figures that a report shows."""

"""A reproducibility benchmark for encrypted-traffic classifiers."""

__version__ = "0.1.0"

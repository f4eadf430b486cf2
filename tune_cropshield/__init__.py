"""Hyperparameter search for leaf classifiers trained with mixed precision, gradient accumulation and clipping."""

__version__ = "0.1.0"

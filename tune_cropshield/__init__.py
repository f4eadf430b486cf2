"""Hyperparameter search for leaf-disease classifiers trained with mixed precision, gradient accumulation and clipping.

    import tune_cropshield as tc

    results = tc.search(data="leaves", out="results/runs/first", trials=20)
    print(results.best)
    tc.predict(results.best.folder, "leaf.jpg")

Each function is a command of `tune-cropshield`; its keyword arguments are the command's flags.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tune_cropshield.api.board import board
    from tune_cropshield.api.cache import CacheResult, cache
    from tune_cropshield.api.compare import Compared, compare
    from tune_cropshield.api.confirm import ConfirmResult, confirm
    from tune_cropshield.api.evaluate import EvaluationResult, evaluate
    from tune_cropshield.api.export import ExportResult, export
    from tune_cropshield.api.list_searches import list_searches
    from tune_cropshield.api.plan import PlanResult, plan
    from tune_cropshield.api.predict import predict
    from tune_cropshield.api.report import report
    from tune_cropshield.api.results import BestTrial, SearchResults, open_search
    from tune_cropshield.api.search import search
    from tune_cropshield.api.show import ShownSearch, ShownTrial, show
    from tune_cropshield.api.stop import StopResult, stop
    from tune_cropshield.api.train import TrainResult, train
    from tune_cropshield.config.settings import RunConfig
    from tune_cropshield.config.space import SearchSpace
    from tune_cropshield.errors import (
        ConfigError,
        DataError,
        DeviceError,
        DiskFull,
        DivergedError,
        OutOfMemory,
        RunFailure,
        UserError,
    )
    from tune_cropshield.outcome.overview import Overview
    from tune_cropshield.outcome.predict import Prediction
    from tune_cropshield.search.views.view import SearchView
else:
    # Python writes a package's folder into its names when it is first imported. Doing that now, with the folder
    # search/ (whose __init__.py is empty), keeps it from taking the place of the function `search` later.
    from tune_cropshield import search

    del search

# Where each name comes from. Nothing of it is imported before it is used: PyTorch alone takes seconds.
_HOMES = {
    "BestTrial": "api.results",
    "CacheResult": "api.cache",
    "Compared": "api.compare",
    "ConfigError": "errors",
    "ConfirmResult": "api.confirm",
    "DataError": "errors",
    "DeviceError": "errors",
    "DiskFull": "errors",
    "DivergedError": "errors",
    "EvaluationResult": "api.evaluate",
    "ExportResult": "api.export",
    "OutOfMemory": "errors",
    "Overview": "outcome.overview",
    "PlanResult": "api.plan",
    "Prediction": "outcome.predict",
    "RunConfig": "config.settings",
    "RunFailure": "errors",
    "SearchResults": "api.results",
    "SearchSpace": "config.space",
    "SearchView": "search.views.view",
    "ShownSearch": "api.show",
    "ShownTrial": "api.show",
    "StopResult": "api.stop",
    "TrainResult": "api.train",
    "UserError": "errors",
    "board": "api.board",
    "cache": "api.cache",
    "compare": "api.compare",
    "confirm": "api.confirm",
    "evaluate": "api.evaluate",
    "export": "api.export",
    "list_searches": "api.list_searches",
    "open_search": "api.results",
    "plan": "api.plan",
    "predict": "api.predict",
    "report": "api.report",
    "search": "api.search",
    "show": "api.show",
    "stop": "api.stop",
    "train": "api.train",
}
__all__ = [
    "BestTrial",
    "CacheResult",
    "Compared",
    "ConfigError",
    "ConfirmResult",
    "DataError",
    "DeviceError",
    "DiskFull",
    "DivergedError",
    "EvaluationResult",
    "ExportResult",
    "OutOfMemory",
    "Overview",
    "PlanResult",
    "Prediction",
    "RunConfig",
    "RunFailure",
    "SearchResults",
    "SearchSpace",
    "SearchView",
    "ShownSearch",
    "ShownTrial",
    "StopResult",
    "TrainResult",
    "UserError",
    "__version__",
    "board",
    "cache",
    "compare",
    "confirm",
    "evaluate",
    "export",
    "list_searches",
    "open_search",
    "plan",
    "predict",
    "report",
    "search",
    "show",
    "stop",
    "train",
]


def __getattr__(name: str) -> object:
    """Returns a name of the library, imported now."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

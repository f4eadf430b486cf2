"""Names in a settings file that stand for code: networks, losses, optimizers, schedules, samplers, pruning, metrics.

Each registry is a dictionary from a name to "package.module:attribute". Wherever such a name may stand, a user's own
"package.module:attribute" or "file.py:attribute" may stand too. Nothing is imported before it is asked for: a faulty
file is told about at once.

What an entry must be is said where it is used: training/models.py, losses.py, optimizers.py and schedules.py,
own_metric.py, search/samplers.py and search/pruning.py.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tune_cropshield.config.closest import closest
from tune_cropshield.config.own_files import digest_of, file_digest, files_of, is_installed, root_of
from tune_cropshield.config.timm_names import is_timms
from tune_cropshield.errors import ConfigError, RunFailure, UserError

# Beside these, every classifier of torchvision is known under its own name, and timm's as timm:NAME.
MODELS = {
    "tiny_cnn": "tune_cropshield.training.cnn:tiny_cnn",
    "cropshield_cnn": "tune_cropshield.training.cnn:cropshield_cnn",
}
LOSSES = {
    "cross_entropy": "tune_cropshield.training.losses:CrossEntropy",
    "focal": "tune_cropshield.training.losses:Focal",
    "bi_tempered": "tune_cropshield.training.losses:BiTempered",
}
OPTIMIZERS = {
    "adamw": "tune_cropshield.training.optimizers:adamw",
    "sgd": "tune_cropshield.training.optimizers:sgd",
}
SCHEDULES = {
    "onecycle": "tune_cropshield.training.schedules:onecycle",
    "plateau": "tune_cropshield.training.schedules:constant",  # its drops come between epochs: schedules.Plateau
    "cosine": "tune_cropshield.training.schedules:cosine",
    "step": "tune_cropshield.training.schedules:step",
    "constant": "tune_cropshield.training.schedules:constant",
}
SAMPLERS = {
    "auto": "tune_cropshield.search.samplers:auto",
    "tpe": "tune_cropshield.search.samplers:tpe",
    "random": "tune_cropshield.search.samplers:random",
    "gp": "tune_cropshield.search.samplers:gp",
}
PRUNING = {
    "asha": "tune_cropshield.search.pruning:asha",
    "ray-asha": "tune_cropshield.search.pruning:ray_asha",
    "none": "tune_cropshield.search.pruning:none",
}
METRICS = {  # all of them are known after each epoch
    name: "tune_cropshield.training.metrics:EpochMetrics"
    for name in ("val_acc", "val_macro_f1", "val_balanced_acc", "val_loss", "val_auc")
}
REGISTRIES = {
    "model": MODELS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "sampler": SAMPLERS,
    "pruning": PRUNING,
    "metric": METRICS,
}

_own_files: set[str] = set()  # of users, that were loaded in this process


def is_own(name: str) -> bool:
    """Tells whether `name` is a reference to a user's own code, and not a name of ours or of a library."""
    return ":" in name and not is_timms(name)


def checked_name(kind: str, name: str) -> str:
    """Returns `name`, a reference to a file with the file's whole path, if it can be resolved. Nothing is executed.

    Args:
        kind: a key of REGISTRIES.
        name: a name of that registry, or a reference.

    Raises:
        ConfigError: there is no such name, module, file, or no such attribute in the file.
    """
    known = REGISTRIES[kind]
    if name in known:
        return name
    if not is_own(name):
        close = closest(name, known)
        hint = f"; did you mean {close[0]}?" if close else "."
        own = "your own is written as file.py:name or package.module:name"
        raise ConfigError([f"no {kind} is called {name!r}{hint} Known: {', '.join(known)}; {own}"])
    place, attribute = _parts(kind, name)
    if not place.endswith(".py"):
        _find_module(kind, place)
        return name
    path = Path(place).expanduser().absolute()
    if attribute not in _names_in(kind, path):
        raise ConfigError([f"{kind} {name!r}: {path} defines no {attribute}"])
    return f"{path}:{attribute}"


def resolve(kind: str, name: str) -> Any:
    """Returns the object that `name` stands for: what a registry of ours names, or a user's own.

    Raises:
        ConfigError: it cannot be imported, or its module holds no such attribute.
    """
    place, attribute = _parts(kind, REGISTRIES[kind].get(name, name))
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
        if is_own(name):
            _own_files.update(str(file) for file in files_of(Path(module.__file__ or place)))
        return getattr(module, attribute)
    except ConfigError:
        raise
    except AttributeError:
        raise ConfigError([f"{kind} {name!r}: {place} defines no {attribute}"]) from None
    except (Exception, SystemExit) as error:  # a user's file can fail in any way
        raise ConfigError([f"{kind} {name!r} cannot be loaded: {_said(error)}"]) from error


@contextmanager
def own_code(kind: str, name: str) -> Iterator[None]:
    """Turns what a user's own code raises inside into a ConfigError that says where; what ours raises stays."""
    try:
        yield
    except (UserError, RunFailure):
        raise
    except (Exception, SystemExit) as error:  # a user's code can fail in any way
        if not is_own(name):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}, line {last.lineno}"
        raise ConfigError([f"{kind} {name!r} failed with {_said(error)} ({where})"]) from error


def fault_of_own_code(error: BaseException) -> str | None:
    """Returns what `error` says and the line of a user's own code that it came through; None where it did not."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in _own_files]
    if not frames:
        return None
    return f"{frames[-1].filename}, line {frames[-1].lineno}, failed with {_said(error)}"


def _said(error: BaseException) -> str:
    """Returns the kind of an error and its words, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def source_digest(name: str) -> str | None:
    """Returns the SHA-256 (hex) of the file that a user's own code lies in; None for a name of ours or of a library.

    What the file imports from its own folder counts too. Two trials whose settings have the same name, but another
    file, were not trained alike.
    """
    path = _file_of(name)
    return digest_of(path) if path is not None else None


def is_same_source(name: str, digest: str | None) -> bool:
    """Tells whether `digest` is the `source_digest` of `name`, or that of an earlier version: of one file."""
    path = _file_of(name)
    return digest == source_digest(name) or (path is not None and digest == file_digest(path))


def _file_of(name: str) -> Path | None:
    if not is_own(name):
        return None
    place, _, _ = name.rpartition(":")
    return Path(place) if place.endswith(".py") else _source_of(place)


def _parts(kind: str, name: str) -> tuple[str, str]:
    place, _, attribute = name.rpartition(":")  # the last colon: a Windows path has one of its own
    if not place or not attribute.isidentifier():
        raise ConfigError([f"{kind} {name!r}: write file.py:name or package.module:name"])
    return place, attribute


def _find_module(kind: str, place: str) -> None:
    _look_in_this_folder()
    try:
        found = importlib.util.find_spec(place) is not None
    except (ImportError, ValueError):
        found = False
    except Exception as error:  # the packages around it are executed
        raise ConfigError([f"{kind} {place!r} cannot be loaded: {type(error).__name__}: {error}"]) from error
    if not found:
        raise ConfigError([f"{kind} {place!r}: there is no module of this name"])


def _source_of(place: str) -> Path | None:
    _look_in_this_folder()
    spec = importlib.util.find_spec(place)
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _import(place: str) -> Any:
    _look_in_this_folder()
    return importlib.import_module(place)


def _look_in_this_folder() -> None:
    """Lets a user's modules be imported from the folder that the program was started in, as `python -m` would."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _names_in(kind: str, path: Path) -> set[str]:
    """Returns the functions, classes and variables of a Python file's module."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{kind}: {path} cannot be read: {error.strerror}"]) from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError([f"{kind}: {path} is not valid Python: {error}"]) from None
    names: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:  # also what stands in an `if` or a `try`
            nodes.extend(ast.iter_child_nodes(node))
    return names


def _load_file(path: Path) -> Any:
    """Returns the module in the file `path`, loaded once in each process, and again when the file has changed.

    It finds what lies beside it, as a script does; what it imports from there is loaded again too.

    Source: https://docs.python.org/3/library/importlib.html#importing-a-source-file-directly
    """
    files = files_of(path)
    name = f"{path.stem}_{hashlib.sha256(bytes(path) + str(digest_of(path)).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError([f"{path} cannot be loaded"])
    module = importlib.util.module_from_spec(spec)
    for beside in files[1:]:  # another version of it, or another folder's file of this name
        parts = beside.relative_to(root_of(path)).with_suffix("").parts
        imported = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not is_installed(getattr(sys.modules.get(imported), "__file__", None)):
            sys.modules.pop(imported, None)
    importlib.invalidate_caches()
    folder = str(root_of(path))
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
    if len(files) > 1 and folder not in sys.path:
        sys.path.append(folder)  # for what its functions import when they are called
    return module

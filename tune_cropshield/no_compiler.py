"""Keeps torch.compile unloaded where PyTorch and torchvision load it only to say that nothing is compiled.

Its modules, a thousand with those they need, take longer to import than all of torchvision, and nothing here is compiled. Three places ask for them:
torchvision/ops/roi_align.py when it is imported, torch/_compile.py when an operator runs on the meta device, and torch's optimizers, for which
training/optim.py has an answer of its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import Lock
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
UTILS = f"{COMPILER}.utils"


@contextmanager
def no_compiler() -> Iterator[None]:
    """Inside: stand-ins for torch._dynamo and its utils answer what the two places ask, in every thread.

    Whoever asks them for anything else gets it from the compiler, which is then loaded and stays. Nothing changes where it is there already.
    """
    _stand_ins.put_in()
    try:
        yield
    finally:
        _stand_ins.take_out()


def import_without_compiler(name: str) -> ModuleType:
    """Returns the module `name`, as importlib.import_module does: torchvision's, or one that may import it."""
    with no_compiler():
        return importlib.import_module(name)


class _StandIn(ModuleType):
    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked by whoever looks through sys.modules, such as inspect
            raise AttributeError(f"module {self.__name__!r} has no attribute {attribute!r}")
        return getattr(_stand_ins.load(self.__name__), attribute)


class _StandIns(MetaPathFinder, Loader):
    """The two modules; for an import of the package's other submodules finder and loader, which loads the true ones."""

    def __init__(self) -> None:
        self._package, self._utils = _StandIn(COMPILER), _StandIn(UTILS)
        self._path: list[str] = []
        vars(self._package).update(__path__=self._path, disable=_disable)
        vars(self._utils).update(is_compile_supported=_is_compile_supported)
        self._lock = Lock()
        self._blocks = 0  # under way, nested or in several threads

    def put_in(self) -> None:
        with self._lock:
            self._blocks += 1
            if sys.modules.setdefault(COMPILER, self._package) is self._package:
                sys.modules[UTILS] = self._utils
                if self not in sys.meta_path:  # it stays: another thread's import may be on its way here when the last block ends
                    sys.meta_path.insert(0, self)

    def take_out(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                self._remove()

    def load(self, name: str) -> ModuleType:
        """Returns the true module `name`."""
        with self._lock:
            self._remove()
        return importlib.import_module(name)

    def _remove(self) -> None:
        if sys.modules.get(COMPILER) is self._package:
            del sys.modules[UTILS], sys.modules[COMPILER]

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if path is self._path else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = self.load(spec.name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.loader is self:  # it has run: only its spec was replaced, where it allows that
            module.__spec__ = spec.loader_state


def _disable(fn: Any = None, recursive: bool = True, **options: Any) -> Any:
    if options == {"wrapping": False}:  # from torch/_compile.py, which keeps the answer
        return fn
    return _stand_ins.load(COMPILER).disable(fn, recursive, **options)


def _is_compile_supported(device_type: Any) -> Any:
    """Asks the compiler: torchvision keeps this function, and calls it where it detects objects."""
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)


_stand_ins = _StandIns()

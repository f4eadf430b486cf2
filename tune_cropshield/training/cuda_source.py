"""CUDA source compiled when it is needed, by the compiler that comes with PyTorch, and launched on PyTorch's streams."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class KernelsUnavailable(Exception):
    """There is no compiler, it does not take the source, or the driver not the program: the message says which."""


class CudaSource:
    """Kernels of one source, compiled for each architecture that is met. Threads may share it.

    Source: https://docs.nvidia.com/cuda/nvrtc and https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html
    """

    def __init__(self, text: str, options: Sequence[str]) -> None:
        self._text, self._options = text, options
        self._lock = threading.Lock()
        self._binaries: dict[tuple[int, int], bytes] = {}
        self._modules: dict[torch.device, ctypes.c_void_p] = {}
        self._functions: dict[tuple[torch.device, str], ctypes.c_void_p] = {}
        self._failure: str | None = None

    def compile(self, architecture: tuple[int, int]) -> bytes:
        """Returns the program for GPUs of compute capability `architecture`, compiled once: it takes a second or two. Raises KernelsUnavailable."""
        with self._lock:
            if self._failure is not None:
                raise KernelsUnavailable(self._failure)
            if architecture not in self._binaries:
                try:
                    self._binaries[architecture] = _compiled(
                        self._text, [f"--gpu-architecture=sm_{architecture[0]}{architecture[1]}", *self._options]
                    )
                except KernelsUnavailable as error:
                    self._failure = str(error)
                    raise
            return self._binaries[architecture]

    def prepare(self, device: torch.device) -> None:
        """Compiles and loads the program for `device`, on which something must lie already. Raises KernelsUnavailable."""
        program = self.compile(torch.cuda.get_device_capability(device))
        with self._lock, torch.cuda.device(device):
            if device not in self._modules:
                module = ctypes.c_void_p()
                if _driver().cuModuleLoadData(ctypes.byref(module), program) != 0:
                    raise KernelsUnavailable("the driver does not load the program")
                self._modules[device] = module

    def launch(self, name: str, grid: tuple[int, int], block: tuple[int, int], *arguments: Tensor | int) -> None:
        """Launches kernel `name` on the current stream of the tensors' GPU. Numbers are passed as int, tensors as their places in memory.

        Raises RuntimeError for what CUDA reports, of this or of earlier work, in PyTorch's words.
        """
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        function = self._functions.get((device, name)) or self._load(device, name)
        values = [ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else ctypes.c_int(argument) for argument in arguments]
        places = (ctypes.c_void_p * len(values))(*(ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
        driver = _driver()
        _raise_cuda_error(driver.cuLaunchKernel(function, *grid, 1, *block, 1, 0, stream, places, None), name, driver)

    def _load(self, device: torch.device, name: str) -> ctypes.c_void_p:
        self.prepare(device)
        function, driver = ctypes.c_void_p(), _driver()
        _raise_cuda_error(driver.cuModuleGetFunction(ctypes.byref(function), self._modules[device], name.encode()), name, driver)
        self._functions[device, name] = function
        return function


def _compiled(text: str, options: Sequence[str]) -> bytes:
    compiler = _compiler()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    _check(compiler.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None), "creating a program")
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if compiler.nvrtcCompileProgram(program, len(options), given) != 0:
            compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            compiler.nvrtcGetProgramLog(program, log)
            raise KernelsUnavailable(f"the CUDA compiler: {log.value.decode(errors='replace').strip()}")
        _check(compiler.nvrtcGetCUBINSize(program, ctypes.byref(size)), "compiling")
        binary = ctypes.create_string_buffer(size.value)
        _check(compiler.nvrtcGetCUBIN(program, binary), "compiling")
        return binary.raw
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def _compiler() -> ctypes.CDLL:
    """Returns NVRTC, which PyTorch has loaded or can find."""
    version = (torch.version.cuda or "").partition(".")[0]
    name = f"nvrtc64_{version}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{version}"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise KernelsUnavailable(f"the CUDA compiler cannot be loaded ({error})") from None


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _check(code: int, what: str) -> None:
    if code != 0:
        raise KernelsUnavailable(f"the CUDA compiler: {what} failed with error {code}")


def _raise_cuda_error(code: int, kernel: str, driver: Any) -> None:
    if code != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"CUDA error: {(text.value or b'unknown').decode()} (code {code}, at kernel {kernel})")

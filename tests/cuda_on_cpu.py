"""Runs the depthwise kernels on the CPU: their source as C++, one thread for each of a block's, blocks one after another."""

from __future__ import annotations

import ctypes
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from tune_cropshield.training.depthwise import macros

PRELUDE = """
#include <algorithm>
#include <barrier>
#include <cstring>
#include <thread>
#include <vector>
using std::min;
struct Place { int x = 0, y = 0; };
struct uint2 { unsigned x, y; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static float2 make_float2(float x, float y) { return {x, y}; }
static thread_local Place threadIdx, blockIdx;
static Place blockDim, gridDim;
static std::barrier<>* together;
#define __syncthreads() together->arrive_and_wait()
#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static
static float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
static float from_half(unsigned short bits) { _Float16 value; memcpy(&value, &bits, 2); return value; }
static unsigned short to_half(float value) { _Float16 half = value; unsigned short bits; memcpy(&bits, &half, 2); return bits; }
template <class Kernel> void launch(const int* shape, Kernel kernel) {
    gridDim = {shape[0], shape[1]};
    blockDim = {shape[2], shape[3]};
    for (int by = 0; by < gridDim.y; by++)
        for (int bx = 0; bx < gridDim.x; bx++) {
            std::barrier<> barrier(blockDim.x * blockDim.y);
            together = &barrier;
            std::vector<std::thread> threads;
            for (int y = 0; y < blockDim.y; y++)
                for (int x = 0; x < blockDim.x; x++)
                    threads.emplace_back([=, &barrier] {
                        threadIdx = {x, y};
                        blockIdx = {bx, by};
                        kernel();
                        barrier.arrive_and_drop();
                    });
            for (auto& thread : threads) thread.join();
        }
}
"""


class KernelsOnCpu:
    """Stands in for a CudaSource of fp16."""

    def __init__(self, folder: Path) -> None:
        """folder: where the program is built, by g++."""
        source = files("tune_cropshield.training").joinpath("depthwise.cu").read_text(encoding="utf-8")
        source = re.sub(r'asm\("\{.*?;\n', "pair.a = from_half(bits); pair.b = from_half(bits >> 16);\n", source)
        source = re.sub(r'asm\("cvt\.rn\.f16.*?;\n', "bits = to_half(value);\n", source)
        source = source.replace('extern "C"', "static")
        entries = re.findall(r"^(?:CONVOLVE|SPREAD|CORRELATE)\((\w+)|^ENTRY (\w+)", source, flags=re.M)
        for name in (first or second for first, second in entries):
            kind = "add_parts" if name == "weight_sum" else "correlate" if name.startswith("weight") else "convolve"
            source += LAUNCHERS[kind].replace("NAME", name)
        (folder / "kernels.cpp").write_text(PRELUDE + source, encoding="utf-8")
        built = folder / "kernels.so"
        command = [
            "g++",
            "-std=c++20",
            "-O1",
            "-w",
            "-shared",
            "-fPIC",
            "-pthread",
            *macros(torch.float16),
            "-o",
            str(built),
            str(folder / "kernels.cpp"),
        ]
        subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(built))

    def launch(self, name: str, grid: tuple[int, int], block: tuple[int, int], *arguments: Tensor | int) -> None:
        """Runs kernel `name` to its end."""
        values = [ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else ctypes.c_int(argument) for argument in arguments]
        getattr(self._library, f"run_{name}")((ctypes.c_int * 4)(*grid, *block), *values)


SIZES = ", ".join(f"int {name}" for name in ("H", "W", "HO", "WO", "C"))
LAUNCHERS = {
    "convolve": f"""
extern "C" void run_NAME(const int* shape, uint2* a, half_bits* b, uint2* c, {SIZES}, int count) {{
    launch(shape, [=] {{ NAME(a, b, c, H, W, HO, WO, C, count); }});
}}""",
    "correlate": f"""
extern "C" void run_NAME(const int* shape, unsigned* a, unsigned* b, float2* c, {SIZES}, int length, int segments) {{
    launch(shape, [=] {{ NAME(a, b, c, H, W, HO, WO, C, length, segments); }});
}}""",
    "add_parts": """
extern "C" void run_NAME(const int* shape, float* parts, half_bits* dw, int blocks, int C, int taps) {
    launch(shape, [=] { NAME(parts, dw, blocks, C, taps); });
}""",
}

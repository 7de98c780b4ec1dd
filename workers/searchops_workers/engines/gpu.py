"""Which GPU there is, asked of the driver before any runtime is imported: some runtimes crash where there is none."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from searchops_workers.engines.stages import BuildError, BuildStage

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_OLDEST = (7, 5)


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU (or MIG slice) that this process may use.

    Attributes:
        product: the driver's name of it; a MIG slice's profile is part of it.
        capability: compute capability.
    """

    product: str
    capability: tuple[int, int]

    @property
    def label(self) -> str:
        """As engine keys and manifests name the hardware."""
        return f"{self.product} (sm{self.capability[0]}{self.capability[1]})"


def find_gpu(library: str = "libcuda.so.1") -> Gpu:
    """The first usable GPU.

    Raises:
        BuildError: stage NO_GPU, saying what the driver answered.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise _no_gpu(f"no NVIDIA driver ({error})") from error
    if status := driver.cuInit(0):
        raise _no_gpu(f"a driver whose cuInit answers {status}")
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        raise _no_gpu("a driver without a device")
    name = ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    if failed:
        raise _no_gpu(f"a device that the driver cannot describe (status {failed})")
    gpu = Gpu(name.value.decode(errors="replace"), (major.value, minor.value))
    if gpu.capability < _OLDEST:
        raise _no_gpu(f"{gpu.label}, older than Turing (sm75)")
    return gpu


def _no_gpu(seen: str) -> BuildError:
    return BuildError(
        BuildStage.NO_GPU,
        f"a TensorRT engine is built on the GPU that serves it; seen {seen}, wanted a GPU of Turing or newer; give "
        "engine.worker a PodTemplate with nvidia.com/gpu, or set engine.backend to ONNXRuntime or Auto",
    )

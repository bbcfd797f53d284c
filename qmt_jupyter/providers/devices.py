"""Which device the engine computes on, and what to install where a GPU stays idle.

The engine's PyPI wheel computes on the CPU (on macOS also on Metal); its maker builds wheels for
CUDA, ROCm and Vulkan and keeps them in package indexes of its own:
https://github.com/xorbitsai/xllamacpp#installation
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from platform import machine
from typing import Any

from ..harmless import printable

Device = Mapping[str, Any]
"""One entry of the engine's device list: ``name``, ``description``, ``memory_free`` (bytes)."""

_INDEX = "https://xorbitsai.github.io/xllamacpp/whl"
_BACKENDS = {"CUDA": "CUDA", "ROCm": "ROCm", "Vulkan": "Vulkan", "MTL": "Metal", "Metal": "Metal"}
# The CUDA 13.2 wheel needs a driver of that branch; CUDA 12.8's runs on that and on older ones.
_DRIVER_OF_CUDA_13_2 = 595


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


@dataclass(frozen=True)
class Probes:
    """How this machine is asked about itself; tests answer in its place."""

    platform: str = sys.platform
    machine: str = field(default_factory=machine)
    exists: Callable[[str], bool] = os.path.exists
    which: Callable[[str], str | None] = shutil.which
    read: Callable[[str], str] = _read


def is_gpu(device: Device) -> bool:
    """Whether the engine's list names a GPU (integrated or not), and not the CPU or BLAS."""
    return _backend(device) is not None


def device_phrase(
    devices: Sequence[Device], *, threads: int, gpu_layers: int, layers: int | None = None
) -> str:
    """Say in one phrase what computes: ``"CPU (AMD EPYC), 2 threads"``.

    ``gpu_layers`` is the engine's number of layers on the GPU (negative: all that fit, 0: none);
    ``layers`` is how many the model has.
    """
    gpus = [device for device in devices if is_gpu(device)]
    if gpus and gpu_layers != 0:
        named = " + ".join(
            f"{printable(str(gpu.get('description') or 'GPU'), 60)} ({_backend(gpu)})"
            for gpu in gpus
        )
        everything = gpu_layers < 0 or (layers is not None and gpu_layers > layers)
        count = "all layers" if everything else f"{gpu_layers} layers"
        return f"{named}, {count}"
    names = [str(device.get("description") or "") for device in devices if not is_gpu(device)]
    name = printable(names[0], 60) if names and names[0] and names[0] != "CPU" else ""
    cpu = f"CPU ({name})" if name else "CPU"
    return f"{cpu}, {threads} {'thread' if threads == 1 else 'threads'}"


def idle_gpu_notice(devices: Sequence[Device], probes: Probes | None = None) -> str | None:
    """Say what to install where this machine has a GPU that the engine's build cannot use."""
    if any(is_gpu(device) for device in devices):
        return None
    probes = probes or Probes()
    found = _installable(probes)
    if found is None:
        return None
    gpu, command = found
    return (
        f"This machine has {gpu}, but the installed engine computes on the CPU only. "
        f"To use the GPU: {command}"
    )


def usable_cpus(probes: Probes | None = None) -> int | None:
    """How many CPUs this process may keep busy, where something narrows them; None otherwise.

    The engine counts the machine's cores by itself, but sees neither an affinity mask nor the CPU
    quota of a container, and one thread too many makes every token wait.
    """
    probes = probes or Probes()
    limits: list[int] = []
    if sys.platform.startswith("linux"):
        allowed, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
        if allowed < present:
            limits.append(allowed)
    quota = probes.read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]) > 0:
        limits.append(max(1, math.ceil(int(quota[0]) / int(quota[1]))))
    return min(limits) if limits else None


def _backend(device: Device) -> str | None:
    name = str(device.get("name", ""))
    for prefix, backend in _BACKENDS.items():
        if name.startswith(prefix):
            return backend
    # Backends that this list does not know yet still say what kind of device they are.
    kind = getattr(device.get("type"), "name", "")
    return name if kind.endswith(("_GPU", "_IGPU")) else None


def _installable(probes: Probes) -> tuple[str, str] | None:
    if probes.platform.startswith("linux"):
        driver = probes.read("/proc/driver/nvidia/version")
        if driver or probes.which("nvidia-smi"):
            return "an NVIDIA GPU", _from_index(_cuda(driver))
        if probes.exists("/dev/kfd"):
            return "an AMD GPU", _from_index("rocm-7.2.4")
    elif probes.platform == "win32":
        system = r"C:\Windows\System32"
        if probes.exists(rf"{system}\nvcuda.dll"):
            return "an NVIDIA GPU", _from_index("cu128")
        if probes.exists(rf"{system}\amdhip64.dll") or probes.exists(rf"{system}\amdhip64_6.dll"):
            return "an AMD GPU", _from_index("vulkan")
    elif probes.platform == "darwin" and probes.machine == "arm64":
        return "an Apple GPU", "pip install --force-reinstall --no-deps xllamacpp"
    return None


def _cuda(driver: str) -> str:
    version = re.search(r"Kernel Module.*?\s(\d+)\.\d", driver)
    return "cu132" if version and int(version[1]) >= _DRIVER_OF_CUDA_13_2 else "cu128"


def _from_index(build: str) -> str:
    return f"pip install xllamacpp --force-reinstall --index-url {_INDEX}/{build}"

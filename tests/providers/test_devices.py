from __future__ import annotations

import enum

import pytest

from qmt_jupyter.providers.devices import (
    Probes,
    device_phrase,
    idle_gpu_notice,
    is_gpu,
    usable_cpus,
)

CPU = {"name": "CPU", "description": "AMD EPYC", "memory_free": 1}
CUDA = {"name": "CUDA0", "description": "NVIDIA H200", "memory_free": 1}
BLAS = {"name": "BLAS", "description": "Accelerate", "memory_free": 0}


def probes(
    platform: str = "linux",
    machine: str = "x86_64",
    files: dict[str, str] | None = None,
    programs: tuple[str, ...] = (),
) -> Probes:
    there = files or {}
    return Probes(
        platform=platform,
        machine=machine,
        exists=there.__contains__,
        which=lambda name: f"/usr/bin/{name}" if name in programs else None,
        read=lambda path: there.get(path, ""),
    )


DRIVER = "/proc/driver/nvidia/version"
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.86.15  Thu Jan 23 2025\nGCC version: 12"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}.71.05  Release Build\n"


def test_a_cpu_is_named_with_its_threads():
    assert device_phrase([CPU], threads=2, gpu_layers=-1) == "CPU (AMD EPYC), 2 threads"
    assert device_phrase([CPU], threads=1, gpu_layers=-1) == "CPU (AMD EPYC), 1 thread"
    unnamed = {"name": "CPU", "description": "CPU"}
    assert device_phrase([unnamed], threads=2, gpu_layers=-1) == "CPU, 2 threads"


def test_a_gpu_is_named_with_its_layers():
    both = [CUDA, CPU]
    assert device_phrase(both, threads=2, gpu_layers=-1) == "NVIDIA H200 (CUDA), all layers"
    assert device_phrase(both, threads=2, gpu_layers=20) == "NVIDIA H200 (CUDA), 20 layers"
    assert device_phrase(both, threads=2, gpu_layers=99, layers=32).endswith("all layers")
    assert device_phrase(both, threads=2, gpu_layers=0) == "CPU (AMD EPYC), 2 threads"
    two = [CUDA, {**CUDA, "name": "CUDA1"}, CPU]
    assert device_phrase(two, threads=2, gpu_layers=-1).count("NVIDIA H200 (CUDA)") == 2


def test_a_device_name_cannot_steer_a_terminal():
    rude = {"name": "CPU", "description": "A\x1b[31mB\nC"}
    assert device_phrase([rude], threads=2, gpu_layers=0) == "CPU (A [31mB C), 2 threads"


def test_a_gpu_of_an_unknown_kind_is_still_one():
    kind = enum.Enum(
        "kind", {"GGML_BACKEND_DEVICE_TYPE_IGPU": 2, "GGML_BACKEND_DEVICE_TYPE_CPU": 0}
    )
    assert is_gpu({"name": "New0", "type": kind.GGML_BACKEND_DEVICE_TYPE_IGPU})
    assert not is_gpu({"name": "CPU", "type": kind.GGML_BACKEND_DEVICE_TYPE_CPU})
    assert not is_gpu(BLAS)
    assert is_gpu({"name": "MTL0"})
    assert is_gpu({"name": "Vulkan0"})
    assert is_gpu({"name": "ROCm0"})


@pytest.mark.parametrize(
    ("where", "gpu", "build"),
    [
        (probes(files={DRIVER: NVRM.format(570)}), "NVIDIA", "/cu128"),
        (probes(files={DRIVER: NVRM.format(580)}), "NVIDIA", "/cu128"),
        (probes(files={DRIVER: NVRM.format(595)}), "NVIDIA", "/cu132"),
        (probes(files={DRIVER: OPEN.format(600)}), "NVIDIA", "/cu132"),
        (probes(programs=("nvidia-smi",)), "NVIDIA", "/cu128"),
        (probes(files={"/dev/kfd": ""}), "AMD", "/rocm-7.2.4"),
        (probes("win32", files={r"C:\Windows\System32\nvcuda.dll": ""}), "NVIDIA", "/cu128"),
        (probes("win32", files={r"C:\Windows\System32\amdhip64.dll": ""}), "AMD", "/vulkan"),
        (probes("darwin", "arm64"), "Apple", "pip install --force-reinstall"),
    ],
)
def test_an_idle_gpu_is_met_with_the_command_that_uses_it(where, gpu, build):
    notice = idle_gpu_notice([CPU, BLAS], where)
    assert notice is not None
    assert gpu in notice
    assert build in notice
    assert "pip install" in notice


@pytest.mark.parametrize("where", [probes(), probes("darwin", "x86_64"), probes("win32")])
def test_no_gpu_no_notice(where):
    assert idle_gpu_notice([CPU], where) is None


def test_a_gpu_in_use_needs_no_notice():
    assert idle_gpu_notice([CUDA, CPU], probes(files={DRIVER: NVRM.format(570)})) is None


def test_a_quota_of_a_container_narrows_the_threads():
    quota = "/sys/fs/cgroup/cpu.max"
    assert usable_cpus(probes(files={quota: "150000 100000"})) in (1, 2)
    assert usable_cpus(probes(files={quota: "1000 100000"})) == 1
    free = usable_cpus(probes(files={quota: "max 100000"}))
    assert free == usable_cpus(probes()) == usable_cpus(probes(files={quota: "nonsense"}))

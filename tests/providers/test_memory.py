from __future__ import annotations

from pathlib import Path

import pytest

from qmt_jupyter.errors import OutOfMemory
from qmt_jupyter.providers.gguf import GgufHead
from qmt_jupyter.providers.memory import available_memory, require_memory

GB = 10**9


def machine(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def head(size: int, per_token: int | None) -> GgufHead:
    return GgufHead(size=size, architecture="x", context=None, kv_bytes_per_token=per_token)


def test_what_fits_passes_and_what_does_not_says_why():
    require_memory("m", head(4 * GB, 1000), slots=4, context=1000, available=5 * GB)
    with pytest.raises(OutOfMemory) as caught:
        require_memory("m", head(4 * GB, 10**6), slots=4, context=1000, available=5 * GB)
    said = str(caught.value)
    assert "m needs about 8.0 GB" in said
    assert "4 slots of 1000 tokens" in said
    assert "5.0 GB are available" in said
    assert "--context" in said


def test_nothing_is_refused_on_what_is_not_known():
    require_memory("m", head(4 * GB, None), slots=64, context=10**6, available=5 * GB)
    require_memory("m", head(4 * GB, 10**6), slots=64, context=10**6, available=None)


def test_this_machine_has_memory():
    assert 10**7 < (available_memory() or 0) < 10**15


def test_free_memory_is_what_linux_says(tmp_path):
    root = machine(tmp_path, **{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:  4000 kB\n"})
    assert available_memory(root) == 4_096_000


def test_the_limit_of_a_container_counts_at_every_level(tmp_path):
    group = "sys/fs/cgroup/a"
    root = machine(
        tmp_path,
        **{
            "proc/meminfo": "MemAvailable: 9000000 kB\n",
            "proc/self/cgroup": "1:name=systemd:/x\n0::/a/b\n",
            f"{group}/b/memory.max": "max\n",
            f"{group}/b/memory.current": "5\n",
            f"{group}/memory.max": "2000000\n",
            f"{group}/memory.current": "1500000\n",
            f"{group}/memory.stat": "anon 1\ninactive_file 300000\n",
        },
    )
    assert available_memory(root) == 800_000


def test_a_machine_that_says_nonsense_is_asked_otherwise(tmp_path):
    root = machine(tmp_path, **{"proc/meminfo": "MemAvailable: lots\n", "proc/self/cgroup": "0::/"})
    assert available_memory(root) == available_memory(tmp_path / "nowhere")

"""The CPUs that this process may use: its affinity and the quotas of its control groups."""

import hashlib
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def logical_cpus() -> int:
    """Return the number of CPUs that this process may use. A fractional quota is rounded up."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affine, math.ceil(min(_quotas(), default=affine))))


def cpu_model() -> str:
    """Return the name of the CPU's model; other systems than Linux tell only the architecture."""
    return _cpu_facts().get("model name") or platform.processor() or platform.machine()


def cpu_name() -> str:
    """Return the model of the CPU with a digest of its instructions, which a virtual machine may hide."""
    facts = _cpu_facts()
    flags = hashlib.sha256(facts.get("flags", facts.get("Features", "")).encode()).hexdigest()[:8]
    return f"{cpu_model()} ({flags})"


def vector_instructions() -> list[str]:
    """Return which of the instructions for large products the CPU has: AVX-512, its bfloat16, AMX."""
    flags = _cpu_facts().get("flags", "").split()
    names = {"avx512f": "AVX-512", "avx512_bf16": "AVX512_BF16", "amx_bf16": "AMX"}
    return [name for flag, name in names.items() if flag in flags]


def _cpu_facts() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    facts = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in facts}


def _quotas() -> Iterator[float]:
    """Yield the quotas, in CPUs, of this process's control groups (version 1 or 2) and of their parents."""
    try:
        memberships = _MEMBERSHIPS.read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _GROUPS / "cpu" if controllers else _GROUPS
        group = root / path.lstrip("/")
        # In a container, its own group is the root and the path is often that of the host. A folder that does
        # not exist does not have a quota.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            quota = _quota(folder)
            if quota is not None:
                yield quota


def _quota(group: Path) -> float | None:
    """Return the quota of one group in CPUs, or None if it does not have one."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        limit = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is not a number
        return None
    return limit if limit > 0 else None

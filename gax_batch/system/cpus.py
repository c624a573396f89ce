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


def cpu_name() -> str:
    """Return the model of the CPU with its instruction sets' digest; other systems than Linux tell less."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = hashlib.sha256(facts.get("flags", facts.get("Features", "")).encode()).hexdigest()[:8]
    return f"{facts.get('model name', platform.machine())} ({flags})"


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

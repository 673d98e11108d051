"""What a machine says of itself. This goes as code to nodes whose pet-bench has no such module: standard library only.

`machine` gives the fields of `facts.Machine` as plain data.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# files of a control group: the limit of memory, and what of it is used
GROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
ON_GPUS = """
import json, torch
count = torch.cuda.device_count()
if not count:
    torch.cuda.init()
found = []
for i in range(count):
    free, total = torch.cuda.mem_get_info(i)
    float(torch.ones(2, 2, device=f"cuda:{i}").sum())
    found.append({"name": torch.cuda.get_device_name(i), "free": free, "total": total})
print(json.dumps(found))
"""


def machine(variables: tuple[str, ...], promised: float, cache: str | None, seconds: float) -> dict[str, Any]:
    """variables: names of those to tell. promised: GPUs that Ray says there are. cache: as `Asked.cache`."""
    gpus, fault = on_gpus(promised, seconds)
    total, available = memory()
    return {
        "host": platform.node(), "cores": cores(), "processor": processor(), "memory": total, "available": available,
        "shared": room("/dev/shm"), "temporary": temporary(), "gpus": gpus, "gpu_fault": fault,
        "variables": {name: os.environ[name] for name in variables if os.environ.get(name)},
        "unwritable": unwritable(cache),
    }  # fmt: skip


def cores() -> int:
    """That this process may use, by its affinity and its control group."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = said("/sys/fs/cgroup/cpu.max").split()
    if len(limit) == 2 and limit[0].isdecimal():
        there = min(there, max(1, int(limit[0]) // int(limit[1])))
    return there


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", said("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def memory() -> tuple[int, int]:
    """Bytes: of all, and of what is available; of the control group, where that has less."""
    import psutil

    there = psutil.virtual_memory()
    total, available = there.total, there.available
    for most, used in GROUPS:
        limit, taken = said(f"/sys/fs/cgroup/{most}").strip(), said(f"/sys/fs/cgroup/{used}").strip()
        if limit.isdecimal() and taken.isdecimal() and int(limit) < total:
            total, available = int(limit), min(available, max(0, int(limit) - int(taken)))
    return total, available


def room(path: str) -> dict[str, Any] | None:
    """Of the file system that a folder, or the next one above it that there is, lies on; None where there is none."""
    place = Path(path)
    while not place.exists():
        if place == place.parent or place.parent == Path("/"):
            return None
        place = place.parent
    there = os.statvfs(place)
    inodes = there.f_favail if there.f_files else None  # some file systems do not count them
    size = there.f_frsize
    return {"path": path, "free": there.f_bavail * size, "total": there.f_blocks * size, "inodes": inodes}


def temporary() -> list[dict[str, Any]]:
    """Of the folder for temporary files, and of that of Ray, which spills there."""
    places = [tempfile.gettempdir()]
    if "ray" in sys.modules:
        import ray

        if ray.is_initialized() and hasattr(context := ray.get_runtime_context(), "get_temp_dir"):
            places.append(context.get_temp_dir())
    systems = {Path(place).stat().st_dev: place for place in reversed(places) if Path(place).exists()}
    return [found for place in reversed(systems.values()) if (found := room(place))]


def unwritable(cache: str | None) -> dict[str, str]:
    """The folders for what is derived and for what is downloaded that cannot be written to, and why."""
    hub = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
    wanted = {"PET_BENCH_CACHE": cache or os.environ.get("PET_BENCH_CACHE") or "~/.cache/pet-bench"}
    if not hub or hub.lower() in ("0", "no", "off", "false"):
        wanted["HF_HOME"] = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    found = {}
    for name, place in wanted.items():
        try:
            there = Path(place).expanduser()
            while not there.exists():
                there = there.parent
            tempfile.TemporaryFile(dir=there).close()
        except (OSError, RuntimeError) as error:
            found[name] = f"{place}: {getattr(error, 'strerror', None) or error}"
    return found


def on_gpus(promised: float, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """The GPUs that torch computes on, and why it sees none of those that there should be: asked in a process that is
    gone afterwards, with what it holds of them."""
    if not promised and not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists():
        return [], ""
    try:
        done = subprocess.run([sys.executable, "-c", ON_GPUS], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [], f"no answer of torch within {seconds:g} s"
    if done.returncode:
        return [], next(iter(done.stderr.strip().splitlines()[-1:]), f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1]), ""


def said(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""

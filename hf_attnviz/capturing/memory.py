"""How much memory is free: of the machine, of the limits that this process runs under, of an accelerator."""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from hf_attnviz.errors import ArgumentError
from hf_attnviz.language import Text

_UNITS: Final = ("", "K", "M", "G", "T")
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", re.IGNORECASE)
_UNLIMITED: Final = 2**60  # what stands for "no limit" in a cgroup is larger still


def size_of(asked: int | str | None) -> int | None:
    """Bytes, from a number or from words such as ``"2GiB"``, ``"500 MB"``; None stays None.

    Raises:
        ArgumentError: neither.
    """
    if asked is None:
        return None
    found = _SIZE.fullmatch(asked) if isinstance(asked, str) else None
    if found is not None:
        number, unit, binary = found.groups()
        asked = int(float(number) * (1024 if binary else 1000) ** _UNITS.index(unit.upper()))
    if isinstance(asked, bool) or not isinstance(asked, int) or asked <= 0:
        raise ArgumentError(
            Text(
                f'max_memory={asked!r}: expected bytes, or a size such as "2GiB" or "500MB"',
                f'max_memory={asked!r}：应为字节数，或如 "2GiB"、"500MB" 的大小',
            )
        )
    return asked


def told(size: float) -> str:
    """Bytes as people read them: ``9.00 GiB``."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.3g} {_UNITS[unit]}iB" if unit else f"{size:.0f} bytes"


def free(device: torch.device) -> int | None:
    """Bytes that this process can still take on a device; None where nothing tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # held by torch, for us
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    known = [of_machine(), *of_groups(), of_process()]
    return min((size for size in known if size is not None), default=None)


def of_machine(table: Path = Path("/proc/meminfo")) -> int | None:
    """What the machine has left; where it does not tell, what it has."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", table.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if name in getattr(os, "sysconf_names", ()):
            return int(os.sysconf(name)) * int(os.sysconf("SC_PAGE_SIZE"))
    return None


def of_groups(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What the control groups of this process leave it: its own, and those around it; files that are cached go first.

    A container sees its own group at the root.
    """
    for folder, limit, usage in _groups(own, root):
        try:
            most = int((folder / limit).read_text())  # "max" is no number
            if most < _UNLIMITED:
                used, told = int((folder / usage).read_text()), (folder / "memory.stat").read_text()
                cached = re.search(r"^(?:total_)?inactive_file (\d+)", told, re.MULTILINE)
                yield max(0, most - used + (0 if cached is None else int(cached[1])))
        except (OSError, ValueError):
            continue


@functools.cache
def _groups(own: Path, root: Path) -> tuple[tuple[Path, str, str], ...]:
    """The folders of these groups, with the names of the files that hold the limit and the usage."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return ()
    found = []
    for _, kinds, path in lines:
        if not kinds or "memory" in kinds.split(","):
            base = root / "memory" if kinds else root
            limit, usage = ("limit_in_bytes", "usage_in_bytes") if kinds else ("max", "current")
            place = base / path.strip("/")
            around = [folder for folder in (place, *place.parents) if folder.is_relative_to(base)]
            found += [(folder, f"memory.{limit}", f"memory.{usage}") for folder in around]
    return tuple(one for one in found if (one[0] / one[1]).is_file())


def of_process(status: Path = Path("/proc/self/statm")) -> int | None:
    """What ``ulimit -v`` leaves it."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        taken = int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
    return None if most == resource.RLIM_INFINITY else max(0, most - taken)

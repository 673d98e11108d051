"""What machines have said, and what was seen between them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Room:
    """Of a file system, in bytes. inodes: free ones, None where they are not counted."""

    path: str
    free: int
    total: int
    inodes: int | None = None


@dataclass(frozen=True)
class Gpu:
    name: str
    free: int
    total: int


@dataclass(frozen=True)
class Machine:
    """memory, available: bytes. shared: /dev/shm. temporary: where temporary files go and Ray spills. gpu_fault: why
    torch does not compute on GPUs that are there. unwritable: by variable, caches that cannot be written to."""

    host: str
    cores: int
    processor: str
    memory: int
    available: int
    shared: Room | None = None
    temporary: list[Room] = field(default_factory=list)
    gpus: list[Gpu] = field(default_factory=list)
    gpu_fault: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    unwritable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Packages:
    """entries: by kind and name, where a plug-in comes from. broken: plug-ins that cannot be imported, and why."""

    versions: dict[str, str | None]
    commit: str | None = None
    entries: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """The results folder. token: what was read of the probe's. fault: why it cannot be written to."""

    there: bool
    token: str = ""
    fault: str = ""
    room: Room | None = None


@dataclass(frozen=True)
class Watched:
    """A file that another replaces. missing, torn: reads at which it was not there or not whole. last: whether its last
    content was seen."""

    missing: int = 0
    torn: int = 0
    fault: str = ""
    last: bool = True


@dataclass(frozen=True)
class Content:
    """Of a data folder. top: by name, a digest of what is below. whole: whether all of it was looked at."""

    files: int
    whole: bool
    top: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clock:
    """Seconds that a clock is ahead of the one here, and within how many that is known."""

    ahead: float
    within: float


@dataclass(frozen=True)
class Node:
    """None, or not there by name: what was not asked, or got no answer. silent: by what was asked, why it got none.

    cpus, gpus: that Ray hands out. read: what it reads in the probe's folder. replaced: why it cannot replace a file.
    watched: by whose file. locks: by who holds the lock, what it gets of it. reached: by other node, why it is not.
    """

    name: str
    cpus: float = 0.0
    gpus: float = 0.0
    machine: Machine | None = None
    packages: Packages | None = None
    seen: Seen | None = None
    read: dict[str, str] | None = None
    replaced: str | None = None
    watched: dict[str, Watched] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    content: Content | None = None
    clock: Clock | None = None
    reached: dict[str, str] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """here: this machine, whose clock, packages and folders the others are compared with. nodes: of the cluster, or
    this machine alone. lost: nodes that are gone, and why. lodging: why Ray has no folder."""

    here: Node
    nodes: list[Node]
    cluster: bool = False
    lost: dict[str, str] = field(default_factory=dict)
    lodging: str = ""

"""What sheds use of their host."""

from __future__ import annotations

from typing import Annotated

from shed.api.base import Answer, says
from shed.api.sheds import ShedName


class Stats(Answer, kw_only=True, frozen=True):
    """What a running shed uses of its host."""

    name: ShedName = ""
    cpu_seconds: Annotated[float, says("Processor time of its VM since its start.")] = 0.0
    cpus: Annotated[int, says("Number of processors.")] = 0
    memory_bytes: Annotated[int, says("That its VM has now, what VMs share included.")] = 0
    memory_mb: Annotated[int, says("Memory in MiB.")] = 0
    disk_bytes: Annotated[int, says("What its writable layer takes up.")] = 0
    upper_size_bytes: Annotated[int, says("Size of its writable layer.")] = 0


class StatsList(Answer, kw_only=True, frozen=True):
    """What all running sheds use."""

    sheds: Annotated[list[Stats], says("By name.")] = []

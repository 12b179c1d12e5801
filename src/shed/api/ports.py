"""The ports of one shed: those of the host that lead into it, and those of the host that it reaches."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shed.api.base import Answer, Body, says
from shed.api.sheds import HostPortText, PortText, ShedName

PortNumber = Annotated[int, Meta(ge=1, le=65535)]


class PublishedPort(Answer, kw_only=True, frozen=True):
    """A port of the host that leads to a port of the shed."""

    address: Annotated[str, says("Where the host listens; `localhost` is its loopback, by IPv4 and IPv6.")] = ""
    port: Annotated[int, says("Its TCP port.")] = 0
    shed_port: Annotated[int, says("TCP port of the shed's loopback.")] = 0
    open: Annotated[bool, says("Whether the host listens there now: as long as the shed runs.")] = False
    problem: Annotated[str, says("Why it does not although the shed runs; empty when it does.")] = ""


class HostPort(Answer, kw_only=True, frozen=True):
    """A port of the host that the shed reaches as `host.shed.internal`."""

    port: Annotated[int, says("TCP port of the host's loopback.")] = 0
    shed_port: Annotated[int, says("At which the shed finds it.")] = 0


class ListeningPort(Answer, kw_only=True, frozen=True):
    """A TCP port at which something in the shed listens, as the shed says."""

    port: Annotated[int, says("Its number in the shed.")] = 0
    addresses: Annotated[list[str], says("The shed's addresses at which that is.")] = []


class ShedPorts(Answer, kw_only=True, frozen=True):
    """The ports of one shed."""

    name: ShedName = ""
    published: Annotated[list[PublishedPort], says("Ports of the host that lead into the shed.")] = []
    host_ports: Annotated[list[HostPort], says("Ports of the host that the shed reaches.")] = []
    listening: Annotated[
        list[ListeningPort] | None,
        says("What listens in the shed, published or not; null if it does not run, or the caller may not use it."),
    ] = None
    problem: Annotated[str, says("Why it is not known what listens in it although it runs.")] = ""
    cut: Annotated[int, says("After a change: connections to the host that were cut by it.")] = 0


class ChangePorts(Body, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to change about the ports of a shed.  All of it is done, or nothing."""

    publish: Annotated[list[PortText], says("Ports to publish.")] = []
    unpublish: Annotated[list[PortNumber], says("Ports of the host to publish no more; what uses them is cut.")] = []
    host_ports: Annotated[list[HostPortText], says("Ports of the host that the shed may reach.")] = []
    no_host_ports: Annotated[list[PortNumber], says("Ports of the host that it may reach no more.")] = []

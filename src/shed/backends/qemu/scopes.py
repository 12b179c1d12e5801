"""Asking systemd for a scope: a unit around a process that runs already.  Source: org.freedesktop.systemd1(5).

Over the bus, or, where there is none, over the socket by which ``systemctl`` itself speaks to the manager; both speak
D-Bus.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shed.errors import BackendError

_TIMEOUT = 10.0
"""Seconds for each step of the talk."""
_CHUNK = 4096
_PLACES = {
    True: ("run/dbus/system_bus_socket", "run/systemd/private"),
    False: ("run/user/{uid}/bus", "run/user/{uid}/systemd/private"),
}
Properties = Mapping[str, tuple[str, object]]
"""With the D-Bus type of each value."""


def manager(root: Path, uid: int) -> Path | None:
    """Return the socket of the systemd of user `uid`, for root that of the machine; None when there is none."""
    places = (root / place.format(uid=uid) for place in _PLACES[uid == 0])
    return next((place for place in places if place.exists()), None)


def start_scope(address: Path, unit: str, properties: Properties) -> None:
    """Have the systemd at `address` begin to make the scope `unit`; it is done a moment later.

    Raises `BackendError` and `OSError`.
    """
    from jeepney import DBusAddress, MessageType, new_method_call  # noqa: PLC0415  needed at the first start
    from jeepney.bus_messages import message_bus  # noqa: PLC0415
    from jeepney.io.blocking import prep_socket  # noqa: PLC0415

    systemd = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
    call = new_method_call(
        systemd, "StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", list(properties.items()), [])
    )
    folder = os.open(address.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.closing(prep_socket(f"/proc/self/fd/{folder}/{address.name}", timeout=_TIMEOUT)) as sock:
            sock.settimeout(_TIMEOUT)
            if "bus" in address.name:
                _ask(sock, message_bus.Hello(), 1)
            answer = _ask(sock, call, 2)
    finally:
        os.close(folder)
    if answer.header.message_type is MessageType.error:
        raise BackendError(f"systemd refuses {unit}: {' '.join(map(str, answer.body))}", code="NO_CONTROL_GROUP")


def _ask(sock: socket.socket, message: Any, serial: int) -> Any:
    """Send `message` and return its answer; what else is said meanwhile is not for us."""
    from jeepney import HeaderFields, Parser  # noqa: PLC0415  as above

    sock.sendall(message.serialise(serial=serial))
    parser = Parser()
    while True:
        while (answer := parser.get_next_message()) is not None:
            if answer.header.fields.get(HeaderFields.reply_serial) == serial:
                return answer
        data = sock.recv(_CHUNK)
        if not data:
            raise ConnectionResetError(104, "systemd hung up")
        parser.add_data(data)

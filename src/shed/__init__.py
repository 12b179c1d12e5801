"""shed: persistent microVM development environments made from OCI images.

The Python SDK is here: ``from shed import Client``.  Its names are imported when they are asked for, because every
`shed exec` imports this file.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shed.client.aio.client import AsyncClient as AsyncClient
    from shed.client.aio.process import AsyncProcess as AsyncProcess
    from shed.client.aio.shed import AsyncShed as AsyncShed
    from shed.client.commands import CommandError as CommandError
    from shed.client.commands import CommandTimeoutError as CommandTimeoutError
    from shed.client.commands import Result as Result
    from shed.client.sync.client import Client as Client
    from shed.client.sync.process import Process as Process
    from shed.client.sync.shed import Shed as Shed
    from shed.errors import ConnectError as ConnectError
    from shed.errors import NotFoundError as NotFoundError
    from shed.errors import ShedError as ShedError

_HOMES = {
    "AsyncClient": "shed.client.aio.client",
    "AsyncProcess": "shed.client.aio.process",
    "AsyncShed": "shed.client.aio.shed",
    "Client": "shed.client.sync.client",
    "CommandError": "shed.client.commands",
    "CommandTimeoutError": "shed.client.commands",
    "ConnectError": "shed.errors",
    "NotFoundError": "shed.errors",
    "Process": "shed.client.sync.process",
    "Result": "shed.client.commands",
    "Shed": "shed.client.sync.shed",
    "ShedError": "shed.errors",
}


def __getattr__(name: str) -> object:
    """Return what the SDK calls `name`."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shed' has no attribute {name!r}")
    import importlib  # noqa: PLC0415  not for a plain import

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the names of the SDK, and of this module."""
    return sorted([*globals(), *_HOMES])

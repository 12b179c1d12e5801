"""The requests about secrets."""

from __future__ import annotations

from shed.client import messages
from shed.client.address import Address
from shed.client.aio.requests import request
from shed.client.messages import object_of, objects_of, shed_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class AsyncSecretsApi:
    """The part of `AsyncApi` that is about secrets: values that the relay puts into requests of sheds."""

    address: Address

    async def secrets(self) -> dict[str, Any]:
        """Return the secrets, without their values, as ``secrets``, and ``warnings``."""
        answer = object_of(await request(self.address, "GET", "/api/secrets"))
        return {**answer, "secrets": objects_of(answer, "secrets")}

    async def set_secret(
        self,
        name: str,
        *,
        hosts: list[str] | None = None,
        variable: str | None = None,
        header: str | None = None,
        methods: list[str] | None = None,
        paths: list[str] | None = None,
        value: str | None = None,
        from_file: str | None = None,
        from_env: str | None = None,
        from_command: str | None = None,
    ) -> dict[str, Any]:
        """Keep a secret, and return what may be seen of it; that needs the right to administer.

        Its value is exactly one of `value`, what is in a file or an environment variable of the server, and what a
        command prints there.  Without `hosts`, that alone is changed of a secret that there is.
        """
        body = messages.given(
            hosts=hosts,
            variable=variable,
            header=header,
            methods=methods,
            paths=paths,
            value=value,
            from_file=from_file,
            from_env=from_env,
            from_command=from_command,
        )
        return object_of(await request(self.address, "POST", f"/api/secrets/{messages.quoted(name)}", body=body))

    async def remove_secret(self, name: str, *, force: bool = False) -> None:
        """Remove a secret; with `force` it is taken from the sheds that have it."""
        target = f"/api/secrets/{messages.quoted(name)}" + messages.in_query(force=force)
        await request(self.address, "DELETE", target)

    async def change_secrets(
        self, name: str, *, give: list[str] | None = None, take: list[str] | None = None
    ) -> dict[str, Any]:
        """Give a shed secrets and take others from it; return those that it has then, as ``secrets``."""
        body = {"give": give or [], "take": take or []}
        return object_of(await request(self.address, "POST", shed_target(name, "secrets"), body=body))

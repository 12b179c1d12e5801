"""The table of all that a server answers: the one place where an endpoint is described.

`shed.server.routes` has a handler for each; the OpenAPI document and ``docs/reference/api.md`` are made from here.

Options of an action are members of the JSON body of a POST; GET and DELETE have no body, and theirs are in the query.
How a client wants to hear of long work (`WorkParams`) is always in the query.  An image is called ``image``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from shed.api import access, egress, images, server, sheds, upgrades
from shed.api.access import Right
from shed.api.base import NoBody, Nothing, WorkParams

P = TypeVar("P", bound=Struct)
B = TypeVar("B", bound=Struct)
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Old:
    """A spelling that earlier clients, or those of the reference, use: it is understood, and means `member`."""

    place: Literal["path", "query", "body"]
    name: str
    member: str


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[P, B, A]):
    """One request that the server answers."""

    name: str
    """For programs: the ``operationId``."""
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Segments in braces are members of `params`."""
    right: Right
    """What the caller must have; a handler may ask for more."""
    params: type[P]
    """What its path and its query say."""
    body: type[B]
    answer: type[A]
    """The JSON of a success, also of the event ``complete``; ``str`` is text, ``bytes`` an upgrade only."""
    summary: str
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    """Of a success, too."""
    events: bool = False
    """Whether it answers as server-sent events when it is asked to."""
    upgrade: str = ""
    """The protocol that it goes on with when the client asks for it: a key of `shed.api.upgrades.UPGRADES`."""
    old_path: str = ""
    """Another path, of earlier clients."""
    old: tuple[Old, ...] = ()

    @property
    def old_names(self) -> dict[tuple[str, str], str]:
        """Return which member an old spelling means, by its place and name."""
        return {(old.place, old.name): old.member for old in self.old}


def _get(  # noqa: PLR0917  a row of the table
    name: str, path: str, right: Right, params: type[P], answer: type[A], summary: str, **more: Any
) -> Endpoint[P, NoBody, A]:
    return Endpoint(name, "GET", path, right, params, NoBody, answer, summary, **more)


def _delete(  # noqa: PLR0917
    name: str, path: str, right: Right, params: type[P], answer: type[A], summary: str, **more: Any
) -> Endpoint[P, NoBody, A]:
    return Endpoint(name, "DELETE", path, right, params, NoBody, answer, summary, **more)


def _post(  # noqa: PLR0917
    name: str, path: str, right: Right, params: type[P], body: type[B], answer: type[A], summary: str, **more: Any
) -> Endpoint[P, B, A]:
    return Endpoint(name, "POST", path, right, params, body, answer, summary, **more)


_FORCED = Old("query", "force", "force")
_REF = (Old("query", "ref", "image"), Old("path", "ref", "image"))

INFO = _get("info", "/api/info", Right.READ, Nothing, server.Info, "Say who this server is")
OPENAPI = _get("openapi", "/api/openapi.json", Right.READ, Nothing, dict[str, Any], "Describe this API, as OpenAPI 3.1")
SSH_HOST_KEY = _get(
    "ssh_host_key", "/api/ssh-host-key", Right.READ, Nothing, server.HostKey, "Say by which key the SSH front is known"
)
STOP_SERVER = _post(
    "stop_server",
    "/api/server/stop",
    Right.ADMIN,
    Nothing,
    NoBody,
    server.Stopping,
    "End the server; running sheds stay.  Over the Unix socket only",
)

LIST_SHEDS = _get("list_sheds", "/api/sheds", Right.READ, sheds.ListParams, sheds.ShedList, "List all sheds")
CREATE_SHED = _post(
    "create_shed",
    "/api/sheds",
    Right.USE,
    WorkParams,
    sheds.CreateShed,
    sheds.Shed,
    "Make a shed and start it",
    status=201,
    events=True,
)
GET_SHED = _get("get_shed", "/api/sheds/{name}", Right.READ, sheds.ShedParams, sheds.Shed, "Show a shed")
DELETE_SHED = _delete(
    "delete_shed",
    "/api/sheds/{name}",
    Right.USE,
    sheds.DeleteParams,
    sheds.Deleted,
    "Delete a shed and its files",
    events=True,
)
START_SHED = _post(
    "start_shed",
    "/api/sheds/{name}/start",
    Right.USE,
    sheds.ShedWorkParams,
    sheds.StartShed,
    sheds.Shed,
    "Start a stopped shed",
    events=True,
    old=(Old("query", "cold", "cold"), _FORCED),
)
STOP_SHED = _post(
    "stop_shed",
    "/api/sheds/{name}/stop",
    Right.USE,
    sheds.ShedWorkParams,
    NoBody,
    sheds.Shed,
    "Stop a running shed; its files stay",
    events=True,
)
SHED_LOGS = _get(
    "shed_logs",
    "/api/sheds/{name}/logs",
    Right.USE,
    sheds.LogParams,
    str,
    "Show the end of a shed's console log; with an upgrade also what follows",
    upgrade=upgrades.LOG,
)
SHED_HEALTH = _get(
    "shed_health",
    "/api/sheds/{name}/health",
    Right.READ,
    sheds.ShedParams,
    sheds.Health,
    "Ask the agent in a running shed how it is",
)
CHECK_WORKSPACE = _get(
    "check_workspace",
    "/api/sheds/{name}/workspace",
    Right.USE,
    sheds.WorkspaceParams,
    sheds.Workspace,
    "Tell what in a shed's shared folder may run on the host",
)
EXEC = _post(
    "exec",
    "/api/sheds/{name}/exec",
    Right.USE,
    sheds.ShedParams,
    NoBody,
    bytes,
    "Run a command in a shed; a stopped one is started",
    upgrade=upgrades.EXEC,
)
CONNECT = _get(
    "connect",
    "/api/sheds/{name}/connect/{port}",
    Right.USE,
    sheds.PortParams,
    bytes,
    "Connect to a TCP port of a shed's loopback",
    upgrade=upgrades.CONNECT,
)
SHED_SESSIONS = _get(
    "shed_sessions",
    "/api/sheds/{name}/sessions",
    Right.USE,
    sheds.ShedParams,
    sheds.ShedSessions,
    "List the tmux sessions in a shed",
)
LIST_SESSIONS = _get(
    "list_sessions",
    "/api/sessions",
    Right.USE,
    Nothing,
    sheds.SessionList,
    "List the tmux sessions in all running sheds",
)
KILL_SESSION = _delete(
    "kill_session",
    "/api/sheds/{name}/sessions/{session}",
    Right.USE,
    sheds.SessionParams,
    sheds.EndedSession,
    "End a tmux session and what runs in it",
)

LIST_IMAGES = _get("list_images", "/api/images", Right.READ, Nothing, images.ImageList, "List the images of the store")
INSPECT_IMAGE = _get(
    "inspect_image",
    "/api/images/inspect",
    Right.READ,
    images.ImageParams,
    images.ImageDetails,
    "Show an image",
    old_path="/api/images/inspect/{ref}",
    old=_REF,
)
IMAGE_HISTORY = _get(
    "image_history",
    "/api/images/history",
    Right.READ,
    images.ImageParams,
    images.History,
    "Show how an image was made",
    old=_REF[:1],
)
REMOVE_IMAGE = _delete(
    "remove_image",
    "/api/images",
    Right.ADMIN,
    images.ImageParams,
    images.RemovedImage,
    "Remove a tag, or all names of an image",
    old_path="/api/images/{ref}",
    old=_REF,
)
TAG_IMAGE = _post(
    "tag_image",
    "/api/images/tag",
    Right.ADMIN,
    Nothing,
    images.TagImage,
    images.TaggedImage,
    "Give an image another name",
    old=(Old("body", "source", "image"), Old("body", "target", "name")),
)
TRUST_IMAGE = _post(
    "trust_image",
    "/api/images/trust",
    Right.ADMIN,
    Nothing,
    images.TrustImage,
    images.TrustedImage,
    "Let the kernel and the initrd of an image boot here",
    old=(Old("body", "ref", "image"),),
)
VERIFY_IMAGE = _post(
    "verify_image",
    "/api/images/verify",
    Right.ADMIN,
    WorkParams,
    images.VerifyImage,
    images.Verification,
    "Read an image again and say what is wrong with it",
    events=True,
    old=(Old("body", "ref", "image"),),
)
PUSH_IMAGE = _post(
    "push_image",
    "/api/images/push",
    Right.ADMIN,
    WorkParams,
    images.PushImage,
    images.Pushed,
    "Push an image to a registry",
    events=True,
    old=(Old("body", "source", "image"),),
)
PULL_IMAGE = _post(
    "pull_image",
    "/api/images/pull",
    Right.ADMIN,
    WorkParams,
    images.PullImage,
    images.Pulled,
    "Pull an image from a registry, as long as the client waits",
    events=True,
    old=(Old("body", "docker_ref", "image"),),
)
PRUNE_IMAGES = _post(
    "prune_images",
    "/api/images/prune",
    Right.ADMIN,
    Nothing,
    images.PruneImages,
    images.PrunedImages,
    "Remove from the store what nobody needs",
    old=(Old("query", "dry_run", "dry_run"),),
)

LIST_EGRESS_PROFILES = _get(
    "list_egress_profiles",
    "/api/egress/profiles",
    Right.READ,
    Nothing,
    egress.ProfileList,
    "List the egress profiles",
)
SET_EGRESS_PROFILE = _post(
    "set_egress_profile",
    "/api/egress/profiles/{profile}",
    Right.ADMIN,
    egress.ProfileParams,
    egress.SetProfile,
    egress.Profile,
    "Make an egress profile, or give one other rules",
)
REMOVE_EGRESS_PROFILE = _delete(
    "remove_egress_profile",
    "/api/egress/profiles/{profile}",
    Right.ADMIN,
    egress.ProfileParams,
    egress.RemovedProfile,
    "Remove an egress profile that no shed has",
)
SHED_EGRESS = _get(
    "shed_egress",
    "/api/sheds/{name}/egress",
    Right.READ,
    sheds.ShedParams,
    egress.ShedEgress,
    "Show what a shed may reach",
)
SET_SHED_EGRESS = _post(
    "set_shed_egress",
    "/api/sheds/{name}/egress",
    Right.ADMIN,
    sheds.ShedParams,
    egress.SetShedEgress,
    egress.ChangedEgress,
    "Rule by other profiles what a shed may reach",
)
EGRESS_LOG = _get(
    "egress_log",
    "/api/sheds/{name}/egress/log",
    Right.USE,
    egress.EgressLogParams,
    egress.EgressLog,
    "Show what was decided about a shed's connections",
)

USAGE = _get("usage", "/api/system/df", Right.READ, Nothing, server.Usage, "Say what the server's data takes up")
PRUNE = _post(
    "prune",
    "/api/system/prune",
    Right.ADMIN,
    WorkParams,
    server.Prune,
    server.Pruned,
    "Delete what has not been used for long",
    events=True,
)

LIST_TOKENS = _get("list_tokens", "/api/tokens", Right.ADMIN, Nothing, access.TokenList, "List the tokens")
CREATE_TOKEN = _post(
    "create_token",
    "/api/tokens",
    Right.ADMIN,
    Nothing,
    access.CreateToken,
    access.Token,
    "Make a token valid",
    status=201,
)
REVOKE_TOKEN = _delete(
    "revoke_token",
    "/api/tokens/{token}",
    Right.ADMIN,
    access.TokenParams,
    access.RevokedToken,
    "Revoke a token, and hang up on who uses it",
)
LIST_SSH_KEYS = _get(
    "list_ssh_keys", "/api/ssh-keys", Right.ADMIN, Nothing, access.SshKeyList, "List the keys that are let in by SSH"
)
ADD_SSH_KEY = _post(
    "add_ssh_key",
    "/api/ssh-keys",
    Right.ADMIN,
    Nothing,
    access.AddSshKey,
    access.AddedSshKey,
    "Let a key in by SSH",
    status=201,
    other_statuses=(200,),
)
REMOVE_SSH_KEY = _delete(
    "remove_ssh_key",
    "/api/ssh-keys/{fingerprint}",
    Right.ADMIN,
    access.SshKeyParams,
    access.SshKey,
    "Let a key in no more",
)

ENDPOINTS: tuple[Endpoint[Any, Any, Any], ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Endpoint)
)
"""All of them, in their order above."""

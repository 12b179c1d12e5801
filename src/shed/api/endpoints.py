"""The table of all that a server answers: the one place where an endpoint is described.

`shed.server.routes` has a handler for each; the OpenAPI document and ``docs/reference/api.md`` are made from here.
Options of an action are members of the JSON body of a POST; GET and DELETE have no body, and theirs are in the query.
How a client wants to hear of long work (`WorkParams`) is always in the query.  An image is called ``image``.
"""

from __future__ import annotations

from typing import Any

from shed.api import (
    access,
    egress,
    eventlog,
    images,
    life,
    making,
    mounts,
    ports,
    prebuilds,
    secret_endpoints,
    server,
    sheds,
    snapshots,
    stats,
    upgrades,
    workspace,
)
from shed.api.access import Right
from shed.api.base import NoBody, Nothing, WorkParams
from shed.api.endpoint import Endpoint, Old, delete, get, post

_FORCED = Old("query", "force", "force")
_REF = (Old("query", "ref", "image"), Old("path", "ref", "image"))

INFO = get("info", "/api/info", Right.READ, Nothing, server.Info, "Say who this server is")
OPENAPI = get("openapi", "/api/openapi.json", Right.READ, Nothing, dict[str, Any], "Describe this API, as OpenAPI 3.1")
SSH_HOST_KEY = get(
    "ssh_host_key", "/api/ssh-host-key", Right.READ, Nothing, server.HostKey, "Say by which key the SSH front is known"
)
STOP_SERVER = post(
    "stop_server",
    "/api/server/stop",
    Right.ADMIN,
    Nothing,
    NoBody,
    server.Stopping,
    "End the server; running sheds stay.  Over the Unix socket only",
)

LIST_EVENTS = get(
    "list_events",
    "/api/events",
    Right.READ,
    eventlog.EventParams,
    eventlog.EventList,
    "Show what has happened lately; as server-sent events also what happens from now on",
    stream=eventlog.Event,
)

LIST_SHEDS = get("list_sheds", "/api/sheds", Right.READ, sheds.ListParams, sheds.ShedList, "List all sheds")
CREATE_SHED = post(
    "create_shed",
    "/api/sheds",
    Right.USE,
    WorkParams,
    making.CreateShed,
    sheds.Shed,
    "Make a shed and start it",
    status=201,
    events=True,
)
STATS = get("stats", "/api/stats", Right.READ, Nothing, stats.StatsList, "Show what running sheds use of their host")
GET_SHED = get("get_shed", "/api/sheds/{name}", Right.READ, sheds.ShedParams, sheds.Shed, "Show a shed")
DELETE_SHED = delete(
    "delete_shed",
    "/api/sheds/{name}",
    Right.USE,
    sheds.DeleteParams,
    sheds.Deleted,
    "Delete a shed and its files",
    events=True,
)
UPDATE_SHED = post(
    "update_shed",
    "/api/sheds/{name}/update",
    Right.USE,
    sheds.ShedWorkParams,
    making.UpdateShed,
    sheds.Shed,
    "Change the processors, memory or disk of a shed",
    events=True,
)
RENAME_SHED = post(
    "rename_shed",
    "/api/sheds/{name}/rename",
    Right.USE,
    sheds.ShedParams,
    sheds.RenameShed,
    sheds.Shed,
    "Give a stopped shed another name",
)
SHED_LOGS = get(
    "shed_logs",
    "/api/sheds/{name}/logs",
    Right.USE,
    sheds.LogParams,
    str,
    "Show the end of a shed's console log; with an upgrade also what follows",
    upgrade=upgrades.LOG,
)
SHED_HEALTH = get(
    "shed_health",
    "/api/sheds/{name}/health",
    Right.READ,
    sheds.ShedParams,
    sheds.Health,
    "Ask the agent in a running shed how it is",
)
CHECK_WORKSPACE = get(
    "check_workspace",
    "/api/sheds/{name}/workspace",
    Right.USE,
    workspace.WorkspaceParams,
    workspace.Workspace,
    "Tell what in a shed's shared folder may run on the host",
)
EXEC = post(
    "exec",
    "/api/sheds/{name}/exec",
    Right.USE,
    sheds.ShedParams,
    NoBody,
    bytes,
    "Run a command in a shed; a stopped one is started",
    upgrade=upgrades.EXEC,
)
CONNECT = get(
    "connect",
    "/api/sheds/{name}/connect/{port}",
    Right.USE,
    sheds.PortParams,
    bytes,
    "Connect to a TCP port of a shed's loopback",
    upgrade=upgrades.CONNECT,
)
SHED_SESSIONS = get(
    "shed_sessions",
    "/api/sheds/{name}/sessions",
    Right.USE,
    sheds.ShedParams,
    sheds.ShedSessions,
    "List the tmux sessions in a shed",
)
LIST_SESSIONS = get(
    "list_sessions",
    "/api/sessions",
    Right.USE,
    Nothing,
    sheds.SessionList,
    "List the tmux sessions in all running sheds",
)
KILL_SESSION = delete(
    "kill_session",
    "/api/sheds/{name}/sessions/{session}",
    Right.USE,
    sheds.SessionParams,
    sheds.EndedSession,
    "End a tmux session and what runs in it",
)

LIST_IMAGES = get("list_images", "/api/images", Right.READ, Nothing, images.ImageList, "List the images of the store")
INSPECT_IMAGE = get(
    "inspect_image",
    "/api/images/inspect",
    Right.READ,
    images.ImageParams,
    images.ImageDetails,
    "Show an image",
    old_path="/api/images/inspect/{ref}",
    old=_REF,
)
IMAGE_HISTORY = get(
    "image_history",
    "/api/images/history",
    Right.READ,
    images.ImageParams,
    images.History,
    "Show how an image was made",
    old=_REF[:1],
)
REMOVE_IMAGE = delete(
    "remove_image",
    "/api/images",
    Right.ADMIN,
    images.ImageParams,
    images.RemovedImage,
    "Remove a tag, or all names of an image",
    old_path="/api/images/{ref}",
    old=_REF,
)
TAG_IMAGE = post(
    "tag_image",
    "/api/images/tag",
    Right.ADMIN,
    Nothing,
    images.TagImage,
    images.TaggedImage,
    "Give an image another name",
    old=(Old("body", "source", "image"), Old("body", "target", "name")),
)
TRUST_IMAGE = post(
    "trust_image",
    "/api/images/trust",
    Right.ADMIN,
    Nothing,
    images.TrustImage,
    images.TrustedImage,
    "Let the kernel and the initrd of an image boot here",
    old=(Old("body", "ref", "image"),),
)
VERIFY_IMAGE = post(
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
PUSH_IMAGE = post(
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
PULL_IMAGE = post(
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
PRUNE_IMAGES = post(
    "prune_images",
    "/api/images/prune",
    Right.ADMIN,
    Nothing,
    images.PruneImages,
    images.PrunedImages,
    "Remove from the store what nobody needs",
    old=(Old("query", "dry_run", "dry_run"),),
)

LIST_EGRESS_PROFILES = get(
    "list_egress_profiles",
    "/api/egress/profiles",
    Right.READ,
    Nothing,
    egress.ProfileList,
    "List the egress profiles",
)
SET_EGRESS_PROFILE = post(
    "set_egress_profile",
    "/api/egress/profiles/{profile}",
    Right.ADMIN,
    egress.ProfileParams,
    egress.SetProfile,
    egress.Profile,
    "Make an egress profile, or give one other rules",
)
REMOVE_EGRESS_PROFILE = delete(
    "remove_egress_profile",
    "/api/egress/profiles/{profile}",
    Right.ADMIN,
    egress.ProfileParams,
    egress.RemovedProfile,
    "Remove an egress profile that no shed has",
)
SHED_EGRESS = get(
    "shed_egress",
    "/api/sheds/{name}/egress",
    Right.READ,
    sheds.ShedParams,
    egress.ShedEgress,
    "Show what a shed may reach",
)
SET_SHED_EGRESS = post(
    "set_shed_egress",
    "/api/sheds/{name}/egress",
    Right.ADMIN,
    sheds.ShedParams,
    egress.SetShedEgress,
    egress.ChangedEgress,
    "Rule by other profiles what a shed may reach",
)
EGRESS_LOG = get(
    "egress_log",
    "/api/sheds/{name}/egress/log",
    Right.USE,
    egress.EgressLogParams,
    egress.EgressLog,
    "Show what was decided about a shed's connections",
)

SHED_PORTS = get(
    "shed_ports",
    "/api/sheds/{name}/ports",
    Right.READ,
    sheds.ShedParams,
    ports.ShedPorts,
    "Show the ports of a shed, and what listens in it",
)
CHANGE_PORTS = post(
    "change_ports",
    "/api/sheds/{name}/ports",
    Right.ADMIN,
    sheds.ShedParams,
    ports.ChangePorts,
    ports.ShedPorts,
    "Publish ports of a shed, or no more, and open or close ports of the host to it",
)

USAGE = get("usage", "/api/system/df", Right.READ, Nothing, server.Usage, "Say what the server's data takes up")
PRUNE = post(
    "prune",
    "/api/system/prune",
    Right.ADMIN,
    WorkParams,
    server.Prune,
    server.Pruned,
    "Delete what has not been used for long",
    events=True,
)

LIST_TOKENS = get("list_tokens", "/api/tokens", Right.ADMIN, Nothing, access.TokenList, "List the tokens")
CREATE_TOKEN = post(
    "create_token",
    "/api/tokens",
    Right.ADMIN,
    Nothing,
    access.CreateToken,
    access.Token,
    "Make a token valid",
    status=201,
)
REVOKE_TOKEN = delete(
    "revoke_token",
    "/api/tokens/{token}",
    Right.ADMIN,
    access.TokenParams,
    access.RevokedToken,
    "Revoke a token, and hang up on who uses it",
)
LIST_SSH_KEYS = get(
    "list_ssh_keys", "/api/ssh-keys", Right.ADMIN, Nothing, access.SshKeyList, "List the keys that are let in by SSH"
)
ADD_SSH_KEY = post(
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
REMOVE_SSH_KEY = delete(
    "remove_ssh_key",
    "/api/ssh-keys/{fingerprint}",
    Right.ADMIN,
    access.SshKeyParams,
    access.SshKey,
    "Let a key in no more",
)

ENDPOINTS: tuple[Endpoint[Any, Any, Any], ...] = tuple(
    value
    for part in (globals(), vars(secret_endpoints), vars(snapshots), vars(prebuilds), vars(life), vars(mounts))
    for value in list(part.values())
    if isinstance(value, Endpoint)
)
"""All of them: those above, and those that stand beside their documents."""

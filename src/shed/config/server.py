"""The settings of the server: defaults that need no file, and ``server.yaml`` to change them.

```yaml
name: builder-1            # how this server calls itself
bind_address: 127.0.0.1    # TCP beside the Unix socket; loopback only
http_port: 8080            # absent: no TCP
ssh_port: 2222             # absent: 2222, or one that is free; 0: no SSH
publish_addresses: []      # beyond loopback: addresses of this host on which ports of sheds may be published
log_level: info            # debug, info, warning, error
default_image: base        # a local name, an alias, or a reference
image_aliases:             # names for references; ${shed.version} is the tag of this release
  ours: registry.example/team/shed:${shed.version}
pull_policy: missing       # missing, always, never
pull_concurrency: 3
trusted_kernels: []        # digests of kernels and initrds that images may bring, beside those that are known here
ssh:
  bind_address: 127.0.0.1  # beyond loopback only with authorized_keys
  authorized_keys: /etc/shed/authorized_keys    # or a list of keys
egress:
  default: [internet]      # profiles of a shed for which none are named; []: it reaches nothing
  proxy: http://proxy:3128 # or a file of mode 0600 with the URL, or none; absent: HTTPS_PROXY of the server
  no_proxy: [.corp.example]  # absent: NO_PROXY of the server
  profiles: {work: {rules: [{allow: "*.example.com", ports: [443]}]}}    # beside those that every server has
  extra_cas: [/etc/ssl/company.pem]    # authorities that sheds trust; absent: those that were added to this machine
guest:
  environment: {PIP_INDEX_URL: "https://mirror.example/simple"}    # variables of every command in every shed
  mirrors: true            # sheds get this machine's settings of pip, uv, npm and apt for mirrors
git:
  base_url: https://github.com    # where OWNER/NAME is found
  extra_known_hosts: []    # lines as in known_hosts, beside those of the big forges
network:
  nic: refused             # allowed: sheds may be made with a network that is not ruled
limits:
  max_image_size: 32G      # most that is fetched for one image
  disk_reserve: 5G         # what stays free of the disk; absent: 1G, of small disks 5 %
  private_hosts: []        # hosts with private addresses that a registry elsewhere may lead to
  max_running: 200         # most sheds that run; more such keys are in the reference
  idle_suspend: none       # or a time such as 30m: a new shed that is idle for so long is suspended
qemu:
  default_cpus: 2
  default_memory_mb: 2048
  upper_size_default: 5G
  start_timeout: 120s      # from the VM's start to ready
  stop_timeout: 10s        # a clean poweroff; then the VM is killed
  warm_start: true         # restore VMs from templates, rather than boot them
  warm_spares: 0           # machines of the default shape that are kept restored, waiting to become sheds
  warm_templates: 32       # most templates that are kept
  warm_templates_size: 2G  # most bytes of the disk that they take up together
```

An unknown key is refused with the nearest known one: a setting that is silently ignored is worse than none.  All keys:
`docs/reference/configuration.md`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from shed.budget import MAX_IMAGE, Limits
from shed.config import git, images, values
from shed.egress.rules.policy import Profile
from shed.errors import UsageError
from shed.names import MAX_CPUS, MAX_MEMORY_MB, MAX_UPPER, MIN_MEMORY_MB, MIN_UPPER
from shed.proxies import Proxy, no_proxy
from shed.sizes import GIB

LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_PULLS = 32
MAX_TEMPLATES = 100
MAX_SPARES = 100
MIN_IMAGE, MOST_IMAGE = GIB // 16, 1 << 40
"""Least and most bytes that an image may be limited to."""
MOST_RESERVED = 1 << 44
MAX_COUNT = 100_000
"""Of sheds."""
MAX_OVERCOMMIT = 1000
MIN_TEMPLATES_SIZE, MAX_TEMPLATES_SIZE = GIB // 4, 1 << 40
DEFAULT_SSH_PORT = 2222


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server runs with.  Times are in seconds."""

    name: str = "local"
    bind_address: str = "127.0.0.1"
    http_port: int | None = None
    default_image: str = "base"
    log_level: str = "info"
    default_cpus: int = 2
    default_memory_mb: int = 2048
    default_upper_size: int = 5 * GIB
    start_timeout: float = 120.0
    stop_timeout: float = 10.0
    warm_start: bool = True
    """Whether VMs are restored from templates, and templates are made."""
    warm_spares: int = 0
    """Number of restored VMs that are kept ready to become sheds."""
    warm_templates: int = 32
    warm_templates_size: int = 2 * GIB
    """Most templates that are kept, and most bytes that they take up together."""
    control_groups: str = "auto"
    """Whether each VM gets a control group: ``auto`` (if possible), ``require`` or ``never``."""
    max_sheds: int = 1000
    max_running: int = 200
    """Most sheds, and most of them that run."""
    memory_overcommit: float = 2.0
    """All VMs together may be given this many times the memory that they take now and that the host has free."""
    memory_reserve: int = 256 << 20
    start_reserve: int = 64 << 20
    """Bytes of memory, and of the file system of the data directory, that must be free for a VM to start."""
    memory_pressure: int = 25
    io_pressure: int = 0
    cpu_pressure: int = 0
    """Most percent of the time that programs may spend waiting for these, for a VM to start; 0: no limit."""
    idle_suspend: float = 0.0
    """Seconds for which a new shed must be idle to be suspended, unless it says otherwise; 0: never."""
    image_aliases: Mapping[str, str] = field(default_factory=dict)
    """Names for references."""
    pull_policy: str = "missing"
    pull_concurrency: int = 3
    """Most blobs that are downloaded at once."""
    ssh_port: int | None = None
    """0: no SSH; None: the usual port, when it is free."""
    publish_addresses: tuple[str, ...] = ()
    """Addresses of this host, beyond its loopback, on which ports of sheds may be published."""
    ssh_bind_address: str = "127.0.0.1"
    ssh_authorized_keys: Path | tuple[str, ...] | None = None
    """A file of public keys, or public keys, that may log in, beside those that were added with `shed ssh-key`."""

    max_image_size: int = MAX_IMAGE
    """Most bytes that are fetched for one image."""
    disk_reserve: int | None = None
    """Bytes of the file system of the data directory that stay free; None: a part of it, see `shed.budget`."""
    private_hosts: tuple[str, ...] = ()
    """Hosts with private addresses to which a registry elsewhere may redirect or refer."""
    egress_default: tuple[str, ...] = ("internet",)
    """Egress profiles of a shed for which none are named."""
    nic: str = "refused"
    """Whether sheds may have a network that is not ruled: ``refused`` or ``allowed``."""
    egress_proxy: Proxy | Literal["environment"] | None = "environment"
    """By which sheds reach the outside, as this host does; None: by none."""
    egress_no_proxy: tuple[str, ...] | None = None
    """What is reached without it; None: what the environment says."""
    egress_profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Egress profiles by name, beside those that every server has."""
    guest_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of every command in every shed."""
    guest_mirrors: bool = True
    """Whether sheds get this machine's settings for mirrors of packages, where these variables do not say otherwise."""
    egress_extra_cas: tuple[Path, ...] | None = None
    """Files of authorities that sheds, and the relay, trust beside their own; None: those added to this machine."""
    git_base_url: str = "https://github.com"
    """Where the repository ``OWNER/NAME`` is found."""
    git_known_hosts: tuple[str, ...] = ()
    """Lines of known_hosts for repositories that are reached by SSH, beside those of the big forges."""
    trusted_kernels: tuple[str, ...] = ()
    """Digests of kernels and initrds that images may contain, beside those of the store (`shed.images.trust`)."""

    @property
    def own_ports(self) -> dict[int, str]:
        """The TCP ports that the server takes, or would take, for itself, and what for."""
        ports = {self.http_port: "http_port", DEFAULT_SSH_PORT if self.ssh_port is None else self.ssh_port: "ssh_port"}
        return {port: use for port, use in ports.items() if port}

    def proxy(self, environment: Mapping[str, str]) -> Proxy | None:
        """Return the proxy by which sheds reach the outside.  Raises `ValueError` for what `environment` has as one."""
        found = Proxy.of_environment(environment) if self.egress_proxy == "environment" else self.egress_proxy
        if found is None:
            return None
        around = no_proxy(environment) if self.egress_no_proxy is None else self.egress_no_proxy
        return found.around(around)

    @property
    def limits(self) -> Limits:
        """What an image may use."""
        return Limits(self.max_image_size, self.disk_reserve, self.private_hosts)

    def reference(self, name: str) -> str:
        """Return the reference by which the image `name` is pulled when it is not in the store.

        That is the target of an alias, else `name` itself.
        """
        return self.image_aliases.get(name, name)


class ConfigError(UsageError):
    """A configuration file is wrong; the message names the file and the key."""

    code = "INVALID_CONFIG"


def search_paths(home: Path | None = None) -> list[Path]:
    """Return the places where a configuration is looked for; the first that exists is used.

    `home` is the home directory of the server's user, by default this user's.
    """
    return [Path("server.yaml"), (home or Path.home()) / ".config/shed/server.yaml", Path("/etc/shed/server.yaml")]


def load_settings(path: Path | None = None) -> Settings:
    """Return the settings of the file `path`, or of the first one of `search_paths` that exists, or the defaults.

    Raises `ConfigError` for a file that cannot be read, a key that does not exist, or a value of the wrong kind.
    """
    path = path or find_settings()
    if path is None:
        return Settings()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"cannot read the configuration {path}: {why}", hint="name another file with --config"
        ) from error
    return parse_settings(text, path)


def machine_settings() -> Settings:
    """Return the settings of this machine's server, for a command that works without one.

    A file in the current directory is not read: it may be somebody else's.  Raises `ConfigError`.
    """
    path = find_settings(search_paths()[1:])
    return load_settings(path) if path else Settings()


def find_settings(places: list[Path] | None = None) -> Path | None:
    """Return the first of `places` that exists; by default the places are `search_paths`."""
    return next(filter(_is_there, search_paths() if places is None else places), None)


def _is_there(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except PermissionError:  # reading it gives the error
        return True


def parse_settings(text: str, path: Path) -> Settings:
    """Return the settings that the YAML `text` holds; `path` is for messages.  Raises `ConfigError`."""
    import yaml  # noqa: PLC0415  not needed without a file

    class Loader(yaml.SafeLoader):
        """Refuses a key that occurs twice: YAML would use the last one, and ignore the others."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1:
                    raise ConfigError(f"{path}: {key} is there twice", hint="remove the one that you do not mean")
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(text, Loader)  # noqa: S506  a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path} is not YAML: {' '.join(str(error).split())}", hint="check the indentation there"
        ) from None
    settings = _apply(Settings(), document, _TOP, path, "")
    if settings.ssh_authorized_keys is None and not ipaddress.ip_address(settings.ssh_bind_address).is_loopback:
        raise ConfigError(
            f"{path}: ssh.bind_address {settings.ssh_bind_address} is open to others, but ssh.authorized_keys does "
            "not say to whom",
            hint="list public keys there, or name a file that holds them",
        )
    return settings


def _apply(settings: Settings, document: object, known: Mapping[str, _Setting], path: Path, prefix: str) -> Settings:
    if document is None:
        return settings
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: {prefix.rstrip('.') or 'the file'} must hold keys and values", hint="write `key: value` lines"
        )
    for key, value in document.items():
        name = f"{prefix}{key}"
        if key in _REMOVED:
            hint = f"write {_REMOVED[key]} instead, see {_UPGRADE_GUIDE}"
            raise ConfigError(f"{path}: {name} is not a setting any more", hint=hint)
        setting = known.get(key) if isinstance(key, str) else None
        if setting is None:
            raise ConfigError(f"{path}: unknown key {name!r}", hint=_suggestion(str(key), known))
        if isinstance(setting, _Section):
            settings = _apply(settings, value, setting.keys, path, f"{name}.")
            continue
        try:
            changed: dict[str, Any] = {setting.field: setting.convert(value)}
        except (ValueError, TypeError, UsageError) as error:
            what = str(error) if name in str(error) else f"{name}: {error}"
            raise ConfigError(f"{path}: {what}", hint="correct the value, or remove the line for the default") from None
        settings = replace(settings, **changed)
    return settings


def _suggestion(key: str, known: Mapping[str, _Setting]) -> str:
    import difflib  # noqa: PLC0415  for mistakes only

    sections = {
        f"{section}.{name}": name
        for section, setting in _TOP.items()
        if isinstance(setting, _Section)
        for name in setting.keys
    }
    homes = {**{name: home for home, name in sections.items()}, **{name: name for name in known}}
    near = difflib.get_close_matches(key, homes, n=1)
    return f"did you mean {homes[near[0]]!r}?" if near else f"known keys are {', '.join(sorted(known))}"


@dataclass(frozen=True, slots=True)
class _Value:
    field: str
    convert: values.Convert


@dataclass(frozen=True, slots=True)
class _Section:
    keys: Mapping[str, _Setting]


_Setting = _Value | _Section


_SSH: dict[str, _Setting] = {
    "bind_address": _Value("ssh_bind_address", values.address),
    "authorized_keys": _Value("ssh_authorized_keys", values.authorized_keys),
}
_LIMITS: dict[str, _Setting] = {
    "max_image_size": _Value("max_image_size", values.size(MIN_IMAGE, MOST_IMAGE)),
    "disk_reserve": _Value("disk_reserve", values.size(0, MOST_RESERVED)),
    "private_hosts": _Value("private_hosts", values.hosts),
    "control_groups": _Value("control_groups", values.choice("auto", "require", "never")),
    "max_sheds": _Value("max_sheds", values.number(1, MAX_COUNT)),
    "max_running": _Value("max_running", values.number(1, MAX_COUNT)),
    "memory_overcommit": _Value("memory_overcommit", values.factor(1, MAX_OVERCOMMIT)),
    "memory_reserve": _Value("memory_reserve", values.size(0, MOST_RESERVED)),
    "start_reserve": _Value("start_reserve", values.size(0, MOST_RESERVED)),
    "memory_pressure": _Value("memory_pressure", values.number(0, 100)),
    "io_pressure": _Value("io_pressure", values.number(0, 100)),
    "cpu_pressure": _Value("cpu_pressure", values.number(0, 100)),
    "idle_suspend": _Value("idle_suspend", values.idle),
}
_EGRESS: dict[str, _Setting] = {
    "default": _Value("egress_default", values.profiles),
    "profiles": _Value("egress_profiles", values.rules),
    "extra_cas": _Value("egress_extra_cas", values.files),
    "proxy": _Value("egress_proxy", values.proxy),
    "no_proxy": _Value("egress_no_proxy", values.words),
}
_GUEST: dict[str, _Setting] = {
    "environment": _Value("guest_environment", values.variables),
    "mirrors": _Value("guest_mirrors", values.switch),
}
_GIT: dict[str, _Setting] = {
    "base_url": _Value("git_base_url", git.base_url),
    "extra_known_hosts": _Value("git_known_hosts", git.known_hosts),
}
_NETWORK: dict[str, _Setting] = {"nic": _Value("nic", values.choice("refused", "allowed"))}
_QEMU: dict[str, _Setting] = {
    "default_cpus": _Value("default_cpus", values.number(1, MAX_CPUS)),
    "default_memory_mb": _Value("default_memory_mb", values.number(MIN_MEMORY_MB, MAX_MEMORY_MB)),
    "upper_size_default": _Value("default_upper_size", values.size(MIN_UPPER, MAX_UPPER)),
    "start_timeout": _Value("start_timeout", values.duration),
    "stop_timeout": _Value("stop_timeout", values.duration),
    "warm_start": _Value("warm_start", values.switch),
    "warm_spares": _Value("warm_spares", values.number(0, MAX_SPARES)),
    "warm_templates": _Value("warm_templates", values.number(1, MAX_TEMPLATES)),
    "warm_templates_size": _Value("warm_templates_size", values.size(MIN_TEMPLATES_SIZE, MAX_TEMPLATES_SIZE)),
}
_TOP: dict[str, _Setting] = {
    "name": _Value("name", values.text),
    "bind_address": _Value("bind_address", values.loopback),
    "http_port": _Value("http_port", values.number(1, 65535)),
    "ssh_port": _Value("ssh_port", values.number(0, 65535)),
    "publish_addresses": _Value("publish_addresses", values.addresses),
    "default_image": _Value("default_image", images.reference),
    "image_aliases": _Value("image_aliases", images.aliases),
    "pull_policy": _Value("pull_policy", images.pull_policy),
    "pull_concurrency": _Value("pull_concurrency", values.number(1, MAX_PULLS)),
    "trusted_kernels": _Value("trusted_kernels", values.digests),
    "log_level": _Value("log_level", values.choice(*LOG_LEVELS)),
    "ssh": _Section(_SSH),
    "egress": _Section(_EGRESS),
    "git": _Section(_GIT),
    "network": _Section(_NETWORK),
    "limits": _Section(_LIMITS),
    "guest": _Section(_GUEST),
    "qemu": _Section(_QEMU),
}
_REMOVED = {"base_rootfs": "default_image", "rootfs_path": "default_image", "images": "image_aliases"}
"""Keys of v0.5.1, wherever they stand, and what takes their place."""
_UPGRADE_GUIDE = "docs/upgrades/v0.5.1-to-v0.5.2.md"

"""Chooses kernel modules and puts them in the order in which they must be loaded.

What a module needs is in its own ``.modinfo`` section: ``depends`` (symbols) and ``softdep`` (for example libcrc32c,
which finds its algorithm by name).  No depmod, no host tools.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import zstandard

from shed.errors import DataError
from shed.images.bootkit.elf import Elf

_SIGNED = b"~Module signature appended~\n"
_PATTERN = set("*?[:")
"""In aliases that stand for devices, which nobody plugs into a shed."""
_SIGNATURE_INFO = struct.Struct(">8xI")
"""``struct module_signature``, kernel/module_signature.h: its last field is the signature's length."""

EARLY = ("virtio_blk", "erofs")
"""To mount the runtime; the agent starts from there."""
LATE = ("ext4", "overlay", "9p", "9pnet_virtio", "virtio_net", "virtio_rng")
"""To mount the shed's root and workspace, and to talk to the network."""
ON_DEMAND = (
    "bridge", "br_netfilter", "veth", "macvlan", "ipvlan", "vxlan", "dummy", "tun", "wireguard", "fuse", "loop",
    "nf_tables", "nfnetlink", "nft_chain_nat", "nft_compat", "nft_ct", "nft_fib_inet", "nft_limit", "nft_log",
    "nft_masq", "nft_nat", "nft_redir", "nft_reject_inet", "nf_conntrack_netlink", "xt_addrtype", "xt_comment",
    "xt_conntrack", "xt_MASQUERADE", "xt_mark", "xt_multiport", "xt_nat", "xt_REDIRECT", "xt_tcpudp", "tcp_diag",
)  # fmt: skip
"""What containers, VPNs, FUSE, and a shed that is forked need; the kernel asks for them when somebody uses them."""
PROVIDERS = {"crc32c": "crc32c_generic", "crypto-crc32c": "crc32c_generic"}
"""Modules that answer for the algorithm names in a softdep: the ones that work on every CPU."""


@dataclass(frozen=True, slots=True)
class Module:
    """One kernel module, decompressed."""

    name: str
    data: bytes
    depends: tuple[str, ...]
    """Names of modules to load before this one."""
    release: str
    """The kernel release it was built for."""
    aliases: tuple[str, ...] = ()
    """Other names that the kernel asks for it by."""

    @property
    def file_name(self) -> str:
        """What the module is called in the initrd."""
        return f"{self.name}.ko"


def module_name(path: str) -> str:
    """Return the name of the module in the file `path`: no folder, no suffix, ``_`` for ``-``."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def parse_module(path: str, data: bytes) -> Module:
    """Decompress the module file `path` by its suffix and read its ``.modinfo``.  Raises `DataError`."""
    name = module_name(path)
    if path.endswith(".xz"):
        data = lzma.decompress(data)
    elif path.endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    data = without_signature(data)
    info: dict[str, list[str]] = {}
    for item in (Elf(data, path).section(b".modinfo") or b"").split(b"\0"):
        key, _, value = item.decode("utf-8", "replace").partition("=")
        info.setdefault(key, []).append(value)
    if "vermagic" not in info:
        raise DataError(f"{path} has no vermagic: not a kernel module")
    depends = [word for value in info.get("depends", []) for word in value.split(",") if word]
    for value in info.get("softdep", []):
        depends += _before(value)
    aliases = [alias.replace("-", "_") for alias in info.get("alias", []) if not _PATTERN & set(alias)]
    return Module(
        name, data, tuple(word.replace("-", "_") for word in depends), info["vermagic"][0].split()[0], tuple(aliases)
    )


def without_signature(data: bytes) -> bytes:
    """Return a module without the signature behind it, if there is one.

    The initrd is verified as a whole and these kernels do not insist; checking one signature takes an emulated CPU 60
    million instructions.
    """
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED) - _SIGNATURE_INFO.size
    (length,) = _SIGNATURE_INFO.unpack_from(data, end)
    return data[: end - length]


def _before(softdep: str) -> list[str]:
    """Return what a softdep wants loaded before: the words behind ``pre:``, up to ``post:``."""
    before, wanted = [], False
    for word in softdep.split():
        if word in ("pre:", "post:"):
            wanted = word == "pre:"
        elif wanted:
            before.append(PROVIDERS.get(word, word))
    return before


def load_order(
    wanted: Iterable[str],
    find: Callable[[str], Module | None],
    *,
    builtin: frozenset[str],
    loaded: Iterable[Module] = (),
) -> list[Module]:
    """Return `wanted` and all that they need, each behind what it depends on.

    Not what is `builtin` or already `loaded`.

    `find` returns the module of a name.  Raises `DataError` for a module that is nowhere, or that needs itself.
    """
    order: list[Module] = []
    done = {module.name for module in loaded}

    def visit(name: str, chain: tuple[str, ...]) -> None:
        if name in done or name in builtin:
            return
        if name in chain:
            raise DataError(f"kernel modules need each other: {' -> '.join((*chain, name))}")
        module = find(name)
        if module is None:
            raise DataError(
                f"the kernel package has no module {name}" + (f", which {chain[-1]} needs" if chain else "")
            )
        for needed in module.depends:
            visit(needed, (*chain, name))
        done.add(name)
        order.append(module)

    for name in wanted:
        visit(name, ())
    return order


def alias_table(
    wanted: Iterable[str], find: Callable[[str], Module | None], *, builtin: frozenset[str], loaded: Iterable[Module]
) -> str:
    """Return lines of a name that the kernel may ask for and the modules to load for it, in order.

    Names have ``_`` for ``-``.
    """
    loaded = list(loaded)
    lines = set()
    for name in wanted:
        order = load_order([name], find, builtin=builtin, loaded=loaded)
        if order:
            names = " ".join(module.name for module in order)
            lines |= {f"{alias} {names}\n" for alias in (name, *order[-1].aliases)}
    return "".join(sorted(lines))


def check_release(modules: Iterable[Module], release: str) -> None:
    """Raise `DataError` unless every module was built for the kernel `release`."""
    for module in modules:
        if module.release != release:
            raise DataError(f"module {module.name} is for kernel {module.release}, the kernel is {release}")

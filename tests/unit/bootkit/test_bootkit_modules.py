"""Load order of kernel modules, from what the modules say of themselves."""

import lzma
import struct

import pytest

from shed.errors import DataError
from shed.images.bootkit.modules import Module, alias_table, check_release, load_order, module_name, parse_module


def elf_with_modinfo(modinfo: bytes) -> bytes:
    """Return a small ELF file whose only sections are .modinfo and the names of sections."""
    names = b"\0.modinfo\0.shstrtab\0"
    body = modinfo + names
    sections = 64 + len(body)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, sections, 0, 64, 56, 0, 64, 3, 2
    )
    table = bytes(64)
    table += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(modinfo), 0, 0, 1, 0)
    table += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(modinfo), len(names), 0, 0, 1, 0)
    return header + body + table


def modules(**depends: str) -> dict[str, Module]:
    """Return modules by name, each with the words it depends on."""
    return {name: Module(name, b"", tuple(words.split()), "6.12") for name, words in depends.items()}


def names(order: list[Module]) -> list[str]:
    """Return the names in load order."""
    return [module.name for module in order]


def test_a_compressed_module_tells_what_it_needs() -> None:
    """Symbols, and what is to be loaded before, with `-` read as `_`; what is to be loaded after does not count."""
    info = b"\0".join(
        [
            b"depends=jbd2,crc16",
            b"softdep=pre: crypto-crc32c post: late-one",
            b"vermagic=6.12.1-amd64 SMP preempt ",
            b"",
        ]
    )
    module = parse_module("kernel/fs/some-fs.ko.xz", lzma.compress(elf_with_modinfo(info)))
    assert module.name == "some_fs"
    assert module.depends == ("jbd2", "crc16", "crc32c_generic")
    assert module.release == "6.12.1-amd64"


def test_a_module_tells_by_which_names_it_is_asked_for() -> None:
    """Patterns, which stand for devices, are left out."""
    info = b"alias=rtnl-link-x\0alias=pci:v00001AF4d*\0alias=net-pf-16-proto-12\0vermagic=6.12 SMP\0"
    assert parse_module("x.ko", elf_with_modinfo(info)).aliases == ("rtnl_link_x", "net_pf_16_proto_12")


def test_the_alias_table_says_what_to_load_for_a_name() -> None:
    """The module's own name and its aliases, each with all that is not there yet, in order."""
    known = {
        "a": Module("a", b"", ("b", "there"), "6.12", ("fs_a",)),
        "b": Module("b", b"", (), "6.12"),
        "there": Module("there", b"", (), "6.12"),
    }
    table = alias_table(["a", "b"], known.get, builtin=frozenset(), loaded=[known["there"]])
    assert table == "a b a\nb b\nfs_a b a\n"


def test_a_signature_is_cut_off() -> None:
    """Nothing else is; a module without one stays as it is."""
    module = elf_with_modinfo(b"vermagic=6.12 SMP\0")
    signed = module + b"S" * 300 + struct.pack(">8xI", 300) + b"~Module signature appended~\n"
    assert parse_module("x.ko", signed).data == module
    assert parse_module("x.ko", module).data == module


def test_a_file_that_is_no_module_is_refused() -> None:
    """Neither text nor an ELF file without a vermagic passes."""
    with pytest.raises(DataError, match="not a 64-bit little-endian ELF"):
        parse_module("x.ko", b"#!/bin/sh")
    with pytest.raises(DataError, match="no vermagic"):
        parse_module("x.ko", elf_with_modinfo(b"depends=\0"))


def test_a_module_comes_behind_all_that_it_needs() -> None:
    """Each once, at any depth, and nothing that is built in."""
    known = modules(
        erofs="libcrc32c",
        libcrc32c="crc32c_generic",
        crc32c_generic="",
        ext4="jbd2 mbcache lib",
        jbd2="crc32c_generic",
        mbcache="",
    )
    order = names(load_order(["erofs", "ext4"], known.get, builtin=frozenset({"lib"})))
    assert order == ["crc32c_generic", "libcrc32c", "erofs", "jbd2", "mbcache", "ext4"]


def test_what_is_loaded_already_is_not_loaded_again() -> None:
    """The late set leaves out the early one."""
    known = modules(a="b", b="", c="b")
    early = load_order(["a"], known.get, builtin=frozenset())
    assert names(load_order(["c"], known.get, builtin=frozenset(), loaded=early)) == ["c"]


def test_a_missing_module_is_named_with_who_needs_it() -> None:
    """The message says what to look for."""
    with pytest.raises(DataError, match="no module jbd2, which ext4 needs"):
        load_order(["ext4"], modules(ext4="jbd2").get, builtin=frozenset())


def test_modules_that_need_each_other_end() -> None:
    """A loop is an error, not endless recursion."""
    with pytest.raises(DataError, match="a -> b -> a"):
        load_order(["a"], modules(a="b", b="a").get, builtin=frozenset())


def test_a_module_of_another_kernel_fails_the_build() -> None:
    """A kernel refuses modules of another release only when the guest starts; the build must."""
    check_release(modules(a="").values(), "6.12")
    with pytest.raises(DataError, match=r"module a is for kernel 6\.12, the kernel is 6\.13"):
        check_release(modules(a="").values(), "6.13")


@pytest.mark.parametrize("path", ["kernel/drivers/virtio-rng.ko.xz", "virtio_rng.ko", "a/b/virtio-rng.ko.zst"])
def test_names_of_modules(path: str) -> None:
    """A module's name has no folder, no suffix and no dash."""
    assert module_name(path) == "virtio_rng"

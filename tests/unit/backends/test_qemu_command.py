"""The machine's description becomes QEMU's command line: which words, for which wishes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shed.backends.base import Disk, Machine, Share
from shed.backends.qemu.command import Host, build, kernel_command_line

MACHINE = Machine(
    name="demo",
    cpus=2,
    memory_mb=1536,
    kernel=Path("/k/vmlinux"),
    initrd=Path("/k/initrd"),
    disks=(
        Disk(Path("/u/upper.ext4"), read_only=False),
        Disk(Path("/b/root"), read_only=True),
        Disk(Path("/b/runtime"), read_only=True),
    ),
    state_dir=Path("/s"),
)
HOST = Host(Path("/usr/bin/qemu-system-x86_64"), "tcg", "0d9d1f6e-53e5-4a4d-9c8b-3c7d1c1e8a11")
SHARE = Share("workspace", Path("/home/me/project"), 1000, 1000)


def values(command: list[str], option: str) -> list[str]:
    """Return what follows each `option`."""
    return [command[index + 1] for index, word in enumerate(command) if word == option]


def devices(command: list[str]) -> list[dict[str, object]]:
    """Return all devices, as JSON objects."""
    return [json.loads(value) for value in values(command, "-device")]


@pytest.mark.parametrize(
    ("machine", "host", "option", "expected"),
    [
        (MACHINE, HOST, "-name", ["shed-demo"]),
        (MACHINE, HOST, "-uuid", [HOST.uuid]),
        (MACHINE, HOST, "-smp", ["2"]),
        (MACHINE, HOST, "-m", ["1536M"]),
        (MACHINE, HOST, "-kernel", ["/k/vmlinux"]),
        (MACHINE, HOST, "-initrd", ["/k/initrd"]),
        (MACHINE, HOST, "-bios", ["qboot.rom"]),
        (MACHINE, HOST, "-display", ["none"]),
        (MACHINE, HOST, "-accel", ["tcg"]),
        (MACHINE, replace(HOST, one_thread=True), "-accel", ["tcg,thread=single"]),
        (MACHINE, replace(HOST, accel="kvm"), "-accel", ["kvm"]),
        (MACHINE, replace(HOST, accel="kvm"), "-cpu", ["host"]),
        (MACHINE, HOST, "-runas", []),
        (MACHINE, HOST, "-fsdev", []),
        (
            replace(MACHINE, shares=(SHARE,)),
            HOST,
            "-fsdev",
            ["local,id=share0,path=/home/me/project,security_model=none,multidevs=remap"],
        ),
        (
            replace(MACHINE, mounts=(SHARE, SHARE)),
            HOST,
            "-fsdev",
            ["local,id=mounts,path=/shares,security_model=none,multidevs=remap"],
        ),
        (
            replace(MACHINE, shares=(replace(SHARE, path=Path("/a,b")),)),
            HOST,
            "-fsdev",
            ["local,id=share0,path=/a,,b,security_model=none,multidevs=remap"],
        ),
    ],
)
def test_each_wish_has_its_words(machine: Machine, host: Host, option: str, expected: list[str]) -> None:
    """One table from parameters to words."""
    assert values(build(machine, host), option) == expected


def test_disks_come_in_order_and_only_the_first_is_writable() -> None:
    """The guest finds vda, vdb and vdc where it looks for them; odd file names do no harm."""
    odd = replace(MACHINE, disks=(Disk(Path('/u/a,b"c=d/upper'), read_only=False), *MACHINE.disks[1:]))
    command = build(odd, HOST)
    nodes = [json.loads(value) for value in values(command, "-blockdev")]
    assert [node["file"]["filename"] for node in nodes] == ['/u/a,b"c=d/upper', "/b/root", "/b/runtime"]
    assert [node.get("read-only", False) for node in nodes] == [False, True, True]
    assert nodes[0]["discard"] == nodes[0]["detect-zeroes"] == "unmap"
    assert [device["drive"] for device in devices(command) if device["driver"] == "virtio-blk-pci"] == [
        "vda",
        "vdb",
        "vdc",
    ]


def test_the_guest_has_what_it_is_promised() -> None:
    """The agent's port, entropy, a network without option ROM, and one 9P device per share."""
    found = {str(device["driver"]): device for device in devices(build(replace(MACHINE, shares=(SHARE,)), HOST))}
    assert found["virtserialport"]["name"] == "shed.agent"
    assert "virtio-rng-pci" in found
    assert found["virtio-net-pci"]["romfile"] == ""
    assert found["virtio-9p-pci"] == {"driver": "virtio-9p-pci", "fsdev": "share0", "mount_tag": "workspace"}


def test_nothing_of_the_shed_is_in_the_kernels_words() -> None:
    """Configure brings all that, so that one boot serves every shed."""
    for accel in ("kvm", "tcg"):
        words = kernel_command_line(accel, 2_600_000).split()
        assert "console=ttyS0" in words
        assert "panic=-1" in words  # with -no-reboot: a panic ends the VM, and is noticed at once
        assert not any("shed" in word or "demo" in word for word in words)


def test_an_emulated_guest_is_told_how_fast_its_clock_is() -> None:
    """Or it looks at one whose rate is known: what it would find out by itself on a busy host is wrong by a factor."""
    assert {"tsc=reliable", "tsc_early_khz=2600000"} <= set(kernel_command_line("tcg", 2_600_000).split())
    assert "tsc=unstable" in kernel_command_line("tcg", None).split()
    assert "tsc" not in kernel_command_line("kvm", 2_600_000)


def test_sockets_are_never_named() -> None:
    """They are inherited, so the length of the state folder's path does not matter."""
    command = build(replace(MACHINE, state_dir=Path("/" + "x" * 300)), HOST)
    assert not any("xxx" in word for word in command)
    assert [value.split(",")[2] for value in values(command, "-chardev") if value.startswith("socket")] == [
        "fd=5",
        "fd=4",
    ]

"""From a machine's description to QEMU's command line.  Pure: touches nothing.

The machine: q35 without the parts a server never uses, the kernel entered directly (PVH, through qboot), everything
virtio over PCI. File names go through JSON, so commas do no harm.  QEMU's two sockets are inherited, listening already.

A machine that is saved, and those restored from it, differ in four things: their memory is a file, shared while the
machine is made and copied on write afterwards; they have a VMGENID device, which tells the kernel that it is another
machine now; their firmware is SeaBIOS, because qboot halts on the ACPI table which that device brings (QEMU 7.2); and
they have no UUID in their SMBIOS tables, where it would be the same in all of them.  A restored one is given neither
kernel nor initrd: they are in its memory.

A shed's machine that is kept as it is may have booted for itself.  Then what goes on from it has its memory in a file,
and all else as it was.  One that was suspended has its memory from the monitor, too.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from shed.backends.base import MOUNTS, Disk, Machine
from shed.backends.jail import descriptors
from shed.backends.jail.plan import FOLDERS, inside

CONSOLE = "console.log"
"""The end of what the guest's serial console said since the VM was started, in the state folder; see
`shed.backends.qemu.launcher`.
"""
AGENT_FD, MONITOR_FD = descriptors.AGENT, descriptors.MONITOR
"""The inherited sockets: the agent's virtio-serial port, and QMP."""
CONSOLE_FD = descriptors.CONSOLE
"""The pipe to the keeper of the console log.  QEMU does not wait for it: what it does not take is tried again, and then
dropped.
"""
NIC_FD = descriptors.NIC
"""The network card's other end: a TAP in the machine's network namespace, see `shed.egress.network.netns_setup`."""
KERNEL, INITRD = "/kernel", "/initrd"
"""What they are called in QEMU's jail."""
AGENT_PORT = "shed.agent"
MOUNTS_DEVICE = f"local,id={MOUNTS},path="
"""How the option begins by which a machine can have further folders."""
DISK_NAMES = [f"vd{letter}" for letter in "abcdefgh"]
_DISK_SETS = 2
"""The first of QEMU's sets of descriptors that are disks; the console's is 1."""

_KERNEL_COMMAND_LINE = "console=ttyS0 panic=-1 quiet cryptomgr.notests initcall_blacklist=jent_mod_init"
"""``panic=-1`` with ``-no-reboot``: a panic ends the VM, so it is noticed at once.  Not testing its own cryptography on
the way saves the kernel 45 % of the instructions up to init (0.85 of 1.87 thousand million).
"""
_TCG_COMMAND_LINE = "no_timer_check mitigations=off norandmaps cgroup.memory=nokmem"
"""An emulated CPU that has to wait for the host looks like a broken timer (for its clock, see
`shed.backends.qemu.tsc`).  Its speculation is not real either: guarding against it costs an eighth of the boot and
protects from nothing, as the translated code runs without the guards.  QEMU 7.2 translates a program again for every
address it is loaded at: with addresses that stay, a process starts in 0.4 of the time.  Counting the kernel's memory of
each control group would be switched on, with the first group, by patching code that always runs: see
`docs/decisions/0011-variants.md`.
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What the command line takes from this host, beside the machine."""

    program: Path
    accel: str
    """``kvm`` or ``tcg``."""
    uuid: str
    """Made for this start; tells this process from all others."""
    tsc_khz: int | None = None
    """Rate of the time stamp counter; emulated guests that are not told use another clock."""
    one_thread: bool = False
    """Emulate all processors in one thread; see `shed.backends.qemu.accel.one_thread`."""
    memory: Path | None = None
    """The file that is the memory of a machine that is to be saved, or was."""
    network: bool = False
    """Whether its network card leads into a network namespace; else it leads nowhere."""
    restored: bool = False
    """Whether the machine is to go on from what was saved, which comes in by the monitor."""
    as_booted: bool = False
    """Whether what was saved was a machine that had booted for itself, and had none of what `_saved_board` adds."""
    jailed: bool = False
    """Whether files have the names that they have in QEMU's jail, see `shed.backends.jail.plan`; disks come as open
    files.
    """


def kernel_command_line(accel: str, tsc_khz: int | None) -> str:
    """Return the words the guest's kernel gets.  Nothing in them is about this shed: that comes with configure."""
    if accel != "tcg":
        return _KERNEL_COMMAND_LINE
    clock = f"tsc=reliable tsc_early_khz={tsc_khz}" if tsc_khz else "tsc=unstable"
    return f"{_KERNEL_COMMAND_LINE} {clock} {_TCG_COMMAND_LINE}"


def board(accel: str, *, one_thread: bool = False, memory: str = "", firmware: str = "qboot.rom") -> list[str]:
    """Return the options that make the machine's board and processor.

    With `one_thread`, emulated processors take turns.

    `memory` is the id of the object that is its memory, if there is one.

    Five-level page tables only make an emulated CPU slower.
    """
    processor = "host" if accel == "kvm" else "max,la57=off,erms=off"  # emulated, `rep movsb` goes byte by byte
    return [
        "-machine",
        f"q35,usb=off,sata=off,smbus=off,vmport=off,dump-guest-core=off{f',memory-backend={memory}' if memory else ''}",
        "-accel",
        f"{accel},thread=single" if one_thread else accel,
        "-cpu",
        processor,
        "-bios",
        firmware,
    ]


def build(machine: Machine, host: Host) -> list[str]:
    """Return the command, program first."""
    command = [str(host.program), *_frame(machine, host)]
    for number, (name, disk) in enumerate(zip(disk_names(machine), machine.disks, strict=True)):
        if host.jailed:
            command += ["-add-fd", f"fd={descriptors.FILES + number},set={_DISK_SETS + number}"]
        command += _disk(name, disk, f"/dev/fdset/{_DISK_SETS + number}" if host.jailed else str(disk.path))
    command += _agent() + _network(host) + ["-device", _json(driver="virtio-rng-pci", id="rng")]
    for index, share in enumerate(machine.shares):
        access = ",readonly=on" if share.mode == "ro" else ""
        path = _escaped(inside(share.path, share.mode) if host.jailed else str(share.path))
        folder = f"local,id=share{index},path={path},security_model=none,multidevs=remap{access}"
        command += [
            "-fsdev",
            folder,
            "-device",
            _json(driver="virtio-9p-pci", fsdev=f"share{index}", mount_tag=share.tag),
        ]
    if machine.mounts is not None:
        device = _json(driver="virtio-9p-pci", fsdev=MOUNTS, mount_tag=MOUNTS)
        command += ["-fsdev", f"{MOUNTS_DEVICE}{FOLDERS},security_model=none,multidevs=remap", "-device", device]
    return command


def disk_names(machine: Machine) -> list[str]:
    """Return what the guest, and QEMU, call the machine's disks."""
    return DISK_NAMES[: len(machine.disks)]


def _frame(machine: Machine, host: Host) -> list[str]:
    """The machine itself, its console and its monitor."""
    return [
        "-name", f"shed-{machine.name}",
        "-uuid", host.uuid,
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        *(
            board(host.accel, one_thread=host.one_thread)
            if host.memory is None and not host.restored
            else _saved_board(machine, host)
        ),
        "-smp", str(machine.cpus),
        "-m", f"{machine.memory_mb}M",
        *(["-incoming", "defer"] if host.restored else _kernel(machine, host)),
        "-add-fd", f"fd={CONSOLE_FD},set=1",
        "-chardev", "file,id=console,path=/dev/fdset/1,append=on",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=monitor,fd={MONITOR_FD},server=on,wait=off",
        "-mon", "chardev=monitor,mode=control",
    ]  # fmt: skip


def _saved_board(machine: Machine, host: Host) -> list[str]:
    memory_id = "pc.ram" if host.as_booted else "ram"  # the first is what QEMU itself calls it
    common = {"id": memory_id, "size": machine.memory_mb << 20}
    if host.memory is None:
        memory = _json(**{"qom-type": "memory-backend-ram", **common})
    else:
        path = descriptors.MEMORY if host.jailed else str(host.memory)
        memory = _json(**{"qom-type": "memory-backend-file", **common, "mem-path": path}, share=not host.restored)
    if host.as_booted:
        return ["-object", memory, *board(host.accel, one_thread=host.one_thread, memory=memory_id)]
    return [
        "-object", memory,
        *board(host.accel, one_thread=host.one_thread, memory=memory_id, firmware="bios-256k.bin"),
        "-device", "vmgenid,guid=auto",
        "-smbios", f"type=1,uuid={uuid.UUID(int=0)}",
    ]  # fmt: skip


def _kernel(machine: Machine, host: Host) -> list[str]:
    return [
        "-kernel",
        KERNEL if host.jailed else str(machine.kernel),
        "-initrd",
        INITRD if host.jailed else str(machine.initrd),
        "-append",
        kernel_command_line(host.accel, host.tsc_khz),
    ]


def _disk(name: str, disk: Disk, file: str) -> list[str]:
    """A raw image, which QEMU opens as `file`; what the guest discards or zeroes becomes a hole in it.

    When the host has no space left, the machine stands still, and `shed.sheds.room` has it go on; any other error is
    the guest's.
    """
    node = disk_node(name, {"driver": "file", "filename": file}, read_only=disk.read_only)
    return [
        "-blockdev",
        json.dumps(node),
        "-device",
        _json(driver="virtio-blk-pci", drive=name, id=name, werror="enospc"),
    ]


def disk_node(name: str, file: object, *, read_only: bool) -> dict[str, object]:
    """Return the options of the block node of the disk `name`; `file` is the node below it, or its options."""
    more: dict[str, object] = {"read-only": True} if read_only else {"discard": "unmap", "detect-zeroes": "unmap"}
    return {"node-name": name, "driver": "raw", "file": file, **more}


def _agent() -> list[str]:
    return [
        "-chardev", f"socket,id=agent,fd={AGENT_FD},server=on,wait=off",
        "-device", _json(driver="virtio-serial-pci", id="serial", max_ports=2),
        "-device", _json(driver="virtserialport", chardev="agent", name=AGENT_PORT),
    ]  # fmt: skip


def _network(host: Host) -> list[str]:
    """A card that leads into a network namespace, or nowhere."""
    if not host.network:
        return ["-device", _json(driver="virtio-net-pci", romfile="")]
    return [
        "-netdev", f"tap,id=net,fd={NIC_FD},vhost=off",
        "-device", _json(driver="virtio-net-pci", netdev="net", romfile=""),
    ]  # fmt: skip


def _json(**members: object) -> str:
    return json.dumps(members)


def _escaped(path: str) -> str:
    return path.replace(",", ",,")

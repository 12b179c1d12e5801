"""A seccomp program that lists what a process may call.  Pure: builds bytes.

A call that is not listed fails as one that the kernel does not have (ENOSYS), for which every program and library is
prepared; so a newer program, or a newer C library, that tries something new goes on without it.  What is ordinary
works on descriptors, memory, threads and time, and on its own signals.  Not there: namespaces and mounts; new
processes; other processes' memory; keys, BPF, io_uring, userfaultfd, performance counters, modules.

Source: arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

from shed.linux import bpf

ORDINARY = {
    "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16,
    "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23,
    "sched_yield": 24, "mremap": 25, "msync": 26, "mincore": 27, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34,
    "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "sendfile": 40, "accept": 43,
    "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "getsockname": 51,
    "getpeername": 52, "socketpair": 53, "setsockopt": 54, "getsockopt": 55, "exit": 60, "kill": 62,
    "uname": 63, "fcntl": 72, "flock": 73, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "getdents": 78, "getcwd": 79,
    "readlink": 89, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "getpgrp": 111, "getgroups": 115,
    "getresuid": 118, "getresgid": 120, "getpgid": 121, "getsid": 124, "capget": 125, "rt_sigpending": 127,
    "rt_sigtimedwait": 128, "rt_sigqueueinfo": 129, "rt_sigsuspend": 130, "sigaltstack": 131, "statfs": 137,
    "fstatfs": 138, "getpriority": 140, "sched_getparam": 143, "sched_getscheduler": 145,
    "sched_get_priority_max": 146, "sched_get_priority_min": 147, "mlock": 149, "munlock": 150, "arch_prctl": 158,
    "gettid": 186, "readahead": 187, "tkill": 200, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "epoll_create": 213, "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219, "fadvise64": 221,
    "timer_create": 222, "timer_settime": 223, "timer_gettime": 224, "timer_getoverrun": 225, "timer_delete": 226,
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232,
    "epoll_ctl": 233, "tgkill": 234, "openat": 257, "newfstatat": 262, "readlinkat": 267, "faccessat": 269,
    "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "get_robust_list": 274, "splice": 275, "tee": 276,
    "sync_file_range": 277, "epoll_pwait": 281, "signalfd": 282, "timerfd_create": 283, "eventfd": 284,
    "fallocate": 285, "timerfd_settime": 286, "timerfd_gettime": 287, "accept4": 288, "signalfd4": 289, "eventfd2": 290,
    "epoll_create1": 291, "dup3": 292, "pipe2": 293, "preadv": 295, "pwritev": 296, "prlimit64": 302, "getcpu": 309,
    "sched_getattr": 315, "getrandom": 318, "memfd_create": 319, "membarrier": 324,
    "copy_file_range": 326, "preadv2": 327, "pwritev2": 328, "statx": 332, "rseq": 334, "close_range": 436,
    "faccessat2": 439, "epoll_pwait2": 441, "futex_waitv": 449,
}  # fmt: skip
_CLONE, _PRCTL = 56, 157
_THREAD, _NAMESPACES = 0x10000, 0x7E020080
_PRCTLS = {"dumpable": 3, "get_name": 16, "set_name": 15, "seccomp?": 21, "seccomp": 22, "bounding?": 23,
           "timer_slack": 29, "mce_kill": 33, "no_new_privs": 38, "no_new_privs?": 39, "vma": 0x53564D41}  # fmt: skip
_MISSING = bpf.ERRNO | errno.ENOSYS
REFUSED = bpf.ERRNO | errno.EPERM
NO_FAMILY = bpf.ERRNO | errno.EAFNOSUPPORT


def program(calls: Mapping[str, int], rules: Sequence[bytes] = ()) -> bytes:
    """Return the instructions (struct sock_filter each) that allow `calls`, threads, and what is harmless of prctl.

    `rules` are further instructions, which begin with the call's number loaded, and leave it so.
    """
    code = [*bpf.load_architecture(), *bpf.load_number(), *rules]
    for number in sorted(calls.values()):
        code += bpf.when(bpf.JEQ, number, then=[bpf.ret(bpf.ALLOW)])
    thread = bpf.when(bpf.JSET, _THREAD, then=[bpf.ret(bpf.ALLOW)])
    refused = bpf.when(bpf.JSET, _NAMESPACES, then=[bpf.ret(REFUSED)])
    code += bpf.when(bpf.JEQ, _CLONE, then=[*bpf.argument(0), *refused, *thread, bpf.ret(REFUSED)])
    known = [line for value in _PRCTLS.values() for line in bpf.when(bpf.JEQ, value, then=[bpf.ret(bpf.ALLOW)])]
    code += bpf.when(bpf.JEQ, _PRCTL, then=[*bpf.argument(0), *known, bpf.ret(REFUSED)])
    return b"".join([*code, bpf.ret(_MISSING)])

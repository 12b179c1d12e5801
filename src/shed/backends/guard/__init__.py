"""What QEMU may do in a shared folder, enforced by the host's kernel: see `docs/decisions/0029-guarded-shares.md`.

`filter` is the seccomp program that QEMU's launcher installs: it refuses set-id bits and devices itself, and hands
calls that change names to the `supervisor`, a small process beside each QEMU with a writable share.  That asks `rules`,
and for a repository's settings `gitconfig`; both are pure.  When the supervisor ends, the kernel refuses all calls that
it would have been asked about.
"""

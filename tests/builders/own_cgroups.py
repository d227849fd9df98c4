"""Start podman where a container may neither touch this machine's cgroups nor raise its limits, as in many containers."""

from __future__ import annotations

from typing import Final

#: Of ``podman run``.
OPTIONS: Final = ("--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
#: Program of a shell: it starts the words behind it with cgroups of its own.
PROGRAM: Final = 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'
#: First words of a command line.
START: Final = ("unshare", "-m", "bash", "-c", PROGRAM, "_")

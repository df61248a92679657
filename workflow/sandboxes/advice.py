"""What to install or change on this machine for a better tier, from what is found missing."""

import os
import shutil
from collections.abc import Set
from pathlib import Path

from workflow.sandboxes import landlock

SWITCHES = (
    # (file, value that forbids user namespaces to ordinary users, how to allow them)
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "give bwrap an AppArmor profile with `userns,` or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def for_better_tier(tier: str, *, controllers: Set[str]) -> tuple[str, ...]:
    """Sentences for the operator; empty when nothing better is to be had.

    controllers: those of the control groups that can be made here.
    """
    found = []
    if controllers and "cpu" not in controllers:
        found.append("for a limit on CPU time, delegate the controller cpu as well: Delegate=cpu memory pids")
    if tier == "T1":
        return tuple(found)
    if shutil.which("bwrap") is None:
        found.append("install bubblewrap (apt install bubblewrap, dnf install bubblewrap)")
    for path, forbidden, remedy in SWITCHES:
        file = Path(path)
        if file.exists() and file.read_text().strip() == forbidden:
            found.append(f"allow user namespaces: {remedy}")
    if not controllers:
        found.append(
            "for limits on memory and processes, start the worker as a systemd service with Delegate=yes, or as root"
        )
    if tier == "T3":
        if os.geteuid() == 0 and not (shutil.which("setpriv") and shutil.which("unshare")):
            found.append("install util-linux (setpriv, unshare): as root, each sandbox gets a user of its own by it")
        if landlock.abi() < landlock.MIN_ABI:
            found.append(f"tier T2 needs Landlock ABI {landlock.MIN_ABI} (Linux 6.12 or later)")
        found.append('see the probes; or, to run commands unconfined, write sandbox.mode = "unsafe_host"')
    return tuple(found)

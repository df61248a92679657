"""The system call filter of a sandbox, as a classic BPF program built by hand.

A list of refusals, so that ordinary programs run unharmed: everything that reaches kernel state beyond the
process's own files, memory and sockets answers EPERM. A foreign instruction set (int 0x80, x32) is killed, because
its numbers mean other calls. Sources: seccomp(2), linux/filter.h, linux/seccomp.h, linux/audit.h.
"""

import errno
import platform
import struct
from collections.abc import Mapping
from typing import Literal

from workflow.core.errors import SandboxRefused

LOAD, JUMP_EQUAL, JUMP_GE, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER_AT, ARCH_AT, ARGS_AT = 0, 4, 16
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; NEWTIME exists only in clone3 and unshare."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
X32_BIT = 0x40000000

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "x86_64": {"clone": 56, "clone3": 435, "socket": 41, "socketpair": 53, "ioctl": 16},
    "aarch64": {"clone": 220, "clone3": 435, "socket": 198, "socketpair": 199, "ioctl": 29},
}
REFUSED = {
    # (x86_64, aarch64); None where the architecture never had the call.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),  # one process could take the contexts of the whole host (fs.aio-max-nr)
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "personality": (135, 92),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "memfd_secret": (447, 447),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
}


IPC = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
"""Memory and queues that every process of a user reaches by number; a namespace of one's own has its own.

Also the calls that take no key but the number itself: numbers are small and easily guessed.
"""
Others = dict[str, tuple[tuple[int, int], dict[int, int]]]
"""Numbers of a call, and the arguments (place → value) that mean the caller itself."""
LIMITS_OF_OTHERS: Others = {"prlimit64": ((302, 261), {0: 0})}
"""Init is a process of the same user: without descriptors it would not see what a command has left behind."""
ON_OTHERS: Others = {
    "sched_setparam": ((142, 118), {0: 0}),
    "sched_setscheduler": ((144, 119), {0: 0}),
    "sched_setaffinity": ((203, 122), {0: 0}),
    "sched_setattr": ((314, 274), {0: 0}),
    "setpriority": ((141, 140), {0: 0, 1: 0}),  # PRIO_PROCESS
    "ioprio_set": ((251, 30), {0: 1, 1: 0}),  # IOPRIO_WHO_PROCESS
}
ON_PATHS = {
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
"""Landlock leaves these alone, so with the worker's own user they would reach all of that user's files."""
UTIMENSAT = (280, 88)

Kind = Literal["namespaces", "own user", "shared user"]
"""What else confines the process: namespaces (T1, T1b), or Landlock, as a user of its own or as the worker's."""


def build(kind: Kind, *, machine: str = "") -> bytes:
    """The filter as an array of `struct sock_filter` for this machine.

    `namespaces` allows AF_UNIX, AF_INET, AF_INET6 and route netlink; the others refuse every socket() and System V
    IPC. All refuse limits of other processes. `shared user` also refuses their other settings, and lets changes of
    modes, owners, times and attributes *by path* succeed without effect: refused, git, npm and pip would not work.
    Raises: SandboxRefused on a machine whose call numbers are unknown.
    """
    machine = machine or platform.machine()
    if machine not in AUDIT_ARCH:
        raise SandboxRefused(f"no system call filter for {machine}; known: {', '.join(AUDIT_ARCH)}")
    calls, column = CALLS[machine], list(AUDIT_ARCH).index(machine)
    program = [
        _step(LOAD, ARCH_AT),
        *_unless(JUMP_EQUAL, AUDIT_ARCH[machine], [_return(KILL)]),
        _step(LOAD, NUMBER_AT),
    ]
    if machine == "x86_64":
        program += _when(JUMP_GE, X32_BIT, [_return(KILL)])
    program += _when(JUMP_EQUAL, calls["clone3"], [_return(FAIL | errno.ENOSYS)])
    program += _when(JUMP_EQUAL, calls["clone"], [_half(0), *_when(JUMP_ANY_BIT, NEW_NAMESPACES, [REFUSE]), PASS])
    terminal = [*_when(JUMP_EQUAL, TIOCSTI, [REFUSE]), *_when(JUMP_EQUAL, TIOCLINUX, [REFUSE])]
    program += _when(JUMP_EQUAL, calls["ioctl"], [_half(1), *terminal, PASS])
    program += _when(JUMP_EQUAL, calls["socket"], [*(_families() if kind == "namespaces" else []), REFUSE])
    # A pair makes a socket of any family first, which loads its module, and only then asks whether it knows pairs.
    program += _when(JUMP_EQUAL, calls["socketpair"], [_half(0), *_when(JUMP_EQUAL, AF_UNIX, [PASS]), REFUSE])
    refused = REFUSED if kind == "namespaces" else REFUSED | IPC
    program += _each(refused, column, [REFUSE])
    program += _on_others(LIMITS_OF_OTHERS, column)
    if kind == "shared user":
        program += _for_shared_user(column)
    return b"".join([*program, PASS])


def _for_shared_user(column: int) -> list[bytes]:
    """What keeps a process off others of its own user, where neither namespaces nor another user do."""
    steps = _on_others(ON_OTHERS, column) + _each(ON_PATHS, column, [NO_EFFECT])
    # Without a path, utimensat is about an open file; a pointer is null only if both of its halves are.
    halves = (_half(1), _half(1, upper=True))
    by_path = [step for half in halves for step in (half, *_unless(JUMP_EQUAL, 0, [NO_EFFECT]))]
    return steps + _when(JUMP_EQUAL, UTIMENSAT[column], [*by_path, PASS])


def _on_others(calls: Others, column: int) -> list[bytes]:
    """Refuses calls that mean anybody but the caller."""
    steps = []
    for numbers, own in calls.values():
        checks = [
            step for place, value in own.items() for step in (_half(place), *_unless(JUMP_EQUAL, value, [REFUSE]))
        ]
        steps += _when(JUMP_EQUAL, numbers[column], [*checks, PASS])
    return steps


def _each(calls: Mapping[str, tuple[int, int | None]], column: int, then: list[bytes]) -> list[bytes]:
    numbers = sorted(number for row in calls.values() if (number := row[column]) is not None)
    return [step for number in numbers for step in _when(JUMP_EQUAL, number, then)]


def _families() -> list[bytes]:
    """Lets the harmless families through. Route netlink is how programs list network interfaces."""
    steps = [_half(0)]
    for family in (AF_UNIX, AF_INET, AF_INET6):
        steps += _when(JUMP_EQUAL, family, [PASS])
    return steps + _when(JUMP_EQUAL, AF_NETLINK, [_half(2), *_when(JUMP_EQUAL, NETLINK_ROUTE, [PASS])])


def _when(test: int, value: int, then: list[bytes]) -> list[bytes]:
    return [_step(test, value, yes=0, no=len(then)), *then]


def _unless(test: int, value: int, then: list[bytes]) -> list[bytes]:
    return [_step(test, value, yes=len(then), no=0), *then]


def _half(index: int, *, upper: bool = False) -> bytes:
    """Loads half of an argument, as a rule the lower: flags, families, numbers are read as 32 bits by the kernel."""
    return _step(LOAD, ARGS_AT + 8 * index + (4 if upper else 0))


def _return(action: int) -> bytes:
    return _step(RETURN, action)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


PASS = _return(ALLOW)
REFUSE = _return(FAIL | errno.EPERM)
NO_EFFECT = _return(FAIL)
"""An error number of 0: the call is not made and its caller is told that it was."""

"""Attacks a sandbox has to withstand, tried from inside it; the start-up check runs this file there as a script.

Standard library only. Reads a marshalled dictionary of targets (`Targets` in `probes.py`) from its standard input,
prints one line `name<TAB>held|open<TAB>detail` per attack. An attack is a function that comes back with what it got
hold of, or raises OSError because it was refused.
"""

import contextlib
import ctypes
import errno
import hashlib
import marshal
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
AF_VSOCK, NETLINK_NETFILTER = 40, 12
PTRACE_SEIZE, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP = 0x4206, 39, 21
SIGSYS = 31
TIOCSTI = 0x5412
X32_GETPID = 0x40000000 + 39
NUMBERS: dict[str, tuple[int, int]] = {
    # name → call number on x86_64 and aarch64
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_setup": (206, 0),
    "keyctl": (250, 219),
    "setns": (308, 268),
    "personality": (135, 92),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270),
    "mount_setattr": (442, 442),
    "fsopen": (430, 430),
    "syslog": (103, 116),
}

Targets = dict[str, Any]
Attack = Callable[[Targets], str]


def read_host_file(targets: Targets) -> str:
    with open(targets["file"]) as file:  # noqa: PTH123  (a script that starts fast)
        return file.read()


def read_shadow(targets: Targets) -> str:
    with open("/etc/shadow") as file:  # noqa: PTH123
        return file.read(10)


def write_system(targets: Targets) -> str:
    for folder in ("/usr", "/etc", "/", "/usr/bin", "/proc/sys/kernel"):
        try:
            os.close(os.open(f"{folder}/dialtone-canary", os.O_WRONLY | os.O_CREAT))
        except OSError:
            continue
        return f"wrote to {folder}"
    raise PermissionError


def write_host_folder(targets: Targets) -> str:
    os.close(os.open(targets["folder"] + "/planted", os.O_WRONLY | os.O_CREAT))
    return "wrote beside the canary"


def link_host_file(targets: Targets) -> str:
    os.link(targets["file"], "stolen")
    return "linked"


def change_host_mode(targets: Targets) -> str:
    """Whether the calls are refused or without effect does not matter, only the file."""
    before = os.stat(targets["file"])  # noqa: PTH116
    with contextlib.suppress(OSError):
        os.chmod(targets["file"], 0o777)  # noqa: PTH101
    with contextlib.suppress(OSError):
        os.utime(targets["file"], (0, 0))
    after = os.stat(targets["file"])  # noqa: PTH116
    if (before.st_mode, before.st_mtime) != (after.st_mode, after.st_mtime):
        return f"mode {after.st_mode:o}, time {after.st_mtime:.0f}"
    raise PermissionError


def limit_worker(targets: Targets) -> str:
    resource.prlimit(targets["pid"], resource.RLIMIT_CORE, (0, 0))
    if _is_worker(targets):
        return "limited"
    raise ProcessLookupError


def read_shared_memory(targets: Targets) -> str:
    """A System V segment of the host, found by its number."""
    if libc.shmget(targets["shared_memory"], 1, 0) != -1:
        return "found"
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def attach_shared_memory(targets: Targets) -> str:
    """The same by its id, for which no key is needed."""
    libc.shmat.restype = ctypes.c_ssize_t
    if libc.shmat(targets["shared_memory_id"], None, 0) != -1:
        return "attached"
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def limit_keeper(targets: Targets) -> str:
    """Whoever clears up after us, and without descriptors would see nothing of what we leave."""
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))
    return "limited"


def open_keeper(targets: Targets) -> str:
    for name in ("mem", "fd/2", "environ"):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/{os.getppid()}/{name}", os.O_RDONLY))
            return name
    raise PermissionError


def fill_devices(targets: Targets) -> str:
    """/dev may be a file system in memory that nothing bounds."""
    os.close(os.open("/dev/dialtone-canary", os.O_WRONLY | os.O_CREAT))
    return "wrote to /dev"


def list_data_folder(targets: Targets) -> str:
    return " ".join(os.listdir(targets["data_dir"]))  # noqa: PTH208


def read_secrets_of_worker(targets: Targets) -> str:
    """Looks for the worker's environment in every readable process."""
    for pid in ("self", *filter(str.isdigit, os.listdir("/proc"))):  # noqa: PTH208
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
                entries = file.read().split(b"\0")
        except OSError:
            continue
        for entry in entries:
            if hashlib.sha256(entry).hexdigest() in targets["environment"]:
                return entry.partition(b"=")[0].decode(errors="replace")
    raise PermissionError


def see_host_processes(targets: Targets) -> str:
    ours = {1, os.getpid(), os.getppid()}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):  # noqa: PTH208
        if pid not in ours:
            with open(f"/proc/{pid}/cmdline") as file:  # noqa: PTH123
                return file.read()
    raise PermissionError


def signal_worker(targets: Targets) -> str:
    os.kill(targets["pid"], 0)
    if _is_worker(targets):
        return "signalled"
    raise ProcessLookupError


def trace_worker(targets: Targets) -> str:
    if libc.ptrace(PTRACE_SEIZE, targets["pid"], 0, 0) == 0:
        return "traced"
    fd = os.open(f"/proc/{targets['pid']}/mem", os.O_RDONLY)
    os.close(fd)
    if _is_worker(targets):
        return "memory open"
    raise PermissionError


def _is_worker(targets: Targets) -> bool:
    """Tells the worker from a process in here that happens to have the same number."""
    try:
        with open(f"/proc/{targets['pid']}/stat") as file:  # noqa: PTH123
            return bool(file.read().rpartition(")")[2].split()[19] == targets["started"])
    except OSError:
        return True


def connect_host_tcp(targets: Targets) -> str:
    with socket.create_connection(("127.0.0.1", targets["tcp_port"]), 0.5):
        return "connected"


def connect_metadata(targets: Targets) -> str:
    return _route_to("169.254.169.254", 80)


def connect_internet(targets: Targets) -> str:
    return _route_to("1.1.1.1", 443)


def _route_to(host: str, port: int) -> str:
    """No answer is awaited: a connection that is merely begun has left the sandbox."""
    with socket.socket() as connection:
        connection.setblocking(False)
        error = connection.connect_ex((host, port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        return f"a route to {host}"


def send_udp(targets: Targets) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.sendto(b"canary", ("1.1.1.1", 53))
    return "sent"


def connect_abstract_socket(targets: Targets) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + targets["abstract"])
    return "connected"


def connect_named_socket(targets: Targets) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(targets["socket"])
    return "connected"


def open_foreign_sockets(targets: Targets) -> str:
    for family, kind, protocol in (
        (socket.AF_PACKET, socket.SOCK_RAW, 0),
        (AF_VSOCK, socket.SOCK_STREAM, 0),
        (socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    ):
        try:
            socket.socket(family, kind, protocol).close()
        except OSError:
            continue
        return f"family {family}"
    raise PermissionError


def pair_foreign_sockets(targets: Targets) -> str:
    """The kernel itself would say that it does not know the family, or no pairs of it; only the filter says EPERM."""
    for family in (socket.AF_NETLINK, socket.AF_TIPC, AF_VSOCK):
        try:
            socket.socketpair(family, socket.SOCK_STREAM)
        except OSError as error:
            if error.errno == errno.EPERM:
                continue
        return f"family {family}"
    raise PermissionError


def nest_user_namespace(targets: Targets) -> str:
    return _call("unshare", libc.unshare, CLONE_NEWUSER)


def nest_network_namespace(targets: Targets) -> str:
    return _call("unshare", libc.unshare, CLONE_NEWNET)


def mount_tmpfs(targets: Targets) -> str:
    return _call("mount", libc.mount, b"tmpfs", b"/tmp", b"tmpfs", 0, None)


def remount_writable(targets: Targets) -> str:
    return _call("remount", libc.mount, None, b"/usr", None, 32 | 4096, None)  # MS_REMOUNT | MS_BIND


def change_root(targets: Targets) -> str:
    os.chroot(".")
    return "changed"


def make_device(targets: Targets) -> str:
    os.mknod("device", 0o060666, os.makedev(254, 0))
    return "made"


def change_kernel_settings(targets: Targets) -> str:
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"):
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        return path
    raise PermissionError


def rename_host(targets: Targets) -> str:
    return _call("sethostname", libc.sethostname, b"evil", 4)


def see_control_groups(targets: Targets) -> str:
    return " ".join(os.listdir("/sys/fs/cgroup"))  # noqa: PTH208


def call_the_kernel(targets: Targets) -> str:
    """Calls that open kernel interfaces beyond a process's own; each must answer EPERM, whatever its arguments."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    for name, numbers in NUMBERS.items():
        ctypes.set_errno(0)
        if libc.syscall(numbers[column], 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM:
            return f"{name}: errno {ctypes.get_errno()}"
    raise PermissionError


def type_into_terminal(targets: Targets) -> str:
    """Without a terminal the kernel would say ENOTTY; only the filter says EPERM."""
    if libc.ioctl(0, TIOCSTI, b"x") == -1 and ctypes.get_errno() == errno.EPERM:
        raise PermissionError
    return "the request was not filtered"


def call_as_x32(targets: Targets) -> str:
    """A call through another instruction set's table must kill the process."""
    if platform.machine() != "x86_64":
        raise PermissionError
    pid = os.fork()
    if pid == 0:
        libc.syscall(X32_GETPID)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == SIGSYS:
        raise PermissionError
    return "answered"


def keep_privileges(targets: Targets) -> str:
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return "may gain privileges"
    if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2:
        return "no system call filter"
    if 0 in (os.getuid(), os.geteuid()):
        return "is root"
    header = ctypes.create_string_buffer((0x20080522).to_bytes(4, sys.byteorder) + bytes(4))
    sets = ctypes.create_string_buffer(24)
    libc.capget(header, sets)
    if any(sets.raw):
        return "has capabilities"
    raise PermissionError


def _call(name: str, function: Callable[..., int], *arguments: Any) -> str:
    if function(*arguments) == 0:
        return f"{name} worked"
    raise PermissionError


ATTACKS: tuple[Attack, ...] = (
    read_host_file,
    read_shadow,
    write_system,
    write_host_folder,
    link_host_file,
    change_host_mode,
    fill_devices,
    list_data_folder,
    read_secrets_of_worker,
    see_host_processes,
    signal_worker,
    trace_worker,
    limit_worker,
    read_shared_memory,
    attach_shared_memory,
    limit_keeper,
    open_keeper,
    connect_host_tcp,
    connect_metadata,
    connect_internet,
    send_udp,
    connect_abstract_socket,
    connect_named_socket,
    open_foreign_sockets,
    pair_foreign_sockets,
    nest_user_namespace,
    nest_network_namespace,
    mount_tmpfs,
    remount_writable,
    change_root,
    make_device,
    change_kernel_settings,
    rename_host,
    see_control_groups,
    call_the_kernel,
    type_into_terminal,
    call_as_x32,
    keep_privileges,
)


def main() -> None:
    targets = marshal.loads(sys.stdin.buffer.read())
    for attack in ATTACKS:
        try:
            verdict, detail = "open", attack(targets)
        except OSError as error:
            verdict, detail = "held", error.strerror or ""
        sys.stdout.write(f"{attack.__name__}\t{verdict}\t{detail!r}\n")


if __name__ == "__main__":
    main()

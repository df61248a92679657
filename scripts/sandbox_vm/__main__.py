"""Runs tests in a virtual machine whose control groups are of version 2: `./run.sh sandbox vm [pytest arguments]`.

The machine has a Debian kernel of its own and this machine's files, read-only under a layer in memory, so its Python,
its programs and this checkout are the ones here. Nothing of it is left. It is emulated, some ten times slower, unless
told to use KVM. Needs the Debian packages qemu-system-x86, busybox-static and systemd; the kernel is taken from /boot,
or fetched with apt and unpacked into var/vm, not installed.
"""

import argparse
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
KERNELS = ROOT / "var" / "vm"
QEMU = "qemu-system-x86_64"
PACKAGES = {QEMU: "qemu-system-x86", "busybox": "busybox-static", "/lib/systemd/systemd": "systemd"}
MODULES = ("drivers/virtio", "fs/9p", "fs/fscache", "fs/netfs", "fs/overlayfs", "net/9p")
"""Folders of the kernel's modules that hold what init.sh loads and what that needs."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATUS = "dialtone-vm: status "
TESTS = (
    *("tests/sandboxes/test_cgroup2.py", "tests/sandboxes/test_systemd.py", "tests/sandboxes/test_attacks_limits.py"),
    *("tests/sandboxes/test_attacks_processes.py", "tests/contracts/test_sandbox.py", "-q"),
    *("-k", "not e2b and not daytona and not hops"),  # The last has seconds for what takes more when emulated.
)
PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider")
"""Those that the tests need; importing all that are installed takes most of a minute when emulated."""
FETCH_TIMEOUT_S = 120


class Missing(Exception):
    """What has to be installed first, as a sentence."""


def main() -> int:
    """Exit status: that of pytest; 2 if something is missing; 124 if the time was up or the machine broke."""
    options, tests = _parser().parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # Everything is put away, as by Ctrl-C.
    try:
        lacking = missing()
        if lacking:
            raise Missing(lacking)
        image, modules = kernel() or fetch()
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.fetch:
        return 0
    command = [sys.executable, "-m", "pytest", *PLUGINS, *(tests or TESTS)]
    with tempfile.TemporaryDirectory(prefix="dialtone-vm-") as folder:
        initramfs = pack(Path(folder), modules, script=guest_script(command))
        return boot(image, initramfs, options)


def missing() -> str:
    """What this machine lacks, apart from a kernel; empty if nothing."""
    if platform.machine() != "x86_64":
        return "the virtual machine is for x86_64 only"
    lacking = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    return f"needs Debian packages; as root: apt-get install -y {' '.join(lacking)}" if lacking else ""


def kernel() -> tuple[Path, Path] | None:
    """A kernel that can have the host's files (9p; Debian's cloud kernels cannot), and the folder of its modules."""
    for base in (Path("/"), KERNELS):
        for modules in sorted(base.glob("lib/modules/*"), reverse=True) or sorted(base.glob("usr/lib/modules/*")):
            image = base / "boot" / f"vmlinuz-{modules.name}"
            if os.access(image, os.R_OK) and any(modules.glob("kernel/net/9p/9pnet_virtio.ko*")):
                return image, modules
    return None


def fetch() -> tuple[Path, Path]:
    """Fetches Debian's kernel as an ordinary user can. Raises: Missing."""
    KERNELS.mkdir(parents=True, exist_ok=True)
    try:
        depends = _output("apt-cache", "depends", "linux-image-amd64")
        name = next(iter(re.findall(r"Depends: (linux-image-\S+)", depends)), "linux-image-amd64")
        with tempfile.TemporaryDirectory(dir=KERNELS) as folder:
            _output("apt-get", "download", "-q", name, cwd=folder)
            (package,) = Path(folder).glob("*.deb")
            _output("dpkg", "--extract", str(package), str(KERNELS))
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(f"no kernel: linux-image-amd64 cannot be fetched with apt: {error}") from error
    found = kernel()
    if found is None:
        raise Missing(f"{name} has no 9p modules; install a kernel that has, e.g. Debian's linux-image-amd64")
    return found


def guest_script(command: list[str]) -> str:
    """What the machine runs, as root."""
    paths = [ROOT, Path(sys.prefix), Path(sys.base_prefix)]
    closed = sorted({str(parent) for path in paths for parent in path.resolve().parents})
    environment = f"env -i PATH={PATH} HOME=/root TERM=dumb PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"
    return (
        f"chmod a+x {shlex.join(closed)}\n"  # Tests of other users have to reach Python; only the layer changes.
        f"cd {shlex.quote(str(ROOT))}\n"
        f"{environment} {shlex.join(command)} </dev/null >/dev/ttyS0 2>&1\n"
        f'echo "{STATUS}$?" >/dev/ttyS0\n'
    )


def pack(folder: Path, modules: Path, *, script: str) -> Path:
    """The initial file system: busybox, the modules, init.sh and what it is to run."""
    tree = folder / "tree"
    target = tree / "lib/modules" / modules.name
    for name in MODULES:
        if (modules / "kernel" / name).is_dir():  # fscache is a part of netfs in later kernels.
            shutil.copytree(modules / "kernel" / name, target / "kernel" / name)
    for path in (*modules.glob("modules.builtin*"), *modules.glob("modules.order")):
        shutil.copy(path, target)
    (tree / "bin").mkdir()
    shutil.copy(shutil.which("busybox") or "", tree / "bin")
    shutil.copy(Path(__file__).parent / "init.sh", tree / "init")
    (tree / "init").chmod(0o755)
    (tree / "command").write_text(script)
    _output("busybox", "depmod", "-b", str(tree), modules.name)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = folder / "initramfs"
    with packed.open("wb") as file:
        subprocess.run(["busybox", "cpio", "-o", "-H", "newc"], input=names.encode(), stdout=file, cwd=tree, check=True)
    return packed


def boot(image: Path, initramfs: Path, options: argparse.Namespace) -> int:
    """Shows what the machine prints, until it switches off; its command's exit status."""
    words = "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 systemd.log_level=err"
    words += " bare" if options.bare else ""
    command = ["setpriv", "--pdeathsig", "KILL", QEMU]  # However we end, it does not stay.
    command += ["-machine", "q35", "-accel", "kvm" if options.kvm else "tcg,thread=single", "-cpu", "max"]
    command += ["-smp", "1", "-m", "2048", "-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio"]
    command += ["-kernel", str(image), "-initrd", str(initramfs), "-append", words]
    command += ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]
    command += ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
    status = 124
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace") as vm:
        timer = threading.Timer(options.timeout_s, vm.kill)
        timer.start()
        try:
            assert vm.stdout is not None
            for line in vm.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                if line.startswith(STATUS):
                    status = int(line.removeprefix(STATUS))
        finally:
            timer.cancel()
            vm.kill()
    if status == 124:
        sys.stderr.write(f"the machine did not get to its end; it had {options.timeout_s:.0f} s\n")
    return status


def _output(*command: str, cwd: str | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=True, timeout=FETCH_TIMEOUT_S)
    return result.stdout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run.sh sandbox vm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # What is left goes to pytest.
    )
    parser.add_argument("--timeout-s", type=float, default=1800, help="switch it off after so many seconds (1800)")
    parser.add_argument("--kvm", action="store_true", help="use KVM, where it works")
    parser.add_argument("--bare", action="store_true", help="without systemd: with nothing but the tests, at the top")
    parser.add_argument("--fetch", action="store_true", help="only see to it that there is a kernel")
    return parser


if __name__ == "__main__":
    sys.exit(main())

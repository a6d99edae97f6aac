"""A webcam that can be unplugged: a QEMU guest whose kernel has the vivid driver, and the host's own Python.

The guest sees the whole file system of the host, read-only and at the same paths, and so runs the same interpreter
with the same packages. It has no network. Its kernel comes from Debian's linux-image, downloaded once and kept under
`$XDG_CACHE_HOME/asrnet-edge-tests`; nothing is installed on the host.
"""

from __future__ import annotations

import io
import lzma
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SHARE", "GuestResult", "GuestUnavailableError", "prepare", "run_in_guest"]

SHARE = "/run/share"
"""Where the guest sees the folder of a run: the script, the given files, and whatever the script leaves there."""

_QEMU = "qemu-system-x86_64"
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "vivid")

# Runs as process 1. The root of the host becomes the root of the guest; what must be writable is memory.
_INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc none /proc
$bb mount -t devtmpfs none /dev
for module in /modules/*.ko; do
    case $module in
        *-vivid.ko) $bb insmod $module {vivid_options} ;;
        *) $bb insmod $module ;;
    esac || {{ echo "insmod $module failed"; $bb poweroff -f; }}
done
$bb mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /root
$bb mount -t proc none /root/proc
$bb mount -t sysfs none /root/sys
$bb mount -t devtmpfs none /root/dev
$bb mount -t tmpfs none /root/run
$bb mkdir -p /root{share} /root/run/home
$bb mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /root{share}
echo "guest ready"
cd /root
$bb chroot /root /usr/bin/env -i HOME=/run/home TMPDIR=/run/home LANG=C.UTF-8 PATH=/usr/bin:/bin \\
    PYTHONDONTWRITEBYTECODE=1 {python} {program} > /root{share}/output 2>&1 < /dev/null
echo $? > /root{share}/exit
$bb sync
$bb poweroff -f
"""


class GuestUnavailableError(Exception):
    """This machine cannot run the guest; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class GuestResult:
    """What a script did in the guest.

    Attributes:
        output: its standard output and error.
        exit_code: of the script.
        seconds: from the start of QEMU to its end, by the clock of the host.
    """

    output: str
    exit_code: int
    seconds: float


def prepare() -> Path:
    """Return the folder that holds the guest's kernel, busybox and modules; the first call downloads them (72 MB).

    Raises:
        GuestUnavailableError: no QEMU here, or no Debian package of a kernel can be had.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise GuestUnavailableError("the webcam guest is made for Linux on x86-64")
    if not shutil.which(_QEMU):
        raise GuestUnavailableError("QEMU is not installed (Debian: apt-get install qemu-system-x86)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asrnet-edge-tests"
    ready = cache / "webcam-guest"
    if not ready.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _unpack_packages(Path(scratch))
            made = _collect(Path(scratch))
            if not ready.exists():  # another run may have been quicker
                made.rename(ready)
    return ready


def run_in_guest(
    script: Path | str,
    timeout: float,
    vivid_options: str = "node_types=0x1",
    files: Mapping[str, bytes] | None = None,
) -> GuestResult:
    """Boot the guest, run a Python script in it as root, switch it off.

    Args:
        script: a file, which runs where it lies, or the text of a program.
        timeout: seconds for all of it, boot included.
        vivid_options: parameters of the kernel module; by default one capture device, `/dev/video0`.
        files: name -> content of further files in the folder `SHARE`.

    Raises:
        GuestUnavailableError: see `prepare`.
        TimeoutError: the guest was killed; the text ends with what the script had printed.
        RuntimeError: the guest did not get as far as the script; the text ends with its console.
    """
    parts = prepare()
    with tempfile.TemporaryDirectory(prefix="webcam-guest-") as folder:
        share = Path(folder) / "share"
        share.mkdir()
        if isinstance(script, str):
            (share / "script.py").write_text(script)
        for name, content in (files or {}).items():
            (share / name).write_bytes(content)
        image, console = Path(folder) / "initramfs", Path(folder) / "console"
        program = f"{SHARE}/script.py" if isinstance(script, str) else str(script.absolute())
        image.write_bytes(_initramfs(parts, vivid_options, program))
        start = time.monotonic()
        try:
            subprocess.run(
                _qemu_command(parts / "vmlinuz", image, console, share),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=True,
            )
        except subprocess.TimeoutExpired:
            printed = _tail(share / "output") or _tail(console)
            raise TimeoutError(f"the guest was killed after {timeout:.0f} s; it said: {printed}") from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{_QEMU}: {error.stderr.decode(errors='replace')}") from None
        seconds = time.monotonic() - start
        if not (share / "exit").exists():
            raise RuntimeError(f"the guest ended before its script: {_tail(console)}")
        output = (share / "output").read_text(errors="replace")
        return GuestResult(output, int((share / "exit").read_text()), seconds)


def _qemu_command(kernel: Path, image: Path, console: Path, share: Path) -> list[str]:
    return [
        *(_QEMU, "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-nic", "none"),
        # Emulation, some ten times slower than the host: KVM inside a virtual machine may hang at its first step.
        # max: the wheels need more than the oldest x86-64.
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"),
        *("-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 quiet panic=-1"),
        *("-serial", f"file:{console}"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={share},mount_tag=share,security_model=none"),
    ]


def _tail(path: Path, characters: int = 3000) -> str:
    return path.read_text(errors="replace")[-characters:] if path.exists() else ""


def _run(command: list[str], folder: Path) -> str:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=True).stdout
    except FileNotFoundError:
        raise GuestUnavailableError(
            f"{command[0]} is not here; the guest's kernel comes from a Debian package"
        ) from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        message = error.stderr.strip() if isinstance(error.stderr, str) else ""
        raise GuestUnavailableError(f"{shlex.join(command)} failed: {message[-300:] or error}") from None


def _unpack_packages(folder: Path) -> None:
    """Download linux-image and busybox-static and unpack both into `folder`/root, without installing them."""
    depends = _run(["apt-cache", "depends", "--important", "linux-image-amd64"], folder)
    kernels = [word for word in depends.split() if word.startswith("linux-image-") and word != "linux-image-amd64"]
    if not kernels:
        raise GuestUnavailableError("apt-cache names no package behind linux-image-amd64 (apt-get update?)")
    _run(["apt-get", "download", "--quiet", kernels[0], "busybox-static"], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(folder / "root")], folder)


def _collect(folder: Path) -> Path:
    """Gather the kernel, busybox, and the wanted modules, numbered in the order in which they must be loaded."""
    root, made = folder / "root", folder / "webcam-guest"
    (made / "modules").mkdir(parents=True)
    shutil.copy(next(root.glob("boot/vmlinuz-*")), made / "vmlinuz")
    shutil.copy(next(root.glob("**/bin/busybox")), made / "busybox")
    modules = {_module_name(path): path for path in root.glob("**/modules/**/*.ko*")}
    loaded: dict[str, bytes] = {}
    for name in _MODULES:
        _add_module(name, modules, loaded)
    for i, (name, content) in enumerate(loaded.items()):
        (made / "modules" / f"{i:02}-{name}.ko").write_bytes(content)
    return made


def _module_name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _add_module(name: str, modules: dict[str, Path], loaded: dict[str, bytes]) -> None:
    """Add a module after those that it needs; a name without a file is part of the kernel itself."""
    if name in loaded or name not in modules:
        return
    content = modules[name].read_bytes()
    if modules[name].suffix == ".xz":
        content = lzma.decompress(content)
    depends = content.partition(b"\0depends=")[2].partition(b"\0")[0].decode()
    for needed in filter(None, depends.split(",")):
        _add_module(needed.replace("-", "_"), modules, loaded)
    loaded[name] = content


def _initramfs(parts: Path, vivid_options: str, program: str) -> bytes:
    """Return the archive (cpio, format newc) that the kernel unpacks and whose /init it runs."""
    python, program = shlex.quote(sys.executable), shlex.quote(program)
    init = _INIT.format(vivid_options=vivid_options, share=SHARE, python=python, program=program)
    archive = io.BytesIO()
    for number, (name, mode, content) in enumerate(_members(parts, init.encode())):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        archive.write(b"070701" + b"".join(b"%08x" % field for field in fields))
        for data in (path, content):
            archive.write(data + bytes(-(archive.tell() + len(data)) % 4))
    return archive.getvalue()


def _members(parts: Path, init: bytes) -> Iterator[tuple[str, int, bytes]]:
    for folder in ("bin", "dev", "modules", "proc", "root"):
        yield folder, stat.S_IFDIR | 0o755, b""
    yield "init", stat.S_IFREG | 0o755, init
    yield "bin/busybox", stat.S_IFREG | 0o755, (parts / "busybox").read_bytes()
    for module in sorted((parts / "modules").iterdir()):
        yield f"modules/{module.name}", stat.S_IFREG | 0o644, module.read_bytes()
    yield "TRAILER!!!", 0, b""

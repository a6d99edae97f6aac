"""Run a command in a separate network and record every name that it looks up and every packet that leaves it.

    unshare --net --mount python observer.py REPORT.json HOME rw|ro COMMAND...

A resolver on loopback answers each look-up with an address, and every address leads to this network itself, where
nothing listens: so whatever a program sends is seen and reaches no one. HOME takes the place of the user's home folder,
also for programs that ask the user database for it; ro makes it read-only. The exit code is that of the command.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

_ELSEWHERE = bytes([203, 0, 113, 9])  # TEST-NET-3
_OUTGOING = 4  # PACKET_OUTGOING of <linux/if_packet.h>
_ALL = 3  # ETH_P_ALL
_LAST = ("203.0.113.254", 9)  # the observer's own packet, after those of the command
_TCP, _UDP, _ICMP = 6, 17, (1, 58)
_SYN, _SYN_ACK = 0x02, 0x12


def _set_up(home: Path, mode: str, resolver: Path) -> None:
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")
    commands = (
        "mount --make-rprivate /",
        f"mount --bind {resolver} {Path('/etc/resolv.conf').resolve()}",
        "ip link set lo up",
        "ip route add local 0.0.0.0/0 dev lo",
        "ip -6 route add local ::/0 dev lo",
    )
    for command in commands:
        subprocess.run(command.split(), check=True)
    own = Path(pwd.getpwuid(os.getuid()).pw_dir)
    if own.is_dir() and not any(Path(place).resolve().is_relative_to(own) for place in (*sys.path, sys.base_prefix)):
        subprocess.run(["mount", "--bind", home, own], check=True)
    if mode == "ro":
        subprocess.run(["mount", "--bind", home, home], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", home], check=True)


def _resolve(names: list[str], server: socket.socket) -> None:
    while True:
        question, client = server.recvfrom(4096)
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode("latin-1"))
            at += 1 + length
        kind = struct.unpack_from(">H", question, at + 1)[0]
        names.append(".".join(labels))
        answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + _ELSEWHERE if kind == 1 else b""
        header = question[:2] + b"\x81\x80\0\x01" + struct.pack(">H", bool(answer)) + bytes(4)
        server.sendto(header + question[12 : at + 5] + answer, client)


def _watch(packets: list[str], sniffer: socket.socket) -> None:
    while True:
        data, (_, _, kind, *_) = sniffer.recvfrom(4096)
        if kind == _OUTGOING and (attempt := _attempt(data)):
            packets.append(attempt)


def _attempt(data: bytes) -> str | None:
    """Describe a packet that opens a connection, or is one without a connection, to another machine."""
    if data[0] >> 4 == 4:
        start, protocol, target = (data[0] & 15) * 4, data[9], ipaddress.ip_address(data[16:20])
    else:
        start, protocol, target = 40, data[6], ipaddress.ip_address(data[24:40])
    if target.is_loopback or (protocol == _TCP and data[start + 13] & _SYN_ACK != _SYN):
        return None
    port = struct.unpack_from(">H", data, start + 2)[0] if protocol in (_TCP, _UDP) else 0
    # ICMP says that nothing listens there, or is the kernel's search for neighbours; no program sends it.
    return None if protocol in _ICMP else f"{ {_TCP: 'tcp', _UDP: 'udp'}.get(protocol, protocol) } {target} port {port}"


def _wait_for_all(packets: list[str]) -> None:
    """Wait until the watcher, which a busy machine holds up, has seen what was sent before this call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", _LAST)
    last, end = f"udp {_LAST[0]} port {_LAST[1]}", time.monotonic() + 10
    while last not in packets and time.monotonic() < end:
        time.sleep(0.01)
    packets.remove(last)


def main() -> None:
    report, home, mode, *command = sys.argv[1:]
    _set_up(Path(home), mode, Path(report).with_suffix(".resolv"))
    names: list[str] = []
    packets: list[str] = []
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
    threading.Thread(target=_resolve, args=(names, server), daemon=True).start()
    threading.Thread(target=_watch, args=(packets, sniffer), daemon=True).start()
    code = subprocess.run(command, check=False).returncode
    _wait_for_all(packets)
    Path(report).write_text(json.dumps({"names": names, "packets": packets}))
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()

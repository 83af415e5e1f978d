"""Machines of their own for nodes: network namespaces with a router between them (Linux, root)."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
NAMES = Path("/run/netns")

# The internet: addresses for documentation (RFC 5737), each machine in a network of its own.
VALIDATORS = ("198.51.100.1", "203.0.113.1")
CLIENT = "192.0.2.1"
ROUTER = "198.51.100.65"
"""Of those at home, as others see it."""
EXECUTOR = "192.168.77.2"

# Passes on what those at home begin, in its own name; nothing gets in that nobody asked for.
NAT = """
table ip nat {
  chain outgoing {
    type nat hook postrouting priority 100
    oifname "out" masquerade
  }
}
table ip filter {
  chain through {
    type filter hook forward priority 0; policy drop
    iifname "home" accept
    ct state established,related accept
  }
  chain in {
    type filter hook input priority 0; policy drop
    iifname "home" accept
    ct state established,related accept
  }
}
"""


class NotPermitted(Exception):
    """This machine, or this user, makes no network namespaces."""


class Machines:
    """Namespaces by name: `internet` between `validator-0`, `validator-1`, `client` and `router`; `executor` is behind that."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._made: list[str] = []

    def build(self) -> None:
        """NotPermitted if that is not possible; `close` removes what was made in any case."""
        for name in ("internet", "router", "executor", "client", "validator-0", "validator-1"):
            self._add(name)
        for name in ("internet", "router"):
            self._in(name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for number, address in enumerate(VALIDATORS):
            self._connect(f"validator-{number}", address)
        self._connect("client", CLIENT)
        self._connect("router", ROUTER)
        self._wire("router", "home", "192.168.77.1/24", "executor", "out", f"{EXECUTOR}/24")
        self._in("executor", "ip", "route", "add", "default", "via", "192.168.77.1")
        self._in("router", "nft", "-f", "-", given=NAT)

    def close(self) -> None:
        """Removes them, and with them all that is between them."""
        for name in self._made:
            with suppress(NotPermitted):
                _run("ip", "netns", "del", self._full(name))

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread's sockets, and processes that it starts, are of the machine `name` for a while."""
        with open("/proc/thread-self/ns/net") as here, (NAMES / self._full(name)).open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())

    def _connect(self, name: str, address: str) -> None:
        """To the internet, as the only machine of its /30 there."""
        head, _, last = address.rpartition(".")
        gateway = f"{head}.{int(last) + 1}"
        self._wire(name, "out", f"{address}/30", "internet", name[-8:], f"{gateway}/30")
        self._in(name, "ip", "route", "add", "default", "via", gateway)

    def _wire(self, one: str, end: str, address: str, other: str, other_end: str, other_address: str) -> None:
        _run(
            *("ip", "link", "add", end, "netns", self._full(one), "type", "veth"),
            *("peer", "name", other_end, "netns", self._full(other)),
        )
        for name, device, own in ((one, end, address), (other, other_end, other_address)):
            self._in(name, "ip", "address", "add", own, "dev", device)
            self._in(name, "ip", "link", "set", device, "up")

    def _add(self, name: str) -> None:
        _run("ip", "netns", "add", self._full(name))
        self._made.append(name)
        self._in(name, "ip", "link", "set", "lo", "up")

    def _in(self, name: str, *words: str, given: str = "") -> None:
        _run("ip", "netns", "exec", self._full(name), *words, given=given)

    def _full(self, name: str) -> str:
        return f"{self._prefix}-{name}"


@contextmanager
def machines() -> Iterator[Machines]:
    """NotPermitted if they cannot be had here."""
    with ExitStack() as stack:
        made = Machines(f"lt{os.getpid()}")
        stack.callback(made.close)
        made.build()
        yield made


def _enter(descriptor: int) -> None:
    """`os.setns`, which Python has from 3.12 on."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _run(*words: str, given: str = "") -> None:
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError as error:
        raise NotPermitted(f"there is no {words[0]}") from error
    if done.returncode:
        raise NotPermitted(f"{' '.join(words)}: {done.stderr.strip()}")

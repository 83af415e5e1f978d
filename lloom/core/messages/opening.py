"""How a connection begins: each side says who it is and what it is ready to hold."""

from __future__ import annotations

from lloom.core.messages.base import Address, Limits, Message, Milliseconds, Signature


class Hello(Message, frozen=True):
    """The dialler's proof of its address, good for this server and this connection's certificate only (core/hello.py)."""

    version: int
    timestamp: Milliseconds
    address: Address
    limits: Limits
    signature: Signature


class Welcome(Message, frozen=True):
    """The acceptor's answer to a verified HELLO."""

    version: int
    limits: Limits

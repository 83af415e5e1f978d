"""The bridge: authenticated, encrypted, multiplexed connections between nodes. It never looks into a request or an answer.

`dial` and `Listener` make `Connection`s, a `Connection` makes `Stream`s. The rules of the wire stand in core/bridge/session.py.
"""

from lloom.adapters.bridge.connection import Connection, Handler, OnControl
from lloom.adapters.bridge.dialler import Link, dial
from lloom.adapters.bridge.listener import Listener, Service
from lloom.adapters.bridge.stream import Stream
from lloom.core.bridge.certificate import Certificate

__all__ = ["Certificate", "Connection", "Handler", "Link", "Listener", "OnControl", "Service", "Stream", "dial"]

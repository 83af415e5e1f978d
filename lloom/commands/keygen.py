"""`command=keygen`: makes the node's key. It never prints the key, only where it is and which address it stands for."""

from __future__ import annotations

import json
import os

from lloom.adapters.machine import keystore
from lloom.core.identity import checksum
from lloom.core.settings import Settings


def run(settings: Settings) -> int:
    """Prints address and path of the new key."""
    identity = keystore.create(settings.identity, settings.keygen, os.environ)
    address, path = checksum(identity.address), settings.identity.path
    print(json.dumps({"address": address, "path": path}) if settings.output == "json" else f"{address} {path}")
    return 0

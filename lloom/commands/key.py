"""`command=key`: makes a key to the gateway. It prints the key once, and keeps nothing: the gateway knows keys by their hash."""

from __future__ import annotations

import json
import secrets

from lloom.core.settings import Settings
from lloom.core.token import RANDOM_BYTES, digest, make


def run(settings: Settings) -> int:
    """Prints a new key, and the hash that `gateway.keys` names it by."""
    key = make(secrets.token_bytes(RANDOM_BYTES))
    told = {"key": key, "sha256": digest(key.encode()).hex()}
    if settings.output == "json":
        print(json.dumps(told))
    else:
        print(f"key     {key}\nsha256  {told['sha256']}")
        print("Give the key to whom it is for; this is the only time it is shown. The hash goes to gateway.keys:")
        print(f"  '+gateway.keys.NAME.sha256={told['sha256']}'")
    return 0

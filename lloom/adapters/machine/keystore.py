"""The node's key on disk, and secrets in the environment. It never logs or prints a key, and never overwrites one unasked."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

from loguru import logger

from lloom.core.configuration.money import is_server
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity, checksum
from lloom.core.settings import IdentitySettings, KeygenSettings, Settings

Ask = Callable[[str], str]
"""Asks a person for a passphrase, without showing it."""

_MAX_BYTES: Final = 64 * 1024
"""A keystore has 500 bytes; anything large is something else."""


def on_terminal(question: str) -> str:
    """A passphrase from the terminal; ConfigError if nobody sits there."""
    if not sys.stdin.isatty():
        raise ConfigError("the keystore needs a passphrase, and there is no terminal to ask for one")
    return getpass.getpass(question)


def load(settings: IdentitySettings, environ: MutableMapping[str, str], ask: Ask = on_terminal) -> Identity:
    """The node's identity: from the variable, else from the file, which is made at the first start.

    Takes key and passphrase out of `environ`, so that no child inherits them. ConfigError says what to mend.
    """
    key, passphrase = environ.pop(settings.key_env, ""), environ.pop(settings.passphrase_env, "")
    if key:
        identity = _parse(key, settings.key_env)
        if settings.source == "file":
            logger.info("the key is the one in {}, not the file: {}", settings.key_env, checksum(identity.address))
        return identity
    if settings.source == "env":
        raise ConfigError(
            f"identity=env: {settings.key_env} is not set; it should hold the key as 64 hexadecimal digits"
        )
    path = Path(settings.path)
    if not _is_there(path) and _store(path, _raw(identity := Identity.generate())):
        logger.info("made a new key at {}: {}", path, checksum(identity.address))
        return identity
    return _open(path, passphrase, settings.passphrase_env, ask)


def forget(settings: IdentitySettings, environ: MutableMapping[str, str]) -> None:
    """Takes key and passphrase out of `environ` unused, where a node makes keys of its own."""
    for name in (settings.key_env, settings.passphrase_env):
        environ.pop(name, None)


def provider_keys(settings: Settings, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Takes the secrets of providers out of `environ`, so that no child inherits them; by variable.

    They are the API keys that backends name, and the URLs of chains' servers, which may hold keys. ConfigError if a key is
    missing and no other machine can have it, or a URL is none: said here, it is said before anything is started.
    """
    found: dict[str, str] = {}
    for name, backend in settings.llm.items():
        variable = getattr(backend, "key_env", None)
        if variable is None:
            continue
        if key := environ.pop(variable, "") or found.get(variable, ""):
            found[variable] = key
        elif settings.ray.address is None:
            raise ConfigError(f"llm={name}: {variable} is not set; it should hold the API key")
    return found | server_urls(settings, environ)


def server_urls(settings: Settings, environ: MutableMapping[str, str]) -> dict[str, str]:
    """Takes the URLs that chains name out of `environ`, by variable; ConfigError if one is none, or a chain has no server."""
    found: dict[str, str] = {}
    for name, chain in settings.chain.items():
        variable = chain.rpc_env
        url = environ.pop(variable, "").strip() or found.get(variable, "") if variable else ""
        if url and not is_server(url):
            raise ConfigError(f"chain={name}: {variable} should hold the URL of a server: https://…")
        if url and variable:
            found[variable] = url
        elif not chain.rpc:
            raise ConfigError(f"chain.{name}.rpc: name a server{f', or set {variable}' if variable else ''}")
    return found


def create(
    settings: IdentitySettings, keygen: KeygenSettings, environ: MutableMapping[str, str], ask: Ask = on_terminal
) -> Identity:
    """A new key in the file, encrypted or raw. ConfigError if there is one already and it may not be replaced."""
    path = Path(settings.path)
    if _is_there(path) and not keygen.overwrite:
        raise ConfigError(f"{path} holds a key already; keygen.overwrite=true replaces it and gives up its address")
    identity = Identity.generate()
    content = _raw(identity)
    if keygen.encrypted:
        passphrase = environ.pop(settings.passphrase_env, "") or _chosen(settings.passphrase_env, ask)
        content = _encrypt(identity, passphrase)
    if not _store(path, content, replace=keygen.overwrite):
        raise ConfigError(f"{path} was made by somebody else just now; it was left alone")
    return identity


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(f"the key in {path} cannot be reached: {error.strerror}") from error


def _parse(text: str, where: str) -> Identity:
    """The identity of 64 hexadecimal digits; the message names `where`, never the text."""
    try:
        secret = bytes.fromhex(text.strip().removeprefix("0x"))
        if len(secret) == 32:
            return Identity(secret)
    except ValueError:  # not hexadecimal, or no valid scalar
        pass
    raise ConfigError(f"{where} holds no key: 64 hexadecimal digits are wanted, with or without 0x")


def _open(path: Path, passphrase: str, passphrase_env: str, ask: Ask) -> Identity:
    content = _read(path)
    if not content.lstrip().startswith("{"):
        return _parse(content, str(path))
    if not passphrase:
        try:
            passphrase = ask(f"Passphrase of {path}: ")
        except ConfigError as error:
            raise ConfigError(
                f"{path} is encrypted: put its passphrase into {passphrase_env}, or start at a terminal"
            ) from error
    return _decrypt(path, content, passphrase)


def _read(path: Path) -> str:
    """The file's text, if nobody else may read it. The open file is checked, so that it cannot be exchanged in between."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(f"others may read the key in {path} (mode {mode:04o}); run: chmod 600 '{path}'")
            return file.read(_MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} holds no key") from error
    except OSError as error:
        raise ConfigError(f"the key in {path} cannot be read: {error.strerror}") from error


def _store(path: Path, content: str, *, replace: bool = False) -> bool:
    """Writes `content` so that it is there whole or not at all, readable by its owner only. False: another one is there."""
    try:
        _make_private_folder(path.parent)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename, this fails if another process was first
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
        _sync(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"the key cannot be written to {path}: {error.strerror}; say another home=…") from error
    return True


def _make_private_folder(folder: Path) -> None:
    """`folder` and the missing ones above it, for the owner only; what is there already stays as it is."""
    for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def _sync(folder: Path) -> None:
    """Makes the new name durable too (fsync(2): the folder needs one of its own)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raw(identity: Identity) -> str:
    return identity.secret.hex() + "\n"


def _chosen(passphrase_env: str, ask: Ask) -> str:
    """A new passphrase, typed twice."""
    try:
        first = ask("New passphrase: ")
    except ConfigError as error:
        raise ConfigError(
            f"put the new passphrase into {passphrase_env}, run this at a terminal, or say keygen.encrypted=false"
        ) from error
    if not first:
        raise ConfigError("an empty passphrase protects nothing; for a raw key say keygen.encrypted=false")
    if ask("The same again: ") != first:
        raise ConfigError("the two passphrases differ; no key was made")
    return first


def _encrypt(identity: Identity, passphrase: str) -> str:
    """An Ethereum keystore (Web3 Secret Storage, version 3; scrypt)."""
    from eth_account import Account  # a second of imports that most starts do not need

    return json.dumps(Account.encrypt(identity.secret, passphrase, kdf="scrypt"))


def _decrypt(path: Path, content: str, passphrase: str) -> Identity:
    from eth_account import Account

    try:
        keystore: dict[str, Any] = json.loads(content)
        claimed = str(keystore.get("address", "")).lower().removeprefix("0x")
        identity = Identity(bytes(Account.decrypt(keystore, passphrase)))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is a damaged keystore: not JSON") from error
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        # eth-account tells a wrong passphrase and a changed file by one checksum, so neither can we.
        raise ConfigError(f"{path} does not open: the passphrase is wrong, or the file is damaged") from error
    if claimed and claimed != identity.address.hex():
        raise ConfigError(f"{path} is damaged: its address is not that of its key, {checksum(identity.address)}")
    return identity

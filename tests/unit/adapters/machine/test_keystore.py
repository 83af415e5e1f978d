"""The key on disk: made once, read by nobody else, never overwritten."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_account import Account

from lloom.__main__ import compose
from lloom.adapters.machine import keystore
from lloom.core.configuration import argv, checks
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity
from lloom.core.settings import IdentitySettings, KeygenSettings, Settings

SECRET = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "2c7536e3605d9c16a7a3d7b1898e529396a65c23"
"""The pair that web3's documentation uses."""


def file_settings(path: Path) -> IdentitySettings:
    return IdentitySettings(source="file", path=str(path), key_env="KEY", passphrase_env="PASSPHRASE")


def env_settings(path: Path) -> IdentitySettings:
    return IdentitySettings(source="env", path=str(path), key_env="KEY", passphrase_env="PASSPHRASE")


def nobody(question: str) -> str:
    raise ConfigError("there is no terminal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "executor" / "key"


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    """An encrypted keystore of SECRET with a fast derivation, passphrase `sesame`."""
    file = tmp_path / "keystore.json"
    file.write_text(json.dumps(Account.encrypt(SECRET, "sesame", kdf="pbkdf2", iterations=10)))
    file.chmod(0o600)
    return file


def test_the_first_start_makes_a_key_that_the_second_one_finds(path: Path) -> None:
    first = keystore.load(file_settings(path), {})
    second = keystore.load(file_settings(path), {})
    assert first.address == second.address
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)] == [0o700, 0o700]
    assert [file.name for file in path.parent.iterdir()] == ["key"]


def test_starts_at_the_same_time_agree_on_one_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: keystore.load(file_settings(path), {}).address, range(16)))
    assert len(set(found)) == 1
    assert [file.name for file in path.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o700 | 0o001])
def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(path: Path, mode: int) -> None:
    keystore.load(file_settings(path), {})
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 '{path}'"):
        keystore.load(file_settings(path), {})


def test_the_variable_wins_over_the_file_and_is_gone_afterwards(path: Path) -> None:
    environ = {"KEY": f"0x{SECRET}\n", "PASSPHRASE": "x", "OTHER": "stays"}
    assert keystore.load(file_settings(path), environ).address.hex() == ADDRESS
    assert environ == {"OTHER": "stays"}
    assert not path.exists()


def test_identity_env_needs_its_variable_and_writes_nothing(path: Path) -> None:
    with pytest.raises(ConfigError, match="KEY is not set"):
        keystore.load(env_settings(path), {"KEY": ""})
    assert keystore.load(env_settings(path), {"KEY": SECRET}).address.hex() == ADDRESS
    assert not path.parent.exists()


@pytest.mark.parametrize("text", ["nonsense", SECRET[:-2], SECRET + "00", "0" * 64, "f" * 64])
def test_what_is_no_key_is_refused_without_being_shown(path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="KEY holds no key") as caught:
        keystore.load(file_settings(path), {"KEY": text})
    assert text not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", SECRET[:-1].encode(), b"x" * 100_000])
def test_a_damaged_raw_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no key"):
        keystore.load(file_settings(file), {})
    assert file.read_bytes() == content


def test_an_encrypted_keystore_opens_by_variable_or_by_asking(keyfile: Path) -> None:
    environ = {"PASSPHRASE": "sesame"}
    assert keystore.load(file_settings(keyfile), environ, nobody).address.hex() == ADDRESS
    assert environ == {}
    assert keystore.load(file_settings(keyfile), {}, lambda _: "sesame").address.hex() == ADDRESS


def test_without_a_passphrase_its_variable_is_named(keyfile: Path) -> None:
    with pytest.raises(ConfigError, match="PASSPHRASE"):
        keystore.load(file_settings(keyfile), {}, nobody)


def test_a_wrong_passphrase_is_refused(keyfile: Path) -> None:
    with pytest.raises(ConfigError, match="the passphrase is wrong"):
        keystore.load(file_settings(keyfile), {"PASSPHRASE": "simsim"}, nobody)


@pytest.mark.parametrize("part", ["ciphertext", "mac"])
def test_a_changed_keystore_is_refused(keyfile: Path, part: str) -> None:
    changed = json.loads(keyfile.read_text())
    changed["crypto"][part] = ("1" if changed["crypto"][part][0] == "0" else "0") + changed["crypto"][part][1:]
    keyfile.write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match="does not open"):
        keystore.load(file_settings(keyfile), {"PASSPHRASE": "sesame"}, nobody)


def test_a_keystore_under_a_foreign_address_is_refused(keyfile: Path) -> None:
    changed = json.loads(keyfile.read_text())
    changed["address"] = "00" * 20
    keyfile.write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match="its address is not that of its key"):
        keystore.load(file_settings(keyfile), {"PASSPHRASE": "sesame"}, nobody)


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"crypto": 1, "version": 3}', '{"crypto": {}, "version": 3}', '{"version": 9}']
)
def test_a_keystore_without_sense_is_refused(keyfile: Path, content: str) -> None:
    keyfile.write_text(content)
    with pytest.raises(ConfigError, match="damaged"):
        keystore.load(file_settings(keyfile), {"PASSPHRASE": "sesame"}, nobody)


def test_keygen_makes_an_encrypted_keystore_that_opens(path: Path) -> None:
    made = keystore.create(
        file_settings(path), KeygenSettings(encrypted=True, overwrite=False), {"PASSPHRASE": "sesame"}
    )
    assert made.secret.hex() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keystore.load(file_settings(path), {"PASSPHRASE": "sesame"}).address == made.address


def test_keygen_overwrites_only_when_told(path: Path) -> None:
    raw = KeygenSettings(encrypted=False, overwrite=False)
    first = keystore.create(file_settings(path), raw, {})
    with pytest.raises(ConfigError, match=r"keygen\.overwrite=true"):
        keystore.create(file_settings(path), raw, {})
    assert keystore.load(file_settings(path), {}).address == first.address
    second = keystore.create(file_settings(path), KeygenSettings(encrypted=False, overwrite=True), {})
    assert keystore.load(file_settings(path), {}).address == second.address != first.address


@pytest.mark.parametrize(("answers", "told"), [(["a", "b"], "differ"), (["", ""], "protects nothing")])
def test_a_new_passphrase_is_typed_twice_and_is_not_empty(path: Path, answers: list[str], told: str) -> None:
    left = iter(answers)
    with pytest.raises(ConfigError, match=told):
        keystore.create(file_settings(path), KeygenSettings(encrypted=True, overwrite=False), {}, lambda _: next(left))
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="home="):
        keystore.load(file_settings(tmp_path / "file" / "key"), {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered_is_told(path: Path) -> None:
    keystore.load(file_settings(path), {})
    path.parent.parent.chmod(0)
    with pytest.raises(ConfigError, match="cannot be reached"):
        keystore.load(file_settings(path), {})
    path.parent.parent.chmod(0o700)


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="cannot be read"):
        keystore.load(file_settings(tmp_path / "key"), {})


def test_an_identity_shows_its_address_only() -> None:
    identity = Identity(bytes.fromhex(SECRET))
    assert SECRET not in repr(identity)
    assert ADDRESS in repr(identity).lower()


def compose_llm(*words: str) -> Settings:
    tree = compose(argv.rewrite(["role=executor", *words]))
    assert tree is not None
    return checks.settings(tree)


def test_api_keys_leave_the_environment_and_a_missing_one_is_named_before_anything_starts() -> None:
    settings = compose_llm("llm=[smollm2,openai,anthropic]")
    environ = {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b", "OTHER": "c"}
    assert keystore.provider_keys(settings, environ) == {"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}
    assert environ == {"OTHER": "c"}
    with pytest.raises(ConfigError, match="llm=openai: OPENAI_API_KEY is not set"):
        keystore.provider_keys(settings, environ)


def compose_chain(*words: str) -> Settings:
    tree = compose(argv.rewrite(["role=client", *words]))
    assert tree is not None
    return checks.settings(tree)


def test_urls_of_chains_leave_the_environment_and_may_be_missing() -> None:
    settings = compose_chain("chain=[base,polygon,anvil]")
    environ = {"BASE_RPC_URL": " https://rpc.example.org/secret ", "OTHER": "c"}
    assert keystore.provider_keys(settings, environ) == {"BASE_RPC_URL": "https://rpc.example.org/secret"}
    assert environ == {"OTHER": "c"}
    assert keystore.provider_keys(settings, environ) == {}


def test_what_is_no_url_of_a_server_is_told_without_showing_it() -> None:
    settings = compose_chain("chain=base", "chain.base.rpc=[]")
    with pytest.raises(ConfigError, match="BASE_RPC_URL should hold the URL") as caught:
        keystore.provider_keys(settings, {"BASE_RPC_URL": "wss://secret"})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="name a server, or set BASE_RPC_URL"):
        keystore.provider_keys(settings, {})


def test_workers_on_other_machines_may_have_keys_of_their_own() -> None:
    assert keystore.provider_keys(compose_llm("llm=[openai]", "ray.address=auto"), {}) == {}

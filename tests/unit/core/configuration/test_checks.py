"""Settings that are right one by one and wrong together."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import pytest

from lloom.__main__ import compose
from lloom.core.configuration import argv, checks, money
from lloom.core.errors import ConfigError

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@functools.cache
def composed(words: str) -> Mapping[str, Any]:
    tree = compose(argv.rewrite(words.split()))
    assert tree is not None
    return tree


def with_changes(words: str, **changes: object) -> dict[str, Any]:
    """The tree of `words`, with some settings changed (`network__port=1`)."""
    tree: dict[str, Any] = copy.deepcopy(dict(composed(words)))
    for key, value in changes.items():
        *path, last = key.split("__")
        functools.reduce(lambda group, name: group[name], path, tree)[last] = value
    return tree


def refused(words: str, **changes: object) -> str:
    """The sentence about that tree."""
    with pytest.raises(ConfigError) as caught:
        checks.settings(with_changes(words, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_executor_without_a_backend_has_nothing_to_serve() -> None:
    assert "choose backends" in refused("role=executor", llm={})


def test_backends_are_of_no_use_to_a_client() -> None:
    assert "has no use for mock" in refused("role=client llm=mock")


def test_a_backend_without_models_says_how_to_name_one() -> None:
    assert "+llm.vllm.models=" in refused("role=executor llm=vllm", llm__vllm__models={})


def test_an_address_of_a_backend_holds_no_password() -> None:
    told = refused("role=executor llm=vllm", llm__vllm__base_url="http://me:secret@10.0.0.1:8000/v1")
    assert "llm.vllm.base_url" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"Qwen*": {}}, "patterns are lower case"),
        ({"a *": {}}, "is not a model id"),
        ({"q*": {"name": "x"}}, "are for one model"),
        ({"q*": {"aliases": ["x"]}}, "are for one model"),
        ({"a": {"aliases": ["B"]}}, "write b"),
        ({"a": {"aliases": ["a"]}}, "vllm twice offers a"),
        ({"a": {"aliases": ["c"]}, "b": {"aliases": ["c"]}}, "vllm twice offers c"),
    ],
)
def test_patterns_and_aliases_are_checked(models: dict[str, object], told: str) -> None:
    assert told in refused("role=executor llm=vllm", llm__vllm__models=models)


def test_only_who_can_be_asked_has_patterns() -> None:
    assert "is not a model id" in refused("role=executor llm=mock", llm__mock__models={"*": {}})


def test_two_backends_do_not_quarrel_over_what_one_leaves_out() -> None:
    tree = copy.deepcopy(dict(composed("role=executor llm=groq,together")))
    tree["llm"]["together"]["models"] = {"gpt-oss-120b": None, "kimi-k3": {}}
    assert checks.settings(tree).llm["together"].models["gpt-oss-120b"] is None


def test_two_backends_with_one_model_are_refused_by_name() -> None:
    assert "anthropic and bedrock both offer claude-haiku-4-5" in refused("role=executor llm=anthropic,bedrock")


def test_a_model_id_must_be_spelt_as_the_network_spells_it() -> None:
    models = {"Qwen/Qwen3-8B": {"context": 1}}
    assert "write qwen/qwen3-8b, with name: Qwen/Qwen3-8B" in refused(
        "role=executor llm=mock", llm__mock__models=models
    )
    assert "is not a model id" in refused("role=executor llm=mock", llm__mock__models={"a b": {"context": 1}})


def test_an_answer_cannot_be_longer_than_the_context() -> None:
    models = {"a": {"context": 10, "max_output": 11}}
    assert "does not fit" in refused("role=executor llm=mock", llm__mock__models=models)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"context": "much"}, "llm.mock.models.b.context: expected a whole number or null, got text"),
        ({"context": 1, "features": ["magic"]}, "llm.mock.models.b.features[0]: 'magic' is no choice; there are tools"),
        (
            {"context": 1, "contxt": 1},
            "llm.mock.models.b.contxt: there is no such setting; did you mean llm.mock.models.b.context",
        ),
    ],
)
def test_a_wrong_entry_is_told_by_its_own_name(terms: dict[str, object], told: str) -> None:
    assert told in refused("role=executor llm=mock", llm__mock__models={"a": {"context": 1}, "b": terms})


def test_a_node_that_listens_everywhere_must_say_where_it_is() -> None:
    assert "network.advertise=203.0.113.7" in refused("role=executor network=public")
    assert "network.advertise=203.0.113.7" in refused("role=validator network=public")
    assert "is no IP address" in refused("role=validator network=public", network__advertise="example.org")
    assert "network.advertise" in refused("role=validator network=public", network__advertise="::")
    assert "has to be dialled" in refused("role=validator network.relay=only")


def test_an_executor_with_validators_is_told_where_it_is() -> None:
    words = f"role=executor network=public llm=mock network.bootstrap=[{ADDRESS}@198.51.100.1:9000]"
    assert checks.settings(composed(words)).network.advertise is None
    assert "network.advertise=203.0.113.7" in refused(words, network__relay="off")
    assert "is no IP address" in refused(words, network__host="localhost")


def test_a_client_needs_somebody_who_lets_it_in() -> None:
    assert "name at least one node" in refused("role=client network=public")
    assert checks.settings(composed("role=client network=lan")).network.mdns


def test_on_the_internet_a_validator_is_named_with_its_address() -> None:
    said = refused("role=client", network__private=False)
    assert "write 0xADDRESS@127.0.0.1:9000" in said


@pytest.mark.parametrize("who", ["x", "0x12", "0x" + "1" * 41, "0xABCDEFabcdefABCDEFabcdefABCDEFabcdefABCD"])
def test_a_validator_is_named_with_a_real_address(who: str) -> None:
    assert "names no node" in refused("role=client", network__bootstrap=[f"{who}@203.0.113.7:9000"])


@pytest.mark.parametrize("entry", ["host", "host:0", "host:65536", ":9000", "host:x", "host:９"])
def test_a_bootstrap_entry_is_host_and_port(entry: str) -> None:
    assert "is no host:port" in refused("role=client", network__bootstrap=[entry])


def test_the_ports_of_all_workers_must_exist() -> None:
    assert "pass the last port" in refused("role=executor", network__port=65_535, executor__workers=2)


def test_pinned_and_its_executors_belong_together() -> None:
    assert "pinned needs routing.executors" in refused("role=client routing=pinned")
    assert "only the policy pinned uses them" in refused("role=client", routing__executors=[ADDRESS])
    assert "is no address" in refused("role=client routing=pinned", routing__executors=["0x12"])
    assert "EIP-55" in refused("role=client routing=pinned", routing__executors=[ADDRESS.replace("5aA", "5AA")])


def test_what_is_different_for_some_models_is_checked_as_the_rest() -> None:
    def overridden(**said: object) -> str:
        return refused("role=client", routing__models={"qwen*": said})

    assert "routing.models.qwen*: the policy pinned needs" in overridden(policy="pinned")
    assert "routing.models.qwen*.deny: '0x12' is no address" in overridden(deny=["0x12"])
    assert "routing.models.qwen*.affinity: expected a number <= 1" in overridden(affinity=2)
    assert "routing.models.qwen*.polcy: there is no such setting" in overridden(polcy="cheapest")
    assert "dearest' is no choice; there are balanced, cheapest" in overridden(policy="dearest")


def test_an_alias_is_a_name_and_stands_for_something() -> None:
    assert "is not a model id" in refused("role=client", routing__aliases={"gpt 4o": ["a"]})
    assert "say which models it stands for" in refused("role=client", routing__aliases={"gpt-4o": []})


def test_only_a_client_asks() -> None:
    assert "only a client asks" in refused("role=executor prompt=hello")
    assert "only a client asks" in refused("role=validator command=models")
    assert "there is no question" in refused("role=client command=ask")
    assert "there is no question" in refused("role=client", prompt=" \n")
    assert "takes none" in refused("role=client command=keygen prompt=hello")
    assert "keys of its own" in refused("role=demo command=keygen")
    assert "is not a model id" in refused("role=client", model="a b")


def keys(*hashes: str) -> dict[str, Any]:
    return {f"key{number}": {"sha256": each} for number, each in enumerate(hashes)}


def test_without_keys_the_gateway_serves_this_machine_only() -> None:
    error = refused("role=client", gateway__host="0.0.0.0")
    assert "command=key" in error
    assert "gateway.keys" in error
    checks.settings(with_changes("role=client", gateway__host="0.0.0.0", gateway__keys=keys("0" * 64)))
    checks.settings(with_changes("role=client", gateway__host="127.0.0.2"))


def test_a_key_is_named_by_a_hash_of_its_own() -> None:
    assert "key0 and key1 are the same key" in refused("role=client", gateway__keys=keys("0" * 64, "0" * 64))
    assert "gateway.keys" in refused("role=client", gateway__keys=keys("sk-lloom-secret"))
    assert "gateway.keys" in refused("role=client", gateway__keys={"two words": {"sha256": "0" * 64}})
    assert "for this machine" in refused("role=demo", gateway__keys=keys("0" * 64))
    assert "only a client has a gateway" in refused("role=executor command=key")


def test_web_pages_are_let_in_by_origin_and_all_of_them_only_where_there_are_keys() -> None:
    assert "every web page" in refused("role=client", gateway__cors=["*"])
    for wrong in ("app.example", "https://app.example/", "https://*.example", "ftp://x", "https://"):
        assert "is no origin" in refused("role=client", gateway__cors=[wrong])
    checks.settings(with_changes("role=client", gateway__cors=["https://app.example", "http://localhost:3000"]))
    checks.settings(with_changes("role=client", gateway__cors=["*"], gateway__keys=keys("0" * 64)))


def test_what_an_executor_lacks_does_not_keep_it_from_making_its_key() -> None:
    assert checks.settings(composed("role=executor network=public command=keygen")).command == "keygen"


def test_a_demo_takes_a_prompt() -> None:
    assert checks.settings(composed("role=demo prompt=hello")).prompt == "hello"


def test_a_demo_needs_no_doctor() -> None:
    assert "role=executor" in refused("role=demo command=doctor")
    assert checks.settings(composed("role=executor command=doctor")).command == "doctor"


def test_numbers_stay_on_this_machine_and_have_one_place() -> None:
    assert "metrics.host" in refused("role=executor", metrics__host="0.0.0.0")
    assert "gateway's /metrics" in refused("role=client", metrics__port=9464)
    assert "several nodes" in refused("role=demo", metrics__port=9464)
    assert checks.settings(composed("role=validator metrics.port=9464")).metrics.port == 9464


@pytest.mark.parametrize(
    ("words", "changes", "told"),
    [
        ("command=deposit", {"amount": "1"}, "say on which chain"),
        ("command=deposit chain=base", {}, "say how much to pay in"),
        ("command=deposit chain=base amount=1.5.5", {}, "amount: '1.5.5' is no amount"),
        ("command=deposit chain=base amount=0", {}, "amount: 0 is nothing"),
        ("command=deposit chain=base", {"amount": "0." + "1" * 19}, "more than 18 decimals"),
        ("command=deposit chain=base,polygon amount=1", {}, "say on which one of base and polygon"),
        (
            "command=deposit role=executor chain=base amount=1",
            {},
            "that is for role=client or validator, not role=executor",
        ),
        ("command=settle role=client chain=base", {}, "that is for role=executor, not role=client"),
        ("command=settle role=executor chain=base amount=1", {}, "only command=deposit and command=withdraw"),
        ("command=settle role=validator chain=base", {}, "that is for role=executor, not role=validator"),
        ("role=client", {"amount": "1"}, "only command=deposit and command=withdraw"),
        ("role=client", {"output": "csv"}, "only command=usage knows csv"),
        ("role=client chain=base,polygon", {"chain__polygon__id": 8453}, "base and polygon are the same chain (8453)"),
        ("role=client chain=base", {"chain__base__contract": "0x12"}, "chain.base.contract: '0x12' is no address"),
        ("role=client chain=base", {"chain__base__l1_oracle__address": "0x12"}, "chain.base.l1_oracle.address: '0x12'"),
        ("role=client chain=base", {"chain__base__token": ADDRESS[:-1] + "D"}, "chain.base.token: "),
        ("role=client chain=base,polygon", {"chain__polygon__id": 0}, "chain.polygon.id: "),
        ("role=client chain=base", {"chain__base__rpc": ["mainnet.base.org"]}, "is no URL of a server"),
        ("role=client chain=base", {"chain__base__rpc": [], "chain__base__rpc_env": None}, "name a server"),
    ],
)
def test_what_makes_no_sense_about_money_is_told(words: str, changes: dict[str, Any], told: str) -> None:
    assert told in refused(words, **changes)


@pytest.mark.parametrize("words", ["command=deposit chain=base amount=0.05", "command=settle chain=base,polygon"])
def test_commands_about_money_need_neither_network_nor_backends_nor_role(words: str) -> None:
    found = checks.settings(composed(f"{words} network=public"))
    assert (found.role, found.amount) == (("client", "0.05") if "deposit" in words else ("executor", None))


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://rpc.example.org/v1/key", True),
        ("http://[::1]:8545", True),
        ("ws://rpc.example.org", False),
        ("https://", False),
        ("http://host:99999", False),
        ("https://a b", False),
    ],
)
def test_a_server_has_a_url_of_http(url: str, fine: bool) -> None:
    assert money.is_server(url) is fine

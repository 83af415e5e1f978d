"""conf/ and lloom/core/settings/ say the same: every choice composes, nothing is missing, nothing is left over."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lloom.__main__ import CONF, compose
from lloom.adapters.llm import engines
from lloom.adapters.llm.model_map import ModelMap
from lloom.core.configuration import argv, checks, wording
from lloom.core.errors import ConfigError
from lloom.core.lineup import Common, lineup
from lloom.core.settings import Command, GatewayKey, LiteLLMBackend, Model, OpenAIBackend, Role, Settings

PROVIDERS = sorted(file.stem for file in (CONF / "llm").glob("*.yaml"))
OWN_MODELS = {"vllm", "lmstudio", "llamacpp", "ollama"}
"""What these serve they say themselves."""

DEFAULTED = {
    "context",
    "max_output",
    "name",
    "aliases",
    "encoding",
    "operations",
    "features",
    "input_price",
    "output_price",
}
"""Of a model; the only settings that may be left out."""


CHECKED = "2026-11-26"
"""When the models of the providers were looked up last."""


@pytest.fixture(autouse=True)
def _azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resource has a name of its own, so this address has no default."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://example.openai.azure.com")


@functools.cache
def composed(*words: str) -> Mapping[str, Any]:
    tree = compose(argv.rewrite(words))
    assert tree is not None
    return tree


def settings(*words: str) -> Settings:
    return checks.settings(composed(*words))


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of all values; names of backends and models as `*`."""
    found: set[str] = set()
    for name, value in tree.items():
        key = f"{prefix}{'*' if prefix in ('llm.', 'llm.*.models.', 'chain.') else name}"
        found |= leaves(value, key + ".") if isinstance(value, dict) and value else {key}
    return found


@pytest.mark.parametrize("role", get_args(Role))
def test_every_role_composes(role: str) -> None:
    assert settings(f"role={role}").role == role


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_backend_composes_and_can_be_built(provider: str) -> None:
    chosen = settings("role=executor", f"llm={provider}")
    (engine,) = engines(chosen.llm, chosen.executor.discovered_models)
    assert engine.name == provider
    assert engine.limits.parallel == chosen.llm[provider].parallel
    assert ("*" in chosen.llm[provider].models) == (provider in OWN_MODELS)


@pytest.mark.parametrize("provider", sorted(set(PROVIDERS) - OWN_MODELS - {"mock", "smollm2", "openrouter"}))
def test_the_models_of_providers_exist_and_are_not_retired(provider: str) -> None:
    backend = settings("role=executor", f"llm={provider}").llm[provider]
    assert isinstance(backend, OpenAIBackend | LiteLLMBackend)
    assert backend.provider is not None
    known = ModelMap.of(backend.provider)
    found = lineup(Common(provider, 1, 0), backend.models, {}, known.get)
    assert found.remarks == ()
    chats = known.chats(CHECKED)
    for each in found.served.values():
        assert (each.name in chats, "tools" in each.offer.features) == (("chat" in each.offer.operations),) * 2
        assert known.get(each.name) is not None


def test_a_provider_that_needs_an_address_says_by_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ConfigError, match=r"llm\.azure\.base_url: set the environment variable AZURE_OPENAI_ENDPOINT"):
        compose(argv.rewrite(["role=executor", "llm=azure"]))


def test_a_star_can_be_taken_back_and_replaced() -> None:
    chosen = settings("role=executor", "llm=vllm", "+llm.vllm.models={*:null,qwen*:{input_price:5}}").llm["vllm"]
    assert chosen.models == {"*": None, "qwen*": Model(input_price=5)}


@pytest.mark.parametrize(
    "words",
    [
        *(("role=client", f"identity={choice}") for choice in choices("identity")),
        *(
            (
                "role=executor",
                f"network={choice}",
                "network.advertise=192.0.2.1",
                f"network.bootstrap=0x{'11' * 20}@192.0.2.2:9000",
            )
            for choice in choices("network")
        ),
        *(("role=client", f"routing={choice}") for choice in choices("routing") if choice != "pinned"),
        ("role=client", "routing=pinned", "routing.executors=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
        *(("role=client", f"accounting={choice}") for choice in choices("accounting")),
        *(("role=client", f"chain={choice}") for choice in choices("chain")),
        ("role=executor", "llm=[smollm2,openai]", "network.port=9001"),
        ("role=client", "model=smollm2-135m", "prompt=Hello, world!"),
        ("command=models",),
        ("command=keygen", "role=validator"),
        ("command=key",),
        ("role=client", "+gateway.keys.alice.sha256=" + "0" * 64, "gateway.host=0.0.0.0"),
    ],
    ids=" ".join,
)
def test_every_other_choice_composes(words: tuple[str, ...]) -> None:
    assert settings(*words)


def test_the_yaml_holds_every_setting_and_no_other() -> None:
    held: set[str] = set()
    for words in (("role=client", "chain=base"), *(("role=executor", f"llm={provider}") for provider in PROVIDERS)):
        held |= leaves(composed(*words))
    known = set(wording.keys())
    wanted = known - {key.rpartition(".")[0] for key in known}
    wanted -= {"llm.*.models"} | {f"llm.*.models.*.{name}" for name in DEFAULTED}
    wanted -= {f"gateway.keys.*.{name}" for name in GatewayKey.__struct_fields__}
    wanted = {key for key in wanted if not key.startswith("routing.models.*.")}  # none of them has to be said
    # `kind` is the tag of a backend; empty groups are leaves of the tree.
    surplus = {
        "llm.*.kind",
        "llm",
        "llm.*.models",
        "llm.*.models.*",
        "llm.*.options",
        "llm.*.prefill_fields",
        "gateway.keys",
        "routing.models",
    } | {f"llm.*.models.*.{name}" for name in DEFAULTED}
    for free in ("llm.*.options", "llm.*.prefill_fields"):
        held = {free if key.startswith(f"{free}.") else key for key in held}
    assert wanted - held == set()
    assert held - wanted - surplus == set()


def test_every_setting_has_a_comment_above_it() -> None:
    lines = (CONF / "config.yaml").read_text().partition("\nhydra:")[0].splitlines()
    bare = [line for above, line in itertools.pairwise(lines) if re.match(r" *\w+: \S", line) and "#" not in above]
    assert bare == []


def test_the_ports_of_the_roles_fit_together() -> None:
    validator, executor, client = (settings(f"role={role}").network for role in ("validator", "executor", "client"))
    assert (validator.port, executor.port, client.port) == (9000, 9001, 0)
    assert executor.bootstrap == client.bootstrap == (f"{validator.host}:{validator.port}",)
    assert validator.bootstrap == ()


def test_a_validator_spends_nothing_unless_told_how_much_and_never_more_than_a_question_at_once() -> None:
    frugal, generous = (
        settings("role=validator"),
        settings("role=validator", "accounting.budget=5", "validator.probe_cost=3"),
    )
    assert frugal.accounting.budget == 0
    assert generous.accounting.budget == 5
    assert generous.accounting.prepay.per_executor == 3
    assert settings("role=client").accounting.budget is None


def test_an_executor_serves_the_built_in_model_unless_told_otherwise() -> None:
    assert list(settings("role=executor").llm) == ["smollm2"]
    assert list(settings("role=executor", "llm=[mock]").llm) == ["mock"]
    assert settings("role=client").llm == {}


def test_commands_are_modules() -> None:
    for command in get_args(Command):
        assert (Path(CONF).parent / "lloom" / "commands" / f"{command}.py").is_file()


def test_local_is_the_only_network_that_stays_on_the_machine() -> None:
    assert settings("role=client").network.host == "127.0.0.1"
    assert yaml.safe_load((CONF / "network" / "public.yaml").read_text())["host"] == "0.0.0.0"


def test_a_crowd_of_five_hundred_fits_through_one_client_to_one_worker() -> None:
    found = settings("role=client")
    assert found.executor.requests_per_client >= 500
    assert found.bridge.streams > found.executor.requests_per_client
    assert found.bridge.connection_window >= found.bridge.streams * found.bridge.stream_window


def test_secrets_are_named_never_resolved() -> None:
    for file in CONF.rglob("*.yaml"):
        text = file.read_text()
        assert all(
            re.fullmatch(r"\w+_(BASE_URL|HOME|REGION|CONTRACT|ENDPOINT|LENGTH)", name)
            for name in re.findall(r"oc\.(?:env|decode):(\w+)", text)
        )
        assert all(
            re.fullmatch(r"null|[A-Z_]+", name) for name in re.findall(r"^ *\w+_env: *(.*)$", text, re.MULTILINE)
        )


def test_addresses_of_providers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1")
    backend = checks.settings(compose(argv.rewrite(["role=executor", "llm=openai"])) or {}).llm["openai"]
    assert isinstance(backend, OpenAIBackend)
    assert backend.base_url == "http://127.0.0.1:8080/v1"
    assert isinstance(settings("role=executor", "llm=anthropic").llm["anthropic"], LiteLLMBackend)


def test_the_home_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLOOM_HOME", "/somewhere/else, with ${odd} letters")
    tree = compose(["role=executor"])
    assert tree is not None
    assert tree["identity"]["path"] == "/somewhere/else, with ${odd} letters/executor/key"


@pytest.mark.parametrize(
    "text", ["a, b='c' \"d\" ${home} \\${x} !\n\\", "123", "null", "Grüße 🙂 [x] {y}", "~ # * @", "\\'"]
)
def test_free_text_passes_the_whole_way(text: str) -> None:
    tree = composed("role=client", f"prompt={text}", f"home=/tmp/{text}", f"demo.prompt={text}", f"network.name={text}")
    assert tree["prompt"] == tree["demo"]["prompt"] == tree["network"]["name"] == text
    assert tree["identity"]["path"] == f"/tmp/{text}/client/key"


def test_the_entry_point_imports_nothing_heavy() -> None:
    heavy = "ray", "web3", "aiohttp", "litellm", "eth_account", "uvicorn", "kademlia", "tiktoken"
    code = f"import sys, lloom.__main__; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CONF.parent, check=True)
    assert done.stdout.strip() == "[]"

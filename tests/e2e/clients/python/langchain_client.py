"""LangChain's models for OpenAI and Anthropic: all that changed for them is `base_url`."""

from __future__ import annotations

from checks import ADDITION, EMBEDDING, GATEWAY, MOCK, REAL, SUM, Thing, run
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

ENDPOINT = {"base_url": f"{GATEWAY}/v1", "api_key": "unused", "max_retries": 0, "timeout": 120}


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def chats(model: str, **fields: object) -> list[BaseChatModel]:
    """A model in each dialect that LangChain speaks."""
    return [
        ChatOpenAI(model=model, **ENDPOINT, **fields),
        ChatOpenAI(model=model, use_responses_api=True, **ENDPOINT, **fields),
        ChatAnthropic(model=model, **(ENDPOINT | {"base_url": GATEWAY}), **fields),
    ]


def a_chat_is_the_same_plain_and_streamed() -> None:
    chat = ChatOpenAI(model=REAL, temperature=0, max_tokens=12, **ENDPOINT)
    plain = chat.invoke("Explain gravity in one sentence.")
    assert "ravity" in plain.text
    assert "".join(chunk.text for chunk in chat.stream("Explain gravity in one sentence.")) == plain.text
    for chat in chats(MOCK):
        plain = chat.invoke("Hello")
        assert plain.text
        assert "".join(chunk.text for chunk in chat.stream("Hello")) == plain.text
        assert plain.usage_metadata["output_tokens"] > 0


def tools_are_called_and_what_they_gave_is_told() -> None:
    for chat in (chat.bind_tools([add]) for chat in chats(MOCK, max_tokens=999)):
        turns = [HumanMessage(ADDITION)]
        turns.append(chat.invoke(turns))
        (call,) = turns[-1].tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 40})
        turns.append(add.invoke(call))
        assert chat.invoke(turns).text == SUM


def an_answer_is_parsed_by_its_schema() -> None:
    for chat in chats(MOCK, max_tokens=999):
        for method in ("json_schema", "function_calling"):
            assert isinstance(chat.with_structured_output(Thing, method=method).invoke("A thing."), Thing)


def texts_are_embedded() -> None:
    # Otherwise it counts by OpenAI's tables, which it downloads.
    embeddings = OpenAIEmbeddings(model=EMBEDDING, check_embedding_ctx_length=False, **ENDPOINT)
    assert embeddings.embed_documents(["one", "two"])[1] == embeddings.embed_query("two")


run(
    a_chat_is_the_same_plain_and_streamed,
    tools_are_called_and_what_they_gave_is_told,
    an_answer_is_parsed_by_its_schema,
    texts_are_embedded,
)

"""OpenAI's official client, in its newest version: all that changed for it is `base_url`."""

from __future__ import annotations

import json

import openai
from checks import ADDITION, EMBEDDING, GATEWAY, MOCK, QUESTION, REAL, SUM, Thing, run
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="unused", max_retries=0, timeout=120)


class add(BaseModel):
    """Adds two numbers."""

    a: int
    b: int


def a_chat_is_the_same_plain_and_streamed() -> None:
    asked = {"model": REAL, "messages": QUESTION, "temperature": 0, "max_tokens": 12}
    plain = client.chat.completions.create(**asked)
    assert "ravity" in plain.choices[0].message.content
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == plain.choices[0].message.content
    assert chunks[-1].usage.total_tokens == plain.usage.total_tokens


def a_chat_calls_tools_and_is_told_what_they_gave() -> None:
    asked = {"model": MOCK, "tools": [openai.pydantic_function_tool(add)]}
    messages = [{"role": "user", "content": ADDITION}]
    message = client.chat.completions.parse(**asked, messages=messages).choices[0].message
    (call,) = message.tool_calls
    assert call.function.parsed_arguments == add(a=2, b=40)
    with client.chat.completions.stream(**asked, messages=messages) as stream:
        (again,) = stream.get_final_completion().choices[0].message.tool_calls
    assert again.function.parsed_arguments == call.function.parsed_arguments
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "42"}]
    assert client.chat.completions.create(**asked, messages=messages).choices[0].message.content == SUM


def a_chat_is_parsed_by_its_schema() -> None:
    asked = {"model": MOCK, "messages": QUESTION, "response_format": Thing}
    plain = client.chat.completions.parse(**asked).choices[0].message.parsed
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == plain
    assert isinstance(plain, Thing)


def a_response_is_the_same_plain_and_streamed() -> None:
    asked = {"model": MOCK, "instructions": "Be brief.", "input": QUESTION}
    plain = client.responses.create(**asked)
    assert plain.output_text
    assert client.responses.input_tokens.count(**asked).input_tokens == plain.usage.input_tokens
    with client.responses.stream(**asked) as stream:
        streamed = stream.get_final_response()
    assert streamed.output_text == plain.output_text
    assert streamed.usage.total_tokens == plain.usage.total_tokens


def a_response_calls_tools_and_is_told_what_they_gave() -> None:
    asked = {"model": MOCK, "tools": [{"type": "function", "name": "add", "parameters": add.model_json_schema()}]}
    turns = [{"role": "user", "content": ADDITION}]
    (call,) = client.responses.create(**asked, input=turns).output
    with client.responses.stream(**asked, input=turns) as stream:
        (again,) = stream.get_final_response().output
    assert json.loads(call.arguments) == json.loads(again.arguments) == {"a": 2, "b": 40}
    turns += [call, {"type": "function_call_output", "call_id": call.call_id, "output": "42"}]
    assert client.responses.create(**asked, input=turns).output_text == SUM


def a_response_is_parsed_by_its_schema() -> None:
    assert isinstance(client.responses.parse(model=MOCK, input=QUESTION, text_format=Thing).output_parsed, Thing)


def a_text_is_completed_plain_and_streamed() -> None:
    asked = {"model": MOCK, "prompt": "Once upon a time", "max_tokens": 8}
    plain = client.completions.create(**asked)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
    assert plain.choices[0].text == streamed
    assert plain.usage.completion_tokens == 8


def texts_are_embedded_and_models_listed() -> None:
    asked = {"model": EMBEDDING, "input": ["one", "two"]}
    usual = client.embeddings.create(**asked).data  # base64, by this client
    assert usual == client.embeddings.create(**asked, encoding_format="float").data
    assert {REAL, MOCK} <= {model.id for model in client.models.list()}


run(
    a_chat_is_the_same_plain_and_streamed,
    a_chat_calls_tools_and_is_told_what_they_gave,
    a_chat_is_parsed_by_its_schema,
    a_response_is_the_same_plain_and_streamed,
    a_response_calls_tools_and_is_told_what_they_gave,
    a_response_is_parsed_by_its_schema,
    a_text_is_completed_plain_and_streamed,
    texts_are_embedded_and_models_listed,
)

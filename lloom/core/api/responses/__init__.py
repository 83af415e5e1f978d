"""OpenAI's Responses API, over chat completions (https://platform.openai.com/docs/api-reference/responses)."""

from lloom.core.api.responses.dialect import Responses, prompt

__all__ = ["Responses", "prompt"]

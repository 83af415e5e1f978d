"""Anthropic's Messages API, over chat completions (https://docs.anthropic.com/en/api/messages)."""

from lloom.core.api.anthropic.dialect import Messages, prompt

__all__ = ["Messages", "prompt"]

"""The client: the OpenAI-compatible gateway and what stands behind it. Every byte of a request passes here, and none of them crosses Ray."""

from __future__ import annotations

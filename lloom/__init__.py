"""Lloom: a peer-to-peer network for LLM requests."""

__version__ = "0.1.0"

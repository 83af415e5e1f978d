"""What a Worker does with a call: check it, admit it, run it, meter it, draft its receipt."""

from lloom.adapters.serving.counter import Serving

__all__ = ["Serving"]

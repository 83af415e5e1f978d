"""Whether a body asks for no more than was signed and is paid for. It counts no tokens."""

from __future__ import annotations

from lloom.adapters.llm import body as bodies
from lloom.core.api.request import Operation
from lloom.core.billing.request import Request
from lloom.core.errors import RetryElsewhere
from lloom.core.offer import ModelOffer


def bounded(operation: Operation, body: bytes, request: Request, model: ModelOffer) -> bytes:
    """`body`, each of its answers limited to its part of the tokens that were ordered: nobody pays for more, and it is
    the backend that counts them.

    RetryElsewhere (402) for who ordered less than a token for each; CallerFault as `body.limit` and `body.answer_count`.
    """
    if operation == "embeddings":
        return body
    content = bodies.fields(body)
    share = request.max_output_tokens // bodies.answer_count(operation, content)
    if share >= model.max_output:  # as many as the model gives
        return body
    if not share and bodies.whole(content, "max_tokens", 0) != 0:
        raise _less(f"{request.max_output_tokens} tokens of an answer", "and asks for more")
    if bodies.limit(operation, content, share) is None:
        most = bodies.COMPLETION_TOKENS if operation == "completions" else share
        bodies.put(content, "max_tokens", min(share, most))
    return bodies.encode(content)


def admit(operation: Operation, body: bytes, request: Request, model: ModelOffer, prompt: int) -> None:
    """RetryElsewhere (402) if the prompt, which has `prompt` tokens by our count, is longer than what was ordered. No
    backend takes more than the context, whatever we count of pictures and films.
    """
    allowed = request.max_input_tokens
    if prompt > allowed and model.context * bodies.prompt_count(operation, bodies.fields(body)) > allowed:
        raise _less(f"{allowed} tokens of a prompt", f"and has {prompt}")


def _less(allows: str, but: str) -> RetryElsewhere:
    return RetryElsewhere(f"The request allows {allows}, {but}.", status=402, code="ordered")

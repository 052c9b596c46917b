"""Errors that kvoy answers itself, in the shape OpenAI clients know.

``REASONS`` is the one list of causes: status, error type and meaning of each. The cause travels in the header
``x-kvoy-reason``; the message says what to do.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from extproc.state.envoy import REASON_HEADER


class Reason(NamedTuple):
    """What every rejection of one cause has in common."""

    status: int
    type: str
    meaning: str


REASONS = MappingProxyType(
    {
        "invalid-json": Reason(400, "invalid_request_error", "The body is not one JSON object in UTF-8."),
        "missing-model": Reason(400, "invalid_request_error", "The body has no `model`."),
        "invalid-model": Reason(400, "invalid_request_error", "`model` is not a non-empty string."),
        "missing-input": Reason(400, "invalid_request_error", "The field with the prompt is absent."),
        "invalid-input": Reason(400, "invalid_request_error", "The field with the prompt has a wrong type."),
        "not-divisible": Reason(
            400, "invalid_request_error", "Needs one engine for prompt and answer, and there are only others."
        ),
        "unknown-model": Reason(404, "not_found_error", "No ModelRoute serves this model."),
        "no-matching-rule": Reason(404, "not_found_error", "No rule of the model's routes matches."),
        "body-too-large": Reason(413, "invalid_request_error", "The body exceeds the configured limit."),
        "saturated": Reason(429, "rate_limit_error", "Every ready pod has too much to do already."),
        "no-adapter": Reason(503, "service_unavailable_error", "No ready pod has the LoRA adapter loaded."),
        "no-ready-pod": Reason(503, "service_unavailable_error", "The chosen ModelServer has no ready pod."),
        "no-pair": Reason(
            503, "service_unavailable_error", "No group has both a prefill and a decode pod ready."
        ),
        "prefill-failed": Reason(502, "server_error", "No prefill endpoint computed the prompt."),
        "prefill-timeout": Reason(504, "server_error", "No prefill endpoint computed the prompt in time."),
        "internal-error": Reason(500, "server_error", "A defect in kvoy; the worker's log has the trace."),
    }
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer that ends the request here."""

    reason: str
    """A key of REASONS."""
    message: str
    """For the caller: what is wrong and what to do. Never holds prompt text."""
    param: str | None = None
    code: str | None = None

    @property
    def status(self) -> int:
        return REASONS[self.reason].status

    def body(self) -> bytes:
        """OpenAI's error object as JSON bytes."""
        error = {
            "message": self.message,
            "type": REASONS[self.reason].type,
            "param": self.param,
            "code": self.code or self.reason.replace("-", "_"),
        }
        return msgspec.json.encode({"error": error})

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Response headers beside the status; a 429 or 503 asks the client to come back in a second."""
        own = (("content-type", "application/json"), (REASON_HEADER, self.reason))
        return (*own, ("retry-after", "1")) if self.status in (429, 503) else own

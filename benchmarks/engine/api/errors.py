"""vLLM's error bodies: ``{"error": {"message", "type", "param", "code"}}``."""

from http import HTTPStatus

_TYPES = {
    HTTPStatus.BAD_REQUEST: "BadRequestError",
    HTTPStatus.NOT_FOUND: "NotFoundError",
    HTTPStatus.TOO_MANY_REQUESTS: "RateLimitError",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalServerError",
    HTTPStatus.SERVICE_UNAVAILABLE: "Service Unavailable",
}


class ApiError(Exception):
    """An error answer; ``kind`` is the ``type`` of the body."""

    def __init__(self, status: int, message: str, param: str | None = None, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.kind = kind or _TYPES.get(HTTPStatus(status), HTTPStatus(status).phrase)

    def body(self) -> dict[str, object]:
        """The JSON body."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        }


def bad_value(field: str, value: object, message: str) -> ApiError:
    """A field whose value the engine cannot serve."""
    return ApiError(400, f"{message} (parameter={field}, value={value})", field)


def unknown_model(name: str, base: str) -> ApiError:
    """The request names a model that is not served."""
    return ApiError(404, f"The model `{name}` does not exist. Valid aliases: {base}.", "model")


def no_such_rank(rank: int, ranks: int) -> ApiError:
    """The request names a data-parallel rank that is not there."""
    return ApiError(400, f"data_parallel_rank {rank} is out of range [0, {ranks}).")


def told_to_fail(status: int) -> ApiError:
    """A fault asks for this status."""
    return ApiError(status, "This engine was told to fail.")


def queue_full() -> ApiError:
    """As many requests wait as may wait."""
    return ApiError(503, "The engine is currently busy. Please try again later.")


def transfer_failed() -> ApiError:
    """What the engine needs from another one has not come."""
    return ApiError(500, "Internal server error")


def engine_dead() -> ApiError:
    """The request has killed the engine."""
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return ApiError(500, message)


def starting() -> ApiError:
    """A slow start is not over."""
    return ApiError(503, "The engine is still starting.")

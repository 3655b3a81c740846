"""What goes wrong when the service fetches what a user named."""

from calotype.errors.families import Invalid, Unavailable


class FetchRefused(Invalid):
    """A URL that nothing is fetched from. The text tells its host and nothing of the network."""

    code = "fetch_refused"
    img = "IMG.0017"

    def __init__(self, reason: str, *, host: str = "") -> None:
        super().__init__(f"the URL does not pass filtering: {f'{host}: ' if host else ''}{reason}")


class FetchFailed(Invalid):
    """The source refuses, or does not answer as it should; trying again does not help. `status`: what it answered."""

    code = "fetch_failed"
    img = "IMG.0057"

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class SourceChanged(FetchFailed):
    """Between two parts of one download."""

    code = "source_changed"


class SourceUnavailable(Unavailable):
    """The source of a fetch is away for now. `retry_after_s`: when it wants to be asked again."""

    code = "source_unavailable"

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s

"""What became of the records of one request, counted, and the answer that says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ingest.answers import error_body, error_response, json_response
from ingest.delivery import SOMEWHERE
from ingest.errors import DeliveryUnknown, IngestError, Outcome
from ingest.http.messages import Response
from ingest.records import DeliveryReport, Receipt

LISTED_FAILURES = 100
"""How many failures the answer names; the rest is counted."""


Failure: TypeAlias = tuple[int, IngestError]
"""The number of a record in its request, from 1, and why it is not in Kafka, or not known to be."""


class Tally:
    """Counts the records of one request, and names the first that failed."""

    __slots__ = ("_failed", "_first", "_listed", "accepted")

    def __init__(self) -> None:
        self.accepted = 0
        """Records that were taken so far."""
        self._failed = 0
        self._listed: list[Failure] = []
        self._first: IngestError | None = None  # the failure that speaks for all, if all fail

    def count(
        self, numbers: Sequence[int], reports: Sequence[DeliveryReport], failures: Sequence[Failure] = ()
    ) -> list[Failure]:
        """Count what became of records: those of `numbers`, and `failures`, which did not become any.

        Returns all that failed, in order.
        """
        if not failures and reports.count(SOMEWHERE) == len(numbers):
            self.accepted += len(numbers)
            return []
        failures = list(failures)
        for number, report in zip(numbers, reports, strict=False):
            if isinstance(report, Receipt):
                self.accepted += 1
            else:
                failures.append((number, report))
        failures.sort(key=lambda failure: failure[0])
        self._note(failures)
        return failures

    def count_queued(self, numbers: Sequence[int], failures: Sequence[Failure] = ()) -> None:
        """The same for records that are answered before anything has become of them."""
        self.accepted += len(numbers)
        self._note(failures)

    def _note(self, failures: Sequence[Failure]) -> None:
        self._failed += len(failures)
        for number, error in failures:
            # One unknown outcome makes the whole unknown, so it speaks before the others.
            if self._first is None or (
                error.outcome is Outcome.UNKNOWN and self._first.outcome is not Outcome.UNKNOWN
            ):
                self._first = error
            if len(self._listed) < LISTED_FAILURES:
                self._listed.append((number, error))

    def response(
        self, error: IngestError | None = None, *, queued: bool, minimal: bool, called: str = "line"
    ) -> Response:
        """The answer; `error` says why the rest of the content was not read.

        `called` is what a record is to the client, whose number is given by that name.
        """
        body: dict[str, Any] = {"accepted": self.accepted, "failed": self._failed}
        if self._listed:
            body["results"] = [{called: number} | error_body(failure) for number, failure in self._listed]
        unknown = self._first is not None and self._first.outcome is Outcome.UNKNOWN
        if error is None and self._failed and not self.accepted:
            error = self._first
            if error is not None and unknown and error.status != 504:
                error = DeliveryUnknown(error.message)
        if error is not None:
            if self.accepted or unknown:
                # The error's own words are about the rest.
                # A 4xx would have shippers drop what may not be written.
                if error.status == 503 or (not self.accepted and error.status != 504):
                    error = DeliveryUnknown(
                        f"the {called}s counted here were taken, the rest was not: {error.message}"
                    )
                body["outcome"] = Outcome.UNKNOWN.value
            if self.accepted:
                body["retriable"] = False  # all of it again would certainly store some twice
            return error_response(error, body)
        if self._failed and not queued:
            return json_response(207, body)
        if minimal and not self._failed:
            return Response(202 if queued else 204)
        return json_response(202 if queued else 200, body)

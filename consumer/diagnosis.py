"""Sorting of S3's error answers: what kind of failure it is and what a person should do. Pure.

Owns: the table of error codes and the wording. Does not own: the client library's exceptions (`s3_client` turns
them into an `ErrorAnswer`), nor what follows from a failure (`chain`, `worker`).
Invariants: the code decides before the status, since one status carries permanent and passing faults alike;
whatever is not known to pass by itself or with new credentials is REFUSED; a reason holds no secret, for it is made
of the answer's code and message, the bucket and the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from consumer.ports import Failure, StoreError

MESSAGE_LIMIT = 200

# The calls this program makes. An error of any other operation comes from the credential chain (STS, SSO), which
# asks for credentials inside our request.
OPERATIONS = frozenset({"PutObject", "HeadObject", "GetObject", "ListObjectsV2"})

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and botocore/retries/standard.py
_CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_UNAVAILABLE = frozenset(
    {
        "BandwidthLimitExceeded",
        "Busy",
        "InternalError",
        "InternalFailure",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
# The body arrived damaged or short: the same bytes pass when they are sent again.
_DAMAGED = frozenset({"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "RequestExpired",
        "TokenRefreshRequired",
    }
)
_WRONG_REGION = frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"})

_PERMISSION = {
    "PutObject": "s3:PutObject",
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "GetObject": "s3:GetObject and s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
}
_ADVICE = {
    "AccessControlListNotSupported": "the bucket takes no ACLs: unset S3_ACL",
    "AllAccessDisabled": "the account or bucket is blocked: ask its owner",
    "InvalidAccessKeyId": "the store does not know this access key: check the credentials and AWS_ENDPOINT_URL_S3",
    "XAdminUserNotFound": "the store does not know this access key: check the credentials",  # versitygw, with a 404
    "InvalidStorageClass": "check S3_STORAGE_CLASS",
    "NoSuchBucket": "create the bucket, or check S3_BUCKET and AWS_ENDPOINT_URL_S3",
    "NoSuchKey": "the object is not there (any more)",
    "NotImplemented": "this store lacks something we need, most likely If-None-Match on PutObject: "
    "use a store with conditional puts",
    "ObjectParentIsFile": "an object lies where the key needs a folder: move it, or use another S3_PREFIX",
    "SignatureDoesNotMatch": "check the secret access key and the region",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """An answer that is no success. `code` is S3's, or the status again where the answer had no (readable) body."""

    operation: str
    status: int
    code: str
    message: str
    server_region: str | None = None

    @property
    def bare(self) -> bool:
        """No error document came with the status: always so for HEAD; for others a sign that no S3 answered."""
        return not self.code or self.code == str(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the request went; `key` is the key, or the prefix of a listing."""

    bucket: str
    key: str
    region: str | None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def diagnose(answer: ErrorAnswer, place: Place) -> StoreError:
    """The failure's class by code, then by status, and its reason for people."""
    failure, advice = _sort(answer, place)
    code = "without an error code" if answer.bare else answer.code
    message = f" ({shorten(answer.message)})" if answer.message and not answer.bare else ""
    reason = f"{answer.operation} {place}: HTTP {answer.status} {code}{message}; {advice}"
    return StoreError(failure, reason, vague=answer.bare)


def not_s3(operation: str, place: Place) -> StoreError:
    """A success that is not S3's: a login page, a proxy, some other server. Nothing may be concluded from it."""
    return StoreError(
        Failure.REFUSED,
        f"{operation} {place}: the answer is not S3's, something else answered; check AWS_ENDPOINT_URL_S3",
    )


def shorten(message: str) -> str:
    """One line of at most MESSAGE_LIMIT characters: messages of servers and of credential programs come unbounded."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


def _sort(answer: ErrorAnswer, place: Place) -> tuple[Failure, str]:
    if answer.operation not in OPERATIONS:
        return Failure.CREDENTIALS, "credentials cannot be had: check the role or session they come from"
    return _by_code(answer, place) or (_bare(answer) if answer.bare else _by_status(answer))


def _by_code(answer: ErrorAnswer, place: Place) -> tuple[Failure, str] | None:
    code = answer.code
    if code in _CONFLICT:
        return Failure.CONFLICT, "another request was writing the same key"
    if code in _UNAVAILABLE or code.endswith(("Throttling", "ThrottlingException", "ThrottledException")):
        return Failure.UNAVAILABLE, "the store is busy or failing"
    if code in _DAMAGED:
        return Failure.UNAVAILABLE, "the body was damaged on its way"
    if code in _CREDENTIALS:
        return Failure.CREDENTIALS, "renew the credentials"
    if code == "RequestTimeTooSkewed":  # also met by a request that was held up, so it may pass at once
        return Failure.CREDENTIALS, "set this machine's clock: it differs from the store's by minutes"
    if code in _WRONG_REGION or answer.status == HTTPStatus.MOVED_PERMANENTLY:
        theirs = answer.server_region or "another region"
        ours = place.region or "the SDK's default region"
        return Failure.REFUSED, f"the bucket is in {theirs}, requests are signed for {ours}: set AWS_REGION"
    if code in _ADVICE:
        return Failure.REFUSED, _ADVICE[code]
    return None


def _bare(answer: ErrorAnswer) -> tuple[Failure, str]:
    """Sort an answer of which there is only the status; a HEAD's always is."""
    head = answer.operation == "HeadObject"
    if head and answer.status == HTTPStatus.FORBIDDEN:
        return Failure.REFUSED, "grant s3:ListBucket and s3:GetObject, or renew the credentials"
    if head and answer.status == HTTPStatus.BAD_REQUEST:  # ExpiredToken is a 400
        return Failure.CREDENTIALS, "renew the credentials; a wrong AWS_REGION looks the same"
    if answer.status == HTTPStatus.CONFLICT:
        return Failure.CONFLICT, "another request was writing the same key"
    failure, advice = _by_status(answer)
    return failure, advice if head or failure is not Failure.REFUSED else f"{advice} (is AWS_ENDPOINT_URL_S3 S3's?)"


def _by_status(answer: ErrorAnswer) -> tuple[Failure, str]:
    status = answer.status
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return Failure.REFUSED, _ADVICE["NotImplemented"]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    ):
        return Failure.UNAVAILABLE, "the store is busy or failing"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Failure.REFUSED, f"grant {_PERMISSION[answer.operation]} (bucket policy, role, KMS key)"
    if status == HTTPStatus.NOT_FOUND and answer.bare:
        return Failure.REFUSED, _ADVICE["NoSuchBucket"]
    return Failure.REFUSED, "the store will not take this request: check the S3_ settings and the bucket"

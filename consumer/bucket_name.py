"""Which bucket names the consumer takes. Pure.

Owns: the rule and its wording. Does not own: whether the bucket exists (`store`).
Invariant: a name that passes here passes botocore's own check and names one general-purpose bucket, whose listings
come in key order and whose conditional puts are settled in one place.
"""

from __future__ import annotations

import re

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


def bucket_fault(name: str) -> str | None:
    """What is wrong with the name, for people; None when it may be used."""
    if name.startswith("arn:"):
        return "an ARN: give the bucket's name (of an access point, its alias)"
    if "/" in name:
        return "has a slash: the bucket's name alone belongs here, the path goes into S3_PREFIX"
    if name.endswith(("--x-s3", "--table-s3")):
        return "a directory or table bucket: those list keys in no order; a general-purpose bucket is needed"
    if name.endswith(".mrap"):
        return "a multi-region access point: conditional puts must be settled in one place; name one bucket"
    if not _NAME.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
        return (
            "not a bucket name: 3 to 63 of a-z, 0-9, dot and hyphen, first and last a letter or digit, "
            "no two dots in a row, no IP address"
        )
    return None

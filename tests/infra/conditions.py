"""Azure's and Google's conditions on rights, evaluated: as much of both languages as `infra/` writes."""

import fnmatch
import re
from collections.abc import Callable

BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
READ, ADD, WRITE = f"{BLOBS}/read", f"{BLOBS}/add/action", f"{BLOBS}/write"

_ABAC = re.compile(
    r"SubOperationMatches\{'(?P<sub>[^']*)'\}"
    r"|ActionMatches\{'(?P<action>[^']*)'\}"
    r"|@(?P<source>Resource|Request)\[(?P<attribute>[^\]]*)\] (?P<operator>\w+) '(?P<value>[^']*)'"
    r"|(?P<word>AND|OR|NOT|!|\(|\))"
)
_PYTHON = {"AND": "and", "OR": "or", "NOT": "not", "!": "not", "(": "(", ")": ")"}


def abac_allows(condition: str, action: str, container: str, key: str, listing: bool = False) -> bool:
    """Return whether an Azure condition lets an action on a blob pass; `key` of a listing is its prefix."""

    def term(found: re.Match[str]) -> bool:
        if found["sub"] is not None:
            return listing and found["sub"] == "Blob.List"
        if found["action"] is not None:
            return action == found["action"]
        attributes = {
            ("Resource", BLOBS.removesuffix("/blobs") + ":name"): container,
            ("Request" if listing else "Resource", f"{BLOBS}:{'prefix' if listing else 'path'}"): key,
        }
        actual = attributes.get((found["source"], found["attribute"]))
        if actual is None:
            return False  # an attribute that the request does not have
        return {
            "StringEquals": lambda: actual == found["value"],
            "StringStartsWith": lambda: actual.startswith(found["value"]),
            "StringLike": lambda: fnmatch.fnmatchcase(actual, found["value"]),
        }[found["operator"]]()

    return _evaluate(_ABAC, condition, term)


_CEL = re.compile(
    r'resource\.name\.(?P<method>startsWith|endsWith)\("(?P<value>[^"]*)"\)|(?P<word>&&|\|\||\(|\))',
)
_PYTHON |= {"&&": "and", "||": "or"}


def iam_allows(condition: str, bucket: str, key: str) -> bool:
    """Return whether a Google condition holds for an object."""
    name = f"projects/_/buckets/{bucket}/objects/{key}"

    def term(found: re.Match[str]) -> bool:
        return name.startswith(found["value"]) if found["method"] == "startsWith" else name.endswith(found["value"])

    return _evaluate(_CEL, condition, term)


def _evaluate(grammar: re.Pattern[str], condition: str, term: Callable[[re.Match[str]], bool]) -> bool:
    parts, end = [], 0
    for found in grammar.finditer(condition):
        assert not condition[end : found.start()].strip(), f"not understood: {condition[end : found.start()]!r}"
        parts.append(_PYTHON[found["word"]] if found["word"] else str(term(found)))
        end = found.end()
    assert not condition[end:].strip(), f"not understood: {condition[end:]!r}"
    return bool(eval(" ".join(parts), {"__builtins__": {}}))

"""Every error that fedbucket raises on purpose, in one tree.

    FedbucketError
    ├── SettingsError           federation.toml or client.toml is not sound; lists every mistake
    ├── InvalidDocument         a JSON object in a bucket is not what its key promises
    ├── InvalidEvent            a platform's notification that does not say what was created
    ├── InvalidTensorFile       not a sound safetensors file
    ├── UpdateRejected          an update that cannot be averaged; carries a code from `RejectionCode`
    ├── ConsentRefused          a federation that is outside what the client agreed to
    ├── TaskError               the organisation's own model or data code failed
    │   └── UnsupportedModel    a model for which the agreed privacy cannot be kept
    ├── TrainingPaused          training was saved before its time ran out; the next invocation goes on with it
    ├── RoundClosed             a round closed while a client trained for it; nothing is charged, nothing kept
    ├── RunStopped              a run on one machine cannot go on before a person acts; run again, it goes on
    ├── CohortUnreadable        a frozen member of a cohort cannot be read as it was recorded
    ├── PrivacyError
    │   ├── BudgetExceeded      one more release would cost more than the client granted
    │   └── LedgerError         the private account is missing, broken or contradicts itself
    └── StoreError
        ├── AlreadyExists       the key is taken; nothing was written
        ├── DifferentContent    the key is taken by other bytes where the same bytes were expected
        ├── NotFound
        ├── VersionMismatch     the object is no longer the version that was asked for
        ├── ObjectTooLarge      larger than the reader's limit; nothing was read
        └── StoreUnavailable    the store did not answer; the same call may succeed later

Each message says what was expected, what came, and what to do.
"""

from collections.abc import Sequence


class FedbucketError(Exception):
    """The root of the tree."""


class SettingsError(FedbucketError):
    """Settings that are not sound.

    Attributes:
        problems: one line a mistake: field, what was expected, what came.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {len(self.problems)} mistake{'s' * (len(self.problems) > 1)}\n{lines}")


class InvalidDocument(FedbucketError):
    """A JSON object in a bucket is not what its key promises."""


class InvalidEvent(FedbucketError):
    """A platform's notification that does not say what was created."""


class InvalidTensorFile(FedbucketError):
    """Not a sound safetensors file."""


class UpdateRejected(FedbucketError):
    """An update that cannot be averaged.

    Attributes:
        code: a `RejectionCode`, which the receipt carries.
        detail: what was expected and what came, in words.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class ConsentRefused(FedbucketError):
    """A federation that is outside what the client agreed to."""


class TaskError(FedbucketError):
    """The organisation's own model or data code failed."""


class UnsupportedModel(TaskError):
    """A model for which the agreed privacy cannot be kept."""


class TrainingPaused(FedbucketError):
    """Training was saved before its time ran out; the next invocation goes on with it."""


class RoundClosed(FedbucketError):
    """A round closed while a client trained for it; nothing is charged, nothing kept."""


class RunStopped(FedbucketError):
    """A run on one machine cannot go on before a person acts; run again, it goes on from its buckets."""


class CohortUnreadable(FedbucketError):
    """A frozen member of a cohort cannot be read as it was recorded; never a reason to leave it out."""


class PrivacyError(FedbucketError):
    """The private account does not allow what was asked."""


class BudgetExceeded(PrivacyError):
    """One more release would cost more than the client granted."""


class LedgerError(PrivacyError):
    """The private account is missing, broken or contradicts itself."""


class StoreError(FedbucketError):
    """A store did not do what was asked."""


class AlreadyExists(StoreError):
    """The key is taken; nothing was written."""


class DifferentContent(StoreError):
    """The key is taken by other bytes where the same bytes were expected."""


class NotFound(StoreError):
    """No object at that key."""


class VersionMismatch(StoreError):
    """The object is no longer the version that was asked for."""


class ObjectTooLarge(StoreError):
    """The object is larger than the reader's limit; nothing was read."""


class StoreUnavailable(StoreError):
    """The store did not answer; the same call may succeed later."""

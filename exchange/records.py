"""What the parties tell each other in JSON: tickets, receipts, cohorts, summaries, removals, the end of a run."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from exchange.documents import Document
from exchange.spec import Count, Identifier, Sha256

Round = Annotated[int, Field(ge=0, le=999_999)]
# In so many words: a client writes it into its log, where free text could pass for lines of its own.
LastOutcome = Annotated[str, Field(pattern=r"^(averaged|left out|absent|withdrawn|void|rejected: [a-z-]{1,40})$")]
Metrics = dict[str, float]
LARGEST_METRIC = 1e100  # in magnitude, so that weighted sums of metrics are finite whatever the numbers of examples
MAX_METRICS = 32  # of one update. With the length of names it bounds receipts, and the cohort that holds all of them
MAX_METRIC_NAME = 100  # characters


class RejectionCode(StrEnum):
    """Why an update cannot be averaged; the closed list."""

    TOO_LARGE = "too-large"
    NOT_SAFETENSORS = "not-safetensors"
    METADATA = "metadata"
    WRONG_FEDERATION = "wrong-federation"
    WRONG_ROUND = "wrong-round"
    WRONG_CLIENT = "wrong-client"
    MISSING_TENSOR = "missing-tensor"
    UNEXPECTED_TENSOR = "unexpected-tensor"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DTYPE = "wrong-dtype"
    NON_FINITE = "non-finite"
    NORM = "norm"
    PRIVACY = "privacy"


class Ticket(Document):
    """`inbox/R.json`: a round has opened.

    Attributes:
        model, sha256: the key of global model `round` in the parent bucket, and its digest.
        last: how the round before ended for this client: averaged, left out, absent, withdrawn, void, rejected: CODE,
            or None.
    """

    federation: Identifier
    round: Round
    model: str
    sha256: Sha256
    settings_sha256: Sha256
    last: LastOutcome | None


class Withdrawal(Document):
    """`updates/C/R.withdrawn.json`: the client takes no part in this round."""

    federation: Identifier
    round: Round
    client: Identifier


class StoredUpdate(Document):
    """An update as the parent found it: everything that reading it again needs.

    Attributes:
        norm: L2 norm of (update − global model) over all tensors.
        metrics: what the client shared of its evaluation of the global model.
    """

    client: Identifier
    key: str
    version: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    num_examples: Count
    norm: Annotated[float, Field(ge=0)]
    metrics: Metrics = Field(default_factory=dict)


class Receipt(Document):
    """`rounds/R/receipts/C.json`: the parent's decision on one client's answer. The first stands."""

    federation: Identifier
    round: Round
    client: Identifier
    outcome: Literal["accepted", "rejected", "withdrawn"]
    update: StoredUpdate | None = None
    code: RejectionCode | None = None
    detail: str | None = None


class Cohort(Document):
    """`rounds/R/cohort.json`: what a round averages, frozen; whoever aggregates, aggregates exactly this.

    Attributes:
        members: the accepted updates, sorted by client; empty where the round is void.
        void: whether the round ended without a quorum.
        rejected: client → code. With `withdrawn` and `absent`, how the round ended for everybody else.
        frozen_by: the id of the event that froze it.
    """

    federation: Identifier
    round: Round
    members: tuple[StoredUpdate, ...]
    void: bool
    rejected: dict[Identifier, RejectionCode]
    withdrawn: tuple[Identifier, ...]
    absent: tuple[Identifier, ...]
    frozen_by: str


class Summary(Document):
    """`rounds/R/summary.json`: what came of a round; a pure function of the cohort, the model and the summary before.

    Attributes:
        averaged, left_out: the cohort's members, and those of them that the strategy left out.
        relative_change: ‖new − old‖₂ / ‖old‖₂ over all floating tensors, six digits; None where the old one is all 0.
        norms: client → L2 norm of its update.
        metrics: shared metrics of model `round`, averaged by num_examples over those who shared them.
        best, stale_rounds: the best value so far of the metric that the stopping rule watches, and the age of it.
        void_rounds: how many rounds in a row, up to this one, were void.
        finished: why the run ends with the model that this round made; None while it goes on.
    """

    federation: Identifier
    round: Round
    averaged: tuple[Identifier, ...]
    left_out: tuple[Identifier, ...] = ()
    rejected: dict[Identifier, RejectionCode]
    withdrawn: tuple[Identifier, ...]
    absent: tuple[Identifier, ...]
    num_examples: int
    norms: dict[Identifier, float]
    relative_change: float | None
    metrics: Metrics
    client_metrics: dict[Identifier, Metrics]
    best: float | None
    stale_rounds: int
    void_rounds: int
    finished: Literal["rounds", "tolerance", "patience", "void"] | None


class RemovedUpdate(Document):
    """An update that is there no more, as it was."""

    key: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Pruned(Document):
    """`rounds/R/pruned.json`: what the retention command removes of a closed round, written before it does.

    Attributes:
        removed: sorted by key.
    """

    federation: Identifier
    round: Round
    removed: tuple[RemovedUpdate, ...]


class Finished(Document):
    """`public/finished.json`: the run is over."""

    federation: Identifier
    round: Round
    """The number of the final model."""
    model: str
    sha256: Sha256
    settings_sha256: Sha256
    reason: Literal["rounds", "tolerance", "patience", "void"]

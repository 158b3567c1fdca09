"""The `[privacy]` section: which mechanism, and at which price."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from exchange.documents import Document
from exchange.spec.fields import Positive, Share


class NoPrivacy(Document):
    """No noise. It must be written out: a federation without a privacy section does not train."""

    mechanism: Literal["none"]


class OrnsteinUhlenbeckPrivacy(Document):
    """Noise by an Ornstein-Uhlenbeck process on each round's difference: local weights − global weights.

    Unit "example" needs one full-batch step a round, or a model that is known to be convex; unit "client" takes any
    local training.
    """

    mechanism: Literal["ornstein-uhlenbeck"]
    unit: Literal["example", "client"]
    """What one account protects: one example of a client (a patient's row), or all that a client has."""
    adjacency: Literal["add-or-remove", "replace-one"]
    """What happens to the unit between neighbours; by default "add-or-remove" an example, "replace-one" client."""
    epsilon: Positive
    """ε of all rounds together, for one client's data."""
    delta: Share
    clip_norm: Positive
    """Unit "example": the largest L2 norm of an example's gradient. Unit "client": of the whole difference."""
    theta: Annotated[float, Field(ge=0)] = 1.0
    """θ, the rate at which the process reverts to the global model; changes nothing in ε."""
    time: Positive = 0.25
    """t, how long it runs; with θ = 1, e^(−θt) = 0.78 of the difference is left."""
    debias: Literal["exact", "none", "optimal"] = "exact"
    """What the release is multiplied by afterwards: 1/a, nothing, or a*/a; changes nothing in ε."""

    @model_validator(mode="before")
    @classmethod
    def _adjacency_of_the_unit(cls, values: Any) -> Any:
        if isinstance(values, dict) and "adjacency" not in values:
            return values | {"adjacency": "replace-one" if values.get("unit") == "client" else "add-or-remove"}
        return values


class DpSgdPrivacy(Document):
    """Noise in every step of local training (Abadi et al. 2016); for several steps a round, and deep models.

    A round takes local_epochs / sampling_probability steps. With train.proximal_mu it is an Ornstein-Uhlenbeck process,
    discretised.
    """

    mechanism: Literal["dp-sgd"]
    unit: Literal["example"] = "example"
    adjacency: Literal["add-or-remove"] = "add-or-remove"
    """The one for which sampled steps have an exact account."""
    epsilon: Positive
    """ε of all rounds together, for one client's data."""
    delta: Share
    clip_norm: Positive
    """The largest L2 norm of an example's gradient."""
    sampling_probability: Annotated[float, Field(gt=0, le=1)]
    """With which each example takes part in a step; the expected batch is this share of the declared examples."""


Privacy = Annotated[NoPrivacy | OrnsteinUhlenbeckPrivacy | DpSgdPrivacy, Field(discriminator="mechanism")]

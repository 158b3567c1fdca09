"""The `[strategy]` section: what becomes of the accepted updates of a round."""

from typing import Annotated, Literal

from pydantic import Field

from exchange.documents import Document
from exchange.spec.fields import Count, Positive

Weights = Literal["examples", "uniform", "precision"]
Decay = Annotated[float, Field(ge=0, lt=1)]


class FedAvg(Document):
    """The weighted mean (McMahan et al. 2017)."""

    name: Literal["fedavg"]
    weights: Weights = "examples"
    """Of the clients: their declared examples, all the same, or 1/variance of what each releases."""


class FedAvgM(Document):
    """The weighted mean, with momentum at the server (Hsu, Qi, Brown 2019)."""

    name: Literal["fedavgm"]
    weights: Weights = "examples"
    learning_rate: Positive = 1.0
    """η, the server's."""
    momentum: Decay = 0.9


class FedAdaptive(Document):
    """FedAdam and FedYogi: the weighted mean as a gradient, with adaptive steps at the server (Reddi et al. 2021)."""

    name: Literal["fedadam", "fedyogi"]
    weights: Weights = "examples"
    learning_rate: Positive
    """η, the server's."""
    beta_1: Decay = 0.9
    beta_2: Decay = 0.99
    tau: Positive = 1e-3
    """τ, how adaptive: a large one comes near to plain momentum."""


class FedAdagrad(Document):
    """FedAdagrad (Reddi et al. 2021)."""

    name: Literal["fedadagrad"]
    weights: Weights = "examples"
    learning_rate: Positive
    """η, the server's."""
    beta_1: Decay = 0.0
    tau: Positive = 1e-3


class Median(Document):
    """The coordinate-wise median (Yin et al. 2018)."""

    name: Literal["median"]


class TrimmedMean(Document):
    """The coordinate-wise trimmed mean (Yin et al. 2018)."""

    name: Literal["trimmed-mean"]
    byzantine: Count
    """How many clients may send anything: so many values are cut off at each end."""


class MultiKrum(Document):
    """The mean of those updates that have the nearest neighbours (Blanchard et al. 2017)."""

    name: Literal["multi-krum"]
    byzantine: Count
    """f, how many clients may send anything."""
    select: Count | None = None
    """m, how many updates are averaged; None takes all but f."""
    weights: Literal["examples", "uniform"] = "uniform"


ServerOptimizer = FedAvgM | FedAdaptive | FedAdagrad
Strategy = Annotated[FedAvg | ServerOptimizer | Median | TrimmedMean | MultiKrum, Field(discriminator="name")]

"""Which federation is simulated, and how unkindly: drawn before it begins."""

from dataclasses import dataclass
from functools import lru_cache

from client.privacy.plan import make_plan
from exchange.spec import Budget, ClientSettings, FederationSettings
from tests.simulation.choices import Choices
from tests.simulation.price import epsilon_of
from tests.support.settings import PRIVATE, client_settings, federation_settings

NAMES = ("alder", "birch", "cedar", "dogwood")
NEVER = float("inf")


@dataclass(frozen=True)
class Scenario:
    """A federation and its circumstances.

    Attributes:
        quiet_after: seconds from the start after which nothing goes wrong any more.
        period: seconds between two firings of a timer.
        absent: client → (from, to), the seconds in which it is not there.
        unreachable: client → (from, to), the seconds in which the parent does not get through to its inbox.
        agrees_after: client → when it agrees to the settings.
        rounds_paid: client → how many rounds its budget pays for; more than there are where it is not tight.
        offsets: bucket → seconds by which its clock is wrong.
        whole_seconds: whether stores tell the time in whole seconds.
        duration: seconds that training takes.
        delivery, behaviour, tampering: how often an event, a client, an object goes astray.
        spending: how often another federation charges the account of a client that trains.
    """

    settings: FederationSettings
    private: bool
    quiet_after: float
    period: float
    absent: dict[str, tuple[float, float]]
    unreachable: dict[str, tuple[float, float]]
    agrees_after: dict[str, float]
    rounds_paid: dict[str, int]
    offsets: dict[str, float]
    whole_seconds: bool
    duration: float
    delivery: float
    behaviour: float
    tampering: float
    spending: float

    @property
    def clients(self) -> list[str]:
        """The roster, sorted."""
        return self.settings.roster


def draw(choices: Choices) -> Scenario:
    """Return a scenario."""
    clients = NAMES[: choices.setting("clients", (2, 3, 4))]
    private = choices.setting("private", (False, True))
    rounds = choices.setting("rounds", (2, 3, 5))
    quorum = choices.setting("quorum", ("all", "one", "all but one"))
    inboxes = tuple(client for client in clients if choices.setting(f"inbox of {client}", (True, True, False)))
    buckets = ["the parent bucket", *(f"inbox of {client}" for client in clients)]
    buckets += [f"state of {client}" for client in clients]
    rare = (0.0, 0.0, 0.1, 0.3)
    return Scenario(
        settings=_settings(clients, rounds, quorum, inboxes, private),
        private=private,
        quiet_after=choices.setting("seconds until all is well", (0.0, 100.0, 300.0, 700.0)),
        period=choices.setting("seconds between timers", (40.0, 20.0, 75.0)),
        absent={
            client: choices.setting(
                f"{client} is absent (seconds)", ((NEVER, NEVER),) * 6 + ((0.0, 150.0), (120.0, 400.0), (0.0, NEVER))
            )
            for client in clients
        },
        unreachable={
            client: choices.setting(
                f"the inbox of {client} is out of reach (seconds)",
                ((NEVER, NEVER),) * 6 + ((0.0, 130.0), (60.0, 300.0)),
            )
            for client in inboxes
        },
        agrees_after={
            client: choices.setting(f"{client} agrees after (seconds)", (0.0,) * 9 + (90.0,)) for client in clients
        },
        rounds_paid={
            client: rounds - choices.setting(f"rounds that {client} cannot pay for", (0, 0, 0, 1, 2))
            for client in clients
        },
        offsets={name: choices.setting(f"clock of {name}", (0.0, 137.25, -305.5)) for name in buckets},
        whole_seconds=choices.setting("stores tell whole seconds", (False, True)),
        duration=choices.setting("seconds of training", (1.0, 5.0, 15.0)),
        delivery=choices.rate((0.0, 0.05, 0.2, 0.5)),
        behaviour=choices.rate(rare),
        tampering=choices.rate((0.0, 0.0, 0.0, 0.1)),
        spending=choices.rate((0.0, 0.0, 0.3)),
    )


def own_settings(scenario: Scenario, client: str, agrees: bool) -> ClientSettings:
    """Return a client's own settings: before it agrees, others are pinned."""
    return _own_settings(scenario.settings, client, agrees, scenario.rounds_paid[client])


def granted(scenario: Scenario, client: str) -> Budget | None:
    """Return what a client grants."""
    return own_settings(scenario, client, agrees=True).budget


@lru_cache(maxsize=1024)
def _settings(
    clients: tuple[str, ...], rounds: int, quorum: str, inboxes: tuple[str, ...], private: bool
) -> FederationSettings:
    number = {"all": len(clients), "one": 1, "all but one": len(clients) - 1}[quorum]
    privacy = {"privacy": PRIVATE} if private else {}
    return federation_settings(clients, rounds, number, inboxes, **privacy)


@lru_cache(maxsize=4096)
def _own_settings(settings: FederationSettings, client: str, agrees: bool, rounds_paid: int) -> ClientSettings:
    own = client_settings(client, settings, **({} if agrees else {"settings_sha256": "0" * 64}))
    if own.budget is None:
        return own
    budget = own.budget.model_copy(update={"epsilon": _price(settings, client, rounds_paid) * (1 + 1e-6)})
    return own.model_copy(update={"budget": budget})


@lru_cache(maxsize=1024)
def _price(settings: FederationSettings, client: str, rounds: int) -> float:
    """Return ε of so many rounds, by the curve of Gaussian differential privacy."""
    plan = make_plan(settings, client)
    assert plan is not None
    multipliers = [event.noise_multiplier for event in plan.events] * max(rounds, 0)
    return max(epsilon_of(multipliers, plan.privacy.delta), 0.01)  # a budget is positive; no round is so cheap

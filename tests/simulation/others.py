"""Those who do what the handlers cannot know of: other tools, other federations, accidents, and who repairs them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from client.privacy.accounting import GaussianRelease
from client.privacy.ledger import Ledger, Spending
from exchange import keys
from exchange.errors import AlreadyExists, BudgetExceeded
from exchange.records import Receipt
from tests.simulation import answers
from tests.simulation.scenario import granted

if TYPE_CHECKING:
    from tests.simulation.world import World

_STRANGER = "zinnia"  # on no roster
_RESTORED_AFTER = 60.0  # seconds until an operator has noticed


class Others:
    """Whoever acts on a world without being one of its functions.

    Attributes:
        by_hand: (client, round) that somebody answered with another tool, or tried to.
        rogue: (client, round) whose inbox held somebody else's ticket.
    """

    def __init__(self, world: World) -> None:
        self.by_hand: set[tuple[str, int]] = set()
        self.rogue: set[tuple[str, int]] = set()
        self._world = world
        self._name = world.settings.name

    def tempt(self, bucket: str, key: keys.Key | None) -> None:
        """Let others act upon a new object."""
        match key:
            case keys.Model(_, round_):
                self._answer_by_hand(round_)
            case keys.Update(_, client, round_, False) if client != _STRANGER:
                self._have_an_accident(str(key), f"update of {client} in round {round_}")
            case keys.Attempt(_, round_, number) if self._world.scenario.private:
                self._spend_elsewhere(bucket.removeprefix("state of "), round_, number)

    def plant_tickets(self) -> None:
        """Leave tickets in inboxes that are not the federation's."""
        world = self._world
        for client, inbox in world.inboxes.items():
            name = f"somebody else's ticket in the inbox of {client}"
            planted = world.choices.departure(name, world.scenario.tampering, ("for round 0", "for round 1"))
            if planted is not None:
                round_ = int(planted[-1])
                self.rogue.add((client, round_))
                inbox.create(str(keys.Ticket(self._name, round_)), answers.other_ticket(world.settings, round_))

    def restore_all(self) -> None:
        """Repair every accident."""
        for key in sorted(self._world.parent.tampered):
            self._restore(key)

    def _answer_by_hand(self, round_: int) -> None:
        world = self._world
        model = world.parent.bytes_of(keys.Model(self._name, round_))
        for client in [*world.scenario.clients, _STRANGER]:
            kind = world.choices.departure(f"{client} in round {round_}", world.scenario.behaviour, answers.KINDS)
            if kind is not None:
                self.by_hand.add((client, round_))
                for delay, withdrawn, data in answers.files(world.settings, client, round_, model, kind):
                    key = str(keys.Update(self._name, client, round_, withdrawn))
                    world.act(f"{client} answers round {round_} by hand", delay, partial(self._upload, key, data))

    def _upload(self, key: str, data: bytes) -> None:
        with suppress(AlreadyExists):
            self._world.parent.create(key, data)

    def _spend_elsewhere(self, client: str, round_: int, attempt: int) -> None:
        """Let another federation charge the same data set's account while the client trains."""
        world = self._world
        name = f"another federation charges {client} during attempt {attempt} at round {round_}"
        if world.choices.departure(name, world.scenario.spending, ("a little",)) is None:
            return
        ledger = Ledger(world.faults.watch(world.states[client]), "data")
        spending = Spending("meadow", "e" * 64, round_, "test", (GaussianRelease(50.0),))
        budget = granted(world.scenario, client)
        assert budget is not None

        def charge() -> None:
            with suppress(BudgetExceeded):
                ledger.charge(budget, spending)

        world.begin(name, "", charge, world.note, world.scenario.duration)

    def _have_an_accident(self, key: str, name: str) -> None:
        """Let an object be replaced or lost, which nobody has the right to do."""
        world = self._world
        what = world.choices.departure(name, world.scenario.tampering, ("replaced at once", "replaced", "lost"))
        if what is not None:
            world.act(f"the {name} is {what}", 0 if "once" in what else 9, partial(self._tamper, key, what == "lost"))

    def _tamper(self, key: str, lost: bool) -> None:
        parent = self._world.parent
        if self._world.faults.quiet or not parent.has(key):
            return
        if lost:
            parent.lose(key)
        else:
            parent.replace(key, answers.altered(parent.read(key)))
        self._world.act(f"an operator restores {key}", _RESTORED_AFTER, partial(self._restore, key))

    def _restore(self, key: str) -> None:
        """Put back what the receipt recorded, or else what was first there."""
        parent, update = self._world.parent, keys.parse(key)
        assert isinstance(update, keys.Update)
        wanted = parent.first[key].sha256
        if parent.has(receipt_key := keys.Receipt(self._name, update.round, update.client)):
            recorded = Receipt.from_bytes(parent.bytes_of(receipt_key), "receipt").update
            wanted = recorded.sha256 if recorded is not None else wanted
        if not parent.has(key) or parent.read(key) != parent.known[wanted]:
            parent.replace(key, parent.known[wanted])

"""A federation in memory: the production handlers, woken by events that are delivered as unkindly as a test asks for.

Time stands still unless nothing is on its way; then the timers fire and the stores' clock moves on.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import TypeVar

import numpy as np

from aggregator import rounds as parent_rounds
from aggregator.rounds import Parent
from client import rounds as client_rounds
from client.checkpoints import pace_of_function
from client.privacy.ledger import ENTRY, Ledger
from client.rounds import Client
from exchange import keys, tensors
from exchange.documents import Document
from exchange.events import ObjectCreated
from exchange.public import newest_model
from exchange.records import Cohort, Finished, Metrics, Receipt, Summary, Ticket
from exchange.spec import FederationSettings, NoPrivacy
from exchange.stores import Store, exists, put
from tests.support.arithmetic import FIRST, Learner, model_file
from tests.support.buckets import Bucket, Clock, contents, foreign_keys
from tests.support.settings import client_settings, federation_settings
from tests.support.watched import tolerated

TIME_LIMIT = 20  # seconds that a function may run
_STEP = 10  # seconds between two firings of the timers while nothing happens
_PATIENCE = 60  # firings in a row that achieve nothing: the run is stuck. It covers three void rounds
_PARENT = "parent"
_Document = TypeVar("_Document", bound=Document)


class Federation:
    """The buckets of a federation and whoever acts on them.

    Args:
        watch: wraps every store that a handler sees.
        noisy: no two trainings give the same, as with privacy noise.
        metrics: (client, round) → the metrics that it shares.

    Attributes:
        events: on their way.
        offline: clients that do not answer.
        instead: (client, round) → what that client does in place of training.
    """

    def __init__(
        self,
        settings: FederationSettings | None = None,
        watch: Callable[[Store], Store] = lambda store: store,
        noisy: bool = False,
        metrics: Callable[[str, int], Metrics] | None = None,
    ) -> None:
        self.settings = settings or federation_settings()
        self.clock = Clock()
        self.watch = watch
        self.events: list[ObjectCreated] = []
        self.offline: set[str] = set()
        self.instead: dict[tuple[str, int], Callable[[], None]] = {}
        self.parent_bucket = self._bucket(_PARENT)
        self.inboxes = {entry.id: self._bucket(entry.id) for entry in self.settings.client if entry.inbox}
        self.states = {client: Bucket(self.clock) for client in self.settings.roster}
        if not isinstance(self.settings.privacy, NoPrivacy):
            for client, state in self.states.items():
                self._account(client, state).open(
                    self.settings.privacy.unit, self.settings.privacy.adjacency, bytes(32)
                )
        self.learners = {
            client: Learner(client, noisy, (lambda round_, client=client: metrics(client, round_)) if metrics else None)
            for client in self.settings.roster
        }
        self._normals = np.random.default_rng(0).standard_normal
        self._firings = 0
        self._delivered: set[ObjectCreated] = set()

    # Who acts.

    @property
    def parent(self) -> Parent:
        """What the parent's functions work with."""
        return Parent(self.watch(self.parent_bucket), self._open_inbox, TIME_LIMIT)

    def client(self, name: str) -> Client:
        """Return what the functions of a client work with."""
        inbox = self.inboxes.get(name)
        return Client(
            settings=client_settings(name, self.settings),
            open_parent=lambda _: self.watch(self.parent_bucket),
            inbox=self.watch(inbox) if inbox is not None else None,
            state=self.watch(self.states[name]),
            learn=self.learners[name],
            normals=self._normals,
            time_limit=TIME_LIMIT,
            pace=pace_of_function(self.clock, TIME_LIMIT),
        )

    # What happens.

    def start(self) -> "Federation":
        """Publish the settings and model 0."""
        parent_rounds.start(self.parent_bucket, self.settings, model_file(self.settings, 0, FIRST))
        return self

    def run(
        self,
        order: Random | None = None,
        duplicates: bool = False,
        sweeps: Random | None = None,
        retries: bool = True,
        lossy: bool = False,
    ) -> "Federation":
        """Start if need be, and deliver events until the run is over; then whatever is still on its way.

        Args:
            order: chooses the next event; None takes them in order.
            duplicates: deliver each event twice.
            sweeps: fires timers now and then though there are events.
            retries: deliver again what failed; otherwise only the timers repair it.
            lossy: deliver no event at all.
        """
        if not exists(self.parent_bucket, str(keys.Model(self.settings.name, 0))):
            self.start()
        quiet = 0
        while not self.finished or self.events:
            if lossy:
                self.events.clear()
            if self.events:
                self._deliver_next(order, duplicates, retries)
                if sweeps is not None and sweeps.random() < 0.2:
                    self.sweep()
                continue
            before = len(self.parent_bucket.attempts)
            self.sweep()
            quiet = 0 if len(self.parent_bucket.attempts) > before else quiet + 1
            assert quiet < _PATIENCE, f"stuck: {sorted(contents(self.parent_bucket))}"
            self.clock.advance(0 if self.events else _STEP)
        return self

    def deliver_all(self) -> None:
        """Deliver what is on its way, in order, until nothing is."""
        while self.events:
            self.deliver(self.events.pop(0))

    def deliver_until(self, key: keys.Key) -> ObjectCreated:
        """Deliver what is on its way, in order, up to the event of `key`; return that, not delivered."""
        while self.events:
            event = self.events.pop(0)
            if event.key == str(key):
                return event
            self.deliver(event)
        raise AssertionError(f"{key} was never created")

    def deliver(self, event: ObjectCreated) -> None:
        """Hand one event to its handler."""
        if event.bucket == _PARENT:
            parent_rounds.handle(self.parent, event)
        elif event.bucket not in self.offline:
            ticket = keys.parse(event.key)
            self._answer(event.bucket, getattr(ticket, "round", None), client_rounds.handle, event)

    def sweep(self) -> None:
        """Fire the timers of the parent and of every client."""
        with tolerated():
            self.sweep_parent()
        for client in self.settings.roster:
            with tolerated():
                self.sweep_client(client)

    def sweep_parent(self) -> None:
        """Fire the parent's timer."""
        self._firings += 1
        parent_rounds.sweep(self.parent, f"timer:{self._firings}")

    def sweep_client(self, client: str) -> None:
        """Fire a client's timer."""
        if client not in self.offline:
            self._answer(client, newest_model(self.parent_bucket, self.settings.name), client_rounds.sweep)

    def restore(self, objects: Mapping[str, bytes]) -> None:
        """Let the parent bucket be another one with these objects: versions and times are new, events are lost."""
        restored = self._bucket(_PARENT)
        for key in sorted(objects, reverse=True):  # so that no object has the version it had
            restored.create(key, objects[key])
        restored.attempts = self.parent_bucket.attempts
        self.parent_bucket = restored
        self.events.clear()

    def empty_inbox(self, client: str) -> None:
        """Let a client's bucket be lost, and made again."""
        self.inboxes[client] = self._bucket(client)

    def upload(self, client: str, round_: int, data: bytes | None) -> keys.Update:
        """Put an update in the parent bucket as any tool may; None withdraws. Return its key."""
        key = keys.Update(self.settings.name, client, round_, withdrawn=data is None)
        put(self.parent_bucket, str(key), b"{}" if data is None else data)
        return key

    # What came of it.

    @property
    def finished(self) -> bool:
        """Whether the run is over."""
        return exists(self.parent_bucket, str(keys.Finished(self.settings.name)))

    @property
    def models(self) -> list[bytes]:
        """All global models, in order."""
        return list(self.folder("public/models/").values())

    def folder(self, prefix: str) -> dict[str, bytes]:
        """Return the objects of the parent bucket under a prefix of the federation."""
        return {
            key: data
            for key, data in contents(self.parent_bucket).items()
            if key.startswith(f"{self.settings.name}/{prefix}")
        }

    def receipt(self, client: str, round_: int) -> Receipt | None:
        """Return a receipt, None if there is none."""
        return self._document(Receipt, keys.Receipt(self.settings.name, round_, client))

    def cohort(self, round_: int) -> Cohort | None:
        """Return a cohort, None if there is none."""
        return self._document(Cohort, keys.Cohort(self.settings.name, round_))

    def summary(self, round_: int) -> Summary | None:
        """Return a summary, None if there is none."""
        return self._document(Summary, keys.Summary(self.settings.name, round_))

    def ending(self) -> Finished | None:
        """Return finished.json, None if there is none."""
        return self._document(Finished, keys.Finished(self.settings.name))

    def tickets(self, client: str) -> list[Ticket]:
        """Return a client's tickets, in order."""
        return [Ticket.from_bytes(data, key) for key, data in contents(self.inboxes[client]).items()]

    def uploads(self) -> dict[str, set[str]]:
        """Return the digests of all that anybody ever tried to upload, by key."""
        found: dict[str, set[str]] = {}
        for key, digest in self.parent_bucket.attempts:
            if isinstance(keys.parse(key), keys.Update):
                found.setdefault(key, set()).add(digest)
        return found

    def assert_sound(self) -> None:
        """Hold the buckets against the invariants that hold at any moment, whatever happened."""
        for bucket in [self.parent_bucket, *self.inboxes.values(), *self.states.values()]:
            assert foreign_keys(bucket) == []
        for key, digests in self.uploads().items():
            assert len(digests) == 1, f"{key}: {len(digests)} different uploads"
        for client, state in self.states.items():
            for key, data in contents(state).items():
                match keys.parse(key):
                    case keys.Release(federation, round_, withdrawn):
                        update = str(keys.Update(federation, client, round_, withdrawn))
                        assert not exists(self.parent_bucket, update) or self.parent_bucket.read(update) == data

        if not isinstance(self.settings.privacy, NoPrivacy):
            for client, state in self.states.items():
                self._assert_paid(client, state)

    def _assert_paid(self, client: str, state: Bucket) -> None:
        _, charges, hashes = self._account(client, state).read()
        own = [
            (charge.round, hash_)
            for charge, hash_ in zip(charges, hashes[1:], strict=True)
            if charge.settings_sha256 == self.settings.sha256
        ]
        assert len(own) == len(dict(own)), f"{client} paid twice for a round: {own}"
        for key, data in contents(state).items():
            match keys.parse(key):
                case keys.Release(federation, round_, False) if federation == self.settings.name:
                    assert tensors.layout_of(data).metadata[ENTRY] == dict(own)[round_]

    def _account(self, client: str, state: Store) -> Ledger:
        return Ledger(state, client_settings(client, self.settings).dataset)

    def _document(self, kind: type[_Document], key: keys.Key) -> _Document | None:
        if not exists(self.parent_bucket, str(key)):
            return None
        return kind.from_bytes(self.parent_bucket.read(str(key)), str(key))

    def _deliver_next(self, order: Random | None, duplicates: bool, retries: bool) -> None:
        event = self.events.pop(order.randrange(len(self.events)) if order else 0)
        if duplicates and event not in self._delivered:
            self._delivered.add(event)
            self.events.append(event)
        done = False
        with tolerated():
            self.deliver(event)
            done = True
        if retries and not done:
            self.events.append(event)

    def _answer(self, client: str, round_: int | None, handler: Callable[..., None], *arguments: ObjectCreated) -> None:
        if (instead := self.instead.get((client, round_ if round_ is not None else -1))) is not None:
            instead()
        else:
            handler(self.client(client), *arguments)

    def _bucket(self, name: str) -> Bucket:
        # A redelivery bears the id of the first delivery; here, that of the only object ever made under the key.
        return Bucket(
            self.clock,
            f"memory://{name}",
            lambda key: self.events.append(ObjectCreated(name, key, f"{name}:{key}")),
        )

    def _open_inbox(self, url: str) -> Store:
        return self.watch(self.inboxes[url.removeprefix("gs://")])

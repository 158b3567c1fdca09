"""The contract of `infra/`, applied by Terraform itself, says of keys what exchange/keys.py says, and of logs what the
handlers log."""

import re
import shutil
import tomllib
from dataclasses import replace
from typing import Any, get_args

import pytest

from aggregator import rounds as parent_rounds
from client import rounds as client_rounds
from exchange import keys
from exchange.errors import ConsentRefused
from exchange.events import ObjectCreated
from tests.infra.conditions import ADD, READ, WRITE, abac_allows, iam_allows
from tests.infra.terraform import INFRA, MODULES, apply, blocks, text_of
from tests.support.federation import Federation
from tests.support.settings import DEADLINE, PRIVATE, federation_settings

pytestmark = pytest.mark.skipif(not shutil.which("terraform"), reason="needs terraform")

FEDERATIONS = ("readmission", "sepsis")
CLIENT = "hospital-a"
BUCKET, CONTAINER = "the-bucket", "the-container"
IDENTITIES = [
    {"trust": "gcp-to-azure", "bucket": "az://clinicb/inbox", "tenant": "t-1", "client": "c-1"},
    {"trust": "azure-to-gcp", "bucket": "gs://parent", "provider": "//iam.googleapis.com/p", "resource": "api://t/x"},
]

# Whatever may lie in a bucket: keys of these federations, of this client and of others, and what only looks like them.
KEYS = [
    str(key)
    for federation in (*FEDERATIONS, "readmission-2", "read")
    for key in (
        keys.Settings(federation),
        keys.Model(federation, 7),
        keys.Finished(federation),
        keys.Ticket(federation, 7),
        *(
            keys.Update(federation, client, 7, withdrawn)
            for client in (CLIENT, "hospital-ab", "hospital", "clinic-b")
            for withdrawn in (False, True)
        ),
        keys.Receipt(federation, 7, CLIENT),
        keys.Cohort(federation, 7),
        keys.Summary(federation, 7),
        keys.Agreed(federation),
        keys.Release(federation, 7),
        keys.Attempt(federation, 7, 0),
        keys.Checkpoint(federation, 7, 0),
        keys.Pruned(federation, 7),
        keys.OptimizerState(federation, 7),
    )
] + [
    str(keys.LedgerEntry("data", 0)),
    "readmission",
    "readmission/public",
    f"readmission/updates/{CLIENT}",
    f"x/readmission/updates/{CLIENT}/000007.safetensors",
    "note.txt",
]
STRAYS = [  # no keys, but below a prefix that the client may create under
    f"readmission/updates/{CLIENT}/model.pkl",
    f"readmission/updates/{CLIENT}/000007.safetensors.bak",
    f"readmission/updates/{CLIENT}/0000007.safetensors",
]


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    variables = {
        "federations": FEDERATIONS,
        "client": CLIENT,
        "bucket": BUCKET,
        "container": CONTAINER,
        "staged_blocks": True,
        "identities": IDENTITIES,
    }
    return apply(INFRA / "modules" / "contract", tmp_path_factory.mktemp("contract"), variables)


def is_public(key: str) -> bool:
    match keys.parse(key):
        case keys.Settings(federation) | keys.Model(federation, _) | keys.Finished(federation):
            return federation in FEDERATIONS
    return False


def is_own_update(key: str) -> bool:
    match keys.parse(key):
        case keys.Update(federation, client, _, _):
            return federation in FEDERATIONS and client == CLIENT
    return False


def is_ticket(key: str) -> bool:
    match keys.parse(key):
        case keys.Ticket(federation, _):
            return federation in FEDERATIONS
    return False


def test_the_keys_that_are_tried_are_of_every_kind():
    kinds = {type(keys.parse(key)) for key in KEYS}
    assert set(get_args(keys.Key)) < kinds
    assert not any(keys.parse(key) for key in STRAYS)


def test_the_folders_are_the_prefixes_of_the_keys(contract):
    folders = contract["folders"]
    for kind, belongs in (("public", is_public), ("updates", is_own_update), ("inbox", is_ticket)):
        for key in KEYS:
            assert any(key.startswith(folder) for folder in folders[kind].values()) == belongs(key), (kind, key)
    assert folders["updates"] == {name: keys.updates(name, CLIENT) for name in FEDERATIONS}


def test_what_expires_is_checkpoints_and_nothing_else(contract):
    folders = contract["folders"]["checkpoints"].values()
    for key in KEYS:
        parsed = keys.parse(key)
        expires = isinstance(parsed, keys.Checkpoint) and parsed.federation in FEDERATIONS
        assert any(key.startswith(folder) for folder in folders) == expires, key


def test_a_clients_checkpoints_expire_in_private_state_and_nothing_else_does():
    folders, state = "values(module.contract.folders.checkpoints)", '"state/${folder}"'
    asked = {"client-gcp": {"state": folders}, "client-azure": {"storage": f"[for folder in {folders} : {state}]"}}
    for module in MODULES:
        found = {
            name: text_of(each["expiring"]) for name, each in blocks(module, "module").items() if "expiring" in each
        }
        assert found == asked.get(module.name, {}), module.name


def test_google_lets_a_client_create_its_own_updates_and_a_parent_tickets(contract):
    conditions = contract["gcs_create_conditions"]
    for kind, belongs in (("updates", is_own_update), ("inbox", is_ticket)):
        for key in KEYS:
            allowed = any(iam_allows(each, BUCKET, key) for each in conditions[kind].values())
            assert allowed == belongs(key), (kind, key)
        assert not any(iam_allows(each, "another-bucket", key) for each in conditions[kind].values() for key in KEYS)
    assert not any(iam_allows(each, BUCKET, STRAYS[0]) for each in conditions["updates"].values())


@pytest.mark.parametrize("action", [ADD, WRITE])
def test_azure_lets_a_client_create_its_own_updates_and_a_parent_tickets(contract, action):
    for kind, belongs in (("updates", is_own_update), ("inbox", is_ticket)):
        condition = contract["abac_conditions"][kind]
        for key in KEYS + STRAYS:
            assert abac_allows(condition, action, CONTAINER, key) == belongs(key), (kind, key)
            assert not abac_allows(condition, action, "another-container", key)


def test_azure_lets_a_client_read_public_and_its_own_updates_and_a_parent_tickets(contract):
    for kind, belongs in (("updates", lambda key: is_public(key) or is_own_update(key)), ("inbox", is_ticket)):
        condition = contract["abac_conditions"][kind]
        for key in KEYS:
            assert abac_allows(condition, READ, CONTAINER, key) == belongs(key), (kind, key)
            assert not abac_allows(condition, READ, "another-container", key)


def test_azure_lets_a_client_list_what_its_handlers_list_and_nothing_wider(contract):
    condition = contract["abac_conditions"]["updates"]
    for prefix in (keys.models("readmission"), keys.updates("readmission", CLIENT)):
        assert abac_allows(condition, READ, CONTAINER, prefix, listing=True), prefix
    others = ("", "readmission/", "readmission/updates/", keys.updates("readmission", "clinic-b"), keys.models("x"))
    for prefix in (*others, keys.receipts("readmission", 7)):
        assert not abac_allows(condition, READ, CONTAINER, prefix, listing=True), prefix


def test_a_condition_of_as_many_federations_as_are_allowed_is_shorter_than_azure_takes(tmp_path):
    names = [f"{number}{'f' * 62}" for number in range(5)]
    variables = {"federations": names, "client": "c" * 63, "container": "parent"}
    condition = apply(INFRA / "modules" / "contract", tmp_path, variables)["abac_conditions"]["updates"]
    assert len(condition.encode()) < 8 * 1024


@pytest.mark.parametrize(
    ("side", "kinds"), [("parent", (keys.Model, keys.Update, keys.Receipt)), ("client", (keys.Ticket,))]
)
def test_event_grid_passes_what_wakes_a_function_and_spares_the_rest(contract, side, kinds):
    filters = contract["event_filters"][side]
    passed = set()
    for key in KEYS:
        subject = f"/blobServices/default/containers/{CONTAINER}/blobs/{key}"
        passes = (
            subject.startswith(filters["begins_with"])
            and subject.endswith(filters["ends_with"])
            and any(word in subject for word in filters["contains"])
        )
        assert passes or not isinstance(keys.parse(key), kinds), key
        passed |= {type(keys.parse(key))} if passes else set()
    assert passed - {type(None)} == set(kinds)
    assert not f"/blobServices/default/containers/another/blobs/{KEYS[0]}".startswith(filters["begins_with"])


def test_the_identities_are_tables_of_the_settings(contract):
    assert tomllib.loads(contract["identities_toml"]) == {"identity": IDENTITIES}


def test_every_pattern_finds_what_the_handlers_log_and_nothing_in_a_sound_run(contract, caplog):
    Federation(federation_settings(rounds=2)).run()
    quiet = caplog.messages.copy()
    _reject()
    _be_late()
    _spend()
    lines = [*caplog.messages, f"ConsentRefused: {_refusal()}"]  # as a runtime logs what a handler raises
    assert set(contract["log_patterns"]) == {"rejected", "late", "left_out", "budget", "refused"}
    for name, pattern in contract["log_patterns"].items():
        assert any(re.search(pattern, line) for line in lines), f"{name}: nothing that was logged has {pattern!r}"
        assert not any(re.search(pattern, line) for line in quiet), f"{name}: a sound run has {pattern!r}"


def _reject() -> None:
    federation = Federation(federation_settings(rounds=2))
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, b"no weights")
    federation.run()


def _be_late() -> None:
    federation = Federation(federation_settings()).start()
    federation.clock.advance(DEADLINE)
    parent_rounds.sweep(federation.parent, "a timer")


def _spend() -> None:
    settings = federation_settings(privacy=PRIVATE)
    federation = Federation(settings).start()
    client = federation.client("birch")
    assert client.settings.budget is not None
    poor = client.settings.model_copy(update={"budget": client.settings.budget.model_copy(update={"epsilon": 1e-3})})
    client_rounds.train(replace(client, settings=poor), settings.name, 0)


def _refusal() -> ConsentRefused:
    federation = Federation(federation_settings()).start()
    parent_rounds.publish(federation.parent, "orchard", 0)
    client = federation.client("birch")
    stranger = replace(client, settings=client.settings.model_copy(update={"agreement": ()}))
    with pytest.raises(ConsentRefused) as caught:
        client_rounds.handle(stranger, ObjectCreated("birch", str(keys.Ticket("orchard", 0)), "an event"))
    return caught.value

"""Any bytes in place of a document: it is read as what it says, or refused as a document that is not sound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.ledger import Charge, GaussianCharge, Genesis
from client.rounds import Agreed, Attempt
from exchange.documents import Document
from exchange.errors import InvalidDocument
from exchange.records import Withdrawal
from exchange.spec import FederationSettings
from tests.exchange.test_documents import RECORDS
from tests.support import hostile
from tests.support.settings import CLIENTS, PRIVATE, federation_settings

DIGEST = "0" * 64
SOUND: list[Document] = [
    *RECORDS,
    Withdrawal(federation="orchard", round=0, client="alder"),
    Agreed(federation="orchard", settings_sha256=DIGEST),
    Attempt(federation="orchard", round=0, number=1),
    Genesis(dataset="data", unit="example", adjacency="add-or-remove", nonce=DIGEST),
    Charge(
        previous=DIGEST,
        federation="orchard",
        settings_sha256=DIGEST,
        round=1,
        mechanism="ornstein-uhlenbeck",
        events=(GaussianCharge(noise_multiplier=2.0),),
    ),
    federation_settings(),
    federation_settings(CLIENTS, privacy=PRIVATE, stop={"patience": 2}, metrics={"share": "open"}),
]


@pytest.mark.parametrize("sound", SOUND, ids=lambda document: type(document).__name__)
def test_any_document_is_read_as_what_it_says_or_refused(sound: Document):
    @settings(max_examples=40)
    @given(hostile.documents(sound.to_bytes()) | st.binary(max_size=100))
    def read(data: bytes) -> None:
        try:
            found = type(sound).from_bytes(data, "somewhere")
        except InvalidDocument:
            return
        again = type(sound).from_bytes(found.to_bytes(), "again")
        assert again.to_bytes() == found.to_bytes()
        if not isinstance(found, FederationSettings):  # which remember the bytes that they were published with
            assert again == found

    read()

"""The benchmarks' pictures, and the figures in the documents, are those of the JSON beside them."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import cnn_picture, price_picture
from benchmarks.privacy_price import measure, table

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
PRIVACY = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
DRAWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "privacy-price": price_picture.draw,
    "cnn-opacus": cnn_picture.draw,
}


def figures(name: str) -> dict[str, Any]:
    return json.loads((IMAGES / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_drawn_from_the_figures_beside_it(name: str) -> None:
    assert (IMAGES / f"{name}.svg").read_text(encoding="utf-8") == DRAWN[name](figures(name))


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_self_contained_and_says_what_it_shows(name: str) -> None:
    picture = ElementTree.parse(IMAGES / f"{name}.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    text = " ".join(picture.itertext())
    assert picture.findtext(f"{space}title")
    assert "δ = 1e-5" in (picture.findtext(f"{space}desc") or "")
    assert "unit" in text
    assert "python -m benchmarks." in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", (IMAGES / f"{name}.svg").read_text())


def test_the_price_in_the_document_is_the_one_that_was_measured() -> None:
    (shown,) = re.findall(r"<!-- privacy-price -->\n(.*?)\n<!-- /privacy-price -->", PRIVACY, re.DOTALL)
    for row in figures("privacy-price")["rows"]:
        numbers = [f"{row[of]:.3f}".removeprefix("0") for of in ("mean", "lowest", "highest")]
        assert "{} ({} to {})".format(*numbers) in shown, row


def test_our_cnn_is_as_good_as_the_one_with_opacus_in_its_clients() -> None:
    found = figures("cnn-opacus")
    assert found["fedbucket_and_opacus"]["kept"]
    assert all(f"{row['mean']:.3f}".removeprefix("0") in PRIVACY for row in found["rows"])


def test_a_price_is_measured_with_the_guarantee_beside_each_figure() -> None:
    points = list(measure(["breast cancer"], range(1), {"example": (8.0,), "client": (32.0,)}, rounds=2))
    rows = table(points)
    assert [row["curve"] for row in rows] == ["pooled", "alone", "no noise", "example", "client"]
    assert all(0 <= row["lowest"] <= row["mean"] <= row["highest"] <= 1 for row in rows)
    assert [(row["unit"], row["adjacency"], row["delta"]) for row in rows if row["epsilon"] is not None] == [
        ("example", "add-or-remove", 1e-5),
        ("client", "replace-one", 1e-5),
    ]


def test_every_test_that_the_documents_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PRIVACY + THREATS)
    assert len(named) > 20
    for path, function in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not function or function in functions, f"{path}::{function}"

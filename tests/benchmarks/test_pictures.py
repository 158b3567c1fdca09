"""The benchmarks' pictures, and the figures in the documents, are those of the JSON beside them."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import cnn_picture, poison_picture, price_picture
from benchmarks.privacy_price import measure, table
from examples.in_memory import deal
from examples.poisoned import __main__ as poisoned

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
PRIVACY = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
DRAWN: dict[str, Callable[[dict[str, Any]], str]] = {
    "privacy-price": price_picture.draw,
    "cnn-opacus": cnn_picture.draw,
    "poisoned": poison_picture.draw,
}
PRIVATE = [name for name in DRAWN if name != "poisoned"]  # those that show an ε


def figures(name: str) -> dict[str, Any]:
    return json.loads((IMAGES / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_drawn_from_the_figures_beside_it(name: str) -> None:
    assert (IMAGES / f"{name}.svg").read_text(encoding="utf-8") == DRAWN[name](figures(name))


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_self_contained_and_says_what_it_shows(name: str) -> None:
    picture = ElementTree.parse(IMAGES / f"{name}.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert picture.findtext(f"{space}title")
    assert len(picture.findtext(f"{space}desc") or "") > 100
    assert "python -m benchmarks." in " ".join(picture.itertext())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", (IMAGES / f"{name}.svg").read_text())


@pytest.mark.parametrize("name", PRIVATE)
def test_a_picture_that_shows_a_guarantee_shows_all_of_it(name: str) -> None:
    picture = ElementTree.parse(IMAGES / f"{name}.svg").getroot()
    assert "δ = 1e-5" in (picture.findtext("{http://www.w3.org/2000/svg}desc") or "")
    assert "unit" in " ".join(picture.itertext())


def accuracies_under_lies() -> dict[tuple[str, str], float]:
    return {(row["lie"], row["strategy"]): row["mean"] for row in figures("poisoned")["rows"]}


def test_the_robust_rules_end_within_three_points_of_the_honest_run() -> None:
    found = accuracies_under_lies()
    honest = found["nobody lies", "mean"]
    lies = {lie for lie, _ in found}
    assert len(lies) == 4
    assert all(found[lie, rule] > honest - 0.03 for lie in lies for rule in ("median", "trimmed mean", "multi-Krum"))


def test_the_norm_bound_keeps_out_the_lie_that_is_scaled() -> None:
    found = accuracies_under_lies()
    assert found["scaled by 100", "mean"] < 0.5
    assert found["scaled by 100", "mean, max_update_norm"] > found["nobody lies", "mean"] - 0.03


def test_the_example_of_a_liar_runs(tmp_path: Path) -> None:
    dealt = deal(poisoned.EXAMPLE, 0, tmp_path)
    honest, spoilt, robust = (
        poisoned.accuracy(dealt, lie, strategy, rounds=3)
        for lie, strategy in (("nobody lies", "mean"), ("scaled by 100", "mean"), ("scaled by 100", "multi-Krum"))
    )
    assert spoilt < honest - 0.2
    assert robust > honest - 0.1


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

"""The organisation's own code: what it may be, and how its mistakes are told apart from ours, with file and line."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from client.task import load_task
from client.training import evaluate, fit
from exchange.errors import TaskError
from exchange.spec import TrainSettings
from tests.support.tasks import TASK, task, write_data, write_task

STEP = TrainSettings(learning_rate=0.1, batch_size=4)
EXAMPLES = TensorDataset(torch.randn(6, 2), torch.zeros(6, dtype=torch.long))


def line(path: Path, text: str) -> int:
    """Return the number of the line that holds `text`."""
    return next(number for number, found in enumerate(path.read_text().splitlines(), start=1) if text in found)


def assert_blames(caught: pytest.ExceptionInfo[TaskError], path: Path, *words: str, at: str | None = None) -> None:
    """Hold an error against what a user needs: the file, the line that holds `at`, and the words."""
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert all(word in message for word in words), message
    if at is not None:
        assert f"(line {line(path, at)})" in message, message


# Loading.


def test_a_task_is_loaded_from_its_file(tmp_path: Path):
    loaded = task(tmp_path)
    assert isinstance(loaded.model(0), torch.nn.Linear)
    assert len(loaded.data(str(write_data(tmp_path / "own.npz")), "train")) == 12


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "task.txt").write_text("model = data = print")
    for path in (tmp_path / "nothing.py", tmp_path, tmp_path / "task.txt"):
        with pytest.raises(TaskError) as caught:
            load_task(path)
        assert_blames(caught, path, "expected a Python file with model() and data()")
        assert ("no such file" in str(caught.value)) == (not path.exists())


@pytest.mark.parametrize(
    ("text", "missing"),
    [("", "model and data missing"), ("def model(): ...", "data missing"), ("model = 3\ndef data(): ...", "model m")],
)
def test_missing_functions_are_named(tmp_path: Path, text: str, missing: str):
    (path := tmp_path / "task.py").write_text(text)
    with pytest.raises(TaskError) as caught:
        load_task(path)
    assert_blames(caught, path, missing)


def test_an_import_that_fails_is_told_with_its_line(tmp_path: Path):
    path = write_task(tmp_path, "import a_package_that_nobody_has")
    with pytest.raises(TaskError) as caught:
        load_task(path)
    assert_blames(caught, path, "importing it raised ModuleNotFoundError", at="import a_package")


def test_a_mistake_of_syntax_is_told_with_its_line(tmp_path: Path):
    path = write_task(tmp_path, "def loss(output, target)\n    return 0")
    with pytest.raises(TaskError) as caught:
        load_task(path)
    assert_blames(caught, path, "SyntaxError", f"line {line(path, 'def loss')}")


def test_two_tasks_of_one_name_are_two_tasks(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = task(tmp_path / "a", "def metrics(output, target): return {'which': 1}")
    second = task(tmp_path / "b", "def metrics(output, target): return {'which': 2}")
    nothing = torch.zeros(1)
    assert (first.metrics(nothing, nothing), second.metrics(nothing, nothing)) == ({"which": 1.0}, {"which": 2.0})


# Its functions.


def test_the_initial_weights_depend_on_the_seed_and_on_nothing_else(tmp_path: Path):
    loaded = task(tmp_path)
    torch.manual_seed(5)
    first = loaded.model(1).weight
    torch.manual_seed(6)
    assert torch.equal(first, loaded.model(1).weight)
    assert not torch.equal(first, loaded.model(2).weight)


def test_model_must_return_a_module(tmp_path: Path):
    loaded = task(tmp_path, "def model(): return {'weight': 1}")
    with pytest.raises(TaskError) as caught:
        loaded.model(0)
    assert_blames(caught, loaded.path, "model() returned dict, expected a torch.nn.Module")


@pytest.mark.parametrize("model", ["Flatten()", "Embedding(0, 2)", "Linear(2, 2).requires_grad_(False)"])
def test_a_model_must_have_weights_to_train(tmp_path: Path, model: str):
    loaded = task(tmp_path, f"import torch\n\ndef model(): return torch.nn.{model}")
    with pytest.raises(TaskError) as caught:
        loaded.model(0)
    assert_blames(caught, loaded.path, "model() has no weights to train, expected at least one floating parameter")


def test_a_model_that_fails_is_told_with_its_line(tmp_path: Path):
    loaded = task(tmp_path, "def model():\n    raise ValueError('no such layer')")
    with pytest.raises(TaskError) as caught:
        loaded.model(0)
    assert_blames(caught, loaded.path, "model() raised ValueError: no such layer", at="raise ValueError")


def test_data_that_fails_is_told_with_its_line_and_its_arguments(tmp_path: Path):
    loaded = task(tmp_path)
    with pytest.raises(TaskError) as caught:
        loaded.data("/no/such/file", "train")
    assert_blames(caught, loaded.path, "data('/no/such/file', 'train') raised FileNotFoundError", at="with np.load")


def test_a_split_that_is_not_there_is_none(tmp_path: Path):
    loaded = task(tmp_path)
    assert loaded.data(str(write_data(tmp_path / "own.npz", validation=0)), "validation") is None


@pytest.mark.parametrize("returned", ["iter([])", "3", "{1, 2}", "(pair for pair in [])"])
def test_data_must_return_a_dataset_with_a_length(tmp_path: Path, returned: str):
    loaded = task(tmp_path, f"def data(source, split): return {returned}")
    with pytest.raises(TaskError) as caught:
        loaded.data("x", "train")
    assert_blames(caught, loaded.path, "expected a torch Dataset with a length")


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        ("(torch.ones(5, 2), torch.ones(5))", "a tensor of shape (5, 2)"),
        ("[{'inputs': torch.ones(2), 'targets': 1}]", "a dict"),
        ("[(torch.ones(2), torch.ones(2), 1)]", "(a tensor of shape (2,), a tensor of shape (2,), an int)"),
        ("[('once upon a time', 1)]", "(a str, an int)"),
        ("[((torch.ones(2), torch.ones(2)), 1)]", "((a tensor of shape (2,), a tensor of shape (2,)), an int)"),
    ],
)
def test_examples_that_are_no_pairs_are_told_without_their_content(tmp_path: Path, returned: str, came: str):
    loaded = task(tmp_path, f"def data(source, split): return {returned}")
    with pytest.raises(TaskError) as caught:
        loaded.data("x", "train")
    assert_blames(caught, loaded.path, f"data('x', 'train') gave a first example of {came}, expected a pair")


@pytest.mark.parametrize("where", ["exit(0)", "def model(): exit(0)"])
def test_a_task_that_would_end_its_process_is_told(tmp_path: Path, where: str):
    path = write_task(tmp_path, where)
    with pytest.raises(TaskError) as caught:
        load_task(path).model(0)
    assert_blames(caught, path, "raised SystemExit: 0", at="exit(0)")


def test_a_plain_list_of_pairs_is_a_dataset(tmp_path: Path):
    loaded = task(tmp_path, "def data(source, split): return [(torch.ones(2), 1)] * 5")
    assert len(loaded.data("x", "train")) == 5
    assert len(loaded.data("x", "train", limit=3)) == 3
    losses = fit(loaded, loaded.model(0), loaded.data("x", "train"), STEP, 0, 1, "cpu")
    assert losses[0] > 0


def test_no_more_than_the_first_examples_are_used(tmp_path: Path):
    loaded = task(tmp_path)
    source = str(write_data(tmp_path / "own.npz", examples=12))
    everything = loaded.data(source, "train")
    for limit, length in ((5, 5), (12, 12), (13, 12), (None, 12)):
        dataset = loaded.data(source, "train", limit)
        assert len(dataset) == length
        assert all(torch.equal(dataset[index][0], everything[index][0]) for index in range(length))


def test_the_loss_is_cross_entropy_and_the_metric_accuracy_unless_it_brings_its_own(tmp_path: Path):
    output, target = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0, 0])
    plain = task(tmp_path)
    assert not plain.has_own_loss
    assert torch.equal(plain.loss(output, target), torch.nn.functional.cross_entropy(output, target))
    assert plain.metrics(output, target) == {"accuracy": 2 / 3}
    own = task(
        tmp_path,
        """
        def loss(output, target):
            return output.sum()

        def metrics(output, target):
            return {"error": np.float32(0.25), 3: torch.tensor(1.5)}
        """,
    )
    assert own.has_own_loss
    assert own.loss(output, target) == 4
    assert own.metrics(output, target) == {"error": 0.25, "3": 1.5}


# While it trains.


def test_a_loss_that_fails_is_told_with_its_line(tmp_path: Path):
    loaded = task(tmp_path, "def loss(output, target):\n    return output.no_such_method()")
    with pytest.raises(TaskError) as caught:
        fit(loaded, loaded.model(0), EXAMPLES, STEP, 0, 1, "cpu")
    assert_blames(caught, loaded.path, "loss() raised AttributeError", at="no_such_method")


def test_a_model_that_fails_on_its_inputs_is_told(tmp_path: Path):
    loaded = task(tmp_path, "def model(): return torch.nn.Linear(7, 3)")
    with pytest.raises(TaskError) as caught:
        fit(loaded, loaded.model(0), EXAMPLES, STEP, 0, 1, "cpu")
    assert_blames(caught, loaded.path, "training raised RuntimeError", "shapes cannot be multiplied")


def test_an_example_that_fails_is_told_with_its_line(tmp_path: Path):
    loaded = task(
        tmp_path,
        """
        class Rows:
            def __len__(self):
                return 6

            def __getitem__(self, index):
                if index == 3:
                    raise OSError("bad sector")
                return torch.zeros(2), 0

        def data(source, split):
            return Rows()
        """,
    )
    with pytest.raises(TaskError) as caught:
        fit(loaded, loaded.model(0), loaded.data("x", "train"), STEP, 0, 1, "cpu")
    assert_blames(caught, loaded.path, "training raised OSError: bad sector", at="raise OSError")


@pytest.mark.parametrize(
    ("loss", "what"), [("0.5", "a float"), ("output", "a tensor of shape (4, 3)"), ("None", "a NoneType")]
)
def test_a_loss_that_is_no_scalar_is_told(tmp_path: Path, loss: str, what: str):
    loaded = task(tmp_path, f"def loss(output, target): return {loss}")
    with pytest.raises(TaskError) as caught:
        fit(loaded, loaded.model(0), EXAMPLES, STEP, 0, 1, "cpu")
    assert_blames(caught, loaded.path, f"loss() returned {what}, expected one number: the mean of the batch")


def test_a_target_that_the_default_loss_does_not_take_is_told_with_what_may_be_missing(tmp_path: Path):
    loaded = task(tmp_path)
    measured = TensorDataset(torch.randn(6, 2), torch.zeros(6))
    with pytest.raises(TaskError) as caught:
        fit(loaded, loaded.model(0), measured, STEP, 0, 1, "cpu")
    assert_blames(caught, loaded.path, "cross entropy, the loss of a task without loss(output, target), raised")


def test_metrics_that_fail_are_told_with_their_line(tmp_path: Path):
    loaded = task(tmp_path, "def metrics(output, target):\n    return {'auc': 1 / 0}")
    with pytest.raises(TaskError) as caught:
        evaluate(loaded, loaded.model(0), EXAMPLES, "cpu")
    assert_blames(caught, loaded.path, "metrics() raised ZeroDivisionError", at="1 / 0")


@pytest.mark.parametrize("returned", ["0.5", "[1]", "{'auc': 'high'}", "{'auc': torch.ones(2)}", "None"])
def test_metrics_that_are_not_numbers_by_name_are_told(tmp_path: Path, returned: str):
    loaded = task(tmp_path, f"def metrics(output, target): return {returned}")
    with pytest.raises(TaskError) as caught:
        evaluate(loaded, loaded.model(0), EXAMPLES, "cpu")
    assert_blames(caught, loaded.path, "metrics() ")


@pytest.mark.parametrize(
    ("output", "target"),
    [((6, 1), (6, 1)), ((6, 1), (6,)), ((6,), (6,)), ((6, 3), (6, 3)), ((6, 3), (6, 1)), ((6, 3, 4), (6, 3))],
)
def test_accuracy_is_given_for_classes_only_and_what_is_missing_is_told(
    tmp_path: Path, output: tuple[int, ...], target: tuple[int, ...]
):
    loaded = task(tmp_path)
    with pytest.raises(TaskError) as caught:
        loaded.metrics(torch.zeros(output), torch.zeros(target))
    assert_blames(caught, loaded.path, "has no metrics()", str(output), str(target), "add metrics(output, target)")


def test_accuracy_is_given_for_classes_of_pixels_too(tmp_path: Path):
    output = torch.zeros(2, 3, 4, 4)
    output[:, 1] = 1
    assert task(tmp_path).metrics(output, torch.ones(2, 4, 4, dtype=torch.long)) == {"accuracy": 1.0}


def test_a_split_without_examples_cannot_be_evaluated_on(tmp_path: Path):
    loaded = task(tmp_path)
    empty = TensorDataset(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    with pytest.raises(TaskError) as caught:
        evaluate(loaded, loaded.model(0), empty, "cpu")
    assert_blames(caught, loaded.path, "no examples")


def test_the_task_of_these_tests_imports_nothing_from_us():
    assert not re.search(r"^(from|import) (client|exchange|aggregator|fedbucket)", TASK, re.MULTILINE)

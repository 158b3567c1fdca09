import numpy as np
import pytest


@pytest.fixture
def generator():
    return np.random.default_rng(20240229)


@pytest.fixture
def normals(generator):
    """A source that repeats itself; production has none."""
    return generator.standard_normal

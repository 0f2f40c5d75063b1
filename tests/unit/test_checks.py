"""What the geometry accepts and refuses."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.checks import as_labels, as_matrix


def test_a_clean_float64_matrix_is_not_copied():
    x = np.random.default_rng(0).standard_normal((4, 3))
    assert as_matrix(x) is x


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint32, bool])
def test_every_real_dtype_becomes_contiguous_float64_without_changing_a_value(dtype):
    x = (np.random.default_rng(0).standard_normal((5, 6)) * 3).clip(0).astype(dtype)[:, ::2]
    matrix = as_matrix(x)
    assert matrix.dtype == np.float64 and matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_tensors_of_every_dtype_are_accepted_with_gradients_or_without(dtype):
    torch = pytest.importorskip("torch")
    tensor = (torch.arange(12).reshape(4, 3) / 4).to(getattr(torch, dtype))
    np.testing.assert_array_equal(as_matrix(tensor), tensor.double().numpy())
    if tensor.is_floating_point():
        np.testing.assert_array_equal(as_matrix(tensor.requires_grad_()), tensor.detach().double().numpy())


def test_labels_may_be_a_tensor():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_labels(torch.tensor([0, 2, 1]), 3, name="draw"), [0, 2, 1])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), r"`x` has shape \(3,\); it must be \(rows, columns\)"),
        (np.zeros((2, 3, 4)), r"`x` has shape \(2, 3, 4\); it must be \(rows, columns\)"),
        (np.zeros((1, 3)), r"`x` has shape \(1, 3\); 2 rows and 1 column are the least"),
        (np.zeros((3, 0)), r"`x` has shape \(3, 0\); 2 rows and 1 column are the least"),
        (np.zeros((2, 2), complex), "`x` is complex; real numbers are needed"),
        (np.array([[1, 2], [np.nan, 0], [np.nan, np.inf]]), "`x` is not finite in 2 of 3 rows"),
        (np.array([[1.0], [-np.inf]]), "`x` is not finite in 1 of 2 rows"),
        (np.array([[1.0], [-2e100]]), r"`x` has an entry of size 2.0e\+100; the limit is 1e\+100"),
        (np.array([[1e-200], [-2e-200]]), "`x` has no entry over 2.0e-200; 1e-100 is the least"),
    ],
)
def test_matrices_that_no_geometry_exists_for_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        as_matrix(x)


def test_the_error_names_the_argument():
    with pytest.raises(ValueError, match="`rows` has shape"):
        as_matrix(np.zeros(3), name="rows")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4, int), r"`draw` has shape \(4,\); one entry for each of the 3 rows is needed"),
        (np.zeros((3, 1), int), r"`draw` has shape \(3, 1\)"),
        (np.zeros(3), "`draw` has dtype float64; whole numbers are needed"),
    ],
)
def test_labels_that_do_not_label_rows_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        as_labels(labels, 3, name="draw")

"""Matrices that several tests start from."""

import math

import torch

# The simplex ETF of three classes in the plane.
TRIANGLE = [[0.0, 1.0], [math.sqrt(3) / 2, -0.5], [-math.sqrt(3) / 2, -0.5]]


def random_matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def random_rotation(dim: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(random_matrix(dim, dim, seed)).Q

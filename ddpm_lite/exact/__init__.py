"""Denoisers and models with known answers, on which tests and the first chapters stand.

A Gaussian mixture, the empirical distribution of a data set, and a table of every possible small
image: each offers the package's two seams exactly, with no training, so that a method's own faults
can be told from those of a trained network.
"""

from .kernel import KernelDenoiser
from .mixture import GaussianMixture
from .table import Table, TableAR

__all__ = ["GaussianMixture", "KernelDenoiser", "Table", "TableAR"]

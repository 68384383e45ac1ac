"""Stands for a cv_bridge whose compiled half was built for another NumPy: the import aborts."""

import os
import sys

print('RuntimeError: module compiled against another NumPy', file=sys.stderr, flush=True)
os.abort()

"""Stands for a cv_bridge whose compiled half is missing."""

raise ImportError('libopencv_core.so.406: cannot open shared object file')

"""
Code that tests of several rooms share.

pyproject.toml puts test/ on the path, so that tests import it as `from support import …`.
"""

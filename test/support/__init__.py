"""What tests of several rooms share. pytest.ini puts test/ on the path: `from support import …`."""

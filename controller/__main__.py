"""`python -m controller` is `kvoy controller`."""

from controller.cli import controller

controller(prog_name="python -m controller")

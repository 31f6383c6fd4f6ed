"""`python -m edgeres`."""

from edgeres.cli import main

main(prog_name="edgeres")

"""`python -m edgeres`."""

from edgeres.cli import main

main()

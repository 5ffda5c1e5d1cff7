"""`python -m edgeres`, and what the command `edgeres` calls."""

import sys


def main() -> None:
    """Run the command line; ctrl-C is one sentence from the first moment on, imports included."""
    from edgeres import terminal

    try:
        from edgeres.cli import main

        main()
    except KeyboardInterrupt:
        terminal.say("")
        terminal.complain("interrupted; the same command continues from here")
        sys.exit(130)


if __name__ == "__main__":
    main()

"""`python -m edgeres`, and what the command `edgeres` calls."""

import sys


def main() -> None:
    """Run the command line; ctrl-C is one sentence from the first moment on, imports included."""
    try:
        from edgeres.cli import main

        main()
    except KeyboardInterrupt:
        print("\nedgeres: interrupted; the same command continues from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

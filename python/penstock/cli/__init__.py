"""The command line: `penstock chat`, `bulk`, `providers`, `replay`, `bench`, `proxy`, `keys`, `spend`.

It needs the extra `cli`.
"""

import sys


def main() -> int:
    """Run the command that the arguments name. Returns the exit status, which `penstock --help` explains."""
    try:
        from .commands import run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"penstock: the command line needs {error.name}, which is not installed.\n")
        sys.stderr.write('pip install "penstock[cli]"\n')
        return 2
    return run(sys.argv[1:])

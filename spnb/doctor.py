"""``python -m spnb.doctor``: is this machine fit, and if not, what is to be done?"""

from __future__ import annotations

import argparse
import sys

from spnb.teach import terminal


def main(arguments: list[str] | None = None) -> int:
    """Examine the machine and print what was found.

    Args:
        arguments: the words after ``python -m spnb.doctor``; None: those of this process.

    Returns:
        0 if nothing is in trouble, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m spnb.doctor", description=__doc__)
    parser.add_argument("--ranks", type=int, default=2, help="worker processes to try (2)")
    parser.add_argument("--json", action="store_true", help="print it for a machine to read")
    options = parser.parse_args(arguments)
    with terminal.ends_in_a_sentence(parser):
        from spnb.parallel.pool.options import check_size
        from spnb.teach.doctor import examine

        report = examine(check_size(options.ranks))
        print(report.as_json() if options.json else report)
    return 0 if report.healthy else 1


if __name__ == "__main__":
    sys.exit(main())

"""Start the installer: `python3 install.pyz`, where this file lies at the root of the archive.

Until Python runs isolated, nothing may be imported that is not loaded already: PYTHONPATH comes
before the standard library, so that a file there would run before it was checked. Old Pythons must
be able to parse this file.
"""

import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036 (a bare Python of any age starts this file)
    sys.exit(
        "error: Python {}.{} is too old. Run install.pyz with Python 3.10 or newer.".format(
            *sys.version_info[:2]
        )
    )

if __name__ == "__main__" and not sys.flags.isolated:
    _place = os.path.dirname(os.path.abspath(__file__))  # the archive, or this package's folder
    if os.name == "posix" and sys.executable and os.path.isfile(_place):
        os.execv(sys.executable, [sys.executable, "-I", _place, *sys.argv[1:]])
    sys.path[:] = [
        part for part in sys.path if part.startswith((_place, sys.prefix, sys.base_prefix))
    ]

from pulse_edge.installer.command import main

if __name__ == "__main__":
    sys.exit(main())

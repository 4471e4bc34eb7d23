"""Modules that Python does not bring along: if this python3 lacks one, the system's python3 takes over or a message says what to do."""
import importlib.util
import os
import subprocess
import sys

SYSTEM = "/usr/bin/python3"


def need(*modules):
    """Call it before the modules are imported. A text that the terminal cannot show does not end the script."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return
    tried = [sys.executable]
    if os.path.realpath(sys.executable) != os.path.realpath(SYSTEM) and os.access(SYSTEM, os.X_OK):
        tried.append(SYSTEM)
        test = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(m) is None for m in {modules!r}))"
        if subprocess.run([SYSTEM, "-c", test], check=False).returncode == 0:
            sys.stdout.flush()
            os.execv(SYSTEM, [SYSTEM, *sys.argv])
    sys.exit(f"{os.path.basename(sys.argv[0])}: {' and '.join(missing)} cannot be imported by {' or '.join(tried)} (pictures are drawn with "
             f"matplotlib); load your site's module, or install: python3 -m pip install {' '.join(missing)}")

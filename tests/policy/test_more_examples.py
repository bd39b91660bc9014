"""The properties of policy/ again, with many more examples than the default run has time for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_every_property_holds_for_ten_times_as_many_examples() -> None:
    files = [str(path) for path in sorted(HERE.glob("test_*.py")) if "from examples import" in path.read_text()]
    assert files
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    env = os.environ | {"DURWARD_EXAMPLES": os.environ.get("DURWARD_EXAMPLES", "10")}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd=HERE.parent.parent)
    assert done.returncode == 0, done.stdout[-5000:]

"""An interpreter for `python=` whose steps are the real ones, with a model that needs no network: a second a step.

`tests.stand_in_model.StandInModel` plays the model's part; what it draws are training rows.
"""

import stat
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_SCRIPT = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.stand_in_model import StandInModel
from vae_ops import steps, walk
assert sys.argv[1:3] == ["-m", "vae_ops.steps"], sys.argv
walk.default_engine = lambda: StandInModel
sys.exit(steps.main(sys.argv[3:]))
"""


def write_interpreter(directory: Path) -> str:
    """Writes the interpreter into a directory and returns its path."""
    path = directory / "python-without-a-network"
    path.write_text(_SCRIPT)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)

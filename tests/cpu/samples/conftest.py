"""The scripts import each other by plain names, as they do when run."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "samples/train"))
sys.path.append(str(ROOT / "samples"))  # last: names such as `models` are common
sys.path.append(str(ROOT / "samples/tables"))

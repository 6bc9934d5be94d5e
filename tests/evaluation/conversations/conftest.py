import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from small_conversations import write_small_set


@pytest.fixture
def files(tmp_path):
    """Turns and passages of the small hand-made set, in files."""
    return write_small_set(tmp_path)

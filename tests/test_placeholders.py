"""Placeholders: modules of ours are imported without heavy libraries, and later with the real ones."""

import subprocess
import sys


def in_a_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_a_placeholder_can_be_used_for():
    in_a_process(
        "from abc import ABC, abstractmethod\n"
        "from melpatch.placeholders import heavy_libraries_replaced, is_placeholder\n"
        "with heavy_libraries_replaced():\n"
        "    import torch.nn.functional as F\n"
        "    from torch import Tensor, nn\n"
        "    import torch\n"
        "    class Encoder(nn.Module, ABC):\n"
        "        size = 3\n"
        "        @torch.no_grad()\n"
        "        def run(self, x: Tensor | None) -> 'Tensor': return x\n"
        "    class Count:\n"
        "        size = 3\n"
        "    assert Encoder().run(5) == 5\n"
        "    assert not hasattr(Encoder, 'missing')\n"
        "    assert is_placeholder(torch.finfo(torch.float32).eps)\n"
        "    assert not is_placeholder(Encoder) and not is_placeholder(Encoder.size)\n"
    )


def test_all_that_was_imported_meanwhile_is_forgotten():
    in_a_process(
        "import sys\n"
        "import melpatch\n"
        "from melpatch.placeholders import heavy_libraries_replaced\n"
        "with heavy_libraries_replaced():\n"
        "    from melpatch import distributed\n"
        "assert 'torch' not in sys.modules and not hasattr(melpatch, 'distributed')\n"
        "from melpatch import distributed\n"
        "assert distributed.dist.is_available() in (True, False)\n"
    )


def test_nothing_is_replaced_where_torch_is_imported_already():
    in_a_process(
        "import torch\n"
        "from melpatch.placeholders import heavy_libraries_replaced\n"
        "with heavy_libraries_replaced():\n"
        "    from melpatch.objectives.ssast import SSAST\n"
        "assert issubclass(SSAST, torch.nn.Module)\n"
    )

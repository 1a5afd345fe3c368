"""The public names of the package: these and no others, imported on first use."""

import subprocess
import sys

import pytest

import melpatch

PUBLIC = [
    "CNN14",
    "LogMel",
    "Masking",
    "Model",
    "Objective",
    "PatchGrid",
    "ViT",
    "__version__",
    "embed",
    "evaluate",
    "finetune",
    "load",
    "predict",
    "pretrain",
    "report",
]


def test_the_public_names_are_these():
    assert dir(melpatch) == PUBLIC
    assert sorted(melpatch.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name):
    assert getattr(melpatch, name).__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'embedd'"):
        melpatch.embedd  # noqa: B018


def test_importing_the_package_imports_no_torch():
    code = "import sys, melpatch; dir(melpatch); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

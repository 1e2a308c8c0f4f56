"""The generated pages are what `docs/generate.py` makes of the code as it is."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.models.config import MODEL_CONFIGS
from fae.profile.config import HotConfig
from fae.training.config import TrainConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["reference/recipe.md", "reference/command_line.md", "reference/python.md", "internals/architecture.md"]
)
def test_pages_are_what_the_generator_makes(generator: ModuleType, name: str) -> None:
    assert (DOCS / name).read_text() == generator.pages()[DOCS / name], "run `python docs/generate.py`"


def test_every_key_is_described() -> None:
    text = (DOCS / "reference" / "recipe.md").read_text()
    keys = {
        field.name.removesuffix("_")
        for cls in (LogConfig, ColumnConfig, HotConfig, TrainConfig, *MODEL_CONFIGS.values())
        for field in dataclasses.fields(cls)
    }
    assert not [key for key in keys if f"**`{key}`**" not in text]


def test_advice_and_units_name_keys(generator: ModuleType) -> None:
    classes = {"log": LogConfig, "column": ColumnConfig, "hot": HotConfig, "train": TrainConfig}
    classes |= {"model": generator.ModelConfig, **MODEL_CONFIGS}
    known = {
        f"{section}.{field.name.removesuffix('_')}"
        for section, cls in classes.items()
        for field in dataclasses.fields(cls)
    }
    assert not [key for key in (*generator.WHEN, *generator.UNITS) if key not in known]


def test_every_package_has_a_purpose(generator: ModuleType) -> None:
    source = generator.SOURCE / "fae"
    packages = {str(path.parent.relative_to(source)) for path in source.rglob("__init__.py")} - {"."}
    assert packages == set(generator.PACKAGES)

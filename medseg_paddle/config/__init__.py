"""Recipes: what a run depends on, read from YAML and checked without loading Paddle."""

from medseg_paddle.config.codes import LabelFile
from medseg_paddle.config.inference import InferenceSpec
from medseg_paddle.config.load import (
    Draft,
    as_recipe,
    change_recipe,
    draft_recipe,
    dump_recipe,
    load_labels,
    load_recipe,
)
from medseg_paddle.config.recipe import ExportSpec, Recipe

__all__ = [
    "Draft",
    "ExportSpec",
    "InferenceSpec",
    "LabelFile",
    "Recipe",
    "as_recipe",
    "change_recipe",
    "draft_recipe",
    "dump_recipe",
    "load_labels",
    "load_recipe",
]

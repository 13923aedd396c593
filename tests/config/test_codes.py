"""What labels mean, said in a recipe or in a file of labels: what is taken, and what is refused."""

import pytest

from medseg_paddle.config import dump_recipe, load_labels, load_recipe
from medseg_paddle.core.concepts import Code, Concept
from medseg_paddle.errors import RecipeError

CODES = """\
codes:
  tumour:
    category: [49755003, SCT, Morphologically Abnormal Structure]
    type: ['86049000', SCT, 'Malignant neoplasm, primary']
    region: [64033007, SCT, Kidney]
    region_modifier: [7771000, SCT, Left]
  kidney:
    category: [91723000, SCT, Anatomical structure]
    type: ["7203", FMA, Kidney of somebody]
    type_modifier: [24028007, SCT, right]
"""
COLORS = "colors: {tumour: [255, 0, 10]}\n"
LABELS = "labels: [background, kidney, tumour]\n"


REST = """\
batch_size: 2
iters: 10
train_dataset: {type: Dataset, dataset_root: d, train_path: d/a.txt, num_classes: 3, transforms: [{type: Normalize}]}
optimizer: {type: SGD}
lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01}
loss: {types: [{type: CrossEntropyLoss}], coef: [1]}
model: {type: SimpleUNet}
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe with these lines about its labels."""

    def recipe(lines):
        (tmp_path / "mine.yml").write_text(lines + REST)
        return load_recipe(tmp_path / "mine.yml")

    return recipe


def test_a_label_has_the_codes_and_the_colour_that_the_recipe_says(recipe):
    read = recipe(LABELS + CODES + COLORS)
    background, kidney, tumour = read.label_set
    assert background.concept is None
    assert tumour.concept == Concept(
        Code("49755003", "Morphologically Abnormal Structure"),
        Code("86049000", "Malignant neoplasm, primary"),
        region=Code("64033007", "Kidney"),
        region_modifier=Code("7771000", "Left"),
    )
    assert kidney.meaning.type == Code("7203", "Kidney of somebody", "FMA")
    assert kidney.meaning.type_modifier == Code("24028007", "right")
    assert (tumour.color, kidney.color) == ((255, 0, 10), (230, 159, 0))


def test_a_code_of_more_than_16_characters_is_taken(recipe):
    long = "999000041000000102"
    *_, tumour = recipe(LABELS + CODES.replace("64033007, SCT, Kidney", f"{long}, SCT, Region")).label_set
    assert tumour.concept.region == Code(long, "Region")


def test_written_out_it_is_the_same_recipe(recipe, tmp_path):
    read = recipe(LABELS + CODES + COLORS)
    (tmp_path / "again.yml").write_text(dump_recipe(read))
    assert load_recipe(tmp_path / "again.yml") == read


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        # A digit that was mistyped, and two that changed places.
        (CODES.replace("64033007", "64033008"), ("line 6", "64033008", "look the number up")),
        (CODES.replace("49755003", "49750553"), ("line 4", "49750553", "look the number up")),
        # The number is the liver's.
        (CODES.replace("64033007", "10200004"), ("line 6", "means 'Liver'", "not 'Kidney'")),
        (CODES.replace("SCT, Kidney]", "SNOMED-CT, Kidney]"), ("line 6", "SNOMED-CT", "SCT")),
        (CODES.replace("SCT, Kidney]", "SCT]"), ("codes.tumour.region",)),
        (CODES.replace("Kidney of somebody", "x" * 65), ("meaning", "1 to 64")),
        (CODES.replace("Kidney of somebody", "a\\\\b"), ("meaning", "backslash")),
        (CODES.replace("region_modifier", "laterality"), ("laterality", "known here")),
        (CODES.replace("  kidney:", "  kindey:"), ("kindey", "did you mean 'kidney'")),
        (CODES.replace("  kidney:", "  background:"), ("background", "known here: kidney, tumour")),
        (CODES.replace("    type: ['86", "    typ: ['86"), ("typ", "did you mean 'type'")),
        ("colors: {tumour: [255, 0, 256]}\n", ("colors.tumour.2",)),
        ("colors: {tumour: [255, 0]}\n", ("colors.tumour",)),
        ("colors: {lung: [255, 0, 1]}\n", ("lung", "known here")),
    ],
)
def test_wrong_codes_and_colours_are_refused(recipe, wrong, words):
    with pytest.raises(RecipeError) as caught:
        recipe(LABELS + wrong)
    said = str(caught.value)
    assert all(word in said for word in words), said


def test_codes_without_labels_are_refused(recipe):
    with pytest.raises(RecipeError, match="add `labels: "):
        recipe(CODES)


def test_a_file_of_labels_has_a_recipes_words(tmp_path):
    path = tmp_path / "labels.yml"
    path.write_text(CODES + COLORS)
    assert load_labels(path).labels is None
    assert load_labels(path).codes["tumour"].concept.region == Code("64033007", "Kidney")
    path.write_text(LABELS + CODES)
    assert load_labels(path).labels == ("background", "kidney", "tumour")
    path.write_text("colours: {}\n")
    with pytest.raises(RecipeError, match="did you mean 'colors'"):
        load_labels(path)

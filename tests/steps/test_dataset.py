import hashlib
import itertools
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydantic import ValidationError

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import LabelSet, Manifest, Slicing, Within
from medseg_paddle.errors import DataError, RecipeError, SetupError
from medseg_paddle.io.images import read_image, write_image
from medseg_paddle.phantom import make_patient, write_phantom
from medseg_paddle.steps.dataset import write_dataset
from medseg_paddle.steps.sources import find_sources

TWO = LabelSet.from_names(["background", "thing"])
WINDOW = {"level": -300, "width": 1400}


def pictures(root: Path, *names: str, size=(6, 8), values=(0, 1)) -> Path:
    """Grey pictures img/NAME.png whose labels lab/NAME.png are `values` side by side."""
    for folder in ("img", "lab"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full(size, 10 * index, np.uint8)).save(root / "img" / f"{name}.png")
        label = np.resize(np.array(values, np.uint8), size)
        Image.fromarray(label).save(root / "lab" / f"{name}.png")
    return root


def spec(**changes) -> PrepareSpec:
    one = {"split": "train", "images": "img/*.png", "labels": "lab/*.png"}
    return PrepareSpec.model_validate({"reader": "pairs", "sets": [one], **changes})


def run(source: Path, rules: PrepareSpec, destination: Path, labels: LabelSet = TWO, **options) -> Manifest:
    return write_dataset(rules, source=source, destination=destination, labels=labels, name="set", **options)


def refused(tmp_path: Path, source: Path, rules: PrepareSpec, error=DataError, labels: LabelSet = TWO):
    with pytest.raises(error) as caught:
        run(source, rules, tmp_path / "out", labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name]  # nothing half-written
    return caught.value


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def patients_of(manifest: Manifest) -> dict[str, set[str]]:
    return {split: {case.patient for case in cases} for split, cases in manifest.splits.items()}


# --- pairs ------------------------------------------------------------------------------------------------


def test_pairs_become_pictures_lists_and_a_manifest(tmp_path):
    source = pictures(tmp_path / "in", "a", "b")
    seen = []
    manifest = run(source, spec(), tmp_path / "out", progress=lambda *what: seen.append(what))
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "images", "labels", "manifest.json", "test_list.txt", "train_list.txt", "val_list.txt",
    ]  # fmt: skip
    assert (out / "train_list.txt").read_text() == "images/a.png labels/a.png\nimages/b.png labels/b.png\n"
    assert (out / "val_list.txt").read_text() == ""
    assert [case.id for case in manifest.splits["train"]] == ["a", "b"]
    assert (read(out / "images" / "b.png") == 10).all()
    assert read(out / "labels" / "b.png")[0].tolist() == [0, 1] * 4
    assert set(manifest.fingerprints) == {"images/a.png", "images/b.png", "labels/a.png", "labels/b.png"}
    content = (source / "lab" / "b.png").read_bytes()
    assert set(manifest.source["files"]) == {"img/a.png", "img/b.png", "lab/a.png", "lab/b.png"}
    assert manifest.source["files"]["lab/b.png"] == {
        "size": len(content),
        "mtime_ns": (source / "lab" / "b.png").stat().st_mtime_ns,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert manifest.source["prepare"]["reader"] == "pairs"
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    assert seen == [(1, 2, "a.png"), (2, 2, "b.png")]


def test_the_manifest_on_disk_is_the_one_returned(tmp_path):
    manifest = run(pictures(tmp_path / "in", "a"), spec(), tmp_path / "out")
    assert Manifest.load(tmp_path / "out") == manifest
    (case,) = manifest.splits["train"]
    assert case.image == (tmp_path / "out" / "images" / "a.png").resolve()


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    source = pictures(tmp_path / "in", *"abcdef")
    rules = spec(val_fraction=0.3)
    for name in ("one", "two"):
        run(source, rules, tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 16
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_label_values_are_mapped_and_255_stays_ignored(tmp_path):
    source = pictures(tmp_path / "in", "a", values=(0, 128, 255))
    rules = spec(label_map={0: 0, 128: 255, 255: 1})
    run(source, rules, tmp_path / "out")
    assert read(tmp_path / "out" / "labels" / "a.png")[0, :3].tolist() == [0, 255, 1]


def test_an_undeclared_value_is_told_with_its_count_and_the_line_to_add(tmp_path):
    source = pictures(tmp_path / "in", "a", values=(0, 255), size=(2, 8))
    error = refused(tmp_path, source, spec())
    assert "lab/a.png" in error.message
    assert "255 (8 pixels)" in error.message
    assert "`label_map: {0: 0, 255: 1}`" in error.hint
    error = refused(tmp_path, source, spec(label_map={0: 0, 7: 1}))
    assert "`label_map: {0: 0, 7: 1, 255: ?}`" in error.hint


def test_a_mapping_to_a_class_that_is_not_there_is_refused(tmp_path):
    source = pictures(tmp_path / "in", "a")
    assert "class 2" in refused(tmp_path, source, spec(label_map={0: 0, 1: 2}), RecipeError).message


def test_a_label_of_another_size_is_told_with_both_files_and_sizes(tmp_path):
    source = pictures(tmp_path / "in", "a")
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(source / "lab" / "a.png")
    message = refused(tmp_path, source, spec()).message
    assert "img/a.png is 6 x 8" in message
    assert "lab/a.png is 6 x 9" in message


def test_missing_partners_are_listed(tmp_path):
    source = pictures(tmp_path / "in", *"abcdefgh")
    for name in "bcdefgh":
        (source / "lab" / f"{name}.png").unlink()
    assert "no label for img/b.png, img/c.png" in (message := refused(tmp_path, source, spec()).message)
    assert message.endswith("and 2 more")
    shutil.rmtree(source)
    source = pictures(tmp_path / "in", *"ab")
    (source / "img" / "a.png").unlink()
    assert "label without an image: lab/a.png" in refused(tmp_path, source, spec()).message


def test_a_region_of_interest_is_kept_as_a_mask(tmp_path):
    source = pictures(tmp_path / "in", "a")
    (source / "fov").mkdir()
    Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(source / "fov" / "a.png")
    rules = spec(sets=[{"split": "train", "images": "img/*", "labels": "lab/*", "rois": "fov/*"}])
    (case,) = run(source, rules, tmp_path / "out").splits["train"]
    assert (read(case.roi) == 255 * np.eye(6, 8)).all()


def test_colour_stays_colour(tmp_path):
    source = pictures(tmp_path / "in", "a")
    Image.fromarray(np.full((6, 8, 3), (1, 2, 3), np.uint8)).save(source / "img" / "a.png")
    run(source, spec(), tmp_path / "out")
    assert read(tmp_path / "out" / "images" / "a.png")[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_a_picture_of_sixteen_bits_is_learned_from_as_it_will_be_predicted(tmp_path, shape):
    source = pictures(tmp_path / "in", "a")
    deep = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    write_image(source / "img" / "a.png", deep)
    (case,) = run(source, spec(), tmp_path / "out").splits["train"]
    np.testing.assert_array_equal(read_image(case.image, 3), read_image(source / "img" / "a.png", 3))


@pytest.mark.parametrize(("largest", "taken"), [(4095, False), (16383, False), (16384, True)])
def test_twelve_bits_in_sixteen_are_refused(tmp_path, largest, taken):
    source = pictures(tmp_path / "in", "a", "b")
    write_image(source / "img" / "a.png", np.full((6, 8), 4000, np.uint16))
    write_image(source / "img" / "b.png", np.full((6, 8), largest, np.uint16))
    if taken:
        run(source, spec(), tmp_path / "out")
        return
    error = refused(tmp_path, source, spec())
    assert f"of 2 pictures with 16 bits 2 have (next to) no value above {largest} of 65535" in error.message
    assert "16 for 12-bit values" in error.hint


def test_a_dark_picture_of_eight_bits_is_taken(tmp_path):
    run(pictures(tmp_path / "in", "a"), spec(), tmp_path / "out")


def test_key_and_patient_are_taken_from_the_path(tmp_path):
    source = pictures(tmp_path / "in", "p1 left", "p1 right", "p2 left")
    for path in (source / "lab").iterdir():
        path.rename(path.with_name(f"{path.stem}-mask.png"))
    rules = spec(key=r"/(p\d) (left|right)", patient=r"/(p\d)")
    cases = run(source, rules, tmp_path / "out").splits["train"]
    assert [(case.id, case.patient) for case in cases] == [
        ("p1-left", "p1"),
        ("p1-right", "p1"),
        ("p2-left", "p2"),
    ]


def test_a_key_that_finds_nothing_or_the_same_twice_is_refused(tmp_path):
    source = pictures(tmp_path / "in", "p1", "p2")
    assert "finds nothing in 'img/p1.png'" in refused(tmp_path, source, spec(key=r"(\d\d)\.")).message
    assert "the same key 'p'" in refused(tmp_path, source, spec(key=r"/(p)")).message


def test_names_that_differ_in_signs_only_are_refused(tmp_path):
    source = pictures(tmp_path / "in", "a b", "a+b")
    assert "'a-b'" in refused(tmp_path, source, spec()).message


def test_only_takes_what_the_list_names(tmp_path):
    source = pictures(tmp_path / "in", *"abcd")
    (source / "one.txt").write_text("b.png\nimg/d.png lab/d.png\n")
    (source / "two.txt").write_text("a\n")
    sets = [
        {"split": s, "images": "img/*", "labels": "lab/*", "only": f}
        for s, f in (("train", "one.txt"), ("test", "two.txt"))
    ]
    manifest = run(source, spec(sets=sets), tmp_path / "out")
    assert {s: [c.id for c in cases] for s, cases in manifest.splits.items()} == {
        "train": ["b", "d"],
        "val": [],
        "test": ["a"],
    }
    (source / "two.txt").write_text("z.png\n")
    assert "z.png" in refused_again(tmp_path, source, spec(sets=sets))


def refused_again(tmp_path, source, rules) -> str:
    with pytest.raises(DataError) as caught:
        run(source, rules, tmp_path / "other")
    return caught.value.message


def test_a_pattern_without_a_match_and_a_missing_source_are_refused(tmp_path):
    source = pictures(tmp_path / "in", "a")
    rules = spec(sets=[{"split": "train", "images": "none/*", "labels": "lab/*"}])
    assert "no file matches 'none/*'" in refused(tmp_path, source, rules).message
    with pytest.raises(DataError, match="not there"):
        run(tmp_path / "nowhere", spec(), tmp_path / "out")


def test_an_unreadable_picture_leaves_nothing_behind(tmp_path):
    source = pictures(tmp_path / "in", "a", "b")
    (source / "img" / "b.png").write_bytes((source / "img" / "b.png").read_bytes()[:40])
    assert "img/b.png" in refused(tmp_path, source, spec()).message


# --- splits -----------------------------------------------------------------------------------------------

AUTO = [{"images": "img/*", "labels": "lab/*"}]


def test_patients_are_dealt_out_whole_and_by_seed(tmp_path):
    source = pictures(tmp_path / "in", *[f"p{p}_{i}" for p in range(10) for i in range(2)])
    rules = {"sets": AUTO, "patient": r"(p\d)_", "val_fraction": 0.2, "test_fraction": 0.3}
    first = patients_of(run(source, spec(**rules), tmp_path / "a"))
    assert {split: len(patients) for split, patients in first.items()} == {"train": 5, "val": 2, "test": 3}
    assert len(set.union(*first.values())) == 10
    assert patients_of(run(source, spec(**rules, seed=0), tmp_path / "b")) == first
    assert patients_of(run(source, spec(**rules, seed=1), tmp_path / "c")) != first


def test_validation_is_taken_from_train_where_the_test_is_given(tmp_path):
    source = pictures(tmp_path / "in", *"abcdefgh")
    (source / "tr.txt").write_text("\n".join("abcdef"))
    (source / "te.txt").write_text("g\nh")
    sets = [
        {"split": s, "images": "img/*", "labels": "lab/*", "only": f}
        for s, f in (("train", "tr.txt"), ("test", "te.txt"))
    ]
    manifest = run(source, spec(sets=sets, val_fraction=0.3), tmp_path / "out")
    assert patients_of(manifest)["test"] == {"g", "h"}
    assert len(patients_of(manifest)["val"]) == 2
    assert len(patients_of(manifest)["train"]) == 4


def test_a_small_fraction_still_gives_one_patient(tmp_path):
    source = pictures(tmp_path / "in", *"abc")
    split = patients_of(run(source, spec(sets=AUTO, val_fraction=0.01, test_fraction=0.01), tmp_path / "out"))
    assert [len(patients) for patients in split.values()] == [1, 1, 1]


def test_too_few_patients_are_refused(tmp_path):
    source = pictures(tmp_path / "in", *"ab")
    error = refused(tmp_path, source, spec(sets=AUTO, val_fraction=0.2, test_fraction=0.2))
    assert "2 patient(s) cannot be split into train, val and test" in error.message


def test_a_patient_in_two_sets_is_refused(tmp_path):
    source = pictures(tmp_path / "in", "p1_a", "p1_b")
    sets = [
        {"split": s, "images": f"img/*_{n}.png", "labels": f"lab/*_{n}.png"}
        for s, n in (("train", "a"), ("test", "b"))
    ]
    message = refused(tmp_path, source, spec(sets=sets, patient=r"(p\d)")).message
    assert "patient 'p1' is in split 'train' (p1_a.png) and in 'test' (p1_b.png)" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"reader": "nifti"},
        {
            "reader": "dicom",
            "window": WINDOW,
            "sets": [{"split": "train", "images": "a", "labels": "b", "rois": "c"}],
        },
        {
            "reader": "dicom",
            "window": WINDOW,
            "sets": [{"split": "train", "images": "a", "labels": "b", "only": "c"}],
        },
        {"reader": "nifti", "window": {"level": 0, "width": 0}},
        {"sets": []},
        {"sets": AUTO},
        {"val_fraction": 0.5, "test_fraction": 0.5},
        {"val_fraction": 0.1, "sets": [{"split": "val", "images": "a", "labels": "b"}]},
        {"test_fraction": 0.1, "sets": [{"split": "val", "images": "a", "labels": "b"}]},
        {"key": "no group"},
        {"key": "(unclosed"},
        {"sets": [{"split": "train", "images": "/abs/*", "labels": "b"}]},
        {"sets": [{"split": "train", "images": "../*", "labels": "b"}]},
        {"label_map": {0: 256}},
        {"label_map": {-1: 0}},
        {"seed": -1},
        {"frction": 0.1},
    ],
)
def test_rules_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValidationError):
        spec(**changes)


# --- destination ------------------------------------------------------------------------------------------


def test_only_an_earlier_data_set_is_replaced(tmp_path):
    source = pictures(tmp_path / "in", "a")
    out = tmp_path / "out"
    run(source, spec(), out)
    pictures(source, "b")
    with pytest.raises(SetupError, match="not empty"):
        run(source, spec(), out)
    assert len(run(source, spec(), out, overwrite=True).splits["train"]) == 2
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").touch()
    with pytest.raises(SetupError, match="no data set"):
        run(source, spec(), tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1").exists()


@pytest.mark.parametrize("where", [".", "in"])
def test_the_source_is_never_replaced(tmp_path, where):
    source = pictures(tmp_path / "in", "a")
    (tmp_path / where / "manifest.json").touch()
    with pytest.raises(SetupError, match="holds the source"):
        run(source, spec(), tmp_path / where, overwrite=True)
    assert (source / "img" / "a.png").exists()


# --- DICOM ------------------------------------------------------------------------------------------------

DICOM = {
    "reader": "dicom",
    "window": WINDOW,
    "sets": [{"split": "train", "images": "*/ct/*", "labels": "*/mask/*.png"}],
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    write_phantom(folder, patients=2, seed=3, size=40, slices=9)
    return folder


@pytest.fixture
def cohort(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "in")
    return tmp_path / "in"


def test_a_series_becomes_windowed_slices_in_order_with_their_masks(tmp_path, cohort):
    cases = run(cohort, spec(**DICOM), tmp_path / "out").splits["train"]
    for index in range(2):
        volume, truth = make_patient((3, index), size=40, slices=9)
        mine = cases[9 * index : 9 * index + 9]
        name = f"PHANTOM-{index + 1:03d}"
        assert [case.id for case in mine] == [f"{name}_{k:03d}" for k in range(9)]
        assert {(case.patient, case.volume) for case in mine} == {(name, name)}
        assert (mine[0].slicing.plane, mine[0].slicing.units) == ("axial", "HU")
        assert mine[0].slicing.spacing == pytest.approx(volume.geometry.spacing[1:])
        grey = np.stack([read(case.image) for case in mine]).astype(float)
        assert np.abs(grey - np.clip((volume.array + 1000) / 1400 * 255, 0, 255)).max() <= 0.5 + 1e-3
        assert (np.stack([read(case.label) for case in mine]) == truth.array).all()


def test_a_mask_is_found_by_name_though_all_patients_share_names(cohort):
    names = [{path.name for path in (folder / "mask").iterdir()} for folder in sorted(cohort.iterdir())]
    assert names[0] == names[1]


def test_a_missing_mask_is_named(tmp_path, cohort):
    (cohort / "PHANTOM-002" / "mask" / "IM0003.png").unlink()
    assert "no mask for PHANTOM-002/ct/IM0003.dcm" in refused(tmp_path, cohort, spec(**DICOM)).message


def test_a_missing_slice_is_a_gap(tmp_path, cohort):
    paths = sorted(
        (cohort / "PHANTOM-001" / "ct").iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2]
    )
    paths[4].unlink()
    (cohort / "PHANTOM-001" / "mask" / f"{paths[4].stem}.png").unlink()
    assert "between slices 4 and 5" in refused(tmp_path, cohort, spec(**DICOM)).message


def test_a_mask_of_another_size_is_refused(tmp_path, cohort):
    Image.fromarray(np.zeros((40, 41), np.uint8)).save(cohort / "PHANTOM-001" / "mask" / "IM0005.png")
    message = refused(tmp_path, cohort, spec(**DICOM)).message
    assert "IM0005.dcm is 40 x 40" in message
    assert "IM0005.png is 40 x 41" in message


def test_two_series_of_a_patient_are_two_volumes_of_one_patient(tmp_path, cohort):
    for path in (cohort / "PHANTOM-002" / "ct").iterdir():
        header = pydicom.dcmread(path)
        header.PatientID = "PHANTOM-001"
        header.save_as(path)
    rules = spec(**{**DICOM, "sets": [{"images": "*/ct/*", "labels": "*/mask/*"}], "val_fraction": 0.2})
    assert "1 patient(s)" in refused(tmp_path, cohort, rules).message
    cases = run(cohort, spec(**DICOM), tmp_path / "out").splits["train"]
    assert {case.volume for case in cases} == {"PHANTOM-001", "PHANTOM-001-2"}
    assert {case.patient for case in cases} == {"PHANTOM-001"}


def test_a_series_without_a_patient_id_needs_a_rule(tmp_path, cohort):
    for path in (cohort / "PHANTOM-002" / "ct").iterdir():
        header = pydicom.dcmread(path)
        header.PatientID = ""
        header.save_as(path)
    assert "PatientID is empty" in refused(tmp_path, cohort, spec(**DICOM)).message
    manifest = run(cohort, spec(**DICOM, patient="^([^/]+)/"), tmp_path / "out")
    assert patients_of(manifest)["train"] == {"PHANTOM-001", "PHANTOM-002"}


# --- NIfTI ------------------------------------------------------------------------------------------------

NIFTI = {
    "reader": "nifti",
    "window": {"level": 50, "width": 100},
    "sets": [{"split": "train", "images": "img/*", "labels": "lab/*"}],
}


def volumes(root: Path, axes: str = "LPS", label_shift: float = 0.0, scale: float = 1.0) -> Path:
    """One volume of shape (i, j, k) = (2, 3, 4) whose voxels are 0..23, label 1 where 23."""
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    signs = {"L": -1, "R": 1, "P": -1, "A": 1, "I": -1, "S": 1}
    affine = np.diag([signs[a] * step for a, step in zip(axes, (2.0, 3.0, 5.0), strict=True)] + [1])
    for folder in ("img", "lab"):
        (root / folder).mkdir(parents=True)
    nib.save(nib.Nifti1Image(array, affine), root / "img" / "v.nii.gz")
    affine[0, 3] += label_shift
    nib.save(nib.Nifti1Image(((array == 23) * scale).astype(np.float32), affine), root / "lab" / "v.nii.gz")
    return root


@pytest.mark.parametrize(("axes", "corner"), [("LPS", (2, 1)), ("LAS", (0, 1)), ("RAS", (0, 0))])
def test_a_nifti_volume_becomes_upright_slices(tmp_path, axes, corner):
    cases = run(volumes(tmp_path / "in", axes), spec(**NIFTI), tmp_path / "out").splits["train"]
    assert [case.id for case in cases] == ["v_000", "v_001", "v_002", "v_003"]
    assert [case.slicing for case in cases] == [
        Slicing("axial", (3, 2), "unknown", Within(place, 4, 5, "S")) for place in range(4)
    ]
    # Voxel (1, 2, 3) has the greatest value; where it is shown depends on which way the axes run.
    image, label = read(cases[3].image), read(cases[3].label)
    assert image.shape == label.shape == (3, 2)
    assert image[corner] == round(23 * 2.55)
    assert [tuple(map(int, at)) for at in np.argwhere(label == 1)] == [corner]


def test_a_nifti_label_elsewhere_or_not_of_integers_is_refused(tmp_path):
    message = refused(tmp_path, volumes(tmp_path / "in", label_shift=1.5), spec(**NIFTI)).message
    assert "1.5 mm apart" in message
    shutil.rmtree(tmp_path / "in")
    assert "not label values" in refused(tmp_path, volumes(tmp_path / "in", scale=0.5), spec(**NIFTI)).message


def test_a_label_with_flipped_or_exchanged_axes_is_turned_and_one_elsewhere_is_not(tmp_path):
    source = volumes(tmp_path / "in", "LAS")
    rules = spec(**NIFTI)

    def read_all() -> tuple[np.ndarray, set[str]]:
        pictures = [picture for one in find_sources(rules, source) for picture in one.read()]
        return np.stack([one.label for one in pictures]), {note for one in pictures for note in one.notes}

    expected, notes = read_all()
    assert expected.sum() == 1
    assert notes == set()
    path = source / "lab" / "v.nii.gz"
    stored = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), nib.load(path).affine)
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turned = stored.as_reoriented(np.column_stack([axes, signs]))
            nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
            labels, notes = read_all()
            np.testing.assert_array_equal(labels, expected)
            assert len(notes) == (turned.affine != stored.affine).any()
    moved = turned.affine.copy()
    moved[0, 3] += 1.5
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), moved), path)
    with pytest.raises(DataError, match=r"1\.5 mm apart"):
        read_all()


# --- real data --------------------------------------------------------------------------------------------


def test_drive_by_its_official_split(tmp_path, real_data):
    sets = [
        {
            "split": split,
            "images": f"{folder}/images/*.tif",
            "labels": f"{folder}/1st_manual/*.gif",
            "rois": f"{folder}/mask/*.gif",
            "only": f"{split}.txt",
        }
        for split, folder in (("train", "training"), ("test", "test"))
    ]
    source = tmp_path / "drive"
    shutil.copytree(
        real_data / "drive",
        source,
        ignore=shutil.ignore_patterns("2nd_manual"),
        copy_function=shutil.copyfile,
    )
    (source / "train.txt").write_text("\n".join(f"{n}_training.tif" for n in (21, 22, 23)))
    (source / "test.txt").write_text("01_test.tif")
    rules = spec(sets=sets, key=r"/(\d+)_", label_map={0: 0, 255: 1}, val_fraction=0.3)
    manifest = run(source, rules, tmp_path / "out")
    assert patients_of(manifest)["test"] == {"01"}
    assert len(manifest.splits["val"]) == 1
    (case,) = manifest.splits["test"]
    image, truth, field = read(case.image), read(case.label), read(case.roi)
    assert image.shape == (584, 565, 3)
    assert 0.05 < truth.mean() < 0.15  # vessels
    assert image[field == 0].mean() < 10 < image[field == 255].mean()
    assert truth[field == 0].mean() < 0.001 < truth[field == 255].mean()


def test_isbi_by_its_lists(tmp_path, real_data):
    sets = [
        {"split": s, "images": "train/image/*.png", "labels": "train/label/*.png", "only": f"{s}.txt"}
        for s in ("train", "val")
    ]
    rules = spec(sets=sets, label_map={0: 0, 255: 1})
    manifest = run(real_data / "isbi2012_membrane", rules, tmp_path / "out")
    assert patients_of(manifest) == {
        "train": {str(n) for n in range(24)},
        "val": {str(n) for n in range(24, 30)},
        "test": set(),
    }
    assert 0.7 < read(manifest.splits["val"][0].label).mean() < 0.85  # 22 % are membrane
    unmapped = spec(sets=sets)
    with pytest.raises(DataError, match="255") as caught:
        run(real_data / "isbi2012_membrane", unmapped, tmp_path / "other")
    assert "label_map: {0: 0, 255: 1}" in caught.value.hint


def test_lung_ct_is_cut_upright(tmp_path, real_data):
    rules = spec(
        reader="nifti",
        window=WINDOW,
        sets=[{"split": "train", "images": "images/id001.nii.gz", "labels": "labels/id001.nii.gz"}],
    )
    cases = run(real_data / "lung_ct", rules, tmp_path / "out").splits["train"]
    assert len(cases) == 64
    images, labels = (np.stack([read(getattr(c, kind)) for c in cases]) for kind in ("image", "label"))
    assert 0.08 < labels.mean() < 0.17
    assert np.median(images[labels == 1]) < 60  # -864 HU and below
    # Bone is brightest, and most of it is the spine: at the back, in the lower half of an upright picture.
    assert np.argwhere(images[20:44] == 255)[:, 1].mean() > 64


def test_a_real_image_without_a_label_is_named(tmp_path, real_data):
    folder = real_data / "msd_hippocampus" / "dirty"
    with pytest.raises(DataError, match=r"no label for images/hippocampus_118\.nii\.gz"):
        run(
            folder,
            spec(**{**NIFTI, "sets": [{"split": "train", "images": "images/*", "labels": "labels/*"}]}),
            tmp_path / "out",
        )


def test_the_manifest_is_json_with_relative_paths(tmp_path):
    run(pictures(tmp_path / "in", "a"), spec(), tmp_path / "out")
    raw = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert raw["splits"]["train"][0]["image"] == "images/a.png"

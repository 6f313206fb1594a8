"""The page that translates a dropped scan, in a real browser: from a folder, without a network.

What it makes and what it refuses is compared with `ctmri translate`.
"""

import gzip
import hashlib
import re
import struct
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import expect

from ctmri_utils.__main__ import main
from ctmri_utils.machine import data_folder
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.volumes import translation_page
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.nifti import read_nifti
from ctmri_utils.volumes.translate import translate_volume

WEIGHTS = data_folder() / "weights" / "heads.safetensors"
SLICES = 5


@pytest.fixture(scope="module")
def stick(tmp_path_factory):
    """A folder that holds the page alone."""
    folder = tmp_path_factory.mktemp("usb stick")
    command = ["translator", str(WEIGHTS), str(folder / "own scan.html")]
    # In a process of its own, because pytest keeps the thousands of lines that torch logs.
    subprocess.run([sys.executable, "-m", "ctmri_utils", *command], check=True)
    return folder


@pytest.fixture
def page(stick, new_tab):
    """Opens the page; `new_tab` fails the test if it asks for anything beyond this computer."""

    def opened(**options):
        tab = new_tab(**options)
        tab.goto((stick / "own scan.html").as_uri())
        return tab

    return opened


def head(modality, size, seed):
    """Values (I, J, K) and affine of a deformed head, axial, right first, front first."""
    patient = synthetic_patients(1, size, seed, anatomy="atlas", slices=SLICES, fov_mm=240.0)
    values = {"mri": patient.mri * 5, "ct": patient.ct_hu}[modality][0].transpose(2, 1, 0)
    pixel_mm, slice_mm = patient.spacing_mm, patient.slice_spacing_mm
    affine = np.diag([-pixel_mm, -pixel_mm, slice_mm, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(values.shape) - 1) / 2
    return np.rint(values), affine


def saved(path, values, affine, dtype=np.int16):
    image = nibabel.Nifti1Image(values.astype(dtype), None)
    image.set_sform(affine, 2)
    image.set_qform(affine, 2)
    nibabel.save(image, path)
    return path


def axial_mri(folder):
    return saved(folder / "axial.nii", *head("mri", 160, 5))


def sagittal_mri(folder):
    """Stored from front to back, upward, from left to right, as many scanners do."""
    values, affine = head("mri", 128, 6)
    turned = affine[:, [1, 2, 0, 3]]
    turned[:, 2] *= -1
    turned[:, 3] = affine @ (values.shape[0] - 1, 0, 0, 1)
    values = values.transpose(1, 2, 0)[:, :, ::-1]
    return saved(folder / "sagittal.nii.gz", values, turned, np.float32)


def oblique_ct(folder):
    values, affine = head("ct", 288, 7)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.15), -np.sin(0.15)], [np.sin(0.15), np.cos(0.15)]]
    return saved(folder / "oblique.nii.gz", values, turn @ affine)


def translated(tab, scan):
    """Gives a scan to the page, and returns what it saves."""
    tab.locator("[name=file]").set_input_files(scan)
    save = tab.locator("[name=save]")
    expect(save.or_(tab.locator("[role=alert]:not(:empty)"))).to_be_visible(timeout=120_000)
    with tab.expect_download() as download:
        save.click()
    target = scan.parent / download.value.suggested_filename
    download.value.save_as(target)
    return target


@pytest.mark.parametrize("make", [axial_mri, sagittal_mri, oblique_ct])
def test_the_page_makes_what_the_command_makes(page, make, tmp_path, capsys):
    scan = make(tmp_path)
    command = ["translate", scan, tmp_path / "command.nii", "--weights", WEIGHTS]
    assert main([str(word) for word in command]) == 0
    by_command = nibabel.load(tmp_path / "command.nii")
    printed = capsys.readouterr().out

    tab = page()
    by_page = nibabel.load(translated(tab, scan))
    stack = axial(read_nifti(scan), 128, 1.75)
    inside = stack.back_onto(read_nifti(scan), stack.head.astype(np.float32), 0) > 0.5
    difference = np.abs(by_page.get_fdata() - by_command.get_fdata())
    assert np.mean(difference[inside] <= 1) >= 0.999 and np.ptp(by_page.get_fdata()[inside]) > 1000
    assert difference[~inside].mean() < 1

    for name in ("descrip", "sform_code", "qform_code", "xyzt_units", "datatype"):
        assert by_page.header[name] == by_command.header[name], name
    np.testing.assert_allclose(by_page.get_sform(), by_command.get_sform(), atol=1e-4)
    np.testing.assert_allclose(by_page.get_qform(), by_command.get_qform(), atol=1e-4)
    notes = tab.locator(".notes li").all_inner_texts()
    assert notes and all(note in printed for note in notes)
    assert "SYNTHETIC" in tab.locator(".stage .second").inner_text()


@pytest.fixture(scope="module")
def model():
    return load_translator(WEIGHTS)


def words_of(scan, model, modality=None):
    """What Python refuses a scan with."""
    with pytest.raises(ValueError) as error:
        translate_volume(model, read_nifti(scan, modality, labels=False))
    return str(error.value).replace(str(scan), scan.name)


def patched(content, edit):
    """The bytes with numbers at one place replaced: (first byte, format of struct, numbers)."""
    place, kind, *numbers = edit
    changed = bytearray(content)
    struct.pack_into(f"<{kind}", changed, place, *numbers)
    return bytes(changed)


def unfit(folder):
    """Files that no page and no command may translate."""
    mri, affine = head("mri", 64, 8)
    ct, _ = head("ct", 64, 8)
    x, y, z = np.indices(mri.shape)
    saved(folder / "across.nii", mri.transpose(1, 0, 2), affine)
    saved(folder / "across_ct.nii", ct.transpose(1, 0, 2), affine)
    saved(folder / "no_offset.nii", ct + 1024, affine)
    saved(folder / "labels.nii", (x > 20) + (y > 30), affine)
    saved(folder / "empty.nii", np.full(mri.shape, np.nan), affine, np.float32)
    saved(folder / "series.nii", np.stack([mri, mri], 3), affine)
    saved(folder / "no_air.nii", ct.clip(-160, 240), affine)
    saved(folder / "nothing.nii", np.full(ct.shape, -1000) + (x + y + z) % 7, affine)
    saved(folder / "far.nii", mri, affine @ np.diag([200, 200, 1, 1]))
    saved(folder / "complex.nii", mri + 1j * mri, affine, np.complex64)

    whole = (folder / "across.nii").read_bytes()
    (folder / "short.nii").write_bytes(whole[:5000])
    (folder / "login.nii").write_bytes(b"<!DOCTYPE html>" + bytes(600))
    (folder / "picture.nii").write_bytes(b"\xff\xd8" + bytes(600))
    (folder / "metres.nii.gz").write_bytes(gzip.compress(patched(whole, (123, "b", 1))))

    # A negative slope makes all of a slice head: nothing lies outside to measure depths from.
    mr = saved(folder / "upright.nii", mri, affine).read_bytes()
    (folder / "upright.nii").write_bytes(patched(mr, (112, "2f", -1, 0)))
    qform_alone = (252, "2h4f", 1, 0, 2, 0, 0, 0)
    (folder / "quaternion.nii").write_bytes(patched(whole, qform_alone))
    bad_sform = (252, "2h4f12f", 1, 1, 2, 0, 0, 0, *[0] * 12)
    (folder / "quaternion_and_sform.nii").write_bytes(patched(whole, bad_sform))
    for number in (-1, 0, 8, 99):
        (folder / f"dimensions_{number}.nii").write_bytes(patched(whole, (40, "h", number)))
    for name, sides in (("one", (-64, 64, 5)), ("two", (-64, -64, 5)), ("none", (0, 64, 5))):
        (folder / f"negative_{name}.nii").write_bytes(patched(whole, (42, "3h", *sides)))
    return sorted(folder.glob("*.nii*"))


def test_what_does_not_fit_is_refused_in_the_same_words(page, model, tmp_path):
    tab = page()
    alert = tab.locator("[role=alert]")
    for scan in unfit(tmp_path):
        tab.locator("[name=file]").set_input_files(scan)
        words = words_of(scan, model)
        expect(alert).to_have_text(re.compile("^" + re.escape(scan.name)), timeout=60_000)
        assert alert.inner_text().removeprefix(f"{scan.name}: ") == words.removeprefix(
            f"{scan.name}: "
        )
        assert not tab.locator("[name=save]").is_visible()


DROP_TWO = """() => {
  const dataTransfer = new DataTransfer();
  for (const name of ["first.nii", "second.nii"]) {
    dataTransfer.items.add(new File(["no scan"], name));
  }
  document.dispatchEvent(new DragEvent("drop", { dataTransfer }));
}"""


def test_of_several_files_it_says_which_was_taken_and_refused(page):
    tab = page()
    tab.evaluate(DROP_TWO)
    expect(tab.locator("[role=alert]")).to_contain_text("first.nii: it does not begin like")
    note = tab.get_by_text("of 2 files, first.nii was taken")
    expect(note).to_be_visible()


# When the pictures of the three planes appear, which is before the viewer is ready.
CANCEL_EARLY = """() => {
  const cancel = () => document.querySelector("[name=cancel]").click();
  new MutationObserver(cancel).observe(document.querySelector(".planes"), { childList: true });
}"""


def test_cancelled_before_the_first_slice_it_stays_cancelled(page, tmp_path):
    tab = page()
    tab.evaluate(CANCEL_EARLY)
    scan = saved(tmp_path / "scan.nii", *head("mri", 64, 8))
    tab.locator("[name=file]").set_input_files(scan)
    expect(tab.locator(".comparison [data-ready]")).to_be_visible()
    assert "Cancelled" in tab.locator(".work > [role=status]").inner_text()


def test_a_reader_can_say_what_a_file_is(page, model, tmp_path):
    scan = saved(tmp_path / "scan.nii", *head("mri", 64, 8))
    tab = page()
    tab.locator("[name=modality]").select_option("ct")
    tab.locator("[name=file]").set_input_files(scan)
    words = words_of(scan, model, "ct").removeprefix("scan.nii: ")
    expect(tab.locator("[role=alert]")).to_have_text(f"scan.nii: {words}", timeout=60_000)


def test_a_translation_is_not_translated_again(page, tmp_path):
    scan = saved(tmp_path / "made.nii", *head("mri", 64, 8))
    image = nibabel.load(scan)
    image.header["descrip"] = "SYNTHETIC MR - NOT FOR CLINICAL USE"
    nibabel.save(image, tmp_path / "again.nii")
    tab = page()
    tab.locator("[name=file]").set_input_files(tmp_path / "again.nii")
    expect(tab.locator("[role=alert]")).to_contain_text("give real scans", timeout=60_000)


def test_warnings_come_along_and_a_reader_can_stop_and_start_again(page, model, tmp_path):
    values, affine = head("mri", 64, 8)
    small = saved(tmp_path / "small.nii", values, affine @ np.diag([0.5, 0.5, 0.5, 1]))
    warnings = translate_volume(model, read_nifti(small)).warnings
    assert warnings

    tab = page(color_scheme="dark")
    tab.locator("[name=file]").set_input_files(small)
    tab.get_by_role("button", name="Cancel").press("Enter")
    expect(tab.locator(".work > [role=status]")).to_contain_text("Cancelled", timeout=60_000)
    assert not tab.locator("[name=save]").is_visible()

    made = nibabel.load(translated(tab, small))
    found = tab.locator(".notes li").all_inner_texts()
    assert [note for note in found if note.startswith("warning")] == [
        f"warning: {warning}" for warning in warnings
    ]
    comments = [extension.get_content() for extension in made.header.extensions]
    assert [bytes(comment).rstrip(b"\0").decode() for comment in comments] == list(warnings)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 390)])
def test_it_is_for_everybody(page, screenshots, tmp_path, scheme, width):
    tab = page(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 844})
    scan = saved(tmp_path / "scan.nii", *head("mri", 128, 5))
    tab.locator("[name=file]").set_input_files(scan)
    expect(tab.locator("[name=save]")).to_be_visible(timeout=120_000)
    tab.screenshot(path=screenshots / f"translation_{scheme}_{width}.png", full_page=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width

    # A script given as text may not run in this page, which is the point of its policy.
    session = tab.context.new_cdp_session(tab)
    session.send("Runtime.evaluate", {"expression": AXE_SCRIPT})
    found = session.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run().then(found => JSON.stringify(found.violations"
            ".filter(one => ['serious', 'critical'].includes(one.impact)).map(one => one.id)))",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    assert found["result"]["value"] == "[]"


def test_the_scripts_use_python_s_words_and_numbers_and_all_of_these_exist():
    scripts = translation_page.own_scripts()
    assert all(len(text) > 20 for text in translation_page.sentences(scripts).values())
    assert set(re.findall(r"\bPY\.(\w+)", scripts)) <= set(translation_page.numbers())


NUMBERS = [(1.0, ".2f"), (-3.14159, ".0f"), (0.12345, ".1%"), (1234567.0, ".4g"), (3e-7, "g")]
NUMBERS += [(1962.0, ".4g"), (0.5, "g"), (0.0, ".3g"), (123456.0, "g"), (-1019.0, ".0f")]


def test_numbers_are_written_as_python_writes_them(new_tab):
    source = (translation_page.FOLDER / "sentences.mjs").read_text(encoding="utf-8")
    functions = source[source.index("// A number as Python's") :]
    script = f"numbers => {{ {functions} return numbers.map(([x, spec]) => formatted(x, spec)) }}"
    written = new_tab().evaluate(script, [list(pair) for pair in NUMBERS])
    assert written == [format(x, spec) for x, spec in NUMBERS]


def test_the_runtime_is_the_one_on_its_card():
    runtime = data_folder() / "runtime"
    card = (runtime / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+\.gz)` .* `(\w{64})` \|$", card, flags=re.M)
    assert len(rows) == 2
    for name, checksum in rows:
        content = gzip.decompress((runtime / name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == checksum
    script = (data_folder() / "build_runtime.py").read_text(encoding="utf-8")
    version, checksum = re.findall(r'^(?:VERSION|SHA256) = "(\S+)"$', script, flags=re.M)
    assert f"`{checksum}`" in card and f"`onnxruntime-web` {version}," in card


def test_weights_that_do_not_say_what_they_expect_make_no_page(model, monkeypatch, tmp_path):
    monkeypatch.setattr(model, "contract", None)
    with pytest.raises(ValueError, match="does not say which slices"):
        translation_page.check_contract(model, WEIGHTS)

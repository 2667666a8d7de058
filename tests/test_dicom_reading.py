"""Doubtful DICOM files are refused in words that tell nothing of a patient, before their pixels cost memory."""

import logging
import struct
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import CANARY, dataset, image_series, set_pixels, write
from pydicom.uid import JPEGLSLossless, RLELossless

from hybridtumor.dicom.reading import is_dicom, pixels, read
from hybridtumor.dicom.series import MAX_FILES, sort_folder
from hybridtumor.errors import InputError
from hybridtumor.grid import Grid

STORED = np.arange(30, dtype=np.uint16).reshape(5, 6)


def image(**tags: object) -> pydicom.Dataset:
    ds = dataset("MR", ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 0], PixelSpacing=[1, 1])
    set_pixels(ds, STORED)
    for key, value in tags.items():
        setattr(ds, key, value)
    return ds


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert CANARY not in message
    assert "tmp" not in message
    assert path.name not in message
    return message


def test_pixels_come_back_as_they_were_stored(tmp_path: Path) -> None:
    path = write(image(), tmp_path / "a.dcm")
    assert np.array_equal(pixels(path, read(path))[0], STORED)
    assert "PixelData" not in read(path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_packed_pixels_come_back(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    signed = STORED.astype(np.int16) * 50 - 700
    packed = image(PixelData=(signed & 0x0FFF).tobytes(), BitsStored=12, HighBit=11, PixelRepresentation=1)
    packed.compress(syntax)
    path = write(packed, tmp_path / "a.dcm")
    assert np.array_equal(pixels(path, read(path))[0], signed)


def test_big_endian_pixels_come_back(tmp_path: Path) -> None:
    big = image(PixelData=STORED.astype(">u2").tobytes())
    big.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    path = tmp_path / "big.dcm"
    pydicom.dcmwrite(path, big, implicit_vr=False, little_endian=False, enforce_file_format=True)
    assert np.array_equal(pixels(path, read(path))[0], STORED)


def test_files_that_are_no_dicom_are_refused(tmp_path: Path) -> None:
    other = tmp_path / f"{CANARY}.txt"
    other.write_text(CANARY * 100)
    assert "prefix DICM" in refusal(other)
    assert "found none" in refusal(tmp_path / "nothing.dcm")
    for tail in (b"", b"\xff" * 500, CANARY.encode() * 50, np.random.default_rng(0).bytes(4000)):
        garbage = tmp_path / "garbage.dcm"
        garbage.write_bytes(b"\0" * 128 + b"DICM" + tail)
        assert is_dicom(garbage)
        refusal(garbage)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "Modality", "Rows", "BitsAllocated"])
def test_an_object_without_what_makes_it_one_is_refused(tmp_path: Path, keyword: str) -> None:
    path = write(image(), tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    del ds[keyword]
    ds.save_as(path)
    assert keyword in refusal(path)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Rows": 6}, "72 bytes"),
        ({"NumberOfFrames": 2}, "120 bytes"),
        ({"Rows": 0}, "positive whole extents"),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 1000}, "at most"),
        ({"NumberOfFrames": -1}, "positive whole extents"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "8, 16 or 32 bits"),
        ({"BitsStored": 20}, "BitsStored"),
        ({"SamplesPerPixel": 3}, "one integer sample"),
    ],
)
def test_extents_that_do_not_fit_the_pixels_are_refused(tmp_path: Path, tags: dict[str, int], said: str) -> None:
    assert said in refusal(write(image(**tags), tmp_path / "a.dcm"))


def outcome(path: Path) -> str:
    """What a file is refused with; empty when its pixels can be read."""
    try:
        pixels(path, read(path))
    except InputError as error:
        return str(error)
    return ""


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.CodeValue = CANARY
    nested = image()
    nested.add_new(0x00081032, "SQ", [item, item])
    nested["ProcedureCodeSequence"].is_undefined_length = True
    whole = write(nested, tmp_path / "a.dcm").read_bytes()
    cut = tmp_path / "cut.dcm"
    for size in range(132, len(whole), 7):
        cut.write_bytes(whole[:size])
        said = outcome(cut)
        assert said
        assert CANARY not in said


def test_a_structure_set_cut_within_a_sequence_is_refused(tmp_path: Path) -> None:
    items = [pydicom.Dataset() for _ in range(4)]
    for item in items:
        item.ROIName = CANARY
    ds = dataset("RTSTRUCT")
    ds.StructureSetROISequence = items
    ds["StructureSetROISequence"].is_undefined_length = True
    path = write(ds, tmp_path / "a.dcm")
    whole = path.read_bytes()
    for cut in range(1, 90):
        path.write_bytes(whole[:-cut])
        assert "damaged" in refusal(path)


def test_a_character_set_of_no_known_name_is_no_reason_to_refuse(tmp_path: Path) -> None:
    path = write(image(), tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.add_new(0x00080005, "CS", "ISO_IR 100")
    ds.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"KLINGON 10"))
    assert outcome(path) == ""


def test_a_length_of_four_gigabytes_in_a_small_file_costs_no_memory(tmp_path: Path) -> None:
    claims = []
    for tag in ((0x0010, 0x4000), (0x7FE0, 0x0010)):
        path = write(dataset("MR"), tmp_path / f"{tag[0]:x}.dcm")
        with path.open("ab") as stream:
            stream.write(struct.pack("<HH2sHL", *tag, b"OB", 0, 0xFFFFFFF0) + b"\0" * 100)
        claims.append(path)
    tracemalloc.start()
    for path in claims:
        refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_more_items_than_any_object_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = dataset("RTSTRUCT", StructureSetROISequence=[pydicom.Dataset() for _ in range(50)])
    path = write(ds, tmp_path / "a.dcm")
    assert read(path).Modality == "RTSTRUCT"
    monkeypatch.setattr("hybridtumor.dicom.reading.MAX_ITEMS", 40)
    assert "40 items" in refusal(path)


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    ds = dataset("RTSTRUCT", StructureSetLabel="a")
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    assert "deflated" in refusal(write(ds, tmp_path / "a.dcm"))


@pytest.mark.parametrize(
    ("syntax", "name"), [("1.2.840.10008.1.2.4.102", "MPEG-4"), ("1.2.840.10008.1.2.4.90", "JPEG 2000")]
)
def test_a_compression_without_a_decoder_is_named(
    tmp_path: Path, syntax: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        is_available = False

    monkeypatch.setattr("hybridtumor.dicom.reading.get_decoder", lambda _: Missing())
    ds = image(PixelData=pydicom.encaps.encapsulate([b"\1\2\3\4"]))
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = syntax
    assert name in refusal(write(ds, tmp_path / "a.dcm"))


def test_pydicom_is_silent_and_as_loud_as_before_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    ds = image()
    for tag, kind in ((0x00200011, "IS"), (0x00180050, "DS"), (0x00080020, "DA")):
        ds.add(pydicom.DataElement(tag, "LO", f"{CANARY}-not-a-{kind}"))
        ds[tag].VR = "LO"
    path = write(ds, tmp_path / "a.dcm")
    payload = path.read_bytes()
    for tag, kind in ((b"\x20\x00\x11\x00", b"IS"), (b"\x18\x00\x50\x00", b"DS"), (b"\x08\x00\x20\x00", b"DA")):
        payload = payload.replace(tag + b"LO", tag + kind)
    path.write_bytes(payload)
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        sort_folder(tmp_path)
    assert not caught
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capfd.readouterr())
    assert logging.getLogger("pydicom").disabled is False


def test_random_damage_never_does_worse_than_a_refusal(tmp_path: Path) -> None:
    whole = bytearray(write(image(), tmp_path / "a.dcm").read_bytes())
    rng, path = np.random.default_rng(5), tmp_path / "b.dcm"
    outcomes = set()
    for _ in range(400):
        damaged = whole.copy()
        for position in rng.integers(132, len(whole) - STORED.nbytes, rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        said = outcome(path)
        assert CANARY not in said
        outcomes.add(bool(said))
    assert outcomes == {True, False}


def test_a_mixed_folder_is_sorted_by_content(tmp_path: Path) -> None:
    grid = Grid((4, 3, 5), np.diag([-1.0, -1.0, 2.0, 1.0]))
    stored = np.ones(grid.shape, np.uint16)
    folder = tmp_path / "in"
    first = image_series(folder / "x", stored, grid, SeriesNumber=2)
    image_series(folder / "x", stored, grid, SeriesNumber=1)
    image_series(folder / "y", stored, grid, "CT", SeriesNumber=3)
    write(dataset("SEG", SeriesNumber=4), folder / "s.dcm")
    (folder / "copy.dcm").write_bytes(first[0].read_bytes())
    (folder / "notes.txt").write_text("hello")
    (folder / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 99)
    write(dataset("CT"), tmp_path / "outside.dcm")
    (folder / "link.dcm").symlink_to(tmp_path / "outside.dcm")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    found = sort_folder(folder)
    assert [(s.name, len(s.files), s.kind) for s in found.series] == [
        ("MR1", 5, "image"),
        ("MR2", 5, "image"),
        ("CT1", 5, "image"),
        ("SEG1", 1, "other"),
    ]
    assert set(found.series[1].files) <= {*first, folder / "copy.dcm"}
    assert (found.not_dicom, found.outside, found.copies) == (1, 1, 1)
    assert sum(n for _, n in found.refused) == 1
    assert CANARY not in repr(found)
    assert "20230417" not in repr(found)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_FILES >= 10_000
    for i in range(4):
        (tmp_path / str(i)).touch()
    monkeypatch.setattr("hybridtumor.dicom.series.MAX_FILES", 3)
    with pytest.raises(InputError, match="at most 3 files"):
        sort_folder(tmp_path)


def test_without_pydicom_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from hybridtumor.errors import ResourceError\n"
        "for name in ('reading', 'series', 'volume', 'dose', 'structures', 'plan', 'importing'):\n"
        "    try: __import__(f'hybridtumor.dicom.{name}')\n"
        "    except ResourceError as error: assert 'hybridtumor[dicom]' in str(error)\n"
        "    else: raise SystemExit(f'{name} was imported')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

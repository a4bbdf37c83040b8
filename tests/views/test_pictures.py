"""What travels of a picture: its pixels, the right way up, and nothing else."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from hf_attnviz.errors import ArgumentError
from hf_attnviz.views.pictures import as_picture, checked_box, data_uri
from tests.capturing import pipes

SECRET = b"48.8583 N 2.2945 E"


def shot() -> np.ndarray:
    return np.asarray(pipes.photo(4, 6))


def test_one_picture_in_every_shape_that_it_comes_in(tmp_path) -> None:
    pixels = shot()
    path = tmp_path / "图.png"
    Image.fromarray(pixels).save(path)
    channels_first = torch.tensor(pixels).permute(2, 0, 1)
    for one in (
        path, str(path), Image.open(path), pixels, pixels[None], channels_first, channels_first[None],
        channels_first.float() / 255, pixels.transpose(2, 0, 1), pixels / 255,
    ):  # fmt: skip
        assert np.array_equal(np.asarray(as_picture(one)), pixels)


def test_normalised_pixels_are_stretched_and_one_channel_is_grey() -> None:
    assert np.asarray(as_picture(np.array([[-1.0, 1.0]]))).tolist() == [[[0] * 3, [255] * 3]]
    assert np.asarray(as_picture(np.array([[2.0, 2.0]]))).tolist() == [[[0] * 3, [0] * 3]]
    deep = Image.fromarray(np.array([[0, 40_000]], np.uint16))
    assert np.asarray(as_picture(deep)).tolist() == [[[0] * 3, [255] * 3]]


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    assert np.asarray(as_picture(clear)).tolist() == [[[255] * 3] * 2]


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2, 5)), np.zeros((0, 2)), np.full((2, 2), np.nan), np.zeros((2, 3, 4, 4)), [1, 2]]
)
def test_what_is_no_picture_is_refused(wrong) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        as_picture(wrong)


def test_a_file_that_is_no_picture(tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ArgumentError, match=r"expected the path of a picture, got .*a\.png"):
        as_picture(path)


def test_where_a_photograph_was_taken_stays_outside_and_it_is_turned_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, SECRET.decode()  # to be turned right by a quarter; what it shows
    path = tmp_path / "a.jpg"
    Image.fromarray(shot()).save(path, exif=exif, comment=SECRET, icc_profile=SECRET)
    assert SECRET in path.read_bytes()
    upright = as_picture(path)
    assert upright.size == (4, 6)
    told = PngImagePlugin.PngInfo()
    told.add_text("where", SECRET.decode())
    Image.fromarray(shot()).save(tmp_path / "a.png", pnginfo=told)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
    large.info |= {"comment": SECRET, "icc_profile": SECRET}
    for one in (upright, as_picture(tmp_path / "a.png"), as_picture(large)):
        head, _, body = data_uri(one).partition(",")
        assert head in ("data:image/png;base64", "data:image/jpeg;base64")
        assert SECRET not in base64.b64decode(body)


def test_a_page_holds_no_more_than_1024_pixels_a_side() -> None:
    body = data_uri(Image.new("RGB", (4000, 1000))).partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (1024, 256)


def test_the_part_that_the_model_saw() -> None:
    picture = Image.new("RGB", (120, 60))
    assert checked_box(None, picture, (4, 4)) == (0, 0, 120, 60)
    assert checked_box("centre", picture, (4, 4)) == (30, 0, 90, 60)  # as CLIP's processor cuts it
    assert checked_box("centre", picture, (2, 8)) == (0, 15, 120, 45)
    assert checked_box((1, 2, 3, 4), picture, (4, 4)) == (1, 2, 3, 4)
    for wrong in ((0, 0, 121, 60), (5, 0, 5, 60), (1, 2), "center"):
        with pytest.raises(ArgumentError, match="inside the picture of 120 × 60"):
            checked_box(wrong, picture, (4, 4))

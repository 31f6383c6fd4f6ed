"""Decoding: every kind of file comes out as the correct RGB, or as an error that names it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeres.errors import DataError
from edgeres.images.decode import decode

WIDE = np.array([[0, 128, 129, 255, 257, 32768, 65278, 65535]], dtype=">u2")
WIDE_SCALED = [0, 0, 1, 1, 1, 128, 254, 255]
"""By hand: the nearest integers to `WIDE` / 257."""


def png(pixels: NDArray[np.uint16], color_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Returns a 16-bit PNG, written from the specification rather than by Pillow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """Image of 6 x 5 random pixels."""
    return np.random.default_rng(3).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm"])
def test_a_lossless_file_gives_back_its_pixels(
    tmp_path: Path, rgb: NDArray[np.uint8], suffix: str
) -> None:
    """PNG, BMP, TIFF and PPM come back bit for bit, uint8 and contiguous."""
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}")
    image = decode(tmp_path / f"a.{suffix}").pixels
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, rgb)


def test_lossless_webp_gives_back_its_pixels(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """WebP is decoded too."""
    Image.fromarray(rgb).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(decode(tmp_path / "a.webp").pixels, rgb)


def test_the_content_decides_not_the_suffix(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """A PNG that is named JPEG is decoded, as one of ImageNet's is."""
    Image.fromarray(rgb).save(tmp_path / "a.JPEG", format="PNG")
    np.testing.assert_array_equal(decode(tmp_path / "a.JPEG").pixels, rgb)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grayscale_has_three_like_channels(tmp_path: Path, suffix: str) -> None:
    """A grey 100 becomes (100, 100, 100)."""
    Image.new("L", (4, 3), 100).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(decode(tmp_path / f"a.{suffix}").pixels, np.full((3, 4, 3), 100))


@pytest.mark.parametrize(
    ("cmyk", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_cmyk_ink_is_subtracted_from_white(
    tmp_path: Path, cmyk: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """A CMYK JPEG, which stores its inks inverted, is not decoded as a negative."""
    Image.new("CMYK", (8, 8), cmyk).save(tmp_path / "a.jpg", quality=100)
    image = decode(tmp_path / "a.jpg").pixels.astype(int)
    assert np.abs(image - np.array(expected)).max() <= 2


def test_palette_indices_become_colors(tmp_path: Path) -> None:
    """A palette PNG shows its palette's colours."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_16_bit_grayscale_is_scaled_not_clipped(tmp_path: Path) -> None:
    """65535 becomes 255 and 32768 becomes 128; Pillow's convert would give 255 for both."""
    (tmp_path / "a.png").write_bytes(png(WIDE, 0))
    expected = np.repeat(np.array([WIDE_SCALED])[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels, expected)


def test_16_bit_grayscale_of_other_formats_is_scaled(tmp_path: Path) -> None:
    """TIFF and PGM carry 16 bits as well."""
    Image.fromarray(WIDE.astype(np.uint16)).save(tmp_path / "a.tiff")
    (tmp_path / "a.pgm").write_bytes(b"P5 8 1 65535\n" + WIDE.tobytes())
    for name in ("a.tiff", "a.pgm"):
        assert decode(tmp_path / name).pixels[0, :, 0].tolist() == WIDE_SCALED


def test_16_bit_rgb_is_within_one_level(tmp_path: Path) -> None:
    """Pillow hands out the high bytes, at most one level below the nearest."""
    wide = np.random.default_rng(5).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(wide, 2))
    assert np.abs(decode(tmp_path / "a.png").pixels - wide / 257).max() < 1


def test_opaque_alpha_is_dropped(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """An RGBA image that is opaque everywhere is its RGB."""
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])).save(
        tmp_path / "a.png"
    )
    np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels, rgb)


def test_a_transparent_pixel_is_refused(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    """One pixel that is not opaque is enough: what stands behind it is not in the file."""
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[2, 3] = 254
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has 1 transparent pixels of 30; .* background"):
        decode(tmp_path / "a.png")


def test_a_transparent_palette_entry_counts_where_it_is_used(tmp_path: Path) -> None:
    """A GIF that declares a transparent colour is refused only when a pixel has it."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 7, 7])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "unused.png", transparency=2)
    image.save(tmp_path / "used.png", transparency=1)
    assert decode(tmp_path / "unused.png").pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    with pytest.raises(DataError, match=r"used\.png has 1 transparent pixels of 2"):
        decode(tmp_path / "used.png")


def test_a_transparent_16_bit_gray_is_refused(tmp_path: Path) -> None:
    """The colour key of a 16-bit PNG is compared at 16 bits."""
    (tmp_path / "a.png").write_bytes(png(WIDE, 0, (b"tRNS", struct.pack(">H", 257))))
    with pytest.raises(DataError, match="1 transparent pixels of 8"):
        decode(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(WIDE, 0, (b"tRNS", struct.pack(">H", 256))))
    assert decode(tmp_path / "a.png").pixels.shape == (1, 8, 3)


def test_orientation_is_not_applied(tmp_path: Path) -> None:
    """EXIF orders a turn by 90 degrees; training pipelines do not, and neither does this."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").pixels.shape == (20, 40, 3)


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    """A GIF of red and blue is red."""
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "a.gif").pixels[0, 0].tolist() == [255, 0, 0]


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _text(_: bytes) -> bytes:
    return b"<html>404 Not Found</html>"


def _empty(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("damage", [_truncated, _text, _empty])
def test_a_damaged_file_is_named(
    tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    """Truncated, empty or foreign: the error names the file and the next step."""
    path = tmp_path / f"broken.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DataError, match=rf"broken\.{suffix} .*decoded.*Replace the file or take it"
    ):
        decode(path)


def test_a_png_with_a_broken_chunk_is_named(tmp_path: Path) -> None:
    """Pillow calls it a SyntaxError; it is a damaged file like any other."""
    head, _, tail = png(WIDE, 0, (b"IDAT", zlib.compress(b"")[:2])).rpartition(b"IDAT")
    (tmp_path / "a.png").write_bytes(head + b"\xfd*\xd9\x02" + tail)
    with pytest.raises(DataError, match=r"a\.png cannot be decoded: broken PNG file"):
        decode(tmp_path / "a.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that went away after it was listed."""
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read: No such file or directory"):
        decode(tmp_path / "gone.jpg")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    """A header of 100 million pixels and more is enough to be refused."""
    path = tmp_path / "bomb.png"
    data = bytearray(png(WIDE, 0))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.png is too large: .* 89478485 pixels are decoded"):
        decode(path)


def test_the_size_is_checked_where_pillow_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that switched Pillow's own limit off does not switch this one off."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"large\.png is too large: 10000 x 9000 pixels"):
        decode(tmp_path / "large.png")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_range_are_refused(tmp_path: Path, mode: str) -> None:
    """A 32-bit TIFF does not define its white."""
    Image.new(mode, (2, 2)).save(tmp_path / "a.tiff")
    with pytest.raises(
        DataError, match=rf"32-bit numbers \(mode {mode}\).* Convert it to 8-bit RGB"
    ):
        decode(tmp_path / "a.tiff")

"""Every kind of picture file that users have is read as it looks, or refused in one line that names it."""

import hashlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lorakiln.base import images
from lorakiln.base.errors import UserError
from lorakiln.base.records import Crop, Size

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def quarters(width=12, height=8):
    """Red, green / blue, white: any rotation or flip shows."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(GREEN, (width // 2, 0, width, height // 2))
    picture.paste(BLUE, (0, height // 2, width // 2, height))
    picture.paste(WHITE, (width // 2, height // 2, width, height))
    return picture


def corners(picture):
    width, height = picture.size
    return [picture.getpixel(at) for at in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1))]


def near(one, other, by=12):
    return np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= by


def png(path, width, height, depth, colour_type, values, chunks=()):
    """A PNG that Pillow cannot write itself: 16 bits a channel, tRNS, an eXIf chunk after the pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    dtype = ">u2" if depth == 16 else "u1"
    rows = b"".join(b"\0" + np.asarray(row, dtype).tobytes() for row in np.asarray(values).reshape(height, -1))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    before = b"".join(chunk(name, data) for name, data in chunks if name == b"tRNS")
    after = b"".join(chunk(name, data) for name, data in chunks if name != b"tRNS")
    pixels = chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "tif", "gif", "avif"])
def test_every_format_gives_the_same_picture(tmp_path, extension):
    if extension == "avif" and "AVIF" not in images.FORMATS:
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / f"a.{extension}"
    quarters(64, 48).save(path, **({"quality": 95} if extension in ("jpg", "webp", "avif") else {}))
    picture = images.open_picture(path)
    assert picture.mode == "RGB"
    assert near(corners(picture), [RED, GREEN, BLUE, WHITE])
    info = images.measure(path)
    assert info.size == Size(64, 48)
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_a_rotated_photo_stands_upright(tmp_path, extension, orientation):
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = quarters(64, 32)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{extension}"
    stored.save(path, exif=exif)
    picture = images.open_picture(path)
    assert picture.size == (64, 32)
    assert near(corners(picture), [RED, GREEN, BLUE, WHITE], by=40)
    assert images.measure(path).size == Size(64, 32)


def test_a_png_may_say_its_rotation_after_the_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.asarray(quarters().transpose(Image.Transpose.ROTATE_90))
    chunks = [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    path = png(tmp_path / "a.png", 8, 12, 8, 2, values, chunks)
    assert images.measure(path).size == Size(12, 8)
    assert corners(images.open_picture(path)) == [RED, GREEN, BLUE, WHITE]


def test_transparency_turns_with_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = quarters().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 6, 4))
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    assert corners(images.open_picture(tmp_path / "a.png", BLACK)) == [BLACK, GREEN, BLUE, WHITE]
    assert corners(images.alpha_mask(tmp_path / "a.png")) == [0, 255, 255, 255]


def test_cmyk_is_read_in_its_colours(tmp_path):
    quarters(64, 64).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert near(corners(images.open_picture(tmp_path / "a.jpg")), [RED, GREEN, BLUE, WHITE], by=20)


def test_an_embedded_colour_profile_is_obeyed(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # "sRGB" under another name, its red and green primaries exchanged: a profile that certainly changes pixels
    swapped = bytearray(srgb)
    table = {bytes(srgb[at : at + 4]): at for at in range(132, 132 + 12 * srgb[131], 12)}
    red, green = table[b"rXYZ"], table[b"gXYZ"]
    swapped[red + 4 : red + 12], swapped[green + 4 : green + 12] = (
        srgb[green + 4 : green + 12],
        srgb[red + 4 : red + 12],
    )
    swapped = bytes(swapped).replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))
    quarters().save(tmp_path / "swapped.png", icc_profile=swapped)
    quarters().save(tmp_path / "srgb.png", icc_profile=srgb)
    quarters().save(tmp_path / "broken.png", icc_profile=b"no profile")
    quarters().save(tmp_path / "foreign.png", icc_profile=lab.tobytes())
    assert near(corners(images.open_picture(tmp_path / "swapped.png")), [GREEN, RED, BLUE, WHITE])
    for plain in ("srgb", "broken", "foreign"):
        assert corners(images.open_picture(tmp_path / f"{plain}.png")) == [RED, GREEN, BLUE, WHITE]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        grey = np.asarray(images.open_picture(tmp_path / name))[0, :, 0]
        assert grey.tolist() == [0, 1, 128, 255], name


def test_sixteen_bit_colour_is_scaled_not_clipped(tmp_path):
    rgb = [[[65535, 32896, 0], [257, 65535, 65535]]]
    assert np.asarray(images.open_picture(png(tmp_path / "a.png", 2, 1, 16, 2, rgb))).tolist() == [
        [[255, 128, 0], [1, 255, 255]]
    ]
    rgba = [[[65535, 32896, 0, 65535], [257, 65535, 65535, 0]]]
    path = png(tmp_path / "b.png", 2, 1, 16, 6, rgba)
    assert np.asarray(images.open_picture(path, BLACK)).tolist() == [[[255, 128, 0], [0, 0, 0]]]
    grey_alpha = [[[32896, 65535], [65535, 0]]]
    path = png(tmp_path / "c.png", 2, 1, 16, 4, grey_alpha)
    assert np.asarray(images.open_picture(path, BLACK)).tolist() == [[[128] * 3, [0] * 3]]


def test_a_transparent_colour_of_sixteen_bits(tmp_path):
    grey = png(tmp_path / "a.png", 2, 1, 16, 0, [[1000, 32896]], [(b"tRNS", struct.pack(">H", 1000))])
    assert np.asarray(images.open_picture(grey)).tolist() == [[[255] * 3, [128] * 3]]
    rgb = [[[1000, 2000, 3000], [65535, 0, 0]]]
    clear = [(b"tRNS", struct.pack(">HHH", 1000, 2000, 3000))]
    colour = png(tmp_path / "b.png", 2, 1, 16, 2, rgb, clear)
    assert np.asarray(images.open_picture(colour)).tolist() == [[[255] * 3, [255, 0, 0]]]


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = quarters().quantize(8)
    clear = picture.getpixel((0, 0))
    for name in ("a.png", "a.gif"):
        picture.save(tmp_path / name, transparency=clear)
        assert images.measure(tmp_path / name).has_alpha
        assert near(corners(images.open_picture(tmp_path / name)), [WHITE, GREEN, BLUE, WHITE])
        assert near(corners(images.open_picture(tmp_path / name, BLACK)), [BLACK, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "YCbCr"])
def test_other_modes(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("YCbCr", "LA") else "a.png")
    Image.new("L", (9, 7), 255).convert("RGB").convert(mode).save(path)
    assert corners(images.open_picture(path)) == [WHITE] * 4


def test_half_transparent_is_laid_on_the_background(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert near(images.open_picture(tmp_path / "a.png").getpixel((0, 0)), (255, 127, 127), by=1)
    assert near(images.open_picture(tmp_path / "a.png", BLUE).getpixel((0, 0)), (128, 0, 127), by=1)
    assert images.alpha_mask(tmp_path / "a.png").getpixel((0, 0)) == 128


def test_a_picture_is_known_by_its_bytes(tmp_path):
    quarters().save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    assert corners(images.open_picture(tmp_path / "a.jpg")) == [RED, GREEN, BLUE, WHITE]
    assert images.alpha_mask(tmp_path / "a.jpg") is None


def test_a_cameras_multi_picture_jpeg_is_its_first_picture(tmp_path):
    path = tmp_path / "a.jpg"
    quarters(64, 48).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 12))], quality=95)
    assert near(corners(images.open_picture(path)), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_animated_pictures_are_refused(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    for read in (images.measure, images.open_picture, images.alpha_mask):
        with pytest.raises(UserError, match=rf"{name}: is animated or has several pages \(3"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_the_first_frame_is_decoded_where_that_is_asked_for(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    whole = images.decode(tmp_path / name, images.read(tmp_path / name), first_frame=True)
    assert whole.frames == 3 and near(corners(whole.on(WHITE)), [RED] * 4)


def test_too_little_memory_is_no_damage(tmp_path, monkeypatch):
    def none(path, image):
        raise MemoryError

    quarters().save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_layers", none)
    with pytest.raises(UserError, match=r"a\.png: needs more memory"):
        images.open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "tif", "gif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_off_file_is_refused(tmp_path, extension, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{extension}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match=rf"a\.{extension}: ") as caught:
        images.open_picture(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    (tmp_path / "b.png").write_bytes(b"")
    Image.new("F", (4, 4)).save(tmp_path / "c.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "d.tif")
    for name, why in {"a.png": "not a picture", "b.png": "empty", "c.tif": "float", "d.tif": "32-bit"}.items():
        with pytest.raises(UserError, match=rf"{name}: .*{why}"):
            images.open_picture(tmp_path / name)
    with pytest.raises(UserError, match=r"e\.png: cannot be read"):
        images.measure(tmp_path / "e.png")


def test_a_damaged_header_is_refused(tmp_path):
    quarters().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[20] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png"):
        images.open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("limit", [40, 80])
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    quarters().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=r"a\.png: too many pixels"):
        images.open_picture(tmp_path / "a.png")


def test_only_the_header_is_decoded_to_measure(tmp_path, monkeypatch):
    quarters().save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert images.measure(tmp_path / "a.png").size == Size(12, 8)


def test_pixels_follow_the_crop():
    crop = Crop(Size(12, 8), Size(12, 8), 4, 0, Size(8, 8))
    pixels = images.to_pixels(quarters(), crop)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.float32
    assert pixels[:, 0, 0].tolist() == [1, -1, -1]
    assert pixels[:, 0, 2].tolist() == [-1, 1, -1]
    flipped = images.to_pixels(quarters(), Crop(Size(12, 8), Size(12, 8), 0, 0, Size(8, 8), flipped=True))
    assert np.array_equal(flipped, pixels[:, :, ::-1])


def test_shrinking_averages_instead_of_skipping():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32))).convert("RGB")
    pixels = images.to_pixels(stripes, Crop(Size(64, 64), Size(8, 8), 0, 0, Size(8, 8)))
    assert np.abs(pixels[:, 2:-2, 2:-2]).max() < 0.1


def test_a_mask_is_averaged_to_latent_resolution():
    mask = Image.new("L", (32, 16), 0)
    mask.paste(255, (12, 0, 32, 16))
    values = images.to_mask(mask, Crop(Size(32, 16), Size(32, 16), 8, 0, Size(24, 16)))
    assert values.shape == (1, 2, 3)
    assert values[0, 0].tolist() == [0.5, 1, 1]


def test_colours_by_name_or_digits():
    assert images.parse_colour("white") == WHITE
    assert images.parse_colour("#80ff00") == (128, 255, 0)
    with pytest.raises(UserError, match="'greenish' is not a colour"):
        images.parse_colour("greenish")

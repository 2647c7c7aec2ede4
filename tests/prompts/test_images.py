import io
import struct
import zlib

import pytest
from PIL import Image

from interp.errors import ImageError, PromptFileError, UsageError
from interp.prompts import read_prompts, user_prompt
from interp.prompts.images import image_digest, read_image
from interp.prompts.prompt import PromptSet
from tests.sights import picture


def corners(image):
    w, h = image.size
    return [image.getpixel(at) for at in ((0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1))]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_formats_that_are_read(tmp_path, suffix):
    image = read_image(picture(tmp_path / f"a.{suffix}"))
    assert (image.mode, image.size) == ("RGB", (20, 24))


def test_the_content_decides_not_the_name(tmp_path):
    path = picture(tmp_path / "a.png")
    (tmp_path / "b.txt").write_bytes((tmp_path / "a.png").read_bytes())
    assert read_image(tmp_path / "b.txt").tobytes() == read_image(path).tobytes()


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tiff", "ppm"])
def test_other_formats_are_refused(tmp_path, suffix):
    with pytest.raises(ImageError, match=rf"a\.{suffix}: is no PNG, JPEG, WEBP picture; convert it"):
        read_image(picture(tmp_path / f"a.{suffix}"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_every_file_that_ends_early_is_refused(tmp_path, suffix):
    whole = (tmp_path / f"a.{suffix}", picture(tmp_path / f"a.{suffix}"))[0].read_bytes()
    cut = tmp_path / "cut"
    for length in range(0, len(whole) - 16, max(len(whole) // 25, 1)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"cut: is (damaged|no PNG)"):
            read_image(cut)


def test_size_limits_hold_before_anything_is_decoded(tmp_path):
    path = picture(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"has 20 x 24 pixels, 479 are allowed; save it smaller"):
        read_image(path, most_pixels=479)
    with pytest.raises(ImageError, match=r"bytes, 100 are allowed"):
        read_image(path, most_bytes=100)
    assert read_image(path, most_pixels=480).size == (20, 24)


@pytest.mark.parametrize("side", [6_000, 10_000, 60_000])
def test_a_bomb_is_refused(tmp_path, side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    with pytest.raises(ImageError, match=r"bomb\.png: (has \d+ x \d+ pixels|is damaged.*decompression bomb)"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("address", ["https://example.org/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA"])
def test_addresses_are_never_fetched(address):
    with pytest.raises(ImageError, match="is an address, and pictures are read from disk only"):
        read_image(address)
    with pytest.raises(ImageError, match="is an address"):
        image_digest(address)


@pytest.mark.parametrize("name", ["none.png", "folder", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for read in (read_image, image_digest):
        with pytest.raises(ImageError, match=r"not there or no file|can not be read"):
            read(str(tmp_path / name))


def test_the_orientation_of_a_camera_is_applied(tmp_path):
    upright = Image.new("RGB", (8, 4), "white")
    upright.paste("black", (0, 0, 2, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    read = read_image(tmp_path / "a.png")
    assert read.size == (8, 4) and read.tobytes() == upright.tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path, mode):
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    clear.convert(mode).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_half_transparency_is_mixed(tmp_path):
    Image.new("RGBA", (1, 1), (0, 0, 0, 128)).save(tmp_path / "a.webp", lossless=True)
    assert read_image(tmp_path / "a.webp").getpixel((0, 0)) == (127, 127, 127)


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    deep = Image.new("I;16", (2, 1))
    deep.putpixel((0, 0), 0x8000)
    deep.putpixel((1, 0), 0xFFFF)
    deep.save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(128, 128, 128), (255, 255, 255)]


def test_the_first_picture_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(tmp_path / "a.webp").getpixel((0, 0)) == (255, 0, 0)


def test_a_digest_is_of_the_bytes(tmp_path):
    path, other = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    assert image_digest(path) == image_digest(other)
    first = image_digest(path)
    picture(tmp_path / "a.png", seed=1)
    assert image_digest(path) != first


def test_a_set_is_told_by_its_pictures_not_by_their_paths(tmp_path):
    def digest(path, **known):
        return PromptSet("s", (user_prompt("a", "Describe.", image=path, **known),)).digest

    here, there = picture(tmp_path / "a.png"), picture(tmp_path / "elsewhere.png")
    assert digest(here) == digest(there) != digest(picture(tmp_path / "c.png", seed=1))
    texts = [PromptSet("s", (user_prompt("a", "Describe.", caption=c),)).digest for c in (None, "knife", "sword")]
    assert len({*texts, digest(here)}) == 4


def test_the_digest_of_text_is_what_it_always_was():
    prompts = PromptSet("s", (user_prompt("a", "Describe.", label="harmful"),))
    assert prompts.digest == "93209113c0f08f765396f45d9d731ef5c747719d5da699476c348081fd7da378"


def test_one_thing_stands_in_the_slot(tmp_path):
    with pytest.raises(UsageError, match=r"prompt 'a' has both an image and a caption"):
        user_prompt("a", "Describe.", image="a.png", caption="knife")
    (tmp_path / "p.csv").write_text("text,image,caption\nDescribe.,a.png,\nDescribe.,a.png,knife\n")
    with pytest.raises(PromptFileError, match=r"p\.csv:3: has both an image and a caption"):
        read_prompts(tmp_path / "p.csv")


def test_images_and_captions_of_a_file(tmp_path):
    (tmp_path / "p.csv").write_text("text,image,caption\nDescribe.,sub/a.png,\nDescribe.,,kitchen knife\nHello,,\n")
    first, second, third = read_prompts(tmp_path / "p.csv")
    assert (first.image, first.caption) == (str(tmp_path / "sub" / "a.png"), None)
    assert (second.image, second.caption) == (None, "kitchen knife")
    assert (third.image, third.caption) == (None, None)


@pytest.mark.parametrize(
    ("row", "why"),
    [("Describe.,https://example.org/a.png,", "is an address"), ('Describe.,,"  "', "caption is empty")],
)
def test_bad_values_have_a_line(tmp_path, row, why):
    (tmp_path / "p.csv").write_text(f"text,image,caption\n{row}\n")
    with pytest.raises(PromptFileError, match=rf"p\.csv:2: .*{why}"):
        read_prompts(tmp_path / "p.csv")


def test_a_damaged_picture_is_named_with_what_is_wrong(tmp_path):
    data = bytearray((tmp_path / "a.png", picture(tmp_path / "a.png"))[0].read_bytes())
    data[60] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.png: is damaged or cut off \(.+\); save or fetch it again\."):
        read_image(tmp_path / "a.png")
    assert io.BytesIO(data).read(4) == b"\x89PNG"

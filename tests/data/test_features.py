"""Feature extraction: layout, preprocessing, times, resumption and faults by a stand-in network.

The real networks are in test_networks.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from pet_bench.cli import main
from pet_bench.data import features
from pet_bench.data.features import DEVIATION, MEAN, Encoder, clip_encoder, cropped, extract, find, sampled, squashed
from pet_bench.data.store import check_header, read_feature
from pet_bench.data.task import FEATURES
from pet_bench.errors import UserError
from pet_bench.registry import TASKS
from pet_bench.spec import Visual
from pet_bench.tasks.coco_caption import CocoCaption
from pet_bench.tasks.tvqa import TVQA
from pet_bench.tasks.vqa import VQA

ORIGIN = {"model": "stand-in", "weights": "none", "open_clip": "0"}
RNG = np.random.default_rng(0)


def cells(pixels):
    """(B, 49, 2048): mean colours of a 7 × 7 grid, repeated."""
    means = adaptive_avg_pool2d(pixels, 7).flatten(2).transpose(1, 2)
    return means.repeat(1, 1, 683)[..., :2048]


def colours(pixels):
    """(B, 512): mean colours, repeated."""
    return pixels.mean((2, 3)).repeat(1, 171)[:, :512]


@pytest.fixture
def encoder():
    return {"images": Encoder(cells, ORIGIN), "frames": Encoder(colours, ORIGIN), "videos": Encoder(colours, ORIGIN)}


def noise(width, height, mode="RGB"):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def images(folder, count=5, size=(50, 40)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise(*size).save(folder / f"{i:02d}.png")
    return folder


def grey(level):
    return Image.new("RGB", (40, 30), (level, level, level))


def clip(folder, frames):
    """Frames of which each has its own grey: frame i is 5 i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(frames):
        grey(5 * i).save(folder / f"{i + 1:05d}.png")
    return folder


def levels(path):
    """The greys that features of `colours` were made of."""
    with np.load(path) as content:
        return np.rint((content["features"][:, 0].astype(float) * DEVIATION[0] + MEAN[0]) * 255).astype(int).tolist()


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# what is written ------------------------------------------------------------------------------------------------------


def test_image_features_are_those_that_the_readers_expect(tmp_path, encoder):
    root = tmp_path / "datasets"
    target = root / "COCO" / FEATURES
    report = extract(find(images(tmp_path / "raw"), "images"), target, encoder["images"], batch=2)
    assert (report.written, report.kept, report.faults) == (5, 0, [])
    assert sorted(path.name for path in target.iterdir()) == [f"{i:02d}.h5" for i in range(5)]
    for i in range(5):
        with Image.open(tmp_path / "raw" / f"{i:02d}.png") as image:
            pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)) / 255
        normal = torch.tensor((pixels - MEAN) / DEVIATION).permute(2, 0, 1)[None]
        found = VQA().feature(root, f"COCO/{i:02d}")
        assert (found.shape, found.dtype) == ((49, 2048), np.float16)
        np.testing.assert_allclose(found, cells(normal)[0], rtol=1e-3, atol=1e-4)
        check_header(VQA(), root, f"COCO/{i:02d}", Visual(width=2048, tokens=49, pooled=36, images=1))


def test_frame_features_are_those_that_the_readers_expect(tmp_path, encoder):
    root = tmp_path / "datasets"
    target = root / "video" / "vis_features" / "tv" / "clip-vit"
    clip(tmp_path / "raw" / "bbt" / "bbt_s01e01_seg01_clip_00", 20)
    extract(find(tmp_path / "raw", "frames"), target, encoder["frames"])
    key = "tv/bbt_s01e01_seg01_clip_00"
    with np.load(target / "bbt_s01e01_seg01_clip_00.npz") as content:
        assert (content["features"].shape, content["features"].dtype) == ((4, 512), np.float16)
    visual = Visual(width=512, tokens=64, pooled=64, images=1)
    found = read_feature(TVQA(), root, key, visual)
    assert found[:4].any(axis=1).all() and not found[4:].any()


@pytest.mark.parametrize("kind", ["images", "frames"])
def test_files_say_what_made_them(tmp_path, encoder, kind):
    clip(tmp_path / "raw" / "a", 1)
    extract(find(tmp_path / "raw", kind), tmp_path / "out", encoder[kind])
    if kind == "images":
        with h5py.File(tmp_path / "out" / "00001.h5") as file:
            assert dict(file["00001/features"].attrs) == ORIGIN
    else:
        with np.load(tmp_path / "out" / "a.npz") as content:
            assert json.loads(str(content["origin"])) == ORIGIN


def test_the_batch_changes_nothing(tmp_path, encoder):
    for i, frames in enumerate((1, 30, 2, 17)):
        clip(tmp_path / "raw" / f"c{i}", frames)
    for batch in (1, 3, 64):
        report = extract(find(tmp_path / "raw", "frames"), tmp_path / str(batch), encoder["frames"], batch=batch)
        assert report.written == 4
    for i in range(4):
        made = [np.load(tmp_path / batch / f"c{i}.npz")["features"] for batch in ("1", "3", "64")]
        assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], made[2])


def test_pictures_are_read_a_batch_ahead_at_most(tmp_path, encoder, monkeypatch):
    reads, ahead = [], []
    monkeypatch.setattr(features, "_open", lambda path, cut: reads.append(path) or np.zeros((224, 224, 3), np.uint8))

    def encode(pixels):
        assert len(pixels) <= 4
        ahead.append(len(reads) - 4 * len(ahead))
        return cells(pixels)

    extract(find(images(tmp_path / "raw", 30), "images"), tmp_path / "out", Encoder(encode, ORIGIN), batch=4)
    assert len(reads) == 30 and max(ahead) <= 8


# pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(640, 480), (224, 224), (100, 301)])
def test_images_are_squashed(mode, size):
    image = noise(*size, mode)
    expected = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(squashed(image), expected)


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (224, 224), (100, 301), (1001, 777), (225, 224)])
def test_frames_are_cropped_as_transformers_does(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = noise(*size)
    expected = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)(image, return_tensors="np")["pixel_values"]
    assert np.array_equal(cropped(image), expected[0].transpose(1, 2, 0))


# times ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [Fraction(3), Fraction(1), Fraction(1, 4), Fraction(24), Fraction(30000, 1001)])
@pytest.mark.parametrize("seconds", [Fraction(1, 4), Fraction(3, 4), 1, 10, Fraction(31, 2)])
@pytest.mark.parametrize("start", [0, Fraction(1, 10), 5])
def test_one_frame_every_one_and_a_half_seconds(fps, seconds, start):
    begins = [start + i / fps for i in range(max(1, int(fps * seconds)))]
    found = list(sampled((begin, begin + 1 / fps, begin) for begin in begins))
    first = int(begins[0] / Fraction(3, 2) + Fraction(1, 2))
    count = int((begins[-1] + 1 / fps) / Fraction(3, 2) + Fraction(1, 2)) - first
    assert len(found) == max(1, count)
    for k, begin in enumerate(found[: count or 1], start=first):
        assert begin == max(b for b in begins if b < (k + Fraction(1, 2)) * Fraction(3, 2) or b == begins[0])
    assert all(a <= b for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("fps", "picked"),
    [
        # at 3 a second, frame i starts at i/3 s: the last before 0.75, 2.25, 3.75, 5.25 s; 20 frames are 6.7 s
        (3.0, [2, 6, 11, 15]),
        (1.0, [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]),
        (30.0, [19]),
    ],
)
def test_the_rate_of_extracted_frames(tmp_path, encoder, fps, picked):
    clip(tmp_path / "raw" / "a", 20)
    extract(find(tmp_path / "raw", "frames"), tmp_path / "out", encoder["frames"], fps=fps)
    assert levels(tmp_path / "out" / "a.npz") == [5 * i for i in picked]


def test_frames_are_in_the_order_of_their_numbers(tmp_path, encoder):
    folder = tmp_path / "raw" / "a"
    folder.mkdir(parents=True)
    for i in range(12):
        grey(10 * i).save(folder / f"s01e02_{i}.png")
    extract(find(tmp_path / "raw", "frames"), tmp_path / "out", encoder["frames"])
    assert levels(tmp_path / "out" / "a.npz") == [20, 60, 110]


# stopped --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [1, 3, 5])
def test_an_interrupted_extraction_goes_on(tmp_path, encoder, stopped):
    source, out = find(images(tmp_path / "raw"), "images"), tmp_path / "out"

    def progress(done, total):
        assert total == 5
        if done == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(source, out, encoder["images"], batch=2, progress=progress)
    before = contents(out)
    assert sorted(before) == [f"{i:02d}.h5" for i in range(stopped)]
    calls = []
    report = extract(source, out, encoder["images"], batch=2, progress=lambda *call: calls.append(call))
    assert (report.written, report.kept, report.unsigned) == (5 - stopped, stopped, 0)
    assert calls == [(done, 5) for done in range(stopped + 1, 6)]
    assert before.items() <= contents(out).items()


@pytest.mark.parametrize("kind", ["images", "frames"])
@pytest.mark.parametrize("size", [0, 10, 1500, -1])
def test_a_file_that_is_cut_off_is_made_again(tmp_path, encoder, kind, size):
    clip(tmp_path / "raw" / "a", 6)
    source, out = find(tmp_path / "raw", kind), tmp_path / "out"
    extract(source, out, encoder[kind])
    whole = min(out.iterdir())
    bytes_ = whole.read_bytes()
    with np.load(whole) if kind == "frames" else h5py.File(whole) as content:
        expected = content["features" if kind == "frames" else f"{whole.stem}/features"][:]
    whole.write_bytes(bytes_[:size])
    report = extract(source, out, encoder[kind])
    assert (report.written, report.kept) == (1, len(source.items) - 1)
    with np.load(whole) if kind == "frames" else h5py.File(whole) as content:
        assert np.array_equal(content["features" if kind == "frames" else f"{whole.stem}/features"][:], expected)


def test_a_full_disk(tmp_path, encoder, monkeypatch):
    source, out = find(images(tmp_path / "raw"), "images"), tmp_path / "out"

    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features.Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write to .*out: No space left"):
        extract(source, out, encoder["images"])
    assert list(out.iterdir()) == []


# faults ---------------------------------------------------------------------------------------------------------------


def damage(folder):
    """Three images of five that cannot be read, in three ways."""
    (folder / "01.png").write_bytes((folder / "01.png").read_bytes()[:999])
    (folder / "02.png").write_text("an error page")
    (folder / "04.png").write_bytes(b"")


def test_what_cannot_be_read_is_said_after_the_rest_is_done(tmp_path, encoder):
    raw, out = images(tmp_path / "raw"), tmp_path / "out"
    damage(raw)
    report = extract(find(raw, "images"), out, encoder["images"], batch=2)
    assert sorted(path.name for path in out.iterdir()) == ["00.h5", "03.h5"]
    assert [line.split(" ")[0] for line in report.faults] == [str(raw / f"{i}.png") for i in ("01", "02", "04")]
    assert "truncated" in report.faults[0] and "02.png is no image" in report.faults[1]
    noise(9, 9).save(raw / "02.png")
    again = extract(find(raw, "images"), out, encoder["images"], batch=2)
    assert (again.written, again.kept, len(again.faults)) == (1, 2, 2)


def test_a_frame_that_cannot_be_read_is_a_fault_of_its_clip_alone(tmp_path, encoder):
    for name in "abc":
        clip(tmp_path / "raw" / name, 30)
    (tmp_path / "raw" / "b" / "00007.png").write_text("")  # is the second that is sampled
    report = extract(find(tmp_path / "raw", "frames"), tmp_path / "out", encoder["frames"], batch=4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npz", "c.npz"]
    (line,) = report.faults
    assert line == f"{tmp_path / 'raw' / 'b'} has no features: 00007.png is no image"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "00004.png").unlink(), "the frame before 00005.png is missing"),
        (lambda folder: grey(0).save(folder / "4.jpg"), "frames 00004.png and 4.jpg have one number"),
        (lambda folder: grey(0).save(folder / "cover.jpg"), "frame cover.jpg has no number"),
    ],
    ids=["a gap", "one number twice", "no number"],
)
def test_frames_that_are_not_a_sequence(tmp_path, encoder, change, said):
    change(clip(tmp_path / "raw" / "a", 30))
    report = extract(find(tmp_path / "raw", "frames"), tmp_path / "out", encoder["frames"])
    assert report.written == 0 and said in report.faults[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70000.0])
def test_features_that_half_precision_cannot_hold(tmp_path, value):
    def encode(pixels):
        found = cells(pixels)
        found[1, 48, 2047] = value
        return found

    report = extract(find(images(tmp_path / "raw"), "images"), tmp_path / "out", Encoder(encode, ORIGIN))
    (line,) = report.faults
    assert line.startswith(f"{tmp_path / 'raw' / '01.png'} has no features") and "beyond half precision" in line
    assert report.written == 4 and not (tmp_path / "out" / "01.h5").exists()


@pytest.mark.parametrize("kind", ["images", "frames"])
def test_two_of_one_name(tmp_path, kind):
    for folder in ("a", "b"):
        clip(tmp_path / "raw" / folder / "x", 1)
    with pytest.raises(UserError) as error:
        find(tmp_path / "raw", kind)
    (line,) = error.value.faults
    assert "a/x" in line and "b/x" in line and "one name" in line


def test_two_formats_of_one_image(tmp_path):
    noise(5, 5).save(images(tmp_path / "raw") / "03.jpg")
    with pytest.raises(UserError, match=r"03\.jpg and .*03\.png have one name"):
        find(tmp_path / "raw", "images")


def test_images_that_are_called_image_have_their_folders_number(tmp_path):
    """As ScienceQA has them."""
    for pid in ("11", "12"):
        path = tmp_path / "test" / pid / "image.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    (tmp_path / "test" / "image.png").write_bytes(b"")
    assert sorted(find(tmp_path / "test", "images").items) == ["11", "12", "image"]


def test_a_task_of_ones_own_says_how_its_pictures_are_called(tmp_path):
    class Pages(CocoCaption):
        name = "pages"
        picture_name = re.compile(r"(?P<name>book-\d+)/cover")

    TASKS.register(Pages)
    for name in ("book-7/cover", "book-8/cover", "book-8/back", "other/cover"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert sorted(find(tmp_path, "images").items) == ["back", "book-7", "book-8", "cover"]


def test_where_there_is_nothing(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").touch()
    for kind, what in (("images", "images"), ("frames", "folder with images")):
        with pytest.raises(UserError, match=f"raw holds no {what}, but 1 other files"):
            find(tmp_path / "raw", kind)
    with pytest.raises(UserError, match="nowhere does not exist"):
        find(tmp_path / "nowhere", "images")
    with pytest.raises(UserError, match=r"notes\.txt is no folder"):
        find(tmp_path / "raw" / "notes.txt", "images")


def test_what_is_found(tmp_path):
    raw = images(tmp_path / "raw" / "VG_100K", 2)
    images(tmp_path / "raw" / ".cache")
    noise(5, 5).save(tmp_path / "raw" / "train-0-0-img0.JPG")
    (raw / "image_data.json").touch()
    (raw / ".DS_Store").touch()
    source = find(tmp_path / "raw", "images")
    assert [*source.items] == ["train-0-0-img0", "00", "01"]
    assert (source.others, source.first) == (1, raw / "image_data.json")


def grid(path, *, key=None, shape=(49, 2048), dtype=np.float16, origin=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(key or f"{path.stem}/features", data=np.ones(shape, dtype)).attrs.update(origin)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({"shape": (36, 2048)}, "something else"),
        ({"dtype": np.int16}, "something else"),
        ({"key": "02/boxes"}, "something else"),
        ({"origin": {**ORIGIN, "weights": "others"}}, "stand-in with weights others, not stand-in with none"),
        ({"origin": {**ORIGIN, "model": "ViT"}}, "ViT with weights none"),
    ],
    ids=["shape", "type", "key", "weights", "model"],
)
def test_other_features_are_not_overwritten(tmp_path, encoder, there, said):
    grid(tmp_path / "out" / "02.h5", **there)
    before = contents(tmp_path / "out")
    with pytest.raises(UserError) as error:
        extract(find(images(tmp_path / "raw"), "images"), tmp_path / "out", encoder["images"])
    (line,) = error.value.faults
    assert "02.h5" in line and said in line
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "there",
    [
        {"features": np.ones((0, 512), np.float16)},
        {"features": np.ones((9, 768), np.float16)},
        {"features": np.array([None, "an object"])},
        {"boxes": np.ones(3)},
    ],
    ids=["empty", "width", "objects", "key"],
)
def test_other_clips_are_not_overwritten(tmp_path, encoder, there):
    clip(tmp_path / "raw" / "a", 9)
    (tmp_path / "out").mkdir()
    np.savez(tmp_path / "out" / "a.npz", **there)
    with pytest.raises(UserError, match=r"a\.npz holds something else"):
        extract(find(tmp_path / "raw", "frames"), tmp_path / "out", encoder["frames"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_holes_in_published_features_are_filled(tmp_path, encoder, dtype):
    """Files of other extractors have no origin."""
    for i in (0, 1, 4):
        grid(tmp_path / "out" / f"{i:02d}.h5", dtype=dtype)
    before = contents(tmp_path / "out")
    report = extract(find(images(tmp_path / "raw"), "images"), tmp_path / "out", encoder["images"])
    assert (report.written, report.kept, report.unsigned) == (2, 3, 3)
    assert before.items() <= contents(tmp_path / "out").items()


def test_too_much_for_the_device(tmp_path):
    def encode(pixels):
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match="5 pictures at once do not fit on cpu"):
        extract(find(images(tmp_path / "raw"), "images"), tmp_path / "out", Encoder(encode, ORIGIN))


@pytest.mark.parametrize(
    ("call", "package"),
    [
        (lambda folder: find(folder, "videos"), "av"),
        (lambda folder: clip_encoder("images", seed=0), "open_clip"),
        (lambda folder: clip_encoder("videos", "openai"), "open_clip"),
    ],
)
def test_without_the_optional_packages(tmp_path, monkeypatch, call, package):
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        call(tmp_path)
    assert error.value.faults == (f"feature extraction needs the package {package}: pip install 'pet-bench[features]'",)


# the command ----------------------------------------------------------------------------------------------------------


def code(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in ("data", "features", *arguments)])
    return stopped.value.code


def test_the_command(tmp_path, monkeypatch, capsys, encoder):
    asked = []

    def stand_in(kind, weights=None, *, seed=None, device="cpu"):
        asked.append((kind, weights, seed, str(device)))
        return encoder[kind]

    monkeypatch.setattr(features, "clip_encoder", stand_in)
    raw, out = images(tmp_path / "raw"), tmp_path / "out"
    (raw / "list.txt").touch()
    options = (raw, out, "--kind", "images", "--random-weights", 7, "--device", "cpu", "--batch", 2)
    assert code(*options) == 0
    said = capsys.readouterr().out
    assert f"{out}: 5 written\n" in said and f"{raw}: 1 files were left alone, the first is {raw / 'list.txt'}" in said
    damage(raw)
    (out / "00.h5").unlink()
    grid(out / "03.h5")
    for i in (1, 2):
        (out / f"{i:02d}.h5").unlink()
    assert code(*options) == 1
    said = capsys.readouterr()
    assert f"{out}: 1 written, 2 kept (1 of them do not say what made them), 2 failed" in said.out
    assert [line[:2] for line in said.err.splitlines()] == ["✗ ", "✗ "]
    assert asked == [("images", None, 7, "cpu")] * 2


def test_the_command_needs_weights(tmp_path, capsys):
    raw = images(tmp_path / "raw", 1)
    for options in ((), ("--weights", "openai", "--random-weights", 0)):
        assert code(raw, tmp_path / "out", "--kind", "images", *options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "weights or a seed of random ones" in line and "openai" in line
    assert not (tmp_path / "out").exists()


# videos ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def av():
    return pytest.importorskip("av", reason="unchecked: frames of videos (no PyAV: pip install 'pet-bench[features]')")


def film(path, seconds, *, fps=10, start=0.0, codec="mpeg4", **options):
    """A video whose picture at second t has the grey 4 t; it shows noise below, so that it is not too small."""
    import av

    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 4_000_000
        for i in range(int(seconds * rate)):
            pixels = np.full((64, 96, 3), int(4 * i / rate), np.uint8)
            pixels[:, :8] = pixels[:, -8:] = RNG.integers(0, 256, (64, 8, 3))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(i + start * rate), 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def by_ffmpeg(path):
    """The pictures that FFmpeg's own filter keeps, as the published extractor called it."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        chain = [graph.add_buffer(template=stream), graph.add("fps", str(1 / 1.5)), graph.add("buffersink")]
        for one, other in pairwise(chain):
            one.link_to(other)
        graph.configure()
        for frame in container.decode(stream):
            graph.push(frame)
        graph.push(None)
        found = []
        with suppress(av.error.EOFError, av.error.BlockingIOError):
            while True:
                found.append(graph.pull().to_ndarray(format="rgb24"))
    return found


@pytest.mark.parametrize("fps", [10, 24, 29.97, 1])
@pytest.mark.parametrize("seconds", [7, 20.2])
def test_the_frames_of_a_video_are_those_that_ffmpeg_keeps(tmp_path, av, monkeypatch, fps, seconds):
    path = film(tmp_path / "a.mp4", seconds, fps=fps)
    monkeypatch.setattr(features, "cropped", lambda image: np.asarray(image))
    found, expected = list(features._video(path)), by_ffmpeg(path)
    assert abs(len(found) - seconds / 1.5) <= 0.5 + 1 / fps
    # the filter is not told here how long the last frame lasts, so it may end one earlier
    assert len(expected) in (len(found), len(found) - 1) and len(expected) > 3
    for one, other in zip(found, expected, strict=False):
        assert np.array_equal(one, other)


def test_video_features(tmp_path, av, encoder):
    raw = tmp_path / "raw"
    raw.mkdir()
    film(raw / "bbt.x_60.0_120.0.mp4", 12)
    film(raw / "b.mkv", 0.4)
    film(raw / "c.ts", 6, start=3.0)
    (raw / "b.en.vtt").touch()
    source = find(raw, "videos")
    assert ([*source.items], source.others) == (["b", "bbt.x_60.0_120.0", "c"], 1)
    report = extract(source, tmp_path / "out", encoder["videos"], batch=3)
    assert (report.written, report.faults) == (3, [])
    shapes = [np.load(path)["features"].shape for path in sorted((tmp_path / "out").iterdir())]
    assert shapes == [(1, 512), (8, 512), (4, 512)]
    assert levels(tmp_path / "out" / "c.npz") == pytest.approx([2, 8, 14, 20], abs=2)  # times count from the start


def test_videos_that_cannot_be_read(tmp_path, av, encoder):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    film(raw / "a.mp4", 4)
    whole = film(raw / "cut.mp4", 40, movflags="faststart").read_bytes()
    (raw / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (raw / "no.mp4").write_bytes(RNG.bytes(999))
    (raw / "none.avi").write_bytes(b"")
    with av.open(str(raw / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    report = extract(find(raw, "videos"), out, encoder["videos"])
    assert [path.name for path in out.iterdir()] == ["a.npz"]
    assert [re.search(r"(\w+)\.\w+ has no features", line)[1] for line in report.faults] == [
        "cut",
        "no",
        "none",
        "sound",
    ]
    assert report.faults[3].endswith("it holds no video")


def test_a_torchvision_of_another_build(monkeypatch):
    def start(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(features, "find_spec", lambda name: name)
    monkeypatch.setattr(features, "import_module", start)
    with pytest.raises(UserError, match="open_clip, which does not start: operator torchvision::nms does not exist"):
        clip_encoder("images", seed=0)

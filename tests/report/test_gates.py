"""Heat maps of gates, from frames written by hand: what is drawn is what is in the frame."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pet_bench.report.figures.gates import gates_figure, mean_gates, read_gates
from pet_bench.report.figures.look import write

TOKENS = ["<s>", "NA", "null", "$x$", 'a,"b"', "␣", "</s>"]
SITES = ("encoder.self_attn", "encoder.ffn")


def gates(sites=SITES, layers=2, tokens=TOKENS, images=1, rows=2, columns=3, part="text", kind="large", **about):
    """A frame as a trial gives it, with values that are all different."""
    about = {"id": "0123456789ab", "backbone": "mini-bart", "method": "x", "task": "vqa", "example": "007"} | about
    places = [(token, part, pd.NA, pd.NA, pd.NA) for token in tokens]
    places += [("", "image", *place) for place in product(range(images), range(rows), range(columns))]
    found = [
        about
        | {"stack": site.split(".")[0], "site": site, "insert": 0, "layer": layer, "kind": kind, "position": position}
        | dict(zip(("token", "part", "image", "row", "column"), place, strict=True))
        for site in sites
        for layer in range(layers)
        for position, place in enumerate(places)
    ]
    frame = pd.DataFrame(found).astype(dict.fromkeys(["image", "row", "column"], "Int64"))
    draws = np.random.default_rng(4)
    return frame.assign(mean=draws.random(len(frame)), std=draws.random(len(frame)) / 3)


def maps(figure):
    """The arrays of all heat maps of a figure, its pictures and its scale left out."""
    arrays = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    return [np.asarray(array) for array in arrays if array.ndim == 2]


def expected(frame, site, part, *columns):
    rows = frame[(frame.site == site) & (frame.part == part)]
    return rows.sort_values(["layer", *columns])["mean"].to_numpy()


def test_what_is_drawn_is_what_the_frame_says():
    frame = gates(images=2)
    shown = maps(gates_figure(frame.sample(frac=1, random_state=1).sort_values("site", ascending=False)))
    assert [array.shape for array in shown] == [(2, 7), *[(2, 3)] * 4] * 2
    for site, (text, *grids) in zip(SITES, (shown[:5], shown[5:]), strict=True):
        np.testing.assert_array_equal(text.ravel(), expected(frame, site, "text", "position"))
        seen = frame[(frame.site == site) & (frame.part == "image")].set_index(["image", "layer", "row", "column"])
        for (image, layer), grid in zip(product(range(2), range(2)), grids, strict=True):
            for row, column in product(range(2), range(3)):
                assert grid[row, column] == seen["mean"][image, layer, row, column]


def test_one_scale_for_all_and_every_token_named():
    frame = gates()
    figure = gates_figure(frame)
    scales = {axis.images[0].norm for axis in figure.axes if axis.images}
    assert [(scale.vmin, scale.vmax) for scale in scales] == [(frame["mean"].min(), frame["mean"].max())]
    assert {axis.images[0].cmap.name for axis in figure.axes if axis.images} == {"cividis"}
    strip = next(axis for axis in figure.axes if axis.images)
    assert [label.get_text() for label in strip.get_xticklabels()] == TOKENS
    assert [label.get_text() for label in strip.get_yticklabels()] == ["0", "1"]
    assert "x on mini-bart, vqa 007" in [text.get_text() for text in figure.texts]
    assert {"encoder.self_attn, large gate", "encoder.ffn, large gate"} < {text.get_text() for text in figure.texts}


def test_long_texts_and_many_layers_take_several_lines_and_nothing_overlaps():
    frame = gates(
        SITES[:1], layers=8, tokens=[f"token{i}" for i in range(100)], method="design(encoder.ffn: reads=input) " * 8
    )
    figure = gates_figure(frame)
    shown = maps(figure)
    assert [array.shape for array in shown] == [(8, 34), (8, 34), (8, 32), *[(2, 3)] * 8]
    strips = np.concatenate(shown[:3], axis=1)
    np.testing.assert_array_equal(strips.ravel(), expected(frame, SITES[0], "text", "position"))
    figure.draw_without_rendering()
    boxes = [axis.get_tightbbox() for axis in figure.axes] + [text.get_window_extent() for text in figure.texts]
    for i, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_frames_of_a_clip_and_the_decoders_own_words(tmp_path):
    clip = gates(SITES[:1], rows=1, columns=64)
    own = gates(("decoder.ffn",), tokens=["<s>", "a", "cat"], images=0, part="answer")
    Image.new("RGB", (60, 10), "red").save(tmp_path / "clip.png")
    figure = gates_figure(pd.concat([clip, own]), [tmp_path / "clip.png"])
    text, frames, answer = maps(figure)
    assert frames.shape == (2, 64)
    np.testing.assert_array_equal(frames.ravel(), expected(clip, SITES[0], "image", "column"))
    np.testing.assert_array_equal(answer.ravel(), expected(own, "decoder.ffn", "answer", "position"))
    assert text.shape == (2, 7)
    assert sum(axis.images[0].get_array().ndim == 3 for axis in figure.axes if axis.images) == 1


def test_pictures_stand_beside_the_grids_of_their_image(tmp_path):
    for i, color in enumerate(((200, 0, 0), (0, 0, 200))):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{i}.png")
    figure = gates_figure(gates(SITES[:1], images=2), [tmp_path / "0.png", tmp_path / "1.png"])
    pictures = [axis for axis in figure.axes if axis.images and axis.images[0].get_array().ndim == 3]
    assert [axis.images[0].get_array()[0, 0].tolist() for axis in pictures] == [[200, 0, 0], [0, 0, 200]]
    assert [axis.get_ylabel() for axis in pictures] == ["image 0", "image 1"]
    grids = [axis for axis in figure.axes if axis.get_title(loc="left").startswith("layer")]
    rows = [round(axis.get_position().y0, 6) for axis in (*pictures, *grids)]
    assert rows == [*rows[:2], rows[0], rows[0], rows[1], rows[1]]


def test_vectors_are_drawn_over_dimensions():
    frame = gates(kind="vector")
    keys = ["id", "backbone", "method", "task", "example", "stack", "site", "insert", "layer", "kind"]
    dimensions = frame[frame.part == "text"].rename(columns={"position": "dimension", "mean": "gate"})
    dimensions = dimensions[dimensions.site == SITES[1]][[*keys, "dimension", "gate"]]
    *tokens, vector = maps(gates_figure(frame, dimensions=dimensions))
    assert [array.shape for array in tokens] == [(2, 7), (2, 3), (2, 3)]
    np.testing.assert_array_equal(vector.ravel(), dimensions.sort_values(["layer", "dimension"]).gate)
    assert len(maps(gates_figure(frame, dimensions=dimensions[:0]))) == 6


def test_gates_that_are_all_the_same_are_drawn_too(tmp_path, recwarn):
    written = write(gates_figure(gates().assign(mean=0.5)), tmp_path / "same.png")
    assert [path.name for path in written] == ["same.png", "same.svg"]
    assert "$x$" in written[1].read_text()  # no formula, and text that can be searched
    assert not recwarn.list


def test_equal_frames_are_equal_files(tmp_path):
    first, again = (write(gates_figure(gates()), tmp_path / name, [".svg"])[0] for name in ("a.png", "b.png"))
    assert first.read_bytes() == again.read_bytes()


def test_the_frame_survives_a_file(tmp_path):
    frame = gates(images=2)
    frame.to_csv(tmp_path / "gates.csv", index=False)
    pd.testing.assert_frame_equal(read_gates(tmp_path / "gates.csv"), frame)


def test_means_over_the_tokens_of_each_part():
    own = gates(("decoder.ffn",), tokens=["a", "b"], images=0, part="answer")
    frame = pd.concat([gates(), own])
    means = mean_gates(frame)
    assert list(means.columns) == ["site", "insert", "kind", "layer", "text", "image", "answer"]
    assert list(means.site) == [site for site in (*SITES, "decoder.ffn") for _ in range(2)]
    row = means[(means.site == SITES[1]) & (means.layer == 1)].iloc[0]
    rows = frame[(frame.site == SITES[1]) & (frame.layer == 1)]
    assert row.text == pytest.approx(rows["mean"][:7].mean())
    assert row.image == pytest.approx(rows["mean"][7:].mean())
    assert np.isnan(row.answer)
    assert means[["text", "image"]].iloc[4:].isna().all(axis=None)


def test_one_example_of_one_trial_at_a_time():
    with pytest.raises(ValueError, match="one trial on one example are drawn, found 2"):
        gates_figure(pd.concat([gates(), gates(example="8")]))

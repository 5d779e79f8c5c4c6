"""The visual grammar: pictures carry the pixels they were given, and the player works alone."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch

from ddpm_lite import viz


def test_tile_places_every_pixel() -> None:
    x = torch.arange(3 * 4, dtype=torch.int64).view(3, 1, 2, 2) % 5
    picture = viz.tile(x, columns=2, levels=5, gap=1)
    assert picture.shape == (7, 7)
    np.testing.assert_allclose(picture[1:3, 1:3], x[0, 0] / 4)
    np.testing.assert_allclose(picture[1:3, 4:6], x[1, 0] / 4)
    np.testing.assert_allclose(picture[4:6, 1:3], x[2, 0] / 4)
    assert (
        picture[0, 0] == picture[5, 5] == np.float32(0.85)
    )  # the gap, and the place without an image
    assert viz.tile(torch.zeros(2, 3, 4, 4)).shape == (6, 41, 3)


def test_tile_refuses_what_it_cannot_show() -> None:
    with pytest.raises(ValueError, match="levels"):
        viz.tile(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="1 or 3"):
        viz.tile(torch.zeros(1, 2, 2, 2))


def test_filling_hides_what_is_not_drawn() -> None:
    canvas = torch.tensor([[[4, 0], [4, 4]]])
    order = torch.tensor([3, 1, 0, 2])
    pictures = viz.filling([canvas] * 3, levels=5, order=order)
    assert pictures[0].eq(0).all()
    assert pictures[2].tolist() == [[[0.0, -1.0], [0.0, 1.0]]]


def test_player_stacks_its_frames_and_names_them() -> None:
    from PIL import Image

    frames = [torch.full((2, 1, 3, 3), v) for v in (-1.0, 0.0, 1.0)]
    page = viz.player(frames, ["dark", 'so "so" <b>', "light"], alt="two squares", start=1).data
    data = re.search(r"base64,([^\"]+)", page)
    assert data is not None
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
    assert sheet.shape == (15, 9)
    assert [sheet[5 * t + 2, 2] for t in range(3)] == [0, 127, 255]
    assert "<b>" not in page and "http" not in page and 'alt="two squares"' in page
    captions = re.search(r'data-captions="([^"]+)"', page)
    assert captions is not None
    import html

    assert json.loads(html.unescape(captions[1]))[1] == 'so "so" <b>'
    with pytest.raises(ValueError, match="captions"):
        viz.player(frames, ["one"], alt="")


def test_samplers_have_markers_and_labels() -> None:
    from ddpm_lite.samplers import SAMPLERS

    assert set(SAMPLERS) <= set(viz.MARKERS) == set(viz.LABELS)
    assert len(set(viz.MARKERS.values())) == len(viz.MARKERS)

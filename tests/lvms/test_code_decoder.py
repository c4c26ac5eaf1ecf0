"""How a grid of codes grows to an image."""

import pytest
import torch
from torch import nn

from gfn_envs import UserError
from lvms.code_decoder import CodeDecoder, Upsampling
from lvms.random_weights import draw_weights


def sides(decoder, grid):
    """The heights after each transposed convolution."""
    found = []
    for layer in decoder.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda *call: found.append(tuple(call[2].shape[2:])))
    decoder(torch.zeros(1, 5, *grid))
    return found


@pytest.mark.parametrize(
    ("grid", "image", "expected"),
    [
        ((4, 4), (28, 28), [(7, 7), (14, 14), (28, 28)]),
        ((7, 7), (28, 28), [(14, 14), (28, 28)]),
        ((2, 2), (8, 8), [(4, 4), (8, 8)]),
        ((4, 4), (8, 8), [(8, 8)]),
        ((3, 3), (8, 8), [(5, 5), (9, 9)]),
        ((3, 3), (3, 3), [(3, 3)]),
        ((3, 3), (6, 6), [(6, 6)]),
        ((3, 3), (5, 5), [(5, 5)]),
        ((1, 1), (5, 5), [(2, 2), (3, 3), (5, 5)]),
        ((1, 4), (8, 8), [(2, 4), (4, 4), (8, 8)]),
        ((2, 3), (7, 11), [(4, 6), (7, 11)]),
    ],
)
def test_sides_grow_as_stated(grid, image, expected):
    decoder = CodeDecoder((2, *image), grid, code_dim=5, channels=3)
    assert sides(decoder, grid) == expected
    assert decoder(torch.zeros(4, 5, *grid)).shape == (4, 2, *image)
    assert decoder.channels == 3


@pytest.mark.parametrize("grid", [(2, 2), (3, 3), (4, 4), (1, 3), (8, 8)])
def test_every_place_reaches_the_image_and_every_pixel_is_reached(grid):
    decoder = CodeDecoder((1, 8, 8), grid, code_dim=5, channels=8)
    draw_weights(decoder, torch.Generator().manual_seed(0))
    embedded = torch.randn(1, 5, *grid, generator=torch.Generator().manual_seed(1))
    plain = decoder(embedded)
    moved = torch.zeros(8, 8)
    for row in range(grid[0]):
        for column in range(grid[1]):
            other = embedded.clone()
            other[:, :, row, column] += 1
            change = (decoder(other) - plain).abs()[0, 0]
            assert (change > 1e-4).sum() >= 2
            moved += change
    assert (moved > 1e-4).all()


@pytest.mark.parametrize("setting", [(3, 1, 1, 0), (4, 2, 1, 0), (4, 2, 2, 1)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_upsampling_is_a_transposed_convolution(outputs, setting):
    torch.manual_seed(0)
    ours = Upsampling(5, outputs, *setting, bias=False).double()
    theirs = nn.ConvTranspose2d(5, outputs, *setting, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    hidden = torch.randn(3, 5, 4, 2, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        read = hidden.clone().requires_grad_()
        image = layer(read)
        image.sin().sum().backward()
        found.append((image, read.grad, layer.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_reaches_every_parameter():
    decoder = CodeDecoder((1, 8, 8), (2, 2), code_dim=5, channels=8)
    draw_weights(decoder, torch.Generator().manual_seed(0))
    embedded = torch.randn(10, 5, 2, 2, generator=torch.Generator().manual_seed(1))
    decoder(embedded).square().sum().backward()
    for label, parameter in decoder.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, label


def test_layers_keep_the_scale_of_what_they_read():
    decoder = CodeDecoder((1, 28, 28), (4, 4), code_dim=16, channels=32)
    draw_weights(decoder, torch.Generator().manual_seed(0))
    embedded = torch.randn(64, 16, 4, 4, generator=torch.Generator().manual_seed(1))
    assert 0.2 < decoder(embedded).std() < 10


def test_a_grid_larger_than_the_image_is_a_user_error():
    with pytest.raises(UserError, match="4 x 9 codes is larger than the image of 8 x 8 pixels"):
        CodeDecoder((1, 8, 8), (4, 9), 2, 2)

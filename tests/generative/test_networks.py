"""Encoders and decoders: shapes, gradients, batch norm, and the spatial transformer against PyTorch's own."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sinkdiv.generative.errors import InputError
from sinkdiv.generative.networks import OF_AUTOENCODERS, autoencoder_networks
from sinkdiv.generative.networks.spatial_transformer import SQUARE, PlacingDecoder, PlacingEncoder, place, placement
from sinkdiv.generative.seeds import Stream, generator

CANVAS = (1, 40, 50)
CASES = [
    ("mlp", (1, 28, 28), (32, 16)),
    ("mlp", (3, 5, 4), (8,)),
    ("conv", (1, 28, 28), (4, 8, 16)),
    ("conv", (3, 32, 32), (4, 8, 16, 16)),
    ("conv", (3, 64, 64), (4, 4, 8, 8)),
    ("conv", (1, 8, 8), (4,)),
    ("conv", (1, 8, 8), (4, 8, 8)),
    ("conv", (3, 13, 10), (4, 8)),
    ("spatial-transformer", CANVAS, (16, 8)),
    ("spatial-transformer", (3, 40, 40), (16,)),
]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, Stream.SAMPLES))


def made(name: str, shape: tuple[int, ...], outputs: int, latent_dim: int, hidden: tuple[int, ...]):
    """Networks of always the same weights, whatever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return autoencoder_networks(name).make(shape, outputs, latent_dim, hidden)


@pytest.mark.parametrize(("name", "shape", "hidden"), CASES)
def test_shapes_and_gradients(name: str, shape: tuple[int, ...], hidden: tuple[int, ...]) -> None:
    pixels = math.prod(shape)
    encoder, decoder = made(name, shape, 11, 6, hidden)
    outputs, logits = encoder(random(5, pixels)), decoder(random(5, 6))
    assert outputs.shape == (5, 11)
    assert logits.shape == (5, pixels)
    (outputs.square().sum() + logits.square().sum()).backward()
    for network in (encoder, decoder):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (name, shape)
        for name in OF_AUTOENCODERS
        for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8), (1, 2, 3), CANVAS)
        if name != "spatial-transformer" or min(shape[1:]) > SQUARE
    ],
)
def test_default_widths_can_be_made(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        autoencoder_networks(name).make(shape, 5, 5, autoencoder_networks(name).default_hidden(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet", (1, 28, 28), 4, 4, (8,)), "--network resnet: .*mlp, conv, spatial-transformer"),
        (("conv", (1, 8, 8), 4, 4, (8, 8, 8, 8)), r"--hidden 8,8,8,8: .*at most 3"),
        (("conv", (3, 32, 12), 4, 4, (8, 8, 8, 8)), r"--hidden 8,8,8,8: .*32×12.*at most 3"),
        (("spatial-transformer", (1, 28, 28), 4, 4, (8,)), "--network spatial-transformer: .*28×28"),
        (("spatial-transformer", (1, 40, 20), 4, 4, (8,)), "--network spatial-transformer: .*40×20"),
        (("spatial-transformer", CANVAS, 4, 3, (8,)), "--latent-dim 3: .*at least 4"),
    ],
)
def test_what_cannot_go_together_is_named(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        autoencoder_networks(arguments[0]).make(*arguments[1:])


def test_convolutions_are_those_of_wae() -> None:
    """Tolstikhin et al. 2018, appendix: 64×64×3 is halved four times; the decoder begins with 8×8×1024."""
    with torch.device("meta"):
        encoder, decoder = autoencoder_networks("conv").make((3, 64, 64), 64, 64, (128, 256, 512, 1024))
        maps = [(layer.in_channels, layer.out_channels) for layer in encoder if isinstance(layer, nn.Conv2d)]
        assert maps == [(3, 128), (128, 256), (256, 512), (512, 1024)]
        assert encoder[-1].in_features == 4 * 4 * 1024
        assert decoder[0].out_features == 8 * 8 * 1024
        maps = [(layer.in_channels, layer.out_channels) for layer in decoder if isinstance(layer, nn.ConvTranspose2d)]
        assert maps == [(1024, 512), (512, 256), (256, 128)]


def test_batch_norm_gives_an_image_one_code_in_evaluation() -> None:
    encoder, decoder = made("conv", (1, 28, 28), 4, 4, (4, 8))
    images = 0.5 + 0.1 * random(32, 784)
    with torch.no_grad():
        for _ in range(150):
            in_training = decoder(encoder(images))
    encoder.eval()
    decoder.eval()
    together, alone = encoder(images), torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    # The running statistics of 150 equal batches are the batch's but for 0.9^150 of the first ones, and for Bessel's
    # correction of the variance, 1/(32·49) at the smallest map.
    assert (decoder(together) - in_training).abs().max() < 0.01 * in_training.abs().max()


def squares(count: int, side: int = SQUARE, dtype: torch.dtype = torch.float64) -> Tensor:
    """Squares in [0, 1] whose two outermost pixels are empty."""
    inside = torch.rand(count, 2, side - 4, side - 4, generator=generator(1, Stream.SAMPLES), dtype=dtype)
    return functional.pad(inside, (2, 2, 2, 2))


def centre_of_mass(images: Tensor) -> Tensor:
    """(n, 2): right and down."""
    weights = images.sum(1) / images.sum((1, 2, 3))[:, None, None]
    rows, columns = (torch.arange(size, dtype=images.dtype) for size in images.shape[2:])
    return torch.stack([weights.sum(1) @ columns, weights.sum(2) @ rows], dim=1)


def test_place_is_the_grid_sampling_of_pytorch() -> None:
    digits = squares(20)
    scales, shifts = placement(random(20, 3).double(), CANVAS[1:])
    height, width = CANVAS[1:]
    # affine_grid maps the canvas to the square; both run from −1 to 1 between the outer edges of their pixels.
    zero, ratio_x, ratio_y = torch.zeros_like(scales), width / SQUARE / scales, height / SQUARE / scales
    moved = -2 * shifts / SQUARE / scales[:, None]
    rows = [torch.stack([ratio_x, zero, moved[:, 0]], 1), torch.stack([zero, ratio_y, moved[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [20, 2, height, width], align_corners=False)
    expected = functional.grid_sample(digits, grid, align_corners=False)
    torch.testing.assert_close(place(digits, scales, shifts, (height, width)), expected, rtol=0, atol=1e-13)


def test_zero_code_shows_the_square_as_it_is_in_the_middle() -> None:
    digits, canvas = squares(3), (40, 50)
    placed = place(digits, *placement(torch.zeros(3, 3, dtype=torch.float64), canvas), canvas)
    assert torch.equal(placed, functional.pad(digits, (11, 11, 6, 6)))


def test_a_code_moves_the_centre_of_mass_by_its_shift() -> None:
    """Bilinear weights of a square of scale 1 sum to one and reproduce linear functions: the move is exact."""
    digits, where = squares(30), random(30, 3).double()
    where[:, 0] = 0
    scales, shifts = placement(where, (40, 50))
    still = place(digits, scales, torch.zeros_like(shifts), (40, 50))
    moved = place(digits, scales, shifts, (40, 50))
    torch.testing.assert_close(centre_of_mass(moved) - centre_of_mass(still), shifts, rtol=0, atol=1e-12)
    # The shift itself: the normal distribution function sends N(0, 1) to uniform on the ±11 and ±6 pixels of room.
    expected = (2 * torch.special.ndtr(where[:, 1:]) - 1) * torch.tensor([11.0, 6.0])
    torch.testing.assert_close(shifts, expected, rtol=1e-12, atol=1e-12)


def test_scale_enlarges_about_the_middle() -> None:
    """Moments of inertia grow with the square of the scale, but for the bilinear kernel's own (at most a pixel's)."""
    digits = squares(8)
    for z, scale in ((-40.0, 2**-0.5), (40.0, 2**0.5)):
        where = torch.zeros(8, 3, dtype=torch.float64)
        where[:, 0] = z
        scales, shifts = placement(where, (60, 60))
        torch.testing.assert_close(scales, torch.full_like(scales, scale))
        placed = place(digits, scales, shifts, (60, 60))
        torch.testing.assert_close(placed.sum((1, 2, 3)), scale**2 * digits.sum((1, 2, 3)), rtol=0.02, atol=0)
        offset = centre_of_mass(digits) - (SQUARE - 1) / 2
        torch.testing.assert_close(centre_of_mass(placed) - 29.5, scale * offset, rtol=0, atol=0.15)


def test_a_whole_digit_stays_on_the_canvas() -> None:
    """At the largest scale and the farthest shifts, the middle 20 pixels of 28, which a digit of MNIST fills."""
    ink = functional.pad(torch.ones(4, 1, 20, 20, dtype=torch.float64), (4, 4, 4, 4))
    corners = 40.0 * torch.tensor([[1, x, y] for x in (-1, 1) for y in (-1, 1)], dtype=torch.float64)
    whole = place(ink, *placement(corners, (200, 200)), (200, 200)).sum()
    on_canvas = place(ink, placement(corners, (50, 50))[0], placement(corners, (50, 50))[1], (50, 50)).sum()
    assert on_canvas > 0.98 * whole


def test_the_encoder_looks_where_it_says() -> None:
    """A digit that lies at the place the encoder names is seen as it was drawn, at whole pixels and scale 1."""
    encoder, _ = made("spatial-transformer", CANVAS, 11, 6, (16,))
    assert isinstance(encoder, PlacingEncoder)
    shifts = torch.tensor([[0.0, 0.0], [-3.0, 2.0], [7.0, -6.0]])
    where = math.sqrt(2) * torch.erfinv(torch.cat([torch.zeros(3, 1), shifts / torch.tensor([11.0, 6.0])], 1))
    digits = squares(3, dtype=torch.float32)[:, :1]
    canvases = place(digits, torch.ones(3), shifts, CANVAS[1:]).flatten(1)
    encoder.seeking = Says(where)
    outputs = encoder(canvases)
    assert torch.equal(outputs[:, 3:6], where)
    torch.testing.assert_close(torch.cat([outputs[:, :3], outputs[:, 6:]], 1), encoder.looking(digits.flatten(1)))


class Says(nn.Module):
    """What it was told, whatever it sees."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs


@pytest.mark.parametrize("size", [1.0, 30.0, 1e6])
def test_extreme_codes_have_finite_logits_and_gradients(size: float) -> None:
    encoder, decoder = made("spatial-transformer", CANVAS, 8, 8, (16,))
    codes = (size * random(40, 8)).requires_grad_()
    logits = decoder(codes)
    assert encoder(size * random(40, 2000)).isfinite().all()
    assert logits.isfinite().all()
    functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    assert codes.grad is not None
    assert codes.grad.isfinite().all()


def test_empty_canvas_has_the_rate_of_the_background() -> None:
    _, decoder = made("spatial-transformer", CANVAS, 8, 8, (16,))
    assert isinstance(decoder, PlacingDecoder)
    torch.testing.assert_close(torch.sigmoid(decoder(random(3, 8)))[:, 0], torch.full((3,), 0.01))


def test_place_code_has_the_gradient_of_finite_differences() -> None:
    where = random(3, 3, seed=5).double().requires_grad_()

    def painted(where: Tensor) -> Tensor:
        return place(squares(3), *placement(where, (40, 50)), (40, 50))

    assert torch.autograd.gradcheck(painted, (where,), eps=1e-7, atol=1e-5, fast_mode=True)


def test_autocast_does_not_round_places_or_logits() -> None:
    _, decoder = made("spatial-transformer", CANVAS, 8, 8, (16,))
    codes = random(6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = decoder(codes)
    assert rounded.dtype == torch.float32
    assert (rounded - decoder(codes)).abs().max() < 0.05

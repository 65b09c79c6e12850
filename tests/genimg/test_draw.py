"""DRAW's network: filters against their definition, what it attends to, latents there and back."""

import math

import pytest
import torch
from tiny_recipes import tiny

from genimg.engine import Engine
from genimg.models.draw import Alignment, DrawVAE, Glimpse
from genimg.operations.drawing import Sample

KNOWN = torch.tensor([[0.2, -0.4, 0.1, -0.3, 0.5]])  # x, y, and logarithms of the others


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def glimpse() -> Glimpse:
    made = Glimpse(1, 12, 3)
    torch.nn.init.zeros_(made.where.weight)
    made.where.bias.data = KNOWN[0]
    return made


def test_filters_are_those_of_the_paper():
    """Number by number: eq. 19 to 26, Gregor et al. 2015."""
    x, y, variance, spacing, strength = KNOWN[0].tolist()
    down, across, gamma = glimpse().filters(torch.zeros(1, 1))
    distance = 11 / 2 * math.exp(spacing)
    for filters, centre in ((across, x), (down, y)):
        for place in range(3):
            mean = 11 / 2 * (centre + 1) + (place - 1) * distance
            bell = [math.exp(-((a - mean) ** 2) / (2 * math.exp(variance))) for a in range(12)]
            expected = torch.tensor(bell) / max(sum(bell), 1e-6)
            torch.testing.assert_close(filters[0, place], expected)
    assert gamma.item() == pytest.approx(math.exp(strength))


def test_what_is_read_and_written_are_sums_over_pixels():
    made, planes, patch = glimpse(), torch.randn(1, 2, 12, 12), torch.randn(1, 2, 3, 3)
    down, across, gamma = made.filters(torch.zeros(1, 1))
    read = torch.einsum("nih,nchw,njw->ncij", down, planes, across) * gamma
    torch.testing.assert_close(made.read(planes, torch.zeros(1, 1)), read.flatten(1))
    written = torch.einsum("nih,ncij,njw->nchw", down, patch, across) / gamma
    torch.testing.assert_close(made.written(patch, torch.zeros(1, 1)), written)


def test_at_first_it_spans_the_image():
    down, _, _ = Glimpse(4, 16, 4).filters(torch.zeros(1, 4))
    assert down.argmax(dim=2)[0, [0, -1]].tolist() == [0, 15]


def test_words_are_attended_to_by_shares_and_none_where_there_are_none():
    alignment = Alignment(4, 6)
    words = torch.randn(3, 5, 5)
    words[..., -1] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0.0]])
    h = torch.randn(3, 6)
    made = alignment(words, alignment.keys(words), h)
    for row, count in ((0, 5), (1, 2)):
        several = words[row, :count, :-1]
        hidden = alignment.of_words(several) + alignment.of_state(h[row])
        shares = alignment.to_score(hidden.tanh()).softmax(dim=0)
        torch.testing.assert_close(made[row], (shares * several).sum(dim=0))
    assert not made[2].any()


def test_places_without_a_word_take_nothing_from_those_that_have_one():
    alignment = Alignment(4, 6)
    with torch.no_grad():
        alignment.of_words.weight.fill_(-2)
        alignment.of_words.bias.fill_(3)
        alignment.to_score.weight.fill_(9)
    words = torch.zeros(1, 5, 5)
    words[0, 0] = 4  # scores far below what nothing scores
    words[0, 0, -1] = 1
    made = alignment(words, alignment.keys(words), torch.zeros(1, 6))
    torch.testing.assert_close(made[0], words[0, 0, :-1])


def test_latents_of_an_image_are_decoded_to_what_is_drawn_of_its_posterior():
    network = DrawVAE(4, 16, 3, 4, 12, 3, 3, told=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images, classes = torch.rand(2, 3, 12, 12) * 2 - 1, torch.rand(2, 5)
    for network_now in (network, network.eval()):
        seen = network_now.encode(images)
        made, levels = network_now.draw(seen, torch.zeros(2, 12), classes)
        again = network_now.decode(network_now.latents(seen, classes), classes)
        torch.testing.assert_close(again, made, rtol=1e-3, atol=1e-3)
        assert [len(level) for level in levels] == [5, 5, 5]
    training, _ = network.train().draw(seen, torch.zeros(2, 12), classes)
    torch.testing.assert_close(training, made, rtol=1e-4, atol=1e-4)


def test_a_text_decides_what_it_draws_alone_or_among_others():
    recipe = tiny("draw")
    networks = {name: network.eval() for name, network in recipe.networks().items()}
    for parameter in networks["autoencoder"].parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    engine = Engine(recipe, networks)
    made = engine(Sample(n=3, seed=4, text="a red disc")).images
    assert (engine(Sample(n=1, seed=5, text="a red disc")).images[0] == made[1]).all()
    assert (engine(Sample(n=3, seed=4, text="a blue disc")).images != made).any()
    assert (engine(Sample(n=3, seed=4)).images != made).any()
    assert 1 in engine.inference.sizes.all()

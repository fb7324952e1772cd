"""Order of the batches, their parts on each rank, and resuming: of the loader alone and in a real Lightning run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from image_sets import COMMON
from torch import Tensor, nn

from sqakd.advice import explain
from sqakd.dataset.base import ImageDataModule
from sqakd.dataset.batch import Batch
from sqakd.dataset.errors import DataError
from sqakd.dataset.loader import Loader
from sqakd.dataset.transforms.augment import Compose, CropFlip
from sqakd.dataset.transforms.resize import ResizedCropFlip

AUGMENT = CropFlip(padding=2, flip=True)


def make_images(n: int) -> Tensor:
    """Return images whose pixels are their position."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 4, 4).contiguous()


def make_loader(n: int = 23, **changes: Any) -> Loader:
    arguments: dict[str, Any] = {
        "images": make_images(n),
        "labels": torch.arange(n) * 7 % 10,
        "batch_size": 5,
        "shuffle": True,
        "augment": AUGMENT,
        "seed": 0,
        "rank": 0,
        "world_size": 1,
        "drop_last": False,
        "pin_memory": False,
    }
    return Loader(**arguments | changes)


def epoch_order(loader: Loader, epoch: int) -> list[int]:
    loader.sampler.set_epoch(epoch)
    return [i for batch in loader for i in batch.index.tolist()]


def assert_same(first: Batch, second: Batch) -> None:
    assert torch.equal(first.index, second.index)
    assert torch.equal(first.image, second.image)
    assert (first.label is None) == (second.label is None)
    if first.label is not None and second.label is not None:
        assert torch.equal(first.label, second.label)
    assert first.draws.keys() == second.draws.keys()
    for name, draw in first.draws.items():
        assert torch.equal(draw, second.draws[name]), name


def joined(parts: list[Batch]) -> Batch:
    labels = [part.label for part in parts if part.label is not None]
    return Batch(
        torch.cat([part.image for part in parts]),
        torch.cat(labels) if labels else None,
        torch.cat([part.index for part in parts]),
        {name: torch.cat([part.draws[name] for part in parts]) for name in parts[0].draws},
    )


@pytest.mark.parametrize("shuffle", [True, False])
def test_each_image_comes_once_with_its_label(shuffle: bool) -> None:
    loader = make_loader(shuffle=shuffle)
    batches = list(loader)
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(23))
    assert (index.tolist() == list(range(23))) == (not shuffle)
    for batch in batches:
        assert batch.image.dtype == torch.uint8
        assert torch.equal(batch.image[:, 0, 0, 0].long(), batch.index)
        assert batch.label is not None
        assert torch.equal(batch.label, batch.index * 7 % 10)
        assert all(len(draw) == len(batch.index) for draw in batch.draws.values())


def test_images_without_labels() -> None:
    batches = list(make_loader(labels=None, augment=None))
    assert all(batch.label is None and batch.draws == {} for batch in batches)


def test_order_and_draws_depend_on_seed_and_epoch_only() -> None:
    loader = make_loader()
    orders = {(seed, epoch): epoch_order(make_loader(seed=seed), epoch) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len({tuple(order) for order in orders.values()}) == 6
    for epoch in (2, 0, 1):  # one loader, in any order of epochs
        assert epoch_order(loader, epoch) == orders[0, epoch]

    def draws(seed: int, epoch: int) -> list[list[int]]:
        other = make_loader(seed=seed)
        other.sampler.set_epoch(epoch)
        return [batch.draws["top"].tolist() for batch in other]

    assert draws(0, 1) == draws(0, 1)
    assert draws(0, 1) != draws(0, 0)
    assert draws(0, 1) != draws(1, 1)
    assert draws(0, 1)[0] != draws(0, 1)[1], "each step has new draws"


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = epoch_order(make_loader(), 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert epoch_order(make_loader(), 0) == first


@pytest.mark.parametrize(
    ("n", "batch_size", "world_size"),
    [(20, 5, 2), (24, 5, 2), (24, 8, 2), (28, 8, 2), (24, 9, 3), (27, 7, 3), (20, 7, 3), (24, 6, 3), (9, 8, 1)],
)
def test_parts_of_all_ranks_together_are_the_batches_of_one_rank(n: int, batch_size: int, world_size: int) -> None:
    alone = make_loader(n, batch_size=batch_size)
    ranks = [make_loader(n, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(loader) for loader in ranks} == {len(alone)}
    for loader in [alone, *ranks]:
        loader.sampler.set_epoch(3)
    for batch, *parts in zip(alone, *ranks, strict=True):
        sizes = [len(part.index) for part in parts]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        assert_same(joined(parts), batch)


@pytest.mark.parametrize(("n", "batch_size", "world_size"), [(21, 5, 2), (20, 6, 3), (16, 15, 2)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_rest_smaller_than_the_number_of_ranks_is_merged_into_the_last_batch(
    n: int, batch_size: int, world_size: int, shuffle: bool
) -> None:
    ranks = [
        list(make_loader(n, batch_size=batch_size, rank=rank, world_size=world_size, shuffle=shuffle))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {n // batch_size}
    assert all(len(batch.index) for batches in ranks for batch in batches)
    index = [i for batches in ranks for batch in batches for i in batch.index.tolist()]
    assert sorted(index) == list(range(n)), "each image once, also with several devices"


def test_training_has_no_batch_of_one_image() -> None:
    """Batch normalization of a vector needs two images, so a single last one would stop the run after a whole epoch."""
    train, evaluate = (list(make_loader(21, batch_size=10, shuffle=shuffle)) for shuffle in (True, False))
    assert [len(batch.index) for batch in train] == [10, 11]
    assert [len(batch.index) for batch in evaluate] == [10, 10, 1], "evaluation is not affected"


@pytest.mark.parametrize(("n", "parts"), [(66, [33, 33]), (67, [33, 34]), (68, [2, 2])])
def test_no_rank_trains_on_one_image_of_the_last_batch(n: int, parts: list[int]) -> None:
    ranks = [list(make_loader(n, batch_size=64, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(batches[-1].index) for batches in ranks] == parts
    evaluated = [list(make_loader(n, batch_size=64, rank=rank, world_size=2, shuffle=False)) for rank in range(2)]
    assert [len(batches) for batches in evaluated] == [2, 2], "evaluation is not affected"


def test_incomplete_last_batch_is_kept_or_dropped() -> None:
    kept, dropped = make_loader(drop_last=False), make_loader(drop_last=True)
    assert [len(batch.index) for batch in kept] == [5, 5, 5, 5, 3]
    assert [len(batch.index) for batch in dropped] == [5, 5, 5, 5]
    assert (len(kept), len(dropped)) == (5, 4)
    for drop_last in (True, False):
        exact = make_loader(20, drop_last=drop_last)
        assert [len(batch.index) for batch in exact] == [5] * 4 == [5] * len(exact)


def test_arguments_that_make_no_batch_are_refused() -> None:
    for shuffle, batch_size, world_size, least in [(True, 5, 3, 6), (True, 1, 1, 2), (False, 2, 3, 3)]:
        with pytest.raises(DataError, match=f"size {batch_size} on {world_size} devices: expected at least {least}, "):
            make_loader(batch_size=batch_size, world_size=world_size, shuffle=shuffle)
        make_loader(batch_size=least, world_size=world_size, shuffle=shuffle)
    with pytest.raises(DataError, match=r"23 images.*batch size 24") as error:
        make_loader(batch_size=24, drop_last=True)
    assert "dataset.drop_last=false" in explain(error.value)
    with pytest.raises(DataError, match=r"3 images.*2 devices; expected at least 4"):
        make_loader(3, world_size=2)
    with pytest.raises(DataError, match=r"1 images?.*2 devices; expected at least 2"):
        make_loader(1, world_size=2, shuffle=False)


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_restored_state_affects_one_epoch_only(stop: int) -> None:
    uninterrupted = make_loader()
    interrupted, resumed = make_loader(), make_loader()
    for loader in (uninterrupted, interrupted, resumed):
        loader.sampler.set_epoch(4)
    iterator = iter(interrupted)
    for _ in range(stop):
        next(iterator)
    whole = list(uninterrupted)
    resumed.load_state_dict(interrupted.state_dict())
    if stop < len(whole):
        rest = list(resumed)
        assert len(rest) == len(whole) - stop
        for got, expected in zip(rest, whole[stop:], strict=True):
            assert_same(got, expected)
    for epoch in (5, 6):  # whole epochs from here on
        uninterrupted.sampler.set_epoch(epoch)
        resumed.sampler.set_epoch(epoch)
        for got, expected in zip(resumed, uninterrupted, strict=True):
            assert_same(got, expected)


def test_the_state_of_a_resumed_loader_counts_from_the_start_of_the_epoch() -> None:
    first, second, third = make_loader(), make_loader(), make_loader()
    iterator = iter(first)
    next(iterator)
    second.load_state_dict(first.state_dict())
    iterator = iter(second)
    next(iterator)
    third.load_state_dict(second.state_dict())
    assert [batch.index.tolist() for batch in third] == [batch.index.tolist() for batch in make_loader()][2:]


# a real run


class Images(ImageDataModule):
    """Numbered images: 23 for training, 5 for validation."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(**COMMON | {"batch_size": 5, "eval_batch_size": 3, "augment": AUGMENT} | changes)

    def load(self) -> None:
        self.train_images, self.val_images = make_images(23), make_images(5)
        self.train_labels, self.val_labels = torch.arange(23) % 10, torch.arange(5)
        self.class_names = [str(i) for i in range(10)]


class Recorder(pl.LightningModule):
    """A module that records its images by number, and the sum of their augmented pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 2)
        self.steps: list[tuple[int, int, list[int], float]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.steps.append((self.current_epoch, batch_idx, batch.index.tolist(), batch.image.sum().item()))
        return self.layer(batch.image.flatten(1)).square().mean()  # type: ignore[no-any-return]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += batch.index.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveAt(pl.Callback):
    """A callback that saves one checkpoint after `step` of `epoch`, or at the epoch's end (None); the run continues."""

    def __init__(self, file: Path, epoch: int, step: int | None) -> None:
        self.file, self.epoch, self.step = file, epoch, step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.step):
            trainer.save_checkpoint(self.file)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.step is None and trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.file)


def run(callback: SaveAt | None = None, ckpt_path: Path | None = None, epochs: int = 4, **options: Any) -> Recorder:
    torch.manual_seed(0)
    model = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback] if callback else [],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    if ckpt_path is None:
        trainer.fit(model, datamodule=Images())
    else:
        trainer.fit(model, datamodule=Images(), ckpt_path=ckpt_path, weights_only=True)
    return model


@pytest.mark.parametrize("step", [0, 2, 4, None])
def test_a_resumed_run_processes_the_same_images_as_an_uninterrupted_run(tmp_path: Path, step: int | None) -> None:
    file = tmp_path / "middle.ckpt"
    whole = run(SaveAt(file, 1, step))
    assert len(whole.steps) == 4 * 5
    done = 5 + (5 if step is None else step + 1)

    resumed = run(ckpt_path=file)

    assert resumed.steps == whole.steps[done:]
    assert whole.validated == list(range(5)) * 4
    # From a checkpoint saved after an epoch's last step, Lightning resumes after the validation of that epoch.
    assert resumed.validated == list(range(5)) * (4 - done // 5)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_a_run_can_be_resumed_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    whole = run(SaveAt(first, 1, 1))
    assert run(SaveAt(second, 1, 3), ckpt_path=first).steps == whole.steps[7:]
    assert run(ckpt_path=second).steps == whole.steps[9:]


def test_a_checkpoint_at_the_end_of_a_shortened_epoch_resumes_in_the_next_epoch(tmp_path: Path) -> None:
    file = tmp_path / "end.ckpt"
    whole = run(SaveAt(file, 1, None), limit_train_batches=2)
    assert [step for _, step, _, _ in whole.steps] == [0, 1] * 4
    assert run(ckpt_path=file, limit_train_batches=2).steps == whole.steps[4:]


def test_epochs_differ_and_validation_reads_each_image_once() -> None:
    model = run(epochs=3)
    epochs = [[i for epoch, _, index, _ in model.steps if epoch == number for i in index] for number in range(3)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({pixels for _, _, _, pixels in model.steps}) == len(model.steps)
    assert model.validated == list(range(5)) * 3


def test_data_module_augments_and_normalises_training_but_not_validation() -> None:
    data = Images()
    data.setup()
    assert data.labelled
    assert data.num_classes == 10

    train = next(iter(data.train_dataloader()))
    image = AUGMENT(train.image, train.draws).float()
    expected = (image / 255 - 0.5) / 0.25
    assert torch.allclose(data.on_after_batch_transfer(train, 0).image, expected, atol=1e-6)

    val = next(iter(data.val_dataloader()))
    assert val.draws == {}
    expected = (val.image.float() / 255 - 0.5) / 0.25
    assert torch.allclose(data.on_after_batch_transfer(val, 0).image, expected, atol=1e-6)


def enlarged(images: Tensor) -> Tensor:
    return images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@pytest.mark.parametrize("augment", [None, Compose(steps={}), Compose(steps={"crop": None})])
def test_images_without_augmentation_are_prepared_as_for_evaluation(augment: Compose | None) -> None:
    data = Images(augment=augment, evaluate=enlarged)
    data.setup()
    assert data.image_shape == (3, 8, 8)
    assert data.train_images.shape[2:] == (4, 4), "the stored images are unchanged"
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        expected = (enlarged(batch.image).float() / 255 - 0.5) / 0.25
        assert torch.allclose(data.on_after_batch_transfer(batch, 0).image, expected, atol=1e-6)
    assert data.calibration_batch(1).shape == (5, 3, 8, 8)


def test_augmented_images_are_not_prepared_as_for_evaluation() -> None:
    crop = ResizedCropFlip(size=8, area=[1.0, 1.0], ratio=[1.0, 1.0], flip=False)
    data = Images(augment=crop, evaluate=enlarged)
    data.setup()
    assert data.image_shape == data.calibration_batch(1).shape[1:] == (3, 8, 8)
    batch = next(iter(data.train_dataloader()))
    assert data.on_after_batch_transfer(batch, 0).image.shape == (5, 3, 8, 8)


def test_training_and_evaluation_on_different_sizes_is_refused() -> None:
    with pytest.raises(DataError, match=r"4x4 in training \(augment\) and 8x8 in evaluation \(evaluate\)") as error:
        Images(evaluate=enlarged).setup()
    assert "dataset.augment and dataset.evaluate" in explain(error.value)


@pytest.mark.parametrize("drop_last", [True, False])
def test_validation_keeps_its_last_batch(drop_last: bool) -> None:
    data = Images()
    data.drop_last = drop_last
    data.setup()
    assert [len(batch.index) for batch in data.train_dataloader()] == [5] * 4 + [3] * (not drop_last)
    assert [len(batch.index) for batch in data.val_dataloader()] == [3, 2]


def test_calibration_and_probe_batches_are_reproducible_and_differ_between_epochs() -> None:
    data, again = Images(), Images()
    data.setup()
    again.setup()
    calibration = data.calibration_batch(1)
    assert calibration.shape == (5, 3, 4, 4)
    assert torch.equal(calibration, again.calibration_batch(1))

    assert data.most_calibration_batches == 5
    joined = data.calibration_batch(5)
    assert len(joined) == len(data.train_images) == 23
    assert torch.equal(joined[:5], calibration)
    assert torch.equal(joined[:10], data.calibration_batch(2))
    plain = Images(augment=None)
    plain.setup()
    stored, drawn = (
        sorted(images.flatten(1).mean(1).tolist())
        for images in (plain.train_images.float() / 255, plain.calibration_batch(5) * 0.25 + 0.5)
    )
    assert drawn == pytest.approx(stored), "each image once"

    probes = data.probe_batches(count=3, size=6, epoch=2)
    assert [len(probe.index) for probe in probes] == [6, 6, 6]
    assert len({i for probe in probes for i in probe.index.tolist()}) == 18, "each image at most once"
    for probe, same in zip(probes, again.probe_batches(count=3, size=6, epoch=2), strict=True):
        assert_same(probe, same)
    other = data.probe_batches(count=3, size=6, epoch=3)
    assert [p.index.tolist() for p in probes] != [p.index.tolist() for p in other]

"""The contrastive losses: reference numbers, their negatives, and what they remember."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import golden_data as golden
import numpy as np
import pytest
import small
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from sqakd.kd.base import Example, Seen
from sqakd.kd.cktf import ContrastiveTransfer, Normalise, stage_vector
from sqakd.kd.contrastive import (
    Contrast,
    ContrastiveDistillation,
    contrastive_loss,
    log_normaliser,
)
from sqakd.kd.memory import Memory, from_all_processes
from sqakd.kd.negatives import OtherClasses

LOSS, GRADIENT, BANK = 1e-5, 1e-4, 1e-6
CRD = golden.load("04_kd_crd")
CKTF = {name: golden.load(f"04_kd_cktf_{name}") for name in ("resnet", "vgg")}


def tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draws(sample_index: Any, images: int) -> dict[str, Tensor]:
    """The reference's negatives (each image's own list) among all images of the training set."""
    negatives = tensor(sample_index).long()[:, 1:]
    chosen = torch.zeros(len(negatives), images, dtype=torch.bool).scatter_(1, negatives, True)
    assert torch.equal(chosen.sum(dim=1), torch.full((len(negatives),), negatives.shape[1]))
    return {"candidates": torch.arange(images), "chosen": chosen, "repeats": torch.ones(len(negatives))}


def from_reference(data: dict[str, Any], prefix: str, *, student: slice = slice(None)) -> Contrast:
    """A contrast as the reference starts it; `student` picks the inputs of the student's embedding."""
    weights = {
        f"{who}_{kind}": tensor(data[f"{prefix}embed_{who}_{kind}"]) for who in "st" for kind in ("weight", "bias")
    }
    weights["s_weight"] = weights["s_weight"][:, student]
    made = Contrast(
        student=weights["s_weight"].shape[1],
        teacher=weights["t_weight"].shape[1],
        width=len(weights["s_bias"]),
        images=int(data["n_data"]),
        negatives=int(data["n_neg"]),
        temperature=float(data["temperature"]),
        momentum=float(data["momentum"]),
    )
    state = {
        f"{name}.{kind}": weights[f"{name[0]}_{kind}"] for name in ("student", "teacher") for kind in ("weight", "bias")
    }
    banks = {f"{name}_memory.bank": tensor(data[f"{prefix}bank_{name[0]}_0"]) for name in ("student", "teacher")}
    made.load_state_dict({**state, **banks, "log_z": made.log_z})
    return made


def check_memory(made: Contrast, data: dict[str, Any], prefix: str, step: int) -> None:
    for side, (who, memory) in enumerate((("s", made.student_memory), ("t", made.teacher_memory))):
        assert golden.error(memory.bank, data[f"{prefix}bank_{who}_{step}"]) <= BANK
        assert golden.error(made.log_z[side].exp(), data[f"{prefix}Z_{who}"]) <= LOSS


def test_three_steps_of_the_reference() -> None:
    made = from_reference(CRD, "")
    for step in range(3):
        student, teacher = tensor(CRD[f"step{step}_fs"]).requires_grad_(), tensor(CRD[f"step{step}_ft"])
        index = tensor(CRD[f"step{step}_index"]).long()
        made.look()
        assert made.known == (step > 0)
        loss = made(student, teacher, index, draws(CRD[f"step{step}_sample_index"], int(CRD["n_data"])))
        assert golden.error(loss, CRD[f"step{step}_loss"]) <= LOSS
        own = dict(made.named_parameters())
        names = [f"step{step}_d_embed_{name[0]}_{name.partition('.')[2]}" for name in own]
        gradients = torch.autograd.grad(loss, [student, *own.values()])
        for got, name in zip(gradients, [f"step{step}_dfs", *names], strict=True):
            assert golden.error(got, CRD[name]) <= GRADIENT
        made.remember()
        check_memory(made, CRD, "", step + 1)


@pytest.mark.parametrize("name", CKTF)
def test_the_released_transfer(name: str) -> None:
    data, window = CKTF[name], 8 if name == "resnet" else None
    groups = range(int(data["n_groups"]))

    def last(who: str, group: int) -> Tensor:
        blocks = [key for key in data if key.startswith(f"block_{who}_g{group}_")]
        return tensor(data[max(blocks)])

    # The first map is stored pooled and flattened: a map of one place.
    student = [tensor(data["f_first_s"])[:, :, None, None], *(last("s", g) for g in groups), tensor(data["f_last_s"])]
    teacher = [tensor(data["f_first_t"])[:, :, None, None], *(last("t", g) for g in groups), tensor(data["f_last_t"])]
    loss = ContrastiveTransfer(
        width=8,
        negatives=int(data["n_neg"]),
        temperature=0.1,
        momentum=0.5,
        intermediate=float(data["theta"]),
        window=window,
        normalise="batch",
    )
    places = [slice(None), *(padding(last("s", g), last("t", g), tensor(data[f"pair_s_g{g}"])) for g in groups)]
    places.append(slice(None))
    loss.contrasts = nn.ModuleList(from_reference(data, f"crd{i}_", student=place) for i, place in enumerate(places))
    for g in groups:
        assert golden.error(stage_vector(last("t", g), window, "batch"), data[f"pair_t_g{g}"]) <= LOSS
        assert golden.error(stage_vector(last("s", g), window, "batch"), data[f"pair_s_g{g}"][:, places[g + 1]]) <= LOSS
    for feature in student:
        feature.requires_grad_()
    nothing = torch.empty(0)
    index = tensor(data["index"]).long()
    seen = Seen(student, teacher, nothing, nothing, index, draws(data["sample_index"], int(data["n_data"])))
    terms = loss(seen)
    assert golden.error(terms[-1], data["loss_crd_last"]) <= LOSS
    assert golden.error(torch.stack(terms[:-1]).sum() / loss.intermediate, data["loss_crdst"]) <= LOSS
    torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
    names = ["d_f_first_s", *(f"d_block_s_g{g}_last" for g in groups), "d_f_last_s"]
    for feature, key in zip(student, names, strict=True):
        assert feature.grad is not None
        assert golden.error(feature.grad.reshape(data[key].shape), data[key]) <= GRADIENT
    loss.remember()
    for i, (contrast, place) in enumerate(zip(loss.contrasts, places, strict=True)):
        assert isinstance(contrast, Contrast)
        for kind, reference in (
            ("weight", data[f"d_crd{i}_embed_s_weight"][:, place]),
            ("bias", data[f"d_crd{i}_embed_s_bias"]),
        ):
            assert golden.error(contrast.student.get_parameter(kind).grad, reference) <= GRADIENT  # type: ignore[arg-type]
        check_memory(contrast, data, f"crd{i}_", 1)


def padding(student: Tensor, teacher: Tensor, pair: Tensor) -> slice:
    """Where the student's channels are among those that the reference pads with zeros."""
    missing = teacher.shape[1] - student.shape[1]
    if not missing:
        return slice(None)
    place = slice(missing // 2, missing // 2 + student.shape[1])
    padded = pair.clone()
    padded[:, place] = 0
    assert not padded.any()
    return place


@pytest.mark.parametrize("normalise", ["image", "batch"])
def test_what_an_image_is_compared_by_depends_on_the_batch_only_in_the_release(normalise: Normalise) -> None:
    feature = random(6, 4, 16, 16)
    together, alone = (stage_vector(part, 8, normalise)[:2] for part in (feature, feature[:2]))
    assert torch.allclose(together, alone, atol=1e-6) == (normalise == "image")
    if normalise == "image":
        assert torch.allclose(together.norm(dim=1), torch.ones(2))
        assert torch.allclose(stage_vector(3 * feature, 8, normalise)[:2], together, atol=1e-6)


LABELS = torch.arange(60) % 4 * (torch.arange(60) % 3 != 0)  # 30 images of class 0, and of 1, 2, 3 ten each


def negatives(count: int, step: int = 0, index: Tensor | None = None) -> Tensor:
    """[N, images], how often each image is a negative of each of a batch."""
    index = torch.arange(60) if index is None else index
    drawn = OtherClasses(LABELS, count=count).draw(index, torch.Generator().manual_seed(step))
    times = torch.zeros(len(index), 60)
    times[:, drawn["candidates"]] = drawn["chosen"] * drawn["repeats"][:, None]
    return times


@pytest.mark.parametrize("count", [1, 7, 29, 30, 31, 40, 59, 100])
def test_negatives_are_as_many_as_asked_and_never_of_the_own_class(count: int) -> None:
    times = negatives(count)
    assert not (times * (LABELS[:, None] == LABELS)).any()
    assert torch.allclose(times.sum(dim=1), torch.full((60,), float(count)))
    others = torch.tensor([(label != LABELS).sum() for label in LABELS])
    assert torch.equal((times > 0).sum(dim=1), others.clamp(max=count))


def test_negatives_are_a_function_of_seed_and_step() -> None:
    assert torch.equal(negatives(7, step=3), negatives(7, step=3))
    assert not torch.equal(negatives(7, step=3), negatives(7, step=4))
    some = torch.tensor([5, 17, 2])
    assert torch.equal(negatives(7, step=3, index=some), negatives(7, step=3)[some])


def test_every_image_of_another_class_is_drawn_as_often() -> None:
    steps, count = 2000, 7
    shares = torch.stack([negatives(count, step) for step in range(steps)]).mean(dim=0)
    others = (LABELS[:, None] != LABELS).float()
    expected = count * others / others.sum(dim=1, keepdim=True)
    deviation = (expected * (1 - expected) / steps).sqrt()
    assert bool(((shares - expected).abs() <= 5 * deviation).all())


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="all of one class; type kd=sqakd"):
        OtherClasses(torch.zeros(5, dtype=torch.long), count=2)


def test_equals_the_paper_s_formula_on_gathered_memories() -> None:
    """Each image's memories gathered one by one, probabilities and logarithms as they are written."""
    bank, anchor, index = (
        random(60, 16),
        nn.functional.normalize(random(5, 16, seed=1)),
        torch.tensor([3, 8, 9, 20, 40]),
    )
    drawn = OtherClasses(LABELS, count=12).draw(index, torch.Generator().manual_seed(0))
    gathered = torch.stack([bank[drawn["candidates"][row]] for row in drawn["chosen"]]).double()  # [N, K, D]
    assert gathered.shape == (5, 12, 16)
    scores = (torch.cat([bank[index][:, None], gathered], dim=1) @ anchor[:, :, None].double()).squeeze(2) / 0.1
    z = 60 * scores.exp().mean()
    p, odds = scores.exp() / z, 12 / 60
    expected = -((p[:, 0] / (p[:, 0] + odds)).log() + (odds / (p[:, 1:] + odds)).log().sum(dim=1)).mean()

    own, others = (anchor * bank[index]).sum(dim=1) / 0.1, anchor @ bank[drawn["candidates"]].T / 0.1
    arguments = own, others, drawn["chosen"], drawn["repeats"]
    log_z = log_normaliser(*arguments, images=60)
    assert float(log_z.exp()) == pytest.approx(float(z), rel=1e-5)
    assert float(contrastive_loss(*arguments, log_z + np.log(odds))) == pytest.approx(float(expected), rel=1e-5)


def test_a_memory_takes_the_last_of_two_and_leaves_the_others() -> None:
    memory = Memory(images=6, width=4, momentum=0.5)
    before, said = memory.bank.clone(), random(3, 4)
    memory.update(torch.tensor([4, 1, 4]), said)
    for row, new in ((1, said[1]), (4, said[2])):
        moved = (before[row] + new) / 2
        assert torch.allclose(memory.bank[row], moved / moved.norm())
    assert torch.equal(memory.bank[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def crd(**changes: float) -> ContrastiveDistillation:
    arguments: dict[str, Any] = {"width": 8, "negatives": 6, "temperature": 0.1, "momentum": 0.5}
    torch.manual_seed(0)
    made = ContrastiveDistillation(**arguments | changes)
    made.names = ["pooled"]
    made.build(example(LABELS))
    return made


def example(labels: Tensor | None) -> Example:
    return Example(student=[random(2, 5)], teacher=[random(2, 7)], network=nn.Identity(), images=60, labels=labels)


def test_images_without_labels_are_refused() -> None:
    loss = ContrastiveDistillation(width=8, negatives=6, temperature=0.1, momentum=0.5)
    loss.names = ["pooled"]
    with pytest.raises(ValueError, match="the data set has no labels; type kd=sqakd"):
        loss.build(example(None))
    for kd in ("crd", "cktf"):
        with pytest.raises(ValueError, match="reads labels and the data set has none"):
            small.make_task(small.network(), small.network(), f"kd={kd}", "kd.ce=0", labelled=False)


@pytest.mark.parametrize("word", ["width=0", "negatives=0", "temperature=0", "momentum=1"])
def test_impossible_arguments_are_refused(word: str) -> None:
    name, value = word.split("=")
    with pytest.raises(ValueError, match=f"kd.feature_loss.{word}: expected"):
        crd(**{name: int(value)})


def step(loss: ContrastiveDistillation, index: Tensor, number: int) -> Tensor:
    """One step of a training in which nothing but the memory changes."""
    features, nothing = (random(60, 5, seed=1)[index], random(60, 7, seed=2)[index]), torch.empty(0)
    drawn = loss.draw(index, torch.Generator().manual_seed(number))
    value: Tensor = loss(Seen([features[0]], [features[1]], nothing, nothing, index, drawn))[0]
    loss.remember()
    return value.detach()


def test_a_resumed_loss_goes_on_with_the_same_bits() -> None:
    batches = [torch.arange(60)[start::7] for start in range(4)]
    whole, first = crd(), crd()
    expected = [step(whole, index, number) for number, index in enumerate(batches)]
    for number in (0, 1):
        step(first, batches[number], number)
    resumed = crd()
    resumed.load_state_dict(first.state_dict())
    got = [step(resumed, batches[number], number) for number in (2, 3)]
    assert torch.equal(torch.stack(got), torch.stack(expected[2:]))
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_nothing_is_remembered_of_what_was_only_looked_at() -> None:
    loss = crd()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.remember()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def both_processes(rank: int, folder: Path, work: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(work(rank), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def in_two_processes(folder: Path, work: Any) -> list[Any]:
    spawn(both_processes, (folder, work), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


GLOBAL = [torch.arange(9), torch.arange(5, 14)]  # 9 images: 4 for one process and 5 for the other


def share(rank: int) -> list[dict[str, Tensor]]:
    """Two steps of one of two processes; what it remembers after each."""
    loss, states = crd(), []
    for number, index in enumerate(GLOBAL):
        step(loss, index[:4] if rank == 0 else index[4:], number)
        states.append({name: value.clone() for name, value in loss.state_dict().items()})
    # The order is that of the processes.
    (joined,) = from_all_processes(torch.full((2 - rank,), rank))
    assert joined.tolist() == [0, 0, 1]
    return states


def test_two_processes_remember_what_one_would(tmp_path: Path) -> None:
    one, other = in_two_processes(tmp_path, share)
    alone = crd()
    for number, index in enumerate(GLOBAL):
        step(alone, index, number)
        assert all(torch.equal(one[number][name], value) for name, value in other[number].items())
        for name, value in alone.state_dict().items():
            if name.endswith("bank"):
                assert torch.allclose(one[number][name], value, atol=1e-6), name
    # Each process has seen a part of the first batch; Z is the mean of both.
    parts = [crd() for _ in range(2)]
    for part, index in zip(parts, (GLOBAL[0][:4], GLOBAL[0][4:]), strict=True):
        step(part, index, 0)
    zs = torch.stack([part.contrasts[0].get_buffer("log_z").exp() for part in parts])
    assert torch.allclose(one[0]["contrasts.0.log_z"].exp(), zs.mean(dim=0))


@functools.cache
def compiled_and_eager() -> tuple[list[Tensor], list[Tensor]]:
    torch._dynamo.reset()
    eager, loss = crd(), crd()
    graph = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values: tuple[list[Tensor], list[Tensor]] = ([], [])
    nothing = torch.empty(0)
    for number, index in enumerate((torch.arange(6), torch.arange(4, 10), torch.arange(8, 14))):
        for made, call, found in ((loss, graph, values[0]), (eager, eager, values[1])):
            drawn = made.draw(index, torch.Generator().manual_seed(number))
            features = random(6, 5, seed=number), random(6, 7, seed=number + 9)
            found.append(call(Seen([features[0]], [features[1]], nothing, nothing, index, drawn))[0].detach())
            made.remember()
    values[0].extend(loss.state_dict().values())
    values[1].extend(eager.state_dict().values())
    return values


def test_a_compiled_loss_remembers_too() -> None:
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(*compiled_and_eager(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_in_single(dtype: torch.dtype) -> None:
    index, nothing = torch.arange(6), torch.empty(0)
    losses = []
    for student, teacher in [(random(6, 5).to(dtype), random(6, 7).to(dtype))]:
        for cast in (False, True):
            loss = crd()
            drawn = loss.draw(index, torch.Generator().manual_seed(0))
            pair = (student.float(), teacher.float()) if cast else (student, teacher)
            losses.append(loss(Seen([pair[0]], [pair[1]], nothing, nothing, index, drawn))[0])
    assert losses[0].dtype == torch.float32
    assert torch.equal(*losses)


def test_no_memory_is_sent_around_before_every_step() -> None:
    task = small.make_task(small.quantized(), small.network(), "kd=crd")
    task.build_feature_loss(small.batch(2), training_images=small.TRAIN, labels=small.images().train_labels)
    ignored = set(task._ddp_params_and_buffers_to_ignore)
    assert {name for name, _ in task.named_buffers() if "feature_loss" in name} == ignored
    assert sum(name.endswith("bank") for name in ignored) == 2
    assert not ignored & {name for name, _ in task.named_parameters()}

"""Faster ways to the same numbers: dropout by bytes, fast products, bfloat16 where there is a GPU for it."""

import pytest

torch = pytest.importorskip("torch")
from penchant.models import _precision  # noqa: E402
from penchant.models._dropout import Dropout  # noqa: E402
from penchant.models._linear import Linear  # noqa: E402
from penchant.models._sequence_loss import (  # noqa: E402
    _chunks,
    fused_softmax_loss,
    sampled_softmax_loss,
    softmax_loss,
)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(rate):
    torch.manual_seed(0)
    x = torch.ones(300, 301, requires_grad=True)
    out = Dropout(rate)(x)
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
    assert torch.equal(Dropout(rate).eval()(x), x)


def test_dropout_draws_elements_apart():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(10_000, 64)) > 0).float()
    correlation = torch.corrcoef(kept.T) - torch.eye(64)
    assert correlation.abs().max() < 0.06


@pytest.mark.parametrize("shape", [(5,), (128,), (3, 128), (7, 43)])
def test_a_linear_layer_by_rows_is_the_usual_one(monkeypatch, shape):
    monkeypatch.setattr("penchant.models._linear.matmul_precision", lambda device: "medium")
    torch.manual_seed(0)
    layer, x = Linear(6, 4).double(), torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(*shape, 4, dtype=torch.float64)
    by_rows = layer(x)
    usual = torch.nn.functional.linear(x, layer.weight)
    assert by_rows.grad_fn.name() != usual.grad_fn.name()
    torch.testing.assert_close(by_rows, usual)
    both = [torch.autograd.grad(out, (x, layer.weight), slope) for out in (by_rows, usual)]
    torch.testing.assert_close(*both)
    assert layer.eval()(x).grad_fn.name() == usual.grad_fn.name()


def test_the_loss_of_a_target_whose_chance_is_no_float():
    mean = torch.tensor([[[1.0]], [[1.0]]], requires_grad=True)
    item, target = torch.tensor([[300.0], [0.0], [299.0]]), torch.tensor([1, 0])
    found, exact = (loss(mean, item, target) for loss in (fused_softmax_loss, softmax_loss))
    assert found.item() == pytest.approx(exact.item()) == pytest.approx(300.627, abs=1e-3)
    torch.testing.assert_close(*(torch.autograd.grad(loss, mean) for loss in (found, exact)))


def test_chunks_cover_every_row_once():
    for rows in (0, 1, 31, 32, 33, 165, 1000):
        for at_once in (1, 7, 32, 100):
            parts = list(_chunks(rows, at_once))
            assert [n for part in parts for n in range(part.start, part.stop)] == list(range(rows))
            assert all(part.stop - part.start <= at_once for part in parts)


def test_the_precision_of_others_is_left_alone():
    before = torch.get_float32_matmul_precision()
    with _precision.fast_matmuls("cpu"):
        assert torch.get_float32_matmul_precision() == _precision.matmul_precision("cpu")
    assert torch.get_float32_matmul_precision() == before


def test_fast_products_are_float32():
    torch.manual_seed(0)
    a, b = torch.randn(128, 64), torch.randn(64, 5000)
    with _precision.fast_matmuls("cpu"):
        found = a @ b
    exact = (a.double() @ b.double()).float()
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(True, False, "medium"), (True, True, "highest"), (False, False, "highest")],
)
def test_what_a_cpu_is_asked_for(monkeypatch, avx512_bf16, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert _precision.matmul_precision("cpu") == expected
    assert _precision.matmul_precision("cuda:0") == "high"


@pytest.mark.parametrize("bf16", [True, False])
def test_autocast_is_for_gpus_that_have_it(monkeypatch, bf16):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch, "autocast", lambda *words, **more: asked.append((words, more)))
    _precision.autocast("cpu")
    assert not asked
    _precision.autocast("cuda:1")
    assert asked == ([(("cuda",), {"dtype": torch.bfloat16})] if bf16 else [])


def test_losses_under_autocast_are_close_and_float32():
    torch.manual_seed(0)
    mean, item = torch.randn(40, 1, 16, requires_grad=True), torch.randn(60, 16, requires_grad=True)
    target = torch.randint(60, (40,))
    exact = softmax_loss(mean, item, target)
    slope = torch.autograd.grad(exact, (mean, item))
    negative = torch.arange(60)
    with torch.autocast("cpu", torch.bfloat16):
        found = fused_softmax_loss(mean, item, target)
        sampled = sampled_softmax_loss(mean, item[target], item, torch.zeros(60), target[:, None] == negative)
    assert found.dtype == sampled.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.01)
    assert sampled.item() == pytest.approx(exact.item(), rel=0.01)
    for a, b in zip(torch.autograd.grad(found, (mean, item)), slope, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.03)

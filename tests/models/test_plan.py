"""What a step takes, traced without allocating, against the same step taken for real."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sherlock_data.catalog import load_catalog
from sherlock_data.errors import ConfigError
from sherlock_models.config import RunConfig
from sherlock_models.planning.footprint import Footprint, measure
from sherlock_models.planning.machines import MACHINES, Machine, machine
from sherlock_models.planning.plan import plan
from sherlock_models.planning.scaling import Share, Traffic
from sherlock_models.planning.step_trace import HEAP_BLOCK, StepTrace
from sherlock_models.resolve import described
from sherlock_models.sizes import Sizes
from sherlock_models.zoo import build_model

CATALOG = load_catalog()
BATCH = 8
ROUND = Machine("round", 1_000, flops_fp32=100.0, flops_bf16=200.0, bandwidth=10.0, link=5.0)
one_of_each = pytest.mark.parametrize(
    "name",
    {entry.architecture: name for name, entry in CATALOG.models.items()}.values(),
)


def small(name: str, **options: object) -> tuple[RunConfig, Sizes]:
    """Return an entry's configuration and sizes that a CPU takes in its stride."""
    entry = CATALOG.model(name)
    config = described(CATALOG, name, options={"batch_size": BATCH, "width": 0.1, **options})
    pictures = {"video": (18, 32, 3), "frame": (64, 96, 3), "brain": (200,), "waveform": (2000,)}
    stimulus = {key: pictures.get(key, (6,)) for key in config.stimulus}
    brain = (9, 11, 9) if entry.architecture == "spatial" else (200,)
    return config, Sizes(stimulus, brain, config.delays)


def real_flops(config: RunConfig, sizes: Sizes) -> int:
    """Count the FLOPs of a forward and a backward pass that really happen."""
    model = build_model(config.model_entry, sizes, config.model_options)
    stimulus = {name: torch.randn(BATCH, *sizes.input_shape(name)) for name in sizes.stimulus}
    with FlopCounterMode(display=False) as counter:
        output = model(stimulus)
        sum(t.square().sum() for t in (output.brain, *output.stimulus.values())).backward()
    return counter.get_total_flops()


@one_of_each
def test_traced_flops_are_those_of_a_real_step(name: str) -> None:
    config, sizes = small(name)
    assert measure(config, sizes, BATCH).flops == real_flops(config, sizes)


@one_of_each
def test_the_parts_hold_all_parameters(name: str) -> None:
    found = measure(*small(name), BATCH)
    assert sum(part.parameters for part in found.parts) == found.parameters
    assert sum(found.blocks) == found.trainable
    assert found.weights + found.gradients + found.optimizer < found.peak


@one_of_each
def test_half_the_batch_for_each_of_two_ranks(name: str) -> None:
    config, sizes = small(name, brain_noise="0") if name != "brain-compressor" else small(name)
    both, each = measure(config, sizes, BATCH), measure(config, sizes, BATCH, ranks=2)
    assert each.batch == both.batch // 2
    assert each.flops == both.flops // 2
    assert each.weights == both.weights


def test_bf16_halves_activations_but_not_what_is_kept_in_float32() -> None:
    full = measure(*small("conv-voxels"), BATCH)
    half = measure(*small("conv-voxels", precision="bf16"), BATCH)
    assert (half.weights, half.gradients, half.optimizer) == (
        full.weights,
        full.gradients,
        full.optimizer,
    )
    # the loss is taken in float32 whatever the layers are in
    kept = [sum(part.activations for part in found.parts) for found in (half, full)]
    assert kept[0] < 0.7 * kept[1]


class TestTrace:
    """Bytes that come and go, in a model whose bytes can be told by hand."""

    def traced(self, hidden: int = 50) -> tuple[StepTrace, torch.nn.Module]:
        with torch.device("meta"):
            model = torch.nn.Linear(10, hidden, bias=False)
            seen = torch.empty(4, 10)
        trace = StepTrace(model)
        with trace:
            model(seen).sum().backward()
        return trace, model  # whose gradient lives as long as it does

    def test_a_tensor_counts_until_it_goes(self) -> None:
        trace, model = self.traced()
        output, gradient = 4 * 4 * 50, 4 * 10 * 50
        live, without_gradients, _ = trace.peaks()
        assert trace.kept == gradient == 4 * model.weight.grad.numel()  # all else has gone
        assert gradient <= live <= gradient + 2 * output + 64
        assert output <= without_gradients < live

    def test_small_pieces_stay_and_large_ones_are_returned(self) -> None:
        trace, _model = self.traced()
        live, _, resident = trace.peaks()
        assert resident == live  # all small
        large = HEAP_BLOCK // (4 * 10) + 1
        trace, _model = self.traced(large)
        live, _, resident = trace.peaks()
        assert live < resident  # the outputs' room is not the gradient's

    def test_nothing_is_allocated(self) -> None:
        class Real(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                if isinstance(out, Tensor) and out.device.type == "cpu":
                    assert out.nbytes < 1e6, func
                return out

        config = described(CATALOG, "dense-voxels")
        sizes = Sizes({"video": (90, 160, 3), "audio": (40,)}, (83_300,))
        with Real():
            assert measure(config, sizes, BATCH).weights > 4e9


class TestTime:
    """A step waits for its sums or for its bytes, whichever takes longer."""

    footprint = Footprint(
        parameters=100,
        trainable=100,
        parts=(),
        blocks=(60, 40, 0),
        weights=400,
        gradients=400,
        optimizer=800,
        activations=200,
        batch=10,
        peak=1_700,
        resident=1_800,
        forward_flops=1_000,
        flops=3_000,
        work=((3_000, 10), (0, 50)),
    )

    def test_roofline(self) -> None:
        # 30 s of sums, 5 s of bytes, and 40 bytes a parameter of update
        assert self.footprint.seconds(100.0, 10.0) == pytest.approx(30 + 5 + 400)
        assert self.footprint.seconds(100.0, 10.0, shards=4) == pytest.approx(30 + 5 + 100)

    def test_what_is_sent(self) -> None:
        share = Share(4, self.footprint, "fp32")
        assert share.sent("fsdp") == Traffic(12 * 100 * 3 // 4, 0)
        assert share.sent("ddp") == Traffic(8 * 100 * 3 // 4, 0)
        assert share.sent("hybrid") == share.sent("fsdp")  # one machine
        assert Share(4, self.footprint, "bf16").sent("fsdp") == Traffic(8 * 100 * 3 // 4, 0)
        assert Share(1, self.footprint, "fp32").sent("fsdp") == Traffic(0, 0)

    @pytest.mark.parametrize(
        ("parallel", "precision", "inside", "between"),
        [
            # 64 ranks: 7/8 of what moves stays inside, 7/8 of an eighth goes through each port
            pytest.param("ddp", "fp32", 8 * 100 * 7 / 8, 8 * 100 * 7 / 64, id="sum of gradients"),
            pytest.param("fsdp", "fp32", 12 * 100 * 7 / 8, 12 * 100 * 7 / 64, id="4 + 4 + 4 bytes"),
            pytest.param("fsdp", "bf16", 8 * 100 * 7 / 8, 8 * 100 * 7 / 64, id="2 + 2 + 4 bytes"),
            pytest.param("hybrid", "fp32", 12 * 100 * 7 / 8, 8 * 100 * 7 / 64, id="one of each"),
        ],
    )
    def test_what_is_sent_between_machines(
        self, parallel: str, precision: str, inside: float, between: float
    ) -> None:
        sent = Share(64, self.footprint, precision).sent(parallel)
        assert sent == Traffic(int(inside), int(between))

    def test_both_rings_together_move_what_one_ring_would(self) -> None:
        sent = Share(64, self.footprint, "fp32").sent("fsdp")
        assert sent.whole == pytest.approx(12 * 100 * 63 / 64, abs=1)

    def test_residuals_of_the_noisy_channel_go_everywhere(self) -> None:
        quiet = Share(64, self.footprint, "fp32")
        noisy = Share(64, self.footprint, "fp32", gathered=6_400)
        for parallel in ("ddp", "fsdp", "hybrid"):
            more = noisy.sent(parallel).whole - quiet.sent(parallel).whole
            assert more == pytest.approx(6_400 * 63 / 64, abs=2)

    def test_sharding_divides_what_is_held_but_not_activations(self) -> None:
        share = Share(4, self.footprint, "fp32")
        assert share.unsharded == 1_700
        assert share.sharded == 1_600 // 4 + 200 + max(12 * 60, 12 * 40 + 4 * 60)
        assert Share(1, self.footprint, "fp32").sharded == share.unsharded

    def test_hybrid_divides_by_the_ranks_of_a_machine(self) -> None:
        eight, many = Share(8, self.footprint, "fp32"), Share(64, self.footprint, "fp32")
        assert many.peak("hybrid") == eight.peak("fsdp") == eight.sharded
        assert many.peak("fsdp") == eight.sharded - 1_600 // 8 + 1_600 // 64
        assert many.peak("ddp") == many.unsharded

    def test_the_slower_of_work_and_links_decides(self) -> None:
        share = Share(4, self.footprint, "fp32")
        assert share.communication_s(ROUND, "fsdp") == 180.0
        assert share.step_s(ROUND, "fsdp") == 180.0
        # 120 s on the links, 30 + 5 s of work and 400 s of an update that nobody shares
        assert share.step_s(ROUND, "ddp") == 435.0
        assert Share(1, self.footprint, "fp32").step_s(ROUND, "ddp") == 435.0

    def test_the_slower_of_links_and_network_decides(self) -> None:
        share = Share(64, self.footprint, "fp32")  # 1,050 bytes inside, 131 between
        slow = replace(ROUND, network=0.5)
        assert share.communication_s(replace(ROUND, network=5.0), "fsdp") == 1_050 / 5
        assert share.communication_s(slow, "fsdp") == 131 / 0.5
        assert share.communication_s(ROUND, "fsdp") is None  # no network is known

    def test_unknown_speed_is_no_speed(self) -> None:
        unknown = Machine("cpu", 1_000, None, None, None)
        assert Share(1, self.footprint, "fp32").step_s(unknown, "ddp") is None


class TestMachines:
    def test_the_caller_knows_better(self) -> None:
        assert machine("a6000", flops=1e12).flops("fp32") == 1e12
        assert machine("A6000").memory == MACHINES["a6000"].memory

    def test_an_unknown_card_needs_all_figures(self) -> None:
        with pytest.raises(ConfigError, match="no machine 'b7000'"):
            machine("b7000", flops=1e12)


def test_more_gpus_are_needed_where_memory_is_short() -> None:
    short = Machine("short", 2_000_000_000, 1e13, 1e13, 1e12, 1e10, 1e9)
    [row] = plan([short], entries=["conv-voxels"], options={"batch_size": 32})
    [here] = row["machines"]
    assert here["gpus_needed"] is None  # weights, gradients and moments alone fill it
    assert here["gpus_needed_sharded"] > 1
    assert not here["fits"]


def test_larger_batches_scale_better() -> None:
    [row] = plan([MACHINES["a6000"]], entries=["dense-voxels-slim"], options={"batch_size": 32})
    scaling = {(s["gpus"], s["parallel"]): s for s in row["machines"][0]["scaling"]}
    assert scaling.keys() == {*product((8, 64), ("fsdp", "ddp")), (64, "hybrid")}
    eight = scaling[8, "fsdp"]
    assert eight["speed_up"] < 1 < 8  # PCIe: slower than one GPU
    assert eight["speed_up_larger_batch"] > eight["speed_up"]
    assert math.isclose(eight["step_s"], max(eight["compute_s"], eight["communication_s"]))

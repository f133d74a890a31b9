"""Every layout of TD-MPC2's checkpoints: forward passes equal plain formulas on the raw file."""

import math

import pytest
import torch
from tdmpc2_files import Reference, make_state, save

from pwm.errors import UserError
from pwm.models.tdmpc2_checkpoint import ForeignModel, tdmpc2_state
from pwm.models.tdmpc2_layouts import detect, file_key, structure_of
from pwm.models.tdmpc2_sizes import check_shapes, find_sizes
from pwm.models.world_model import WorldModel
from pwm.runtime.foreign import load_foreign

CASES = {
    "OLD": ("OLD", {}),
    "OLD multi-task": ("OLD", dict(tasks=4, obs=5, action=3)),
    "OLD deep": ("OLD", dict(tasks=3, enc_layers=5, enc=32, hidden=40, latent=24, num_q=5)),
    "NEW": ("NEW", {}),
    "NEW multi-task": ("NEW", dict(tasks=4, obs=5, action=3, action_dims=[1, 3, 2, 3])),
    "NEW with termination": ("NEW", dict(termination=True, enc_layers=3)),
    "NEW for PWM": ("NEW", dict(tasks=2, action=2, log_std=(-5, 0.5))),
    "NOV24": ("NOV24", {}),
    "NOV24 multi-task": ("NOV24", dict(tasks=4, obs=5, action=3, action_dims=[1, 3, 2, 3])),
    "FLAT": ("FLAT", dict(obs=6, action=2)),
}


def read(tmp_path, layout, **options):
    """State dict of a file of ``layout``, and the model read from it."""
    state = make_state(layout, **options)
    path = save(tmp_path / "file.pt", state)
    model = ForeignModel.of_file(path, load_foreign(path, {}))
    return state, model


def own_model(model, action_dims=None, **options):
    count = max(1, model.sizes.embedded_tasks)
    dims = action_dims or [model.sizes.action_dim] * count
    low, high = model.log_std or (-10.0, 2.0)
    config = model.sizes.config(
        [f"task {i}" for i in range(count)], [model.sizes.obs_dim] * count, dims, [500] * count,
        log_std_min=low, log_std_max=high, **options,
    )  # fmt: skip
    world_model = WorldModel(config)
    world_model.load_state_dict(model.own_state())
    return world_model.eval()


def close(found, expected):
    """Equal to 1e-5, and not because everything is the same number."""
    assert found.shape == expected.shape and expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_forward_passes_equal_plain_formulas(tmp_path, case):
    layout, options = CASES[case]
    state, model = read(tmp_path, layout, **options)
    assert model.layout == layout
    own = own_model(model, options.get("action_dims"))
    log_std = options.get("log_std", (-10, 2))
    reference = Reference(state, layout, log_std, state.get("_action_masks"))
    sizes, batch = model.sizes, 32
    obs = 2 * torch.randn(batch, sizes.obs_dim)
    action = 2 * torch.rand(batch, sizes.action_dim) - 1
    noise = torch.randn(batch, sizes.action_dim)
    for task in range(sizes.embedded_tasks) or [None]:
        index = None if task is None else torch.tensor(task)
        z = reference.encode(obs, task)
        close(own.encode(obs, index), z)
        z_next = reference.next(z, action, task)
        close(own.next(z, action, index), z_next)
        close(own.reward(z, action, index), reference.reward(z, action, task))
        for target in (False, True):
            expected = reference.q_values(z, action, task, target)
            close(own.q_values(z, action, index, target), expected)
            assert (expected[0] - expected[1]).abs().max() > 1e-2
        close(own.prior(z, index, noise), reference.prior(z, task, noise))
        close(own.prior(z, index), reference.prior(z, task, torch.zeros_like(noise)))
        if sizes.termination:
            expected = reference.termination_logits(z_next, task)
            close(own.terminated_logits(z, action, index), expected)


def test_targets_and_heads_are_not_mixed_up(tmp_path):
    _, model = read(tmp_path, "OLD")
    own = own_model(model)
    z, action = torch.rand(8, 16), torch.rand(8, 1)
    difference = own.q_values(z, action) - own.q_values(z, action, target=True)
    assert difference.abs().mean() > 1e-2


@pytest.mark.parametrize(
    ("size", "shapes", "parameters"),
    [
        ("1M", dict(enc=256, hidden=384, latent=128, num_q=2, task_dim=96), (1426427, 1435067)),
        ("5M", dict(enc=256, hidden=512, latent=512, num_q=5, task_dim=64), (5241066, None)),
        ("5M", dict(enc=256, hidden=512, latent=512, num_q=5, task_dim=96), (None, 5389930)),
        ("19M", dict(enc=1024, hidden=1024, latent=512, num_q=5, task_dim=64, enc_layers=3),
         (16031210, None)),
        ("19M", dict(enc=1024, hidden=1024, latent=768, num_q=5, task_dim=96, enc_layers=3),
         (None, 18970218)),
        ("48M", dict(enc=1792, hidden=1792, latent=768, num_q=5, task_dim=64, enc_layers=4),
         (48242410, None)),
        ("48M", dict(enc=1792, hidden=1792, latent=768, num_q=5, task_dim=96, enc_layers=4),
         (None, 48791146)),
        ("317M", dict(enc=4096, hidden=4096, latent=1376, num_q=8, task_dim=96, enc_layers=5),
         (317316889, 317383129)),
    ],
)  # fmt: skip
def test_released_sizes_are_found_from_shapes_alone(size, shapes, parameters):
    for tasks, obs, count in ((30, 24, parameters[0]), (80, 39, parameters[1])):
        if count is None:
            continue
        state = make_state("OLD", tasks=tasks, obs=obs, action=6, device="meta", **shapes)
        structure = structure_of(state, "OLD")
        keys = {name: file_key(name, "OLD") for name in structure.names()}
        tensors = {name: state[key] for name, key in keys.items()}
        sizes = find_sizes("x.pt", structure, tensors)
        check_shapes("x.pt", sizes, tensors, keys)
        assert (sizes.name, sizes.obs_dim, sizes.action_dim) == (size, obs, 6)
        config = sizes.config(["a"] * tasks, [obs] * tasks, [6] * tasks, [500] * tasks)
        with torch.device("meta"):
            assert WorldModel(config).num_parameters() == count


def test_layouts_are_told_apart():
    for layout in ("OLD", "NEW", "NOV24", "FLAT"):
        assert detect(make_state(layout)) == layout
        assert detect(make_state(layout, device="meta")) == layout
    assert detect(make_state("OLD", enc_layers=5)) == "OLD"
    assert detect(["weight", "bias", "0.weight"]) is None


@pytest.mark.parametrize("case", [case for case, (layout, _) in CASES.items() if layout != "FLAT"])
def test_back_to_tdmpc2_bit_for_bit(tmp_path, case):
    layout, options = CASES[case]
    state, model = read(tmp_path, layout, **options)
    own = own_model(model, options.get("action_dims"))
    back = tdmpc2_state(own, model.log_std_dtypes)
    expected = make_state("NEW", **options)
    assert set(back) == set(expected)
    for key, value in back.items():
        if isinstance(value, torch.Tensor):
            if key in state:
                assert value.dtype == state[key].dtype and value.shape == state[key].shape, key
                assert torch.equal(value, state[key]), key
        else:
            assert value == expected[key]
    # OLD has other keys for the heads: a file of layout NEW with these weights reads as the same
    again = ForeignModel.of_file(tmp_path / "again.pt", {"model": back})
    assert again.layout == "NEW"
    assert all(torch.equal(again.tensors[name], t) for name, t in model.tensors.items())


def test_types_of_the_log_std_entries(tmp_path):
    state, model = read(tmp_path, "NEW", log_std=(-5.0, 0.5))
    assert model.log_std == (-5.0, 0.5) and model.log_std_dtypes == ("float32", "float32")
    own = own_model(model)
    for key in ("log_std_min", "log_std_dif"):
        assert tdmpc2_state(own, model.log_std_dtypes)[key].dtype == torch.float32
    made = tdmpc2_state(own)
    assert made["log_std_min"].dtype == torch.int64 and made["log_std_dif"].dtype == torch.float32
    assert (int(made["log_std_min"]), float(made["log_std_dif"])) == (-5, 5.5)


def refused(tmp_path, state, *needles, **content):
    path = tmp_path / "bad.pt"
    torch.save({"model": state, **content}, path)
    with pytest.raises(UserError) as error:
        ForeignModel.of_file(path, load_foreign(path, {}))
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    for needle in needles:
        assert needle in text, text


@pytest.mark.parametrize("layout", ["OLD", "NEW", "NOV24", "FLAT"])
def test_any_missing_key_is_named(tmp_path, layout):
    whole = make_state(layout)
    for key in whole:
        if "__" in key:
            continue
        state = {k: v for k, v in whole.items() if k != key}
        if layout == "NEW" and key in ("log_std_min", "log_std_dif"):
            refused(tmp_path, state, "lacks 1 of", key)
        else:
            refused(tmp_path, state, "lacks", key)


def test_any_tensor_of_another_size_is_named(tmp_path):
    whole = make_state("OLD", tasks=3, obs=5, action=2)
    for key, tensor in whole.items():
        grown = torch.cat([tensor, tensor[..., :1]], -1)
        if key in ("_encoder.state.0.weight", "_task_emb.weight"):
            continue  # nothing else in the file says how many observations or tasks there are
        refused(tmp_path, {**whole, key: grown}, f"'{key}' has shape {tuple(grown.shape)}",
                f"expected {tuple(tensor.shape)}")  # fmt: skip


def test_dims_that_no_other_tensor_confirms_are_found_at_last(tmp_path):
    whole = make_state("OLD", tasks=3, obs=5, action=2)
    wider = torch.cat([whole["_task_emb.weight"]] * 2, -1)
    refused(tmp_path, {**whole, "_task_emb.weight": wider}, "_task_emb.weight", "(3, 16)")
    less = {k: v for k, v in whole.items() if k != "_task_emb.weight"}
    refused(tmp_path, less, "lacks the key _task_emb.weight", "8 features")
    flat = {**whole, "_dynamics.0.weight": torch.zeros(7)}
    refused(tmp_path, flat, "'_dynamics.0.weight' has shape (7,)", "expected (24, 26)")


def test_a_wider_layer_of_a_single_task_model_is_no_missing_embedding(tmp_path):
    whole = make_state("OLD", action=3)
    wide = torch.ones(24, 17)
    refused(tmp_path, {**whole, "_pi.0.weight": wide}, "'_pi.0.weight' has shape (24, 17)",
            "expected (24, 16)")  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(tmp_path, bad):
    for key in ("_task_emb.weight", "_Qs.params.4", "_target_Qs.params.9", "_pi.1.ln.bias"):
        state = make_state("OLD", tasks=2)
        state[key] = state[key].clone()
        state[key].view(-1)[1] = bad
        refused(tmp_path, state, f"'{key}' has 1 of {state[key].numel()} values", "NaN")


def test_other_contents(tmp_path):
    new = make_state("NEW", tasks=2, action=2)
    refused(tmp_path, {}, "is no checkpoint of TD-MPC2")
    refused(tmp_path, [1, 2], "is no checkpoint of TD-MPC2")
    refused(tmp_path, {"layer.weight": torch.ones(2)}, "but layer.weight")
    refused(tmp_path, {**new, "_encoder.rgb.2.weight": torch.ones(2)}, "a model of pictures")
    refused(tmp_path, {**new, "_decoder.0.weight": torch.ones(2)}, "no part of such a model",
            "_decoder.0.weight")  # fmt: skip
    refused(tmp_path, {**new, "_encoder.state.999999999.bias": torch.ones(2)}, "lacks",
            "_encoder.state.2.weight")  # fmt: skip
    refused(tmp_path, {**new, "_pi.0.bias": [1.0]}, "'_pi.0.bias' is no tensor but list")
    refused(tmp_path, {**new, "_pi.0.bias": new["_pi.0.bias"].double()}, "not float32")
    refused(tmp_path, {**new, "_pi.0.bias": torch.ones(1).expand(24)}, "not stored in full")
    refused(tmp_path, {**new, "_action_masks": torch.full((2, 2), 0.5)}, "other numbers")
    refused(tmp_path, {**new, "_action_masks": torch.ones(3, 2)}, "(3, 2), expected (2, 2)")
    refused(tmp_path, {**new, "log_std_dif": torch.tensor(0)}, "not above 0")
    refused(tmp_path, {**new, "log_std_min": torch.tensor(math.nan)}, "no finite number")
    refused(tmp_path, {**new, "log_std_min": "low"}, "no finite number")
    refused(tmp_path, make_state("OLD", bins=1), "single numbers")
    refused(tmp_path, make_state("OLD", num_q=1), "1 Q heads (at least 2)")


@pytest.mark.parametrize("layout", ["NEW", "NOV24"])
def test_copies_must_be_copies(tmp_path, layout):
    state = make_state(layout)
    copies = [k for k in state if k.startswith(("_detach", "_target_Qs.")) and "__" not in k]
    assert copies
    for key in copies:
        refused(tmp_path, {**state, key: state[key] + 1e-3}, f"'{key}' differs from")


def test_a_bare_state_dict_and_further_entries(tmp_path):
    state = make_state("OLD")
    path = tmp_path / "bare.pt"
    torch.save(state, path)
    assert ForeignModel.of_file(path, load_foreign(path, {})).layout == "OLD"
    torch.save({"model": state, "step": 7, "optim": {}}, path)
    assert ForeignModel.of_file(path, load_foreign(path, {})).ignored == ("optim", "step")

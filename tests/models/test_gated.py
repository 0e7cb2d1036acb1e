import itertools

import pytest
import torch
from tiny_models import generator, packed

from msakit.models.gated import MODALITIES, AttentivePooling, GatedFusion, WeightedLayers
from msakit.models.layers.packed import Packed, layout_of

DIMS = {"text": 7, "audio": 5, "vision": 11}
LENGTHS = {"text": [3, 13, 1, 2, 5], "audio": [2, 1, 4, 0, 3], "vision": [1, 6, 2, 2, 17]}


def model(modalities=("text", "audio", "vision"), **settings):
    torch.manual_seed(3)
    return GatedFusion({m: DIMS[m] for m in modalities}, width=8, embedding=6, heads=3, **settings).eval()


def batch(modalities=("text", "audio", "vision"), lengths=LENGTHS, layers=None):
    return {m: packed(DIMS[m], lengths[m], (layers or {}).get(m), seed=i) for i, m in enumerate(modalities)}


def plain_forward(net, inputs):
    """The method written out segment by segment, without packing, straight from the formulas."""
    weights, rows = net.state_dict(), []
    count = len(next(iter(inputs.values())).lengths)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def norm(x, name):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for row in range(count):
        z = {m: torch.zeros(6) for m in MODALITIES}
        for m, (frames, lengths, _) in inputs.items():
            x = frames[..., int(lengths[:row].sum()) : int(lengths[: row + 1].sum()), :]
            if f"encoders.{m}.mix.scalars" in weights:
                share = weights[f"encoders.{m}.mix.scalars"].exp()
                x = sum(s * layer for s, layer in zip(share / share.sum(), x, strict=True))
            if not len(x):
                continue
            h = norm(linear(x, f"encoders.{m}.project.0"), f"encoders.{m}.project.1").clamp(min=0)
            attention = linear(linear(h, f"encoders.{m}.pool.hidden").tanh(), f"encoders.{m}.pool.score").softmax(0)
            heads = [sum(a * v for a, v in zip(head, h, strict=True)) for head in attention.T]
            z[m] = linear(torch.cat(heads), f"encoders.{m}.output")
        stacked = torch.cat([z["vision"], z["audio"], z["text"]])
        if "decoder.gates.weight" in weights:
            gates = 1 / (1 + (-linear(stacked, "decoder.gates")).exp())
            stacked = gates[0] * z["vision"] + gates[1] * z["audio"] + gates[2] * z["text"]
        hidden = norm(linear(stacked, "decoder.output.0"), "decoder.output.1").clamp(min=0)
        rows.append(linear(hidden, "decoder.output.4"))
    return torch.stack(rows)


SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(DIMS, n)]


@pytest.mark.parametrize("decoder", ["gated", "concat"])
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_equals_the_plain_method_segment_by_segment(modalities, decoder):
    net, inputs = model(modalities, decoder=decoder), batch(modalities)
    torch.testing.assert_close(net(inputs)["prediction"], plain_forward(net, inputs)[:, 0], rtol=1e-5, atol=1e-5)


def test_weighted_layers_and_classes_equal_the_plain_method():
    layers = {"text": 3, "vision": 2}
    net, inputs = model(n_layers=layers, n_classes=3), batch(layers=layers)
    for encoder in net.encoders.values():
        if encoder.mix is not None:
            torch.nn.init.normal_(encoder.mix.scalars, generator=generator())
    output = net(inputs)
    assert output["prediction"].shape == (5, 3)
    assert output["layer_weights_text"].shape == (3,)
    assert "layer_weights_audio" not in output
    torch.testing.assert_close(output["prediction"], plain_forward(net, inputs), rtol=1e-5, atol=1e-5)


def test_sizes_are_those_of_the_published_models():
    dims = dict.fromkeys(MODALITIES, 1024)
    mosi, mosei = GatedFusion(dims), GatedFusion(dims, width=256, embedding=128)
    assert sum(p.numel() for p in mosi.parameters()) == pytest.approx(0.55e6, abs=0.005e6)
    assert sum(p.numel() for p in mosei.parameters()) == pytest.approx(1.40e6, abs=0.005e6)


def test_pooling_by_hand():
    # Scores 0 and ln 3 give attention 1/4 and 3/4; a single frame gets all of it.
    pool = AttentivePooling(1, 1)
    with torch.no_grad():
        pool.hidden.weight.fill_(1)
        pool.hidden.bias.zero_()
        pool.score.weight.fill_(torch.tensor(3.0).log() / torch.tensor(2.0).tanh())
        pooled, attention = pool(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([2, 1]))
    torch.testing.assert_close(attention[:, 0], torch.tensor([0.25, 0.75, 1.0]))
    torch.testing.assert_close(pooled[:, 0], torch.tensor([1.5, 5.0]))


def test_layer_weights_by_hand():
    mix = WeightedLayers(2)
    frames = torch.stack([torch.full((3, 2), 1.0), torch.full((3, 2), 5.0)])
    assert mix(frames).eq(3).all()
    mix.scalars.data = torch.tensor([0.0, 3.0]).exp().log()  # shares e^0 and e^3
    expected = (1 + 5 * torch.tensor(3.0).exp()) / (1 + torch.tensor(3.0).exp())
    torch.testing.assert_close(mix(frames), expected.expand(3, 2))


def test_batch_order_permutes_the_outputs_across_pooling_blocks():
    lengths = {m: [(7 * i + k) % 5 + 1 for i in range(37)] for k, m in enumerate(DIMS)}
    net, inputs, order = model(), batch(lengths=lengths), torch.randperm(37, generator=generator())
    shuffled = {}
    for m, (frames, sizes, _) in inputs.items():
        parts = frames.split(sizes.tolist())
        shuffled[m] = Packed(torch.cat([parts[i] for i in order]), sizes[order])
    torch.testing.assert_close(net(shuffled)["prediction"], net(inputs)["prediction"][order], rtol=1e-5, atol=1e-6)


def test_a_segment_sees_neither_the_others_nor_its_padding():
    net, inputs = model(), batch()
    together = net(inputs)
    for row in range(5):
        alone = {}
        for m, (frames, lengths, _) in inputs.items():
            start = int(lengths[:row].sum())
            alone[m] = Packed(frames[start : start + int(lengths[row])], lengths[row : row + 1])
        for key in ("prediction", "gates", "fused", *alone):
            torch.testing.assert_close(net(alone)[key][0], together[key][row], rtol=1e-5, atol=1e-6)
    longest = {m: Packed(p.frames, p.lengths, layout_of(p.lengths)._replace(longest=40)) for m, p in inputs.items()}
    torch.testing.assert_close(net(longest)["prediction"], together["prediction"], rtol=1e-5, atol=1e-6)


def test_outputs_and_their_ranges():
    output = model(("text", "vision"))(batch(("text", "vision")))
    assert output["gates"].shape == (5, 2)
    assert ((output["gates"] > 0) & (output["gates"] < 1)).all()
    assert output["vision"].shape == (5, 6)
    assert output["fused"].shape == (5, 6)
    sums = torch.zeros(5, 3).index_add(0, layout_of(torch.tensor(LENGTHS["text"])).owner, output["attention_text"])
    torch.testing.assert_close(sums, torch.ones(5, 3))


def test_gates_belong_to_their_modality():
    net, inputs = model(("text", "audio")), batch(("text", "audio"))
    with torch.no_grad():
        net.decoder.gates.weight.zero_()
        net.decoder.gates.bias.copy_(torch.tensor([0.0, -100.0, 100.0]))  # vision, audio, text
        output = net(inputs)
    assert output["gates"][0].tolist() == pytest.approx([0, 1], abs=1e-6)  # audio, text
    torch.testing.assert_close(output["fused"], output["text"])


def test_a_segment_without_frames_has_a_zero_embedding_and_finite_gradients():
    net = model().train()
    output = net(batch())
    assert output["audio"][3].eq(0).all()
    output["prediction"].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_unknown_modalities_and_decoders_are_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        GatedFusion({"smell": 3})
    with pytest.raises(ValueError, match="unknown decoder 'sum'"):
        model(decoder="sum")


def test_save_and_load(tmp_path):
    net, layers = model(n_layers={"text": 3}, n_classes=2), {"text": 3}
    net.save_pretrained(tmp_path)
    again = GatedFusion.from_pretrained(tmp_path).eval()
    assert torch.equal(again(batch(layers=layers))["prediction"], net(batch(layers=layers))["prediction"])

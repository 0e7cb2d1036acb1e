import copy
import math

import numpy as np
import pytest
import torch
from tiny_models import D_AUDIO, D_VISION, TEXT_CONFIGS, generator, token_batch

from msakit.models import Pretrained
from msakit.models.cms import CMS, CONTEXTS, POOLINGS, MaskedPooling
from msakit.models.layers.soft_alignment import SoftAlignment
from msakit.models.layers.word_pieces import align_to_pieces, word_positions
from msakit.models.mag import MAG, bounded_shift
from msakit.models.shifted_bert import PooledEmbedding, ShiftedBert, encoder_layers

LENGTHS = [7, 3, 13]
DIMS = {"audio": D_AUDIO, "vision": D_VISION}
ALL = ("text", "audio", "vision")


def shifted(encoder="bert", seed=5, **settings):
    torch.manual_seed(seed)
    return ShiftedBert(TEXT_CONFIGS[encoder], D_AUDIO, D_VISION, **settings).eval()


def on_tokens(batch):
    return {name: batch[name] for name in DIMS}


@torch.no_grad()
def plain_mag(gate, e, audio, vision):
    """The formulas, one token at a time, on plain matrices."""
    rows = []
    for token, a, v in zip(e.flatten(0, 1), audio.flatten(0, 1), vision.flatten(0, 1), strict=True):
        h = torch.zeros_like(token)
        for m, W, U in ((v, gate.gate["vision"], gate.shift["vision"]), (a, gate.gate["audio"], gate.shift["audio"])):
            g = (W.weight @ torch.cat([m, token]) + W.bias).clamp(min=0)
            h = h + g * (U.weight @ m)
        ratio = float(gate.beta * token.norm() / h.norm()) if h.norm() > 0 else 1.0
        x = token + min(ratio, 1.0) * h
        rows.append((x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * gate.norm.weight + gate.norm.bias)
    return torch.stack(rows).view(e.shape)


@pytest.mark.parametrize("beta", [1.0, 0.01])
def test_mag_equals_the_plain_method_token_by_token(beta):
    torch.manual_seed(0)
    gate, batch = MAG(7, DIMS, beta).eval(), token_batch(LENGTHS)
    e = torch.randn(3, 13, 7)
    e[0, 2] = 0  # a zero token vector: nothing may be added to it
    found = gate(e, on_tokens(batch), batch["attention_mask"].bool())
    torch.testing.assert_close(found, plain_mag(gate, e, batch["audio"], batch["vision"]), rtol=1e-5, atol=1e-5)


def test_the_bound_by_hand():
    e, h = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 20.0]]])
    torch.testing.assert_close(bounded_shift(e, h, 1.0), torch.tensor([[[0.0, 5.0]]]))
    torch.testing.assert_close(bounded_shift(e, h, 0.01), torch.tensor([[[0.0, 0.05]]]))
    torch.testing.assert_close(bounded_shift(e, h / 10, 1.0), h / 10)  # short enough as it is
    zero = torch.zeros(1, 1, 2, requires_grad=True)
    bounded_shift(e, zero, 1.0).sum().backward()
    assert zero.grad.isfinite().all()
    assert bounded_shift(zero, h, 1.0).eq(0).all()


@pytest.mark.parametrize("shift", [MAG, CMS])
def test_tokens_without_audio_and_vision_are_normalised_but_not_shifted(shift):
    torch.manual_seed(0)
    gate, batch, e = shift(7, DIMS).eval(), token_batch(LENGTHS), torch.randn(3, 13, 7)
    found = gate(e, on_tokens(batch), batch["attention_mask"].bool())
    silent = ~((batch["audio"] != 0).any(-1) | (batch["vision"] != 0).any(-1))
    assert silent.sum() == 3 * 13 - (5 + 1 + 11)
    torch.testing.assert_close(found[silent], gate.norm(e)[silent])
    assert not torch.isclose(found, gate.norm(e), atol=1e-3).all(-1)[~silent].any()


@pytest.mark.parametrize("beta", [1.0, 0.01])
@pytest.mark.parametrize("contexts", CONTEXTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_cms_with_its_contexts_at_zero_is_mag(monkeypatch, beta, contexts, pooling):
    torch.manual_seed(0)
    mag, cms = MAG(7, DIMS, beta).eval(), CMS(7, DIMS, beta, contexts=contexts, pooling=pooling).eval()
    lacking = cms.load_state_dict(mag.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert bool(lacking.missing_keys) == (contexts != "none")
    batch, e = token_batch(LENGTHS), torch.randn(3, 13, 7)
    args = (e, on_tokens(batch), batch["attention_mask"].bool())
    if contexts != "none":
        assert not torch.allclose(cms(*args), mag(*args), atol=1e-4 * beta)
        real = MaskedPooling.forward
        monkeypatch.setattr(MaskedPooling, "forward", lambda *given: 0 * real(*given))
    assert torch.equal(cms(*args), mag(*args))


@torch.no_grad()
def plain_cms(gate, e, nonverbal, words):
    """One utterance without padding: means as contexts, one word at a time."""
    contexts = {"text": e.mean(0)} | {name: values[words].mean(0) for name, values in nonverbal.items()}
    rows = []
    for i, token in enumerate(e):
        h = torch.zeros_like(token)
        for name, values in nonverbal.items():
            given = torch.cat([values[i], token]), torch.cat([contexts[name], contexts["text"]])
            g = gate.gate[name].weight @ given[0] + gate.gate[name].bias + gate.gate_context[name].weight @ given[1]
            u = gate.shift[name].weight @ values[i] + gate.shift_context[name].weight @ contexts[name]
            h = h + g.clamp(min=0) * u
        rows.append(h * min(float(token.norm() / h.norm()), 1.0) if words[i] else torch.zeros_like(token))
    return torch.stack(rows)


def test_cms_equals_the_plain_method_word_by_word():
    torch.manual_seed(0)
    gate, batch, e = CMS(7, DIMS, pooling="mean").eval(), token_batch([13]), torch.randn(1, 13, 7)
    words = (batch["audio"] != 0).any(-1)[0]
    found = gate.displacement(e, on_tokens(batch), batch["attention_mask"].bool())[0]
    expected = plain_cms(gate, e[0], {name: batch[name][0] for name in DIMS}, words)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found[words].norm(dim=-1).gt(0.01).all()


def test_each_context_reaches_the_shift_and_only_that_one():
    batch, e = token_batch([13]), torch.randn(1, 13, 7, generator=generator())
    mask, nonverbal = batch["attention_mask"].bool(), on_tokens(batch)
    other_word, other_sound = e.clone(), batch["audio"].clone()
    other_word[0, 5] += 3
    other_sound[0, 5] += 3
    for contexts in CONTEXTS:
        torch.manual_seed(0)
        gate = CMS(7, DIMS, contexts=contexts).eval()
        before = gate(e, nonverbal, mask)[0, 2]
        word = gate(other_word, nonverbal, mask)[0, 2]
        sound = gate(e, nonverbal | {"audio": other_sound}, mask)[0, 2]
        assert torch.equal(before, word) == (contexts not in ("verbal", "both")), contexts
        assert torch.equal(before, sound) == (contexts not in ("nonverbal", "both")), contexts


def test_the_wide_mag_has_nearly_as_many_parameters_as_cms_and_sums_two_of_it():
    wide, cms = MAG(16, DIMS, width=2).eval(), CMS(16, DIMS).eval()
    sizes = [sum(p.numel() for p in gate.parameters()) for gate in (wide, cms)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.01
    batch, e = token_batch(LENGTHS), torch.randn(3, 13, 16, generator=generator())
    halves = []
    for rows in (slice(0, 16), slice(16, 32)):
        half = MAG(16, DIMS, beta=1e9).eval()
        half.load_state_dict(
            {
                name: value[rows] if name.startswith(("gate", "shift")) else value
                for name, value in wide.state_dict().items()
            }
        )
        halves.append(half.displacement(e, on_tokens(batch), batch["attention_mask"].bool()))
    wide.beta = 1e9
    found = wide.displacement(e, on_tokens(batch), batch["attention_mask"].bool())
    torch.testing.assert_close(found, halves[0] + halves[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", ["mag", "cms"])
def test_one_modality_alone_is_enough(shift):
    torch.manual_seed(5)
    net = ShiftedBert(TEXT_CONFIGS["bert"], D_AUDIO, 0, shift=shift, contrast=("text", "audio")).eval()
    batch = token_batch(LENGTHS)
    del batch["vision"]
    found = net(batch)
    found["prediction"].sum().backward()
    assert set(found) == {"prediction", "pooled", "text", "audio"}
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("embed"))
    with pytest.raises(ValueError, match="needs the size of audio"):
        ShiftedBert(TEXT_CONFIGS["bert"])


def test_masked_pooling_by_hand():
    values, mask = torch.tensor([[[0.0], [2.0], [9.0]], [[1.0], [1.0], [1.0]]]), torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert MaskedPooling(1, "mean")(values, mask.bool()).flatten().tolist() == [1, 0]
    attention = MaskedPooling(1, "attention")
    attention.score.weight.data.fill_(math.log(3) / 2)
    assert attention(values, mask.bool()).flatten().tolist() == pytest.approx([1.5, 0])


@pytest.mark.parametrize("encoder", TEXT_CONFIGS)
@pytest.mark.parametrize("layer", [0, 2])
def test_the_shift_sits_where_it_should(encoder, layer):
    """Running the encoder's own layers by hand, with the shift before layer k, gives the model's pooled output."""
    net, batch = shifted(encoder, layer=layer, shift="mag"), token_batch([13, 13])
    text = net.encoder
    hidden = text.embeddings(batch["input_ids"])
    for index, block in enumerate(encoder_layers(text)):
        if index == layer:
            hidden = net.shift(hidden, on_tokens(batch), batch["attention_mask"].bool())
        hidden = block(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    expected = hidden[:, 0] if encoder == "distilbert" else text.pooler(hidden)
    torch.testing.assert_close(net(batch)["pooled"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [None, "mag", "cms"])
def test_padding_never_changes_and_order_permutes_outputs(shift):
    net = shifted(shift=shift, contrast=ALL)
    outputs, padded = net(token_batch(LENGTHS)), net(token_batch(LENGTHS, padding=5))
    batch, order = token_batch(LENGTHS), torch.tensor([2, 0, 1])
    permuted = net({name: value[order] for name, value in batch.items()})
    batch["input_ids"][1, 3:] = 17
    refilled = net(batch)
    for name in ("prediction", "text", "audio", "vision"):
        torch.testing.assert_close(padded[name], outputs[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(refilled[name], outputs[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(permuted[name], outputs[name][order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_the_text_embedding_is_blind_to_sound_before_the_shift_only(layer):
    batch = token_batch(LENGTHS)
    silent = batch | {"audio": torch.zeros_like(batch["audio"])}
    pre, post = (shifted(contrast=ALL, clr_text=side, layer=layer) for side in ("pre", "post"))
    torch.testing.assert_close(pre(batch)["text"], pre(silent)["text"])
    assert not torch.allclose(post(batch)["text"], post(silent)["text"], atol=1e-6)
    assert not torch.allclose(pre(batch)["prediction"], pre(silent)["prediction"], atol=1e-5)
    for name in ALL:
        torch.testing.assert_close(pre(batch)[name].norm(dim=-1), torch.ones(3))


def test_the_contrast_needs_no_second_pass_of_the_encoder():
    for side in ("pre", "post"):
        net, passes = shifted(contrast=ALL, clr_text=side), []
        net.encoder.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        net(token_batch(LENGTHS))
        assert len(passes) == 1


def test_an_utterance_without_words_has_a_finite_embedding():
    module, values = PooledEmbedding(5, 7), torch.zeros(2, 3, 5)
    found = module(values, torch.zeros(2, 3, dtype=torch.bool))
    torch.testing.assert_close(found, torch.nn.functional.normalize(module.output.bias, dim=0).expand(2, 7))
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_relative_shifts_by_hand():
    net, batch = shifted(shift="mag", layer=1), token_batch(LENGTHS)
    given = []
    handle = net.shift.register_forward_hook(lambda module, args, output: given.append(args[0]))
    net(batch)
    handle.remove()
    moved = net.shift.displacement(given[0], on_tokens(batch), batch["attention_mask"].bool())
    found = net.relative_shifts(batch)
    torch.testing.assert_close(found, moved.norm(dim=-1) / given[0].norm(dim=-1))
    silent = ~(batch["audio"] != 0).any(-1)
    assert found[silent].eq(0).all()
    assert found[~silent].gt(0).all()
    assert found.max() <= 1 + 1e-6
    assert shifted(shift=None).relative_shifts(batch).eq(0).all()


def test_soft_alignment_starts_as_the_linear_map_of_time_to_words():
    torch.manual_seed(0)
    module = SoftAlignment(7, 3)
    frames = torch.randn(1, 40, 3)
    positions = torch.from_numpy(word_positions([None, 0, 1, 1, 3, None], 4))[None]
    found = module(torch.randn(1, 6, 7), frames, positions)[0]
    assert found[[0, 5]].eq(0).all()
    assert torch.equal(found[2], found[3])  # two pieces of one word
    time = (torch.arange(40) + 0.5) / 40
    for token, word in ((1, 0), (2, 1), (4, 3)):
        weights = torch.exp(-(((time - (word + 0.5) / 4) * 4) ** 2) / 2)
        expected = (weights / weights.sum()) @ frames[0]
        torch.testing.assert_close(found[token], expected, rtol=1e-5, atol=1e-5)


def test_soft_alignment_learns_from_content_and_width():
    torch.manual_seed(0)
    module, e, frames = SoftAlignment(7, 3), torch.randn(2, 5, 7), torch.randn(2, 11, 3)
    positions = torch.from_numpy(np.stack([word_positions([None, 0, 1, 2, None], 3)] * 2))
    before = module(e, frames, positions)
    before.square().sum().backward()
    assert module.spread.grad.abs() > 0
    assert module.query.weight.grad.abs().max() > 0
    torch.nn.init.normal_(module.query.weight)
    bent = module(e, frames, positions)
    assert not torch.allclose(bent, before, atol=1e-3)
    assert not torch.allclose(bent, module(e.flip(1), frames, positions), atol=1e-3)


@pytest.mark.parametrize("shift", ["mag", "cms"])
def test_a_soft_model_reads_frames(shift):
    torch.manual_seed(5)
    net = ShiftedBert(TEXT_CONFIGS["bert"], D_AUDIO, D_VISION, shift=shift, soft=True, contrast=ALL).eval()
    batch = token_batch([7, 5])
    batch |= {name: torch.randn(2, 17, size, generator=generator()) for name, size in DIMS.items()}
    positions = [
        word_positions([None, *range(5), None], 5),
        np.pad(word_positions([None, *range(3), None], 3), ((0, 2), (0, 0))),
    ]
    batch["word_positions"] = torch.from_numpy(np.stack(positions))
    found = net(batch)
    sum(value.square().sum() for value in found.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    longer = {
        name: torch.nn.functional.pad(value, (0, 0, 0, 3)) for name, value in batch.items() if name == "word_positions"
    }
    longer |= {name: torch.nn.functional.pad(batch[name], (0, 3)) for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(net(batch | longer)["prediction"], found["prediction"], rtol=1e-5, atol=1e-5)


def test_a_copy_uses_its_own_shift():
    net, batch = shifted(), token_batch(LENGTHS)
    before, twin = net(batch)["prediction"], copy.deepcopy(net)
    torch.nn.init.zeros_(net.shift.norm.weight)
    assert torch.equal(twin(batch)["prediction"], before)
    assert not torch.equal(net(batch)["prediction"], before)


def test_save_load_and_start_from_an_encoder(tmp_path):
    net, batch = shifted(contrast=ALL, layer=1, n_classes=3), token_batch(LENGTHS)
    net.save_pretrained(tmp_path / "model")
    again = ShiftedBert.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(again(batch)["prediction"], net(batch)["prediction"])
    net.encoder.save_pretrained(tmp_path / "encoder")
    fresh = ShiftedBert.build({"text": Pretrained(str(tmp_path / "encoder"))}, None, shift=None).eval()
    pooled = shifted(shift=None)
    pooled.encoder.load_state_dict(net.encoder.state_dict())
    assert torch.equal(fresh(batch)["pooled"], pooled(batch)["pooled"])


def test_wrong_settings_are_refused():
    for settings in ({"shift": "sideways"}, {"layer": 3}, {"clr_text": "during"}, {"contexts": "all"}, {"beta": -1.0},
                     {"width": 0, "shift": "mag"}):  # fmt: skip
        with pytest.raises(ValueError, match=str(next(iter(settings)))):
            shifted(**settings)
    batch = token_batch(LENGTHS)
    del batch["audio"]
    assert shifted(shift=None)(batch)["prediction"].shape == (3,)


def test_words_on_their_pieces():
    vectors = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    pieces = align_to_pieces([None, 0, 1, 1, None], vectors)
    assert pieces.tolist() == [[0, 0], [1, 2], [3, 4], [3, 4], [0, 0]]
    assert pieces.dtype == np.float32
    with pytest.raises(IndexError):
        align_to_pieces([None, 2], vectors)


def test_positions_of_words_by_hand():
    positions = word_positions([None, 0, 0, 1, None], 2)
    np.testing.assert_allclose(positions, [[0, 0], [0.25, 0.5], [0.25, 0.5], [0.75, 0.5], [0, 0]])
    assert word_positions([None, None], 0).shape == (2, 2)  # an utterance without words

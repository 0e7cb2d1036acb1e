import copy
import math

import numpy as np
import pytest
import torch
from tiny_models import D_AUDIO, D_VISION, TEXT_CONFIGS, generator, token_batch

from msakit.fusion.cms import CMS, CONTEXTS, MaskedPooling
from msakit.fusion.mag import MAG, bounded_shift
from msakit.fusion.shifted_bert import SequenceEmbedding, ShiftedBert, encoder_layers
from msakit.fusion.word_pieces import align_to_pieces

LENGTHS = [7, 3, 13]


def shifted(encoder="bert", seed=5, **settings):
    torch.manual_seed(seed)
    return ShiftedBert(TEXT_CONFIGS[encoder], D_AUDIO, D_VISION, **settings).eval()


@torch.no_grad()
def plain_mag(gate, e, audio, vision):
    """The formulas, one token at a time."""
    rows = []
    for token, a, v in zip(e.flatten(0, 1), audio.flatten(0, 1), vision.flatten(0, 1), strict=True):
        h = torch.zeros_like(token)
        for m, W, U in ((v, gate.gate_vision, gate.shift_vision), (a, gate.gate_audio, gate.shift_audio)):
            g = (W.weight @ torch.cat([m, token]) + W.bias).clamp(min=0)
            h = h + g * (U.weight @ m)
        ratio = float(gate.beta * token.norm() / h.norm()) if h.norm() > 0 else 1.0
        x = token + min(ratio, 1.0) * h
        rows.append((x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * gate.norm.weight + gate.norm.bias)
    return torch.stack(rows).view(e.shape)


@pytest.mark.parametrize("beta", [1.0, 0.01])
def test_mag_equals_the_plain_method_token_by_token(beta):
    torch.manual_seed(0)
    gate, batch = MAG(7, D_AUDIO, D_VISION, beta).eval(), token_batch(LENGTHS)
    e = torch.randn(3, 13, 7)
    e[0, 2] = 0  # a zero token vector: nothing may be added to it
    found = gate(e, batch["audio"], batch["vision"], batch["attention_mask"].bool())
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
    gate, batch, e = shift(7, D_AUDIO, D_VISION).eval(), token_batch(LENGTHS), torch.randn(3, 13, 7)
    found = gate(e, batch["audio"], batch["vision"], batch["attention_mask"].bool())
    silent = ~((batch["audio"] != 0).any(-1) | (batch["vision"] != 0).any(-1))
    assert silent.sum() == 3 * 13 - (5 + 1 + 11)
    torch.testing.assert_close(found[silent], gate.norm(e)[silent])
    assert not torch.isclose(found, gate.norm(e), atol=1e-3).all(-1)[~silent].any()


def copy_mag_into_cms(mag, cms):
    """The same weights on [m_i; e_i]; the columns of the contexts keep their random values."""
    with torch.no_grad():
        for name, size in (("vision", D_VISION), ("audio", D_AUDIO)):
            gate, wide = getattr(mag, f"gate_{name}"), getattr(cms, f"gate_{name}")
            d_text = gate.weight.shape[0]
            wide.weight[:, :size] = gate.weight[:, :size]
            wide.weight[:, 2 * size : 2 * size + d_text] = gate.weight[:, size:]
            wide.bias.copy_(gate.bias)
            getattr(cms, f"shift_{name}").weight[:, :size] = getattr(mag, f"shift_{name}").weight
        cms.norm.load_state_dict(mag.norm.state_dict())


@pytest.mark.parametrize("beta", [1.0, 0.01])
def test_cms_without_contexts_is_mag(beta):
    torch.manual_seed(0)
    mag, cms = MAG(7, D_AUDIO, D_VISION, beta).eval(), CMS(7, D_AUDIO, D_VISION, beta, contexts="none").eval()
    with_context = CMS(7, D_AUDIO, D_VISION, beta, contexts="both").eval()
    for gate in (cms, with_context):
        copy_mag_into_cms(mag, gate)
    batch, e = token_batch(LENGTHS), torch.randn(3, 13, 7)
    args = (e, batch["audio"], batch["vision"], batch["attention_mask"].bool())
    torch.testing.assert_close(cms(*args), mag(*args), rtol=0, atol=1e-6)
    assert not torch.allclose(with_context(*args), mag(*args), atol=1e-3)


def test_each_context_reaches_the_shift_and_only_that_one():
    batch, e = token_batch([13]), torch.randn(1, 13, 7, generator=generator())
    mask = batch["attention_mask"].bool()
    other_word, other_sound = e.clone(), batch["audio"].clone()
    other_word[0, 5] += 3
    other_sound[0, 5] += 3
    for contexts in CONTEXTS:
        torch.manual_seed(0)
        gate = CMS(7, D_AUDIO, D_VISION, contexts=contexts).eval()
        before = gate(e, batch["audio"], batch["vision"], mask)[0, 2]
        word = gate(other_word, batch["audio"], batch["vision"], mask)[0, 2]
        sound = gate(e, other_sound, batch["vision"], mask)[0, 2]
        assert torch.equal(before, word) == (contexts not in ("verbal", "both")), contexts
        assert torch.equal(before, sound) == (contexts not in ("nonverbal", "both")), contexts


def test_the_own_context_control_has_nearly_as_many_parameters():
    both, own = (sum(p.numel() for p in CMS(16, D_AUDIO, D_VISION, contexts=c).parameters()) for c in ("both", "own"))
    assert both - own == 16 + D_AUDIO + D_VISION  # the pooling queries


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
            hidden = net.shift(hidden, batch["audio"], batch["vision"], batch["attention_mask"].bool())
        hidden = block(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    expected = hidden[:, 0] if encoder == "distilbert" else text.pooler(hidden)
    torch.testing.assert_close(net(batch)["pooled"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [None, "mag", "cms"])
def test_padding_never_changes_and_order_permutes_outputs(shift):
    net = shifted(shift=shift, contrast=True)
    outputs, padded = net(token_batch(LENGTHS)), net(token_batch(LENGTHS, padding=5))
    batch, order = token_batch(LENGTHS), torch.tensor([2, 0, 1])
    permuted = net({name: value[order] for name, value in batch.items()})
    batch["input_ids"][1, 3:] = 17
    refilled = net(batch)
    for name in ("prediction", "text", "audio", "vision"):
        torch.testing.assert_close(padded[name], outputs[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(refilled[name], outputs[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(permuted[name], outputs[name][order], rtol=1e-5, atol=1e-5)


def test_the_text_embedding_is_blind_to_sound_before_the_shift_only():
    batch = token_batch(LENGTHS)
    silent = batch | {"audio": torch.zeros_like(batch["audio"])}
    pre, post = shifted(contrast=True, clr_text="pre"), shifted(contrast=True, clr_text="post")
    torch.testing.assert_close(pre(batch)["text"], pre(silent)["text"])
    assert not torch.allclose(post(batch)["text"], post(silent)["text"], atol=1e-6)
    assert not torch.allclose(pre(batch)["prediction"], pre(silent)["prediction"], atol=1e-5)
    for name in ("text", "audio", "vision"):
        torch.testing.assert_close(pre(batch)[name].norm(dim=-1), torch.ones(3))


def test_an_utterance_without_words_has_a_finite_embedding():
    module, values = SequenceEmbedding(5, 7), torch.zeros(2, 3, 5)
    for mode in (True, False):
        module.train(mode)
        with torch.set_grad_enabled(mode):
            assert module(values, torch.zeros(2, 3, dtype=torch.bool)).isfinite().all()


def test_a_copy_uses_its_own_shift():
    net, batch = shifted(), token_batch(LENGTHS)
    before, twin = net(batch)["prediction"], copy.deepcopy(net)
    torch.nn.init.zeros_(net.shift.norm.weight)
    assert torch.equal(twin(batch)["prediction"], before)
    assert not torch.equal(net(batch)["prediction"], before)


def test_save_load_and_start_from_an_encoder(tmp_path):
    net, batch = shifted(contrast=True, layer=1, n_classes=3), token_batch(LENGTHS)
    net.save_pretrained(tmp_path / "model")
    again = ShiftedBert.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(again(batch)["prediction"], net(batch)["prediction"])
    net.encoder.save_pretrained(tmp_path / "encoder")
    fresh = ShiftedBert.from_encoder(tmp_path / "encoder", D_AUDIO, D_VISION, shift=None).eval()
    pooled = shifted(shift=None)
    pooled.encoder.load_state_dict(net.encoder.state_dict())
    assert torch.equal(fresh(batch)["pooled"], pooled(batch)["pooled"])


def test_wrong_settings_are_refused():
    for settings in ({"shift": "sideways"}, {"layer": 3}, {"clr_text": "during"}, {"contexts": "all"}, {"beta": -1.0}):
        with pytest.raises(ValueError, match=str(next(iter(settings)))):
            shifted(**settings)
    batch = token_batch(LENGTHS)
    del batch["audio"]
    with pytest.raises(ValueError, match=r"\['audio'\]"):
        shifted()(batch)
    assert shifted(shift=None)(batch)["prediction"].shape == (3,)


def test_words_on_their_pieces():
    vectors = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    pieces = align_to_pieces([None, 0, 1, 1, None], vectors)
    assert pieces.tolist() == [[0, 0], [1, 2], [3, 4], [3, 4], [0, 0]]
    assert pieces.dtype == np.float32
    with pytest.raises(ValueError, match="token 1 belongs to word 2"):
        align_to_pieces([None, 2], vectors)

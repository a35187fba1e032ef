"""The network that trains is the one that transformers runs, and begins with heads that look back."""

from dataclasses import replace

import pytest
import torch
from begin import begin
from net import LOOKING, Form, Net
from train import VARIANTS
from transformers import LlamaForCausalLM
from twin import twin

from longspan.engine.llm import EMBEDDED

NAMES = list(range(100, 300)), list(range(300, 350))
SMALL = Form(vocabulary=300, layers=3, hidden=64, heads=4, kv_heads=2, head_dim=16, mlp=96, positions=400)


@pytest.mark.parametrize(
    "form",
    [SMALL, replace(SMALL, kv_heads=4), replace(SMALL, kv_heads=1), replace(SMALL, window=50)],
    ids=["gqa", "mha", "mqa", "window"],
)
def test_transformers_gives_the_same_logits(form):
    torch.manual_seed(0)
    net = Net(form)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        ids = torch.randint(0, 300, (2, 333))
        ours = net(ids, torch.arange(666))
        theirs = net.to_transformers({})(ids).logits.flatten(0, 1)
        # bfloat16 against float32
        assert (ours - theirs).abs().max() < 0.05 * theirs.std() * 3
        assert (ours - theirs).abs().mean() < 0.01 * theirs.std() * 3


@torch.no_grad()
@pytest.mark.parametrize("form", [Form(), Form(kv_heads=4), Form(kv_heads=1)], ids=["gqa", "mha", "mqa"])
def test_the_scores_inside_are_those_of_the_heads(form):
    torch.manual_seed(0)
    net = Net(replace(form, mlp=64))
    begin(net)
    ids = torch.randint(0, 2048, (2, 60))
    looking = torch.tensor([[5, 59, 30], [10, 11, 12]])
    _, scores, names = net.inside(ids, torch.arange(120), looking, looking)
    model = net.to_transformers({})
    model.set_attn_implementation("eager")
    attentions = model(ids, output_attentions=True).attentions
    assert names.shape == (2, 3, 2048)
    for layer, found in zip(LOOKING, scores, strict=True):
        for row in range(2):
            for index, head in enumerate(form.looking):
                theirs = attentions[layer][row, head, looking[row]]
                assert (found[row, index].softmax(-1) - theirs).abs().max() < 0.01


@torch.no_grad()
def test_it_begins_with_heads_that_look_back():
    torch.manual_seed(0)
    net = Net(Form(layers=2))
    begin(net)
    model = net.to_transformers({})
    model.set_attn_implementation("eager")
    segment = torch.randint(0, 2048, (1, 40))
    ids = torch.cat([segment, segment], dim=1)
    first, second = model(ids, output_attentions=True).attentions
    far = torch.arange(10, 80)
    assert first[0, 0, far, far - 1].mean() > 0.7
    assert first[0, 1, far, far - 2].mean() > 0.7
    # where the present token stood before, what came next is found far above chance
    later = torch.arange(40, 80)
    assert second[0, 0, later, later - 39].mean() > 5 * (1 / 60)


@torch.no_grad()
@pytest.mark.parametrize("form", [Form(), Form(kv_heads=4)], ids=["gqa", "mha"])
def test_it_begins_with_heads_that_gather_names(form):
    torch.manual_seed(0)
    net = Net(form)
    begin(net, *NAMES)
    model = net.to_transformers({})
    model.set_attn_implementation("eager")
    # 300 words of which a few are names: two attributes, two entities, twice; the nearest count
    ids = torch.randint(400, 2048, (1, 300))
    far, near = (torch.tensor([[310, 311, 400, 401, 120, 121]]), torch.tensor([[312, 313, 402, 403, 122, 123]]))
    ids[:, 200:206], ids[:, 285:291] = far, near
    gathers = model(ids, output_attentions=True).attentions[LOOKING[0] - 1][0, :, 295]
    half = form.heads // 2
    assert gathers[:half, 289:291].sum(-1).min() > 0.8
    assert gathers[half:, 285:287].sum(-1).min() > 0.8


@torch.no_grad()
@pytest.mark.parametrize(
    "form", [Form(mlp=512), Form(mlp=512, kv_heads=4), Form(mlp=555)], ids=["same", "mha", "wider"]
)
def test_a_twin_with_more_of_anything_begins_as_the_same_model(form):
    """The embedded model in its own shape, with repeated KV heads, and with neurons that do nothing yet."""
    torch.manual_seed(0)
    ids = torch.randint(0, 2048, (1, 200))
    model = LlamaForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    made = twin(EMBEDDED, VARIANTS["main"], form).to_transformers({})
    assert (made(ids).logits - model(ids).logits).abs().max() < 1e-4


@torch.no_grad()
def test_twins_are_of_one_size_and_fewer_heads_are_means():
    sizes = [sum(p.numel() for p in twin(EMBEDDED, VARIANTS["main"], form).parameters()) for form in VARIANTS.values()]
    assert max(sizes) - min(sizes) < 0.001 * max(sizes)
    main = LlamaForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).model.layers[3].self_attn
    one = twin(EMBEDDED, VARIANTS["main"], VARIANTS["mqa"]).to_transformers({}).model.layers[3].self_attn
    for theirs, ours in ((main.k_proj, one.k_proj), (main.v_proj, one.v_proj)):
        assert torch.allclose(theirs.weight.view(2, 64, 256).mean(0), ours.weight, atol=1e-6)
    few = twin(EMBEDDED, VARIANTS["main"], VARIANTS["mha"])
    assert few.blocks[0].down.shape == (256, 427)
    assert few.blocks[0].down.norm(dim=0).min() > 0

"""A CLIP ViT-B/32 with random weights, once as infinity loads it and once as open_clip does.

`python -m benchmarks.serving.peers.make_backbone FOLDER`, in the peers' environment: writes
`FOLDER/transformers` and `FOLDER/open_clip`, and prints the smallest cosine between an image
feature of the one and its counterpart of the other.
"""

import json
import sys
from pathlib import Path

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

_ARCHITECTURE, _SIZE = "ViT-B-32", 224
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_DIRECT = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def main(folder: Path) -> None:
    """Write both and compare them."""
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config={"hidden_act": "gelu"}, vision_config={"hidden_act": "gelu"})
    )
    model.train(mode=False)
    _write_transformers(model, folder / "transformers")
    converted = _converted(model.state_dict())
    _write_open_clip(converted, folder / "open_clip")
    clip = open_clip.create_model(_ARCHITECTURE, pretrained=None).eval()
    clip.load_state_dict(converted)
    pixels = torch.randn(4, 3, _SIZE, _SIZE)
    with torch.no_grad():
        pair = model.get_image_features(pixel_values=pixels), clip.encode_image(pixels)
    print(float(cosine_similarity(*pair).min()))


def _write_transformers(model: CLIPModel, folder: Path) -> None:
    model.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    simple = SimpleTokenizer()
    marks = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {marks.get(token, token): number for token, number in simple.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) for pair in simple.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)


def _write_open_clip(weights: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": open_clip.get_model_config(_ARCHITECTURE),
        "preprocess_cfg": {"mean": _MEAN, "std": _STD, "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def _converted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under open_clip's names."""
    found = {new: weights[old] for old, new in _DIRECT.items()}
    found["visual.proj"] = weights["visual_projection.weight"].T
    found["text_projection"] = weights["text_projection.weight"].T
    for tower, target in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
        for number in range(12):
            old, new = f"{tower}.encoder.layers.{number}", f"{target}.resblocks.{number}"
            for kind in ("weight", "bias"):
                for theirs, ours in _LAYER.items():
                    found[f"{new}.{ours}.{kind}"] = weights[f"{old}.{theirs}.{kind}"]
                parts = [weights[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                found[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))

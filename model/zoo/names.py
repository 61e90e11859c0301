"""What other programs call the parts of these networks; training/weights/__init__.py says how."""


def _blocks(places, ours, theirs):
    """Returns names of the layers of blocks.

    Args:
        places: {a block there: the block here}
        ours: names of its layers here, separated by spaces
        theirs: names of the same layers there
    """
    layers = list(zip(theirs.split(), ours.split(), strict=True))
    return {
        f"{there}.{theirs}": f"{here}/{ours}"
        for there, here in places.items()
        for theirs, ours in layers
    }


def _in_a_row(path, first, depths):
    """Returns the places of blocks that are numbered on from stage to stage, `first` being one."""
    places = [f"blocks/{stage}/{one}" for stage, depth in enumerate(depths) for one in range(depth)]
    return {path.format(number): place for number, place in enumerate(places, first)}


RESNET = {
    "torchvision or timm": {"fc": "fc:optional"},
    "transformers": {
        "**/embedder.embedder.convolution": "conv1",
        "**/embedder.embedder.normalization": "bn1",
        "classifier.1": "fc:optional",
    }
    | _blocks(
        {f"**/encoder.stages.{stage}.layers.*": f"layer{stage + 1}/*" for stage in range(4)},
        "conv1 bn1 conv2 bn2 conv3 bn3 downsample/0 downsample/1",
        "layer.0.convolution layer.0.normalization layer.1.convolution layer.1.normalization "
        "layer.2.convolution layer.2.normalization shortcut.convolution shortcut.normalization",
    ),
}

# The layers of a block that does not expand its features, and of one that does.
PLAIN = "conv_dw bn1 se/conv_reduce se/conv_expand conv_pw bn2"
EXPANDED = "conv_pw bn1 conv_dw bn2 se/conv_reduce se/conv_expand conv_pwl bn3"
EFFICIENTNET = {
    "timm": {"classifier": "classifier:optional"},
    "efficientnet_pytorch": _blocks(
        _in_a_row("_blocks.{}", 0, (1, 2, 2, 3, 3, 4, 1)),
        EXPANDED,
        "_expand_conv _bn0 _depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
    )
    | _blocks(
        {"_blocks.0": "blocks/0/0"},
        PLAIN,
        "_depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
    )
    | {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier:optional",
    },
    "torchvision": _blocks(
        {"features.1.*.block": "blocks/0/*"}, PLAIN, "0.0 0.1 1.fc1 1.fc2 2.0 2.1"
    )
    | _blocks(
        {f"features.{stage + 1}.*.block": f"blocks/{stage}/*" for stage in range(1, 7)},
        EXPANDED,
        "0.0 0.1 1.0 1.1 2.fc1 2.fc2 3.0 3.1",
    )
    | {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "features.8.0": "conv_head",
        "features.8.1": "bn2",
        "classifier.1": "classifier:optional",
    },
    "torchvision's MobileNetV2": _blocks(
        _in_a_row("features.{}.conv", 1, (1, 2, 3, 4, 3, 3, 1)),
        "conv_pw bn1 conv_dw bn2 conv_pwl bn3",
        "0.0 0.1 1.0 1.1 2 3",
    )
    | _blocks({"features.1.conv": "blocks/0/0"}, "conv_dw bn1 conv_pw bn2", "0.0 0.1 1 2")
    | {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        "features.18.0": "conv_head",
        "features.18.1": "bn2",
        "classifier.1": "classifier:optional",
    },
}

CONVNEXT = {
    "timm": {"head.fc": "head/fc:optional"},
    "torchvision": {
        "features.0": "stem",
        "classifier.0": "head/norm",
        "classifier.2": "head/fc:optional",
    }
    | {f"features.{2 * stage}": f"stages/{stage}/downsample" for stage in (1, 2, 3)}
    | _blocks(
        {f"features.{2 * stage + 1}.*": f"stages/{stage}/blocks/*" for stage in range(4)},
        "conv_dw norm mlp/fc1 mlp/fc2 gamma",
        "block.0 block.2 block.3 block.5 layer_scale",
    ),
    "transformers": {
        "**/embeddings.patch_embeddings": "stem/0",
        "**/embeddings.layernorm": "stem/1",
        "**/stages.*.downsampling_layer": "stages/*/downsample",
        "convnext.layernorm": "head/norm",
        "classifier": "head/fc:optional",
    }
    | _blocks(
        {"**/stages.*.layers.*": "stages/*/blocks/*"},
        "conv_dw norm mlp/fc1 mlp/fc2 gamma",
        "dwconv layernorm pwconv1 pwconv2 layer_scale_parameter",
    ),
}

VIT = {
    "timm": {"head": "head:optional"},
    "torchvision": {
        "class_token": "cls_token",
        "conv_proj": "patch_embed/proj",
        "encoder.pos_embedding": "pos_embed",
        "encoder.ln": "norm",
        "heads.head": "head:optional",
    }
    | _blocks(
        {"encoder.layers.encoder_layer_*": "blocks/*"},
        "norm1 attn/qkv attn/proj norm2 mlp/fc1 mlp/fc2",
        "ln_1 self_attention.in_proj self_attention.out_proj ln_2 mlp.0 mlp.3",
    ),
    "transformers": {
        "**/embeddings.cls_token": "cls_token",
        "**/embeddings.position_embeddings": "pos_embed",
        "**/embeddings.patch_embeddings.projection": "patch_embed/proj",
        "**/layer.*.attention.attention.query + **/layer.*.attention.attention.key "
        "+ **/layer.*.attention.attention.value": "blocks/*/attn/qkv",
        "**/layers.*.attention.q_proj + **/layers.*.attention.k_proj "
        "+ **/layers.*.attention.v_proj": "blocks/*/attn/qkv",
        "vit.layernorm": "norm",
        "layernorm": "norm",
        "vit.pooler": None,
        "pooler": None,
        "classifier": "head:optional",
    }
    | _blocks(
        {"**/layer.*": "blocks/*"},
        "norm1 attn/proj norm2 mlp/fc1 mlp/fc2",
        "layernorm_before attention.output.dense layernorm_after intermediate.dense output.dense",
    )
    | _blocks(  # since version 5
        {"**/layers.*": "blocks/*"},
        "norm1 attn/proj norm2 mlp",
        "layernorm_before attention.o_proj layernorm_after mlp",
    ),
}

GPT2 = {
    "transformers": {
        "**/h.*.attn.bias": None,  # the mask of older files
        "**/h.*.attn.masked_bias": None,
        "lm_head": None,  # wte again
    }
    | _blocks(  # matrices are (inputs, outputs) there, too
        {"**/h.*": "h/*"},
        "attn/c_attn:as-is attn/c_proj:as-is mlp/c_fc:as-is mlp/c_proj:as-is",
        "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj",
    )
    | {"transformer": ""}
}

BERT = {
    "transformers": {
        "**/embeddings.position_ids": None,  # 0, 1, 2, ...
        "cls": None,  # heads of the pre-training
        "**/pooler": "pooler:optional",
        "classifier": "classifier:optional",
        "bert": "",
    }
}

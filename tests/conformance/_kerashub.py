"""KerasHub's families of backbones at tiny sizes, with random weights."""

import numpy as np

VIT = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8}

# Family -> arguments of its class, and the names of its blocks.
IMAGES = {
    "CSPNet": (
        {
            "stem_filters": 8,
            "stem_kernel_size": 3,
            "stem_strides": 1,
            "stackwise_depth": [1, 2],
            "stackwise_strides": [1, 2],
            "stackwise_num_filters": [8, 16],
            "block_type": "dark_block",
            "stage_type": "dark",
            "image_shape": (32, 32, 3),
        },
        [
            "stem",
            "stage_0_block_0",
            "stage_1_block_0",
            "stage_1_block_1",
        ],
    ),
    "DINOV2": (
        {
            **VIT,
            "patch_size": 8,
            "intermediate_dim": 16,
            "num_register_tokens": 1,
            "image_shape": (32, 32, 3),
            "position_embedding_shape": (16, 16, 3),
        },
        ["embeddings", "layers_0", "layers_1"],
    ),
    "DINOV3": (
        {
            **VIT,
            "patch_size": 8,
            "intermediate_dim": 16,
            "image_shape": (32, 32, 3),
        },
        ["embeddings", "layers_0", "layers_1"],
    ),
    "DeiT": (
        {
            **VIT,
            "patch_size": 16,
            "intermediate_dim": 16,
            "image_shape": (32, 32, 3),
        },
        # Its blocks give two results, one of them None.
        ["embedding", "encoder"],
    ),
    "DenseNet": (
        {"stackwise_num_repeats": [1, 2], "image_shape": (32, 32, 3)},
        ["stem", "stack1_block1", "stack2_block1", "stack2_block2"],
    ),
    "EfficientNet": (
        {
            "stackwise_width_coefficients": [1.0] * 2,
            "stackwise_depth_coefficients": [1.0] * 2,
            "stackwise_kernel_sizes": [3, 3],
            "stackwise_num_repeats": [1, 2],
            "stackwise_input_filters": [8, 8],
            "stackwise_output_filters": [8, 16],
            "stackwise_expansion_ratios": [1, 2],
            "stackwise_strides": [1, 2],
            "stackwise_squeeze_and_excite_ratios": [0.25] * 2,
            "stackwise_block_types": ["v1", "v1"],
            "min_depth": None,
            "include_initial_padding": True,
            "use_depth_divisor_as_min_depth": True,
            "cap_round_filter_decrease": True,
            "stem_conv_padding": "valid",
            "batch_norm_momentum": 0.9,
            "input_shape": (32, 32, 3),
        },
        ["stem", "block1a", "block2a", "block2b"],
    ),
    "HGNetV2": (
        {
            "depths": [1, 2],
            "embedding_size": 8,
            "hidden_sizes": [8, 16],
            "stem_channels": [3, 4, 8],
            "hidden_act": "relu",
            "use_learnable_affine_block": False,
            "stackwise_stage_filters": [
                [8, 4, 8, 1, 3, 3],
                [8, 4, 16, 1, 3, 3],
            ],
            "apply_downsample": [False, True],
            "use_lightweight_conv_block": [False, False],
            "image_shape": (32, 32, 3),
        },
        ["embedder", "stage_0", "stage_1"],
    ),
    "MiT": (
        {
            "layerwise_depths": [1, 2],
            "num_layers": 2,
            "layerwise_num_heads": [1, 2],
            "layerwise_sr_ratios": [4, 2],
            "max_drop_path_rate": 0.1,
            "layerwise_patch_sizes": [7, 3],
            "layerwise_strides": [4, 2],
            "image_shape": (32, 32, 3),
            "hidden_dims": [4, 8],
        },
        [
            "patch_and_embed_0",
            "hierarchical_encoder_0_0",
            "patch_and_embed_1",
            "hierarchical_encoder_1_0",
            "hierarchical_encoder_1_1",
        ],
    ),
    "MobileNet": (
        {
            "stackwise_expansion": [[8, 12], [16]],
            "stackwise_num_blocks": [2, 1],
            "stackwise_num_filters": [[8, 8], [12]],
            "stackwise_kernel_size": [[3, 3], [5]],
            "stackwise_num_strides": [[2, 1], [2]],
            "stackwise_se_ratio": [[None, None], [0.25]],
            "stackwise_activation": [["relu", "relu"], ["hard_swish"]],
            "stackwise_padding": [[1, 1], [2]],
            "output_num_filters": 16,
            "input_num_filters": 8,
            "input_activation": "hard_swish",
            "output_activation": "hard_swish",
            "depthwise_filters": 8,
            "depthwise_stride": 2,
            "depthwise_residual": False,
            "squeeze_and_excite": 0.5,
            "last_layer_filter": 16,
            "image_shape": (32, 32, 3),
        },
        ["stem", "block_0", "block_1", "block_2", "block_3"],
    ),
    "MobileNetV5": (
        {
            "stackwise_block_types": [["er"], ["uir", "uir"]],
            "stackwise_num_blocks": [1, 2],
            "stackwise_num_filters": [[8], [16, 16]],
            "stackwise_strides": [[2], [2, 1]],
            "stackwise_act_layers": [["relu"], ["relu", "relu"]],
            "stackwise_exp_ratios": [[2.0], [2.0, 2.0]],
            "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
            "stackwise_dw_kernel_sizes": [[0], [5, 5]],
            "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
            "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
            "stackwise_exp_kernel_sizes": [[3], [0, 0]],
            "stackwise_pw_kernel_sizes": [[1], [0, 0]],
            "stackwise_num_heads": [[0], [0, 0]],
            "stackwise_key_dims": [[0], [0, 0]],
            "stackwise_value_dims": [[0], [0, 0]],
            "stackwise_kv_strides": [[0], [0, 0]],
            "stackwise_use_cpe": [[False], [False, False]],
            "use_msfa": False,
            "image_shape": (32, 32, 3),
        },
        None,
    ),
    "ResNet": (
        {
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [7],
            "stackwise_num_filters": [64, 64],
            "stackwise_num_blocks": [1, 2],
            "stackwise_num_strides": [1, 2],
            "block_type": "basic_block",
            "image_shape": (32, 32, 3),
        },
        ["stem", "stack0_block0", "stack1_block0", "stack1_block1"],
    ),
    "SwinTransformer": (
        {
            "image_shape": (32, 32, 3),
            "embed_dim": 8,
            "depths": [1, 2],
            "num_heads": [1, 2],
            "window_size": 4,
        },
        [
            "patch_embedding",
            "stage_0",
            "stage_1_blocks_0",
            "stage_1_blocks_1",
        ],
    ),
    "VGG": (
        {
            "stackwise_num_repeats": [2, 1],
            "stackwise_num_filters": [8, 16],
            "image_shape": (32, 32, 3),
        },
        ["block1", "block2"],
    ),
    "ViT": (
        {
            **VIT,
            "patch_size": 16,
            "mlp_dim": 16,
            "image_shape": (32, 32, 3),
        },
        ["embedding", "transformer_block_1", "transformer_block_2"],
    ),
    "ViTDet": (
        {
            "hidden_size": 8,
            "num_layers": 2,
            "intermediate_dim": 16,
            "num_heads": 2,
            "global_attention_layer_indices": [1],
            "image_shape": (32, 32, 3),
            "patch_size": 8,
            "num_output_channels": 8,
            "window_size": 2,
        },
        None,  # Keras numbers its layers by process.
    ),
    "Xception": (
        {
            "stackwise_conv_filters": [[8, 8], [16, 16]],
            "stackwise_pooling": [True, False],
            "image_shape": (32, 32, 3),
        },
        ["block1", "block2"],
    ),
}


def enliven(network, seed=0):
    """Moves all weights from where initialisers and KerasHub put them."""
    generator = np.random.default_rng(seed)
    for weight in network.weights:
        if not weight.dtype.startswith(("float", "bfloat")):
            continue
        noise = generator.uniform(0, 0.1, weight.shape)
        weight.assign(np.asarray(weight) + noise)


WORDS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]

_SIZES = {"vocabulary_size": len(WORDS), "num_layers": 2, "hidden_dim": 16}
_ENCODER = {
    **_SIZES,
    "num_heads": 2,
    "intermediate_dim": 16,
    "max_sequence_length": 16,
}
_ROTARY = {k: v for k, v in _ENCODER.items() if k != "max_sequence_length"}
_DECODER = {
    **_SIZES,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_dim": 16,
}
_EXPERTS = {"moe_intermediate_dim": 8, "num_experts": 2, "top_k": 1}
_LINEAR = {
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 1,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
_TWO = ["token_embedding", "transformer_layer_0", "transformer_layer_1"]

# Family -> arguments of its class, and the names of its blocks.
TEXTS = {
    "Albert": (
        {**_ENCODER, "embedding_dim": 4},
        # Both layers share their weights.
        ["token_embedding", "embeddings_layer_norm", "group_0_inner_layer_0"],
    ),
    "Bert": (_ENCODER, _TWO),
    "Bloom": (_ROTARY, _TWO),
    "DebertaV3": (
        {**_ENCODER, "num_layers": 4},
        [
            "token_embedding",
            *(f"disentangled_attention_encoder_layer_{i}" for i in range(4)),
        ],
    ),
    "DistilBert": (
        _ENCODER,
        ["token_and_position_embedding", *_TWO[1:]],
    ),
    "Electra": (
        {
            "vocab_size": len(WORDS),
            **{k: v for k, v in _ENCODER.items() if k != "vocabulary_size"},
            "embedding_dim": 4,
        },
        ["token_embedding", "embeddings_layer_norm", *_TWO[1:]],
    ),
    "ESM": ({**_ROTARY, "max_wavelength": 10000}, _TWO),
    "FNet": (
        {k: v for k, v in _ENCODER.items() if k != "num_heads"},
        [
            "token_embedding",
            "embeddings_layer_norm",
            "f_net_layer_0",
            "f_net_layer_1",
        ],
    ),
    "Falcon": (
        {
            **{k: v for k, v in _ROTARY.items() if k != "num_heads"},
            "num_attention_heads": 2,
        },
        _TWO,
    ),
    "GPT2": (_ENCODER, _TWO),
    "GPTNeoX": (_ENCODER, _TWO),
    "Gemma": (
        {**_DECODER, "head_dim": 4},
        ["token_embedding", "decoder_block_0", "decoder_block_1"],
    ),
    "Gemma3": (
        {**_DECODER, "head_dim": 4, "image_size": 16},
        ["token_embedding", "decoder_block_0", "decoder_block_1"],
    ),
    "GptOss": (
        {**_DECODER, "head_dim": 4, "num_experts": 2, "top_k": 2},
        _TWO,
    ),
    "Llama": (_DECODER, _TWO),
    "Llama3": (_DECODER, _TWO),
    "Mistral": (_DECODER, _TWO),
    "Mixtral": ({**_DECODER, "num_experts": 2}, _TWO),
    "OPT": (_ENCODER, ["embeddings", *_TWO[1:]]),
    "Phi3": (_DECODER, _TWO),
    "Qwen": (_DECODER, _TWO),
    "Qwen3": ({**_DECODER, "head_dim": 4}, _TWO),
    "Qwen3Moe": ({**_DECODER, **_EXPERTS, "head_dim": 4}, _TWO),
    "QwenMoe": (
        {**_DECODER, **_EXPERTS, "shared_expert_intermediate_dim": 8},
        _TWO,
    ),
    "Qwen3_5": ({**_DECODER, **_LINEAR, "head_dim": 4}, _TWO),
    "Qwen3_5Moe": (
        {
            **{k: v for k, v in _DECODER.items() if k != "intermediate_dim"},
            **_LINEAR,
            **_EXPERTS,
            "shared_expert_intermediate_size": 8,
            "head_dim": 4,
        },
        _TWO,
    ),
    "RWKV7": (
        {
            "vocabulary_size": len(WORDS),
            "num_layers": 2,
            "hidden_size": 8,
            "head_size": 4,
            "intermediate_dim": 16,
            "gate_lora": 4,
            "mv_lora": 4,
            "aaa_lora": 4,
            "decay_lora": 4,
        },
        None,
    ),
    "Roberta": (_ENCODER, ["embeddings", *_TWO[1:]]),
    "RoformerV2": ({**_ROTARY, "head_size": 8}, _TWO),
    "SmolLM3": (
        {
            **_SIZES,
            "intermediate_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "rope_layer_enabled_list": [True, True],
            "layer_types": ["full_attention"] * 2,
            "mlp_bias": False,
            "layer_norm_epsilon": 1e-6,
            "max_position_embeddings": 16,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
        _TWO,
    ),
    "XLMRoberta": (_ENCODER, ["embeddings", *_TWO[1:]]),
    # One block: what crosses between its layers has other shapes than said.
    "XLNet": (_ROTARY, ["network"]),
}

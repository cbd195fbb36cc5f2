"""Write a llama model of a few random weights: it loads in milliseconds and talks noise."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, INNER = 32, 2, 64
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def write(path: Path, template: str = TEMPLATE) -> Path:
    """The model as a GGUF file at ``path``, with this chat template."""
    kind = gguf.TokenType
    tokens = [(b"<unk>", kind.UNKNOWN), (b"<s>", kind.CONTROL), (b"</s>", kind.CONTROL)]
    tokens += [(f"<0x{i:02X}>".encode(), kind.BYTE) for i in range(256)]
    tokens += [(word.encode(), kind.NORMAL) for word in ("▁", "a", "b", "c", "▁a", "▁the", "ing")]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([t for t, _ in tokens])
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([k for _, k in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(template)
    random = np.random.default_rng(1)
    square = [f"blk.0.attn_{n}.weight" for n in ("q", "k", "v", "output")]
    shapes = {
        "token_embd.weight": (len(tokens), WIDTH),
        "output.weight": (len(tokens), WIDTH),
        "blk.0.ffn_gate.weight": (INNER, WIDTH),
        "blk.0.ffn_up.weight": (INNER, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, INNER),
        **dict.fromkeys(square, (WIDTH, WIDTH)),
    }
    for name, shape in shapes.items():
        writer.add_tensor(name, (random.standard_normal(shape) * 0.5).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

"""`load_text_backbone`: pretrained networks for text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.backbones import word_vectors
from keras_transfer.backbones.backbone import Backbone
from keras_transfer.backbones.kerashub import loading as kerashub
from keras_transfer.backbones.kerashub.network import (
    KerasHubNetwork,
    import_keras_hub,
)
from keras_transfer.backbones.loading import PRETRAINED
from keras_transfer.backbones.spec import name_of, spec_of_own
from keras_transfer.backbones.tokens import POOLINGS, TextTokenizer, longest
from keras_transfer.structure import graph
from keras_transfer.structure.model_parts import has_children

_SEQUENCE_LENGTH = 128


def load_text_backbone(
    source: str | Path | keras.Model,
    *,
    weights: str | None = PRETRAINED,
    pooling: str = "avg",
    sequence_length: int | None = None,
    bucketing: bool = False,
    tokenizer: Any = None,
    max_words: int | None = None,
    fit_to: Sequence[str] | np.ndarray | None = None,
) -> Backbone:
    """Loads a pretrained network from texts to vectors.

    Its `preprocessing` is the tokenizer, so that a saved model takes raw texts,
    and needs no other files. With pretrained weights dropout is off, so that
    frozen layers compute the same in each epoch.

    Args:
        source: One of:

            - a preset of KerasHub (`"bert_base_en"`, `"hf://..."`), or a folder
              of KerasHub or Hugging Face (BERT, ALBERT, RoBERTa, DistilBERT,
              GPT-2 and others), with or without the prefix `"kerashub:"`
            - a backbone object of KerasHub, which is copied
            - a file of word vectors (`.txt` or `.vec` of GloVe, fastText or
              word2vec; `.bin` of word2vec)
            - a model made by `build_text_classifier`, or its `.keras` file
        weights: `"pretrained"`, or `None` for new random weights. Defaults to
            `"pretrained"`.
        pooling: Reduction of token vectors to a vector of the text: `"avg"`,
            `"max"`, or `"token"`, which takes the first token (`[CLS]`), or the
            last one of a causal network. Defaults to `"avg"`.
        sequence_length: Largest number of tokens of a text; longer ones are
            truncated. Defaults to `None`: 128, or the maximum of the network,
            or less if the texts of `fit_to` are shorter.
        bucketing: Whether a batch is only as long as its longest text, rounded
            up to a multiple of 16. Saves time in direct training and
            prediction, but activations of such batches cannot be cached.
            Defaults to `False`.
        tokenizer: A tokenizer of KerasHub, for a backbone object or a folder
            without one. Defaults to `None`, that of the preset.
        max_words: Number of word vectors to read from the top of the file.
            Defaults to `None`, all.
        fit_to: Texts whose maximum length in tokens, rounded up to a multiple
            of 8, becomes the `sequence_length`. Defaults to `None`.

    Returns:
        A `Backbone` from string `(batch,)` to `(batch, num_features)`.

    Raises:
        ImportError: If KerasHub is not installed.
        ValueError: If there is no such preset, folder or file, it does not take
            text, or an argument does not fit.
        TypeError: If `source` is of another type.
        ConnectionError: If a download fails.

    Example:

    >>> backbone = load_text_backbone("glove.6B.100d.txt")  # doctest: +SKIP
    """
    _check(weights, pooling, sequence_length)
    if not isinstance(source, str | Path | keras.Model):
        raise TypeError(
            "`source` must be a name, a path or a network of KerasHub. "
            f"Received: source={source!r}"
        )
    if str(source).endswith(".keras") and Path(str(source)).is_file():
        source = keras.models.load_model(source, compile=False)
    if isinstance(source, keras.Model) and has_children(source):
        return _of_model(source, weights is not None)
    if max_words is not None and (not is_integer(max_words) or max_words < 1):
        raise ValueError(
            "`max_words` must be an integer above 0, or None. Received: "
            f"max_words={max_words!r}"
        )
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and path.suffix in word_vectors.SUFFIXES:
        if tokenizer is not None or pooling == "token":
            raise ValueError(
                '`pooling` must be "avg" or "max" and `tokenizer` None for '
                "word vectors, which have no special tokens. Received: "
                f"pooling={pooling!r}, tokenizer={tokenizer!r}"
            )
        preprocessing, model = word_vectors.build(
            path,
            pretrained=weights is not None,
            pooling=pooling,
            sequence_length=sequence_length,
            bucketing=bucketing,
            max_words=max_words,
            fit_to=fit_to,
        )
        name, origin = path.stem, "user"
    else:
        if max_words is not None:
            raise ValueError(
                "`max_words` must be None unless `source` is a file of word "
                f"vectors. Received: max_words={max_words}, source={source!r}"
            )
        preprocessing, model = _of_kerashub(
            source if path is None else str(source),
            weights is not None,
            pooling,
            sequence_length,
            bucketing,
            tokenizer,
            fit_to,
        )
        name = name_of(
            source.name if isinstance(source, keras.Model) else str(source)
        )
        origin = "keras_hub"
    width = int(model.output_shape[-1])
    return Backbone(
        spec_of_own(name, origin, None, None, width), preprocessing, model
    )


def _of_model(model: keras.Model, pretrained: bool) -> Backbone:
    """Returns the backbone of a model made by `build_text_classifier`."""
    preprocessing = model.get_layer("preprocessing")
    network = model.get_layer("backbone")
    if not graph.takes_texts(preprocessing):
        raise ValueError(
            f"`source` must take text. Received: {model.name!r}, which takes "
            "images. Use `load_backbone`."
        )
    copy = kerashub.clone(network)
    if pretrained:
        graph.set_weights(copy, network.get_weights())
    name = model.name.removesuffix("_classifier")
    width = int(network.output_shape[-1])
    return Backbone(
        spec_of_own(name, "user", None, None, width), preprocessing, copy
    )


def _check(weights: object, pooling: object, sequence_length: Any) -> None:
    if weights not in (None, PRETRAINED):
        raise ValueError(
            '`weights` must be "pretrained" or None for a network that takes '
            f"text. Received: weights={weights!r}"
        )
    if pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {', '.join(map(repr, POOLINGS))}. "
            f"Received: pooling={pooling!r}"
        )
    valid = is_integer(sequence_length) and int(sequence_length) > 2
    if sequence_length is not None and not valid:
        raise ValueError(
            "`sequence_length` must be an integer above 2, or None. Received: "
            f"sequence_length={sequence_length!r}"
        )


def _of_kerashub(
    source: str | keras.Model,
    pretrained: bool,
    pooling: str,
    sequence_length: int | None,
    bucketing: bool,
    tokenizer: Any,
    fit_to: Sequence[str] | np.ndarray | None,
) -> tuple[keras.Model, keras.Model]:
    """Makes tokenizer and network from a KerasHub preset or object."""
    hub = import_keras_hub()
    # A tokenizer that the user passes is used as it is.
    cleaning = None
    if isinstance(source, keras.Model):
        preprocessor = getattr(source, "preprocessor", None)
        tokenizer = tokenizer or getattr(preprocessor, "tokenizer", None)
        network = kerashub.copy_of(
            getattr(source, "backbone", source), pretrained
        )
    else:
        network = kerashub.load(source, None, pretrained)
        if tokenizer is None:
            tokenizer = kerashub.load_tokenizer(source)
            cleaning = kerashub.take_cleaning(tokenizer, source)
    if tokenizer is None:
        raise ValueError(
            "`tokenizer` must be given for a network without one, "
            f"such as {getattr(source, 'name', source)!r}: a "
            "`keras_hub.tokenizers.Tokenizer`. Received: tokenizer=None"
        )
    most = getattr(network, "max_sequence_length", None)
    if most and (sequence_length or 0) > most:
        raise ValueError(
            f"`sequence_length` must be at most {most} for {network.name!r}. "
            f"Received: sequence_length={sequence_length}"
        )
    length = sequence_length or min(_SEQUENCE_LENGTH, most or _SEQUENCE_LENGTH)
    if pooling == "token" and _is_causal(network, hub):
        pooling = "last"
    model = KerasHubNetwork(
        network,
        text={"pad": pad_of(network, tokenizer), "pooling": pooling},
        still=pretrained,
    )
    texts = keras.Input((), dtype="string", name="text")
    if fit_to is not None and sequence_length is None:
        length = min(length, longest(tokenizer, fit_to, cleaning))
    layer = TextTokenizer(tokenizer, length, bucketing, cleaning=cleaning)
    return keras.Model(texts, layer(texts), name="preprocessing"), model


def pad_of(network: keras.Model, tokenizer: Any) -> int:
    """Returns the id of the padding token; 0 if there is none."""
    # ESM has an id of its own, from which it makes the mask.
    token = getattr(network, "pad_token_id", None)
    if token is None:
        token = getattr(tokenizer, "pad_token_id", None)
    return int(token or 0)


def _is_causal(network: keras.Model, hub: Any) -> bool:
    """Returns `True` for networks whose tokens see only earlier ones."""
    family = type(network).__name__.removesuffix("Backbone")
    return hasattr(hub.models, f"{family}CausalLM")

"""`FeatureExtractor`: frozen features as a step of a scikit-learn pipeline."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer._utils.checks import did_you_mean
from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.caching.store.store import StoreLike
from keras_transfer.data.checks import check_image_size
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.features import FeatureSplit

if TYPE_CHECKING:
    from sklearn.utils import Tags


# Not a subclass of `BaseEstimator`, whose import takes a second: scikit-learn
# asks for these methods and not for the class.
class FeatureExtractor:
    """A scikit-learn transformer from images to frozen features.

    Works in `Pipeline`, `cross_val_score`, `GridSearchCV` and `clone`. An
    image passes the backbone once: every fold, step of a search and later
    process finds its features in the store. The backbone is loaded by `fit`;
    pass what `load_backbone` returned to have it loaded once only.

    Args:
        backbone: A name out of `list_backbones()`, a file, or what
            `load_backbone` returned. Defaults to `"MobileNetV2"`.
        weights: As in `load_backbone`, for a name. Defaults to
            `"pretrained"`.
        image_size: `(height, width)` or one integer that images are resized
            to. Defaults to `None`, their own size.
        layers: Blocks whose outputs are wanted, as in `extract_features`.
            Defaults to `None`, the output of the backbone.
        pooling: `"avg"` or `"max"` over positions. Defaults to `"avg"`.
        batch_size: Images that are computed at once. Defaults to `32`.
        store: Where features are kept, as in `extract_features`; a
            `FeatureStore()` keeps them in memory. Defaults to `None`, the
            user's store.

    Example:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> extractor = FeatureExtractor(backbone, store=FeatureStore())
    >>> steps = make_pipeline(extractor, LogisticRegression(max_iter=1000))
    >>> cross_val_score(steps, arrays, labels, cv=2).shape
    (2,)
    """

    def __init__(
        self,
        backbone: str | Path | Backbone = "MobileNetV2",
        *,
        weights: str | Path | None = "pretrained",
        image_size: int | tuple[int, int] | None = None,
        layers: Any = None,
        pooling: str = "avg",
        batch_size: int = 32,
        store: StoreLike = None,
    ) -> None:
        # As they are: `clone` compares them with what it passed.
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.layers = layers
        self.pooling = pooling
        self.batch_size = batch_size
        self.store = store

    def fit(self, X: np.ndarray, y: Any = None) -> FeatureExtractor:
        """Loads the backbone for images of this shape; learns nothing.

        Args:
            X: Images `(n, height, width, channels)` in `[0, 255]`, uint8 or
                float.
            y: Not looked at. Defaults to `None`.

        Returns:
            Itself.

        Raises:
            ValueError: If `X` holds no images, or a parameter is out of range.
            TypeError: If `X` is no array of numbers.
        """
        # One image tells what the columns are.
        self._fit(X, 1)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Returns the features of images.

        Args:
            X: Images `(n, height, width, channels)` in `[0, 255]`, of the
                shape that was fitted.

        Returns:
            float32 `(n, features)`.

        Raises:
            ValueError: If `X` holds no images of that shape.
            TypeError: If `X` is no array of numbers.
            NotFittedError: If `fit` was not called.
        """
        self._check_fitted()
        images = self._images(X)
        if X.shape[1:] != self.image_shape_:
            raise ValueError(
                f"`X` must hold images of shape {self.image_shape_}, as those "
                f"that were fitted. Received: {X.shape[1:]}"
            )
        return self._extract(images).values

    def fit_transform(self, X: np.ndarray, y: Any = None) -> np.ndarray:
        """Fits, and returns the features of the same images.

        Args:
            X: Images `(n, height, width, channels)` in `[0, 255]`.
            y: Not looked at. Defaults to `None`.

        Returns:
            float32 `(n, features)`.

        Raises:
            ValueError: As `fit`.
            TypeError: As `fit`.
        """
        return self._fit(X, None).values

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Returns names of the columns, such as `"resnet20_0"`.

        Args:
            input_features: Not looked at. Defaults to `None`.

        Returns:
            Array of strings; with `layers` they hold the name of the block.

        Raises:
            NotFittedError: If `fit` was not called.
        """
        self._check_fitted()
        names: list[str] = []
        for part in self.parts_:
            name = part.backbone.lower()
            if self.layers is not None:
                name = f"{name}_{part.block}"
            width = part.stop - part.start
            names += [f"{name}_{column}" for column in range(width)]
        return np.asarray(names, dtype=object)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the parameters by name.

        Args:
            deep: Not looked at: none of them has parameters. Defaults to
                `True`.

        Returns:
            Dict of what `__init__` was given.
        """
        return {name: getattr(self, name) for name in _defaults()}

    def set_params(self, **params: Any) -> FeatureExtractor:
        """Changes parameters.

        Args:
            **params: New values by name.

        Returns:
            Itself.

        Raises:
            ValueError: If there is no such parameter.
        """
        known = _defaults()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"`params` must be among {', '.join(known)}. Received: "
                    f"{name!r}.{did_you_mean(name, known)}"
                )
            setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> FeatureExtractor:
        # Backbones and stores are values to share; `clone` would copy them.
        return FeatureExtractor(**self.get_params())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "backbone_")

    def __sklearn_tags__(self) -> Tags:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=[]),
            input_tags=InputTags(two_d_array=False, positive_only=True),
        )

    def __repr__(self) -> str:
        known = _defaults()
        changed = [
            f"{name}={value!r:.60}"
            for name, value in self.get_params().items()
            if value is not known[name]
        ]
        return f"FeatureExtractor({', '.join(changed)})"

    def _fit(self, images: np.ndarray, count: int | None) -> FeatureSplit:
        """Loads the backbone, and returns features of the first images."""
        pixels = self._images(images)
        if self.pooling not in ("avg", "max"):
            raise ValueError(
                '`pooling` must be "avg" or "max", since scikit-learn wants '
                f"vectors. Received: pooling={self.pooling!r}"
            )
        if isinstance(self.backbone, Backbone):
            self.backbone_ = self.backbone
        else:
            self.backbone_ = load_backbone(
                self.backbone,
                weights=self.weights,
                input_shape=pixels.shape[1:],
            )
        found = self._extract(pixels[:count])
        self.image_shape_ = images.shape[1:]
        self.parts_ = found.parts
        self.n_features_out_ = found.shape[0]
        return found

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                "`fit` must be called before. Received: a FeatureExtractor "
                "that is not fitted. Call `fit(X)` or `fit_transform(X)`."
            )

    def _images(self, images: np.ndarray) -> np.ndarray:
        """Checks the images and resizes them."""
        if not isinstance(images, np.ndarray) or images.dtype.kind not in "uif":
            what = getattr(images, "dtype", type(images).__name__)
            raise TypeError(
                f"`X` must be an array of numbers. Received: {what}"
            )
        if images.ndim != 4 or not len(images):
            raise ValueError(
                "`X` must hold images (n, height, width, channels), at least "
                f"one. Received: shape {images.shape}. Rows of pixels are "
                "reshaped by `X.reshape(-1, height, width, channels)`."
            )
        if not (images.min() >= 0 and images.max() <= 255):
            raise ValueError(
                "`X` must have pixels in [0, 255]. Received: values in "
                f"[{images.min():g}, {images.max():g}]."
            )
        size = check_image_size(self.image_size)
        if size in (None, images.shape[1:3]):
            return images
        step = 256  # float32 is four times as large
        parts = [
            keras.ops.convert_to_numpy(
                keras.ops.image.resize(
                    images[i : i + step].astype("float32"), size, antialias=True
                )
            )
            for i in range(0, len(images), step)
        ]
        return np.concatenate(parts)

    def _extract(self, images: np.ndarray) -> FeatureSplit:
        return extract_features(
            self.backbone_,
            images,
            layers=self.layers,
            pooling=self.pooling,
            store=self.store,
            batch_size=self.batch_size,
            verbose=0,
        )


def _defaults() -> dict[str, Any]:
    """The parameters of `FeatureExtractor` and their defaults."""
    found = inspect.signature(FeatureExtractor).parameters
    return {name: parameter.default for name, parameter in found.items()}

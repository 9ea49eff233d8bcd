"""`FeatureExtractor`: frozen features as a step of a scikit-learn pipeline."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_transfer._utils.checks import did_you_mean, refuse
from keras_transfer.backbones import Backbone, load_backbone
from keras_transfer.caching.store.store import StoreLike
from keras_transfer.data.checks import check_image_size
from keras_transfer.data.images.pixels import check_pixels
from keras_transfer.features.extraction import extract_features
from keras_transfer.features.features import FeatureSplit

if TYPE_CHECKING:
    from sklearn.utils import Tags


_IMAGES_PER_CHUNK = 256


# Not a subclass of `BaseEstimator`, whose import takes a second: scikit-learn
# needs only these methods, not the class.
class FeatureExtractor:
    """A scikit-learn transformer from images to frozen features.

    Works in `Pipeline`, `cross_val_score`, `GridSearchCV` and `clone`. An
    image passes the backbone once: every fold, step of a search and later
    process reads its features from the store. The backbone is loaded by `fit`;
    pass a `Backbone` from `load_backbone` to load it only once.

    Args:
        backbone: A name from `list_backbones()`, a file, or a `Backbone` from
            `load_backbone`. Defaults to `"MobileNetV2"`.
        weights: The weights for a backbone given by name, as in
            `load_backbone`. Defaults to `"pretrained"`.
        image_size: Size `(height, width)` or one integer that images are
            resized to. Defaults to `None`, their own size.
        layers: Names of the blocks whose outputs are the features, as in
            `extract_features`. Defaults to `None`, the output of the backbone.
        pooling: Pooling over positions, `"avg"` or `"max"`. Defaults to
            `"avg"`.
        batch_size: Number of images per batch. Defaults to `32`.
        store: Store of the features, as in `extract_features`; a
            `FeatureStore()` holds them in memory. Defaults to `None`, the
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
        # Unchanged, since `clone` compares them with the arguments it passed.
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.layers = layers
        self.pooling = pooling
        self.batch_size = batch_size
        self.store = store

    def fit(self, X: np.ndarray, y: Any = None) -> FeatureExtractor:
        """Loads the backbone for images of this shape; nothing is learned.

        Args:
            X: Images `(n, height, width, channels)` in `[0, 255]`, uint8 or
                float.
            y: Ignored. Defaults to `None`.

        Returns:
            The extractor itself.

        Raises:
            ValueError: If `X` holds no images, or a parameter is out of range.
            TypeError: If `X` is not an array of numbers.
        """
        # A single image determines the columns.
        self._fit(X, 1)
        return self

    def transform(self, X: np.ndarray) -> Any:
        """Returns the features of images.

        Args:
            X: Images `(n, height, width, channels)` in `[0, 255]`, of the
                shape that was fitted.

        Returns:
            float32 `(n, features)`, in the container of `set_output`.

        Raises:
            ValueError: If `X` does not hold images of that shape.
            TypeError: If `X` is not an array of numbers.
            NotFittedError: If `fit` was not called.
        """
        self._check_fitted()
        images = self._images(X)
        if X.shape[1:] != self.image_shape_:
            raise ValueError(
                f"`X` must hold images of shape {self.image_shape_}, like the "
                f"images that were fitted. Received: {X.shape[1:]}."
            )
        return self._output(self._extract(images).values)

    def fit_transform(self, X: np.ndarray, y: Any = None) -> Any:
        """Fits, and returns the features of the same images.

        Args:
            X: Images `(n, height, width, channels)` in `[0, 255]`.
            y: Ignored. Defaults to `None`.

        Returns:
            float32 `(n, features)`, in the container of `set_output`.

        Raises:
            ValueError: As `fit`.
            TypeError: As `fit`.
        """
        return self._output(self._fit(X, None).values)

    def set_output(self, *, transform: str | None = None) -> FeatureExtractor:
        """Chooses the container of the features, as in scikit-learn.

        Args:
            transform: `"default"` for arrays, `"pandas"` or `"polars"` for
                data frames with named columns, or `None` for no change.
                Without a choice, `sklearn.set_config(transform_output=...)`
                counts. Defaults to `None`.

        Returns:
            The extractor itself.

        Raises:
            ValueError: If there is no such container.
        """
        if transform is None:
            return self
        if transform not in _CONTAINERS:
            refuse("transform", "one of " + ", ".join(_CONTAINERS), transform)
        self._container = transform
        return self

    def _output(self, values: np.ndarray) -> Any:
        """Returns features in the container that the user chose."""
        container = getattr(self, "_container", None)
        if container is None and "sklearn" in sys.modules:
            import sklearn

            container = sklearn.get_config()["transform_output"]
        if container in (None, "default"):
            return values
        try:
            library = importlib.import_module(container)
        except ImportError as err:
            raise ImportError(
                f"`set_output` needs {container}, which is not installed: "
                f"`pip install {container}`."
            ) from err
        names = self.get_feature_names_out().tolist()
        if container == "pandas":
            return library.DataFrame(values, columns=names)
        return library.DataFrame(values, schema=names)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Returns names of the columns, such as `"resnet20_0"`.

        Args:
            input_features: Ignored. Defaults to `None`.

        Returns:
            Array of strings; with `layers` they contain the name of the block.

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
            deep: Ignored, since no parameter has parameters of its own.
                Defaults to `True`.

        Returns:
            Dict of the arguments of `__init__`.
        """
        return {name: getattr(self, name) for name in _defaults()}

    def set_params(self, **params: Any) -> FeatureExtractor:
        """Changes parameters.

        Args:
            **params: New values by name.

        Returns:
            The extractor itself.

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
        # Backbones and stores are shared; `clone` would copy them.
        copy = FeatureExtractor(**self.get_params())
        return copy.set_output(transform=getattr(self, "_container", None))

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
        """Loads the backbone, and returns the features of `count` images."""
        pixels = self._images(images)
        if self.pooling not in ("avg", "max"):
            refuse(
                "pooling",
                '"avg" or "max", because scikit-learn needs vectors',
                self.pooling,
            )
        if isinstance(self.backbone, Backbone):
            self.backbone_ = self.backbone
        else:
            self.backbone_ = load_backbone(
                self.backbone,
                weights=self.weights,
                input_shape=pixels.shape[1:],
            )
        features = self._extract(pixels[:count])
        self.image_shape_ = images.shape[1:]
        self.parts_ = features.parts
        # As scikit-learn counts, whose inputs have two dimensions.
        self.n_features_in_ = images.shape[1]
        self.n_features_out_ = features.shape[0]
        return features

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                "`fit` must be called first. Received: a FeatureExtractor "
                "that is not fitted. Call `fit(X)` or `fit_transform(X)`."
            )

    def _images(self, images: np.ndarray) -> np.ndarray:
        """Checks the images and resizes them."""
        if not isinstance(images, np.ndarray) or images.dtype.kind not in "uif":
            received = getattr(images, "dtype", type(images).__name__)
            raise TypeError(
                f"`X` must be an array of numbers. Received: {received}."
            )
        if images.ndim != 4 or not len(images):
            raise ValueError(
                "`X` must hold images (n, height, width, channels), at least "
                f"one. Received: shape {images.shape}. Reshape rows of pixels: "
                "`X.reshape(-1, height, width, channels)`."
            )
        check_pixels(images, "X")
        size = check_image_size(self.image_size)
        if size in (None, images.shape[1:3]):
            return images
        # In chunks, since float32 takes four times the memory of uint8.
        resized = []
        for start in range(0, len(images), _IMAGES_PER_CHUNK):
            chunk = images[start : start + _IMAGES_PER_CHUNK].astype("float32")
            chunk = keras.ops.image.resize(chunk, size, antialias=True)
            resized.append(keras.ops.convert_to_numpy(chunk))
        return np.concatenate(resized)

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


_CONTAINERS = ("default", "pandas", "polars")


def _defaults() -> dict[str, Any]:
    """Returns the defaults of the parameters of `FeatureExtractor`."""
    parameters = inspect.signature(FeatureExtractor).parameters
    return {name: parameter.default for name, parameter in parameters.items()}

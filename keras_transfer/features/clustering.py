"""`cluster`: groups that frozen features see, without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_transfer._utils.checks import is_integer
from keras_transfer.features.features import Features, FeatureSplit, unit_norm
from keras_transfer.reports.plots import plot_clusters

# Principal components that are clustered: distances in thousands of columns
# are mostly noise.
_COMPONENTS = 50


_MOST_CLUSTERS = 20


_SILHOUETTE_ROWS = 2000


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Clusters:
    """Groups of examples; what `cluster` returns.

    Attributes:
        labels: int64 `(n,)`, the cluster of each example.
        silhouette: Mean in `[-1, 1]` of how much nearer the examples are to
            their own cluster than to the next one; 0 is no difference.
        silhouettes: The silhouette by number of clusters tried.
        nmi: Mutual information of clusters and classes, divided by the mean of
            both entropies, in `[0, 1]`; `None` where examples have no class.
        centers: float64 `(num_clusters, components)`.
        points: float64 `(n, components)`, principal components of the features
            at unit norm, most of the variance first.
        classes: Class indices `(n,)`, or `None`.
        class_names: Names of the classes, or `None`.
        ids: Names of the examples, or `None`.

    Example:

    >>> found = cluster(np.repeat([[0.0, 1], [1, 0]], 5, axis=0), 2)
    >>> len(set(found.labels[:5])), len(set(found.labels))
    (1, 2)
    """

    labels: np.ndarray
    silhouette: float
    silhouettes: dict[int, float]
    nmi: float | None
    centers: np.ndarray
    points: np.ndarray
    classes: np.ndarray | None
    class_names: tuple[str, ...] | None
    ids: tuple[str, ...] | None
    _project: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def sizes(self) -> np.ndarray:
        """int64 `(num_clusters,)`, how many examples each holds."""
        return np.bincount(self.labels, minlength=len(self))

    def typical(self, number: int, count: int = 5) -> np.ndarray:
        """Returns the examples nearest to the centre of a cluster.

        Args:
            number: The cluster, from 0.
            count: At most how many. Defaults to `5`.

        Returns:
            int64 rows, nearest first.

        Raises:
            ValueError: If there is no such cluster, or `count` is no integer
                above 0.
        """
        if not is_integer(number) or not 0 <= number < len(self):
            raise ValueError(
                f"`number` must be an integer in [0, {len(self)}), a cluster. "
                f"Received: number={number!r}"
            )
        if not is_integer(count) or count < 1:
            raise ValueError(
                f"`count` must be an integer above 0. Received: count={count!r}"
            )
        rows = np.flatnonzero(self.labels == number)
        distances = np.linalg.norm(
            self.points[rows] - self.centers[number], axis=1
        )
        return rows[np.argsort(distances, kind="stable")[:count]]

    def assign(self, features: FeatureSplit | np.ndarray) -> np.ndarray:
        """Returns the nearest cluster of other examples.

        Args:
            features: A `FeatureSplit` or an array `(m, features)`, of the same
                backbones and blocks.

        Returns:
            int64 `(m,)`.

        Raises:
            ValueError: If they have another number of columns.
        """
        points = self._project(_values(features))
        distances = ((points[:, None] - self.centers) ** 2).sum(axis=-1)
        return distances.argmin(axis=1)

    def plot(self, path: str | Path) -> None:
        """Draws the first two principal components.

        By cluster and, where they are known, by class.

        Args:
            path: PNG file to write.
        """
        points = self.points[:, :2]
        if points.shape[1] < 2:
            points = np.pad(points, ((0, 0), (0, 1)))
        plot_clusters(
            points,
            self.labels,
            path,
            classes=self.classes,
            class_names=self.class_names,
        )

    def __repr__(self) -> str:
        nmi = "" if self.nmi is None else f", NMI {self.nmi:.4f}"
        return (
            f"<Clusters: {len(self)} of {len(self.labels)} examples, "
            f"silhouette {self.silhouette:.4f}{nmi}>"
        )

    def __str__(self) -> str:
        lines = [repr(self)[1:-1]]
        for number, size in enumerate(self.sizes):
            line = f"  {number}: {size} examples"
            if self.classes is not None:
                counts = np.bincount(self.classes[self.labels == number])
                order = np.argsort(-counts, kind="stable")[:3]
                line += ": " + ", ".join(
                    f"{counts[c]} {self._name(c)}" for c in order if counts[c]
                )
            lines.append(line)
        return "\n".join(lines)

    def _name(self, index: int) -> str:
        return self.class_names[index] if self.class_names else str(index)


def cluster(
    features: Features | FeatureSplit | np.ndarray,
    num_clusters: int | None = None,
    *,
    seed: int = 0,
) -> Clusters:
    """Groups examples by k-means on frozen features.

    Each part of the features (a block of a backbone) is brought to unit norm,
    and the 50 first principal components are clustered, with ten starts.

    Args:
        features: What `extract_features` returned, of which the training
            examples are taken, or an array `(n, features)`.
        num_clusters: Number of clusters. Defaults to `None`: the number of
            classes where labels are known, else that of 2 to 20 with the best
            silhouette.
        seed: Of the starts and of the 2,000 rows at most that the silhouette
            is measured on. Defaults to `0`.

    Returns:
        `Clusters`.

    Raises:
        ValueError: If there are too few examples that differ, features that
            are not finite or no vectors, or an argument is out of range.
        TypeError: If `features` is something else.

    Example:

    >>> data = load_images((arrays, labels))
    >>> features = extract_features(backbone, data, verbose=0)
    >>> len(cluster(features)), len(cluster(features, 5))
    (3, 5)

    Reference:
        - Rousseeuw, 1987, https://doi.org/10.1016/0377-0427(87)90125-7
    """
    split, class_names = _split_of(features)
    if not is_integer(seed) or seed < 0:
        raise ValueError(
            f"`seed` must be an integer of at least 0. Received: {seed!r}"
        )
    values = _values(split)
    edges = _edges(split, values.shape[1])
    normal = _unit(values, edges)
    classes = _classes(split)
    wanted = _numbers(normal, classes, num_clusters)
    points, project = _components(normal, edges, seed)
    tried = {k: _k_means(points, k, seed) for k in wanted}
    scores = {
        k: _silhouette(points, found[0], seed) for k, found in tried.items()
    }
    best = max(scores, key=lambda k: scores[k])
    labels, centers = tried[best]
    return Clusters(
        labels,
        scores[best],
        scores,
        None if classes is None else _nmi(classes, labels),
        centers,
        points,
        classes,
        class_names,
        getattr(split, "ids", None),
        project,
    )


def _split_of(
    features: Features | FeatureSplit | np.ndarray,
) -> tuple[FeatureSplit | np.ndarray, tuple[str, ...] | None]:
    if isinstance(features, Features):
        return features.train, features.class_names
    if isinstance(features, FeatureSplit | np.ndarray):
        return features, None
    raise TypeError(
        "`features` must be what `extract_features` returned, or an array "
        f"(n, features). Received: {type(features).__name__}"
    )


def _values(features: FeatureSplit | np.ndarray) -> np.ndarray:
    array = features if isinstance(features, np.ndarray) else features.values
    if array.ndim != 2:
        raise ValueError(
            "`features` must be vectors, one for each example. Received: shape "
            f'{array.shape}. Extract them with `pooling="avg"`.'
        )
    if not np.isfinite(array).all():
        raise ValueError(
            "`features` must be finite. Received: NaN or infinity; check the "
            "weights of the backbone and the pixels."
        )
    return array.astype(np.float64)


def _edges(
    split: FeatureSplit | np.ndarray, width: int
) -> tuple[tuple[int, int], ...]:
    parts = getattr(split, "parts", ())
    return tuple((p.start, p.stop) for p in parts) or ((0, width),)


def _classes(split: FeatureSplit | np.ndarray) -> np.ndarray | None:
    labels = getattr(split, "labels", None)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return None
    return labels


def _numbers(
    normal: np.ndarray, classes: np.ndarray | None, given: int | None
) -> list[int]:
    """The numbers of clusters to try."""
    count, different = len(normal), len(np.unique(normal, axis=0))
    # Each cluster holds what differs from the others, and one of them more
    # than one example, which have a distance.
    most = min(different, count - 1)
    if most < 2:
        raise ValueError(
            "`features` must hold at least three examples, two of which "
            f"differ. Received: {count}, {different} of which differ."
        )
    if given is not None:
        if not is_integer(given) or not 2 <= given <= most:
            raise ValueError(
                f"`num_clusters` must be an integer in [2, {most}] for "
                f"{count} examples, {different} of which differ. Received: "
                f"num_clusters={given!r}"
            )
        return [int(given)]
    if classes is not None and 2 <= len(np.unique(classes)) <= most:
        return [len(np.unique(classes))]
    return list(range(2, min(_MOST_CLUSTERS, most) + 1))


def _unit(values: np.ndarray, edges: tuple[tuple[int, int], ...]) -> np.ndarray:
    found = values.copy()
    for start, stop in edges:
        found[:, start:stop] = unit_norm(found[:, start:stop])
    return found


def _components(
    normal: np.ndarray, edges: tuple[tuple[int, int], ...], seed: int
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The points, and the function that makes them of other features."""
    from sklearn.decomposition import PCA

    count, width = normal.shape
    found = PCA(min(_COMPONENTS, count, width), random_state=seed).fit(normal)

    def project(values: np.ndarray) -> np.ndarray:
        if values.shape[1] != width:
            raise ValueError(
                f"`features` must have {width} columns, as those that were "
                f"clustered. Received: {values.shape[1]}. Are they of another "
                "backbone?"
            )
        return found.transform(_unit(values, edges))

    return found.transform(normal), project


def _k_means(
    points: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans

    found = KMeans(count, n_init=10, random_state=seed).fit(points)
    return found.labels_.astype(np.int64), found.cluster_centers_


def _silhouette(points: np.ndarray, labels: np.ndarray, seed: int) -> float:
    from sklearn.metrics import silhouette_score

    if len(points) > _SILHOUETTE_ROWS:
        generator = np.random.default_rng(seed)
        rows = generator.permutation(len(points))[:_SILHOUETTE_ROWS]
        points, labels = points[rows], labels[rows]
        if len(np.unique(labels)) < 2:  # an outlier that was not drawn
            return 0.0
    return float(silhouette_score(points, labels))


def _nmi(classes: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(classes, labels))

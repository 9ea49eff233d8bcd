"""`cluster`: groups of examples by frozen features, without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_transfer._utils.checks import check_integer, is_integer, refuse
from keras_transfer.features.features import Features, FeatureSplit, unit_norm
from keras_transfer.probes.linear import check_finite
from keras_transfer.reports.plots import plot_clusters

# Number of principal components that are clustered: distances in thousands of
# columns are mostly noise.
_COMPONENTS = 50

_MOST_CLUSTERS = 20

_SILHOUETTE_ROWS = 2000


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Clusters:
    """Groups of examples; result of `cluster`.

    Attributes:
        labels: int64 `(n,)`, the cluster of each example.
        silhouette: Mean silhouette in `[-1, 1]`: by how much the examples are
            closer to their own cluster than to the next one; 0 is no
            difference.
        silhouettes: The silhouettes by number of clusters, of all numbers that
            were tried.
        nmi: Mutual information of clusters and classes, divided by the mean of
            both entropies, in `[0, 1]`; `None` if examples have no class.
        centers: float64 `(num_clusters, components)`.
        points: float64 `(n, components)`, principal components of the features
            at unit norm, in descending order of variance.
        classes: Class indices `(n,)`, or `None`.
        class_names: Names of the classes, or `None`.
        ids: Ids of the examples, or `None`.

    Example:

    >>> clusters = cluster(np.repeat([[0.0, 1], [1, 0]], 5, axis=0), 2)
    >>> len(set(clusters.labels[:5])), len(set(clusters.labels))
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
        """Number of examples in each cluster, int64 `(num_clusters,)`."""
        return np.bincount(self.labels, minlength=len(self))

    def typical(self, number: int, count: int = 5) -> np.ndarray:
        """Returns the examples nearest to the centre of a cluster.

        Args:
            number: Index of the cluster, from 0.
            count: Maximum number of examples. Defaults to `5`.

        Returns:
            int64 rows, nearest first.

        Raises:
            ValueError: If there is no such cluster, or `count` is not an
                integer above 0.
        """
        if not is_integer(number) or not 0 <= number < len(self):
            refuse(
                "number", f"an integer in [0, {len(self)}), a cluster", number
            )
        check_integer("count", count, 1)
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
            ValueError: If `features` has another number of columns.
        """
        points = self._project(_values(features))
        # [m, 1, components] - [clusters, components] -> [m, clusters]
        distances = ((points[:, None] - self.centers) ** 2).sum(axis=-1)
        return distances.argmin(axis=1)

    def plot(self, path: str | Path) -> None:
        """Plots the first two principal components, by cluster and by class.

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

    Each part of the features (a block of a backbone) is scaled to unit norm,
    and the first 50 principal components are clustered, from ten starts.

    Args:
        features: `Features`, of which the training examples are clustered, a
            `FeatureSplit`, or an array `(n, features)`.
        num_clusters: Number of clusters. Defaults to `None`, which means the
            number of classes if labels are known, or else the number from 2 to
            20 with the best silhouette.
        seed: Seed of the starts and of the sample of at most 2,000 rows that
            the silhouette is measured on. Defaults to `0`.

    Returns:
        `Clusters`.

    Raises:
        ValueError: If there are too few distinct examples, features are not
            finite or not vectors, or an argument is out of range.
        TypeError: If `features` is of another type.

    Example:

    >>> data = load_images((arrays, labels))
    >>> features = extract_features(backbone, data, verbose=0)
    >>> len(cluster(features)), len(cluster(features, 5))
    (3, 5)

    Reference:
        - Rousseeuw, 1987, https://doi.org/10.1016/0377-0427(87)90125-7
    """
    split, class_names = _split_of(features)
    check_integer("seed", seed, 0)
    values = _values(split)
    ranges = _column_ranges(split, values.shape[1])
    normalized = _unit_norm_parts(values, ranges)
    classes = _classes(split)
    numbers = _numbers_to_try(normalized, classes, num_clusters)
    points, project = _principal_components(normalized, ranges, seed)
    clusterings = {k: _k_means(points, k, seed) for k in numbers}
    scores = {
        k: _silhouette(points, labels, seed)
        for k, (labels, _) in clusterings.items()
    }
    best = max(scores, key=lambda k: scores[k])
    labels, centers = clusterings[best]
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
        "`features` must be `Features` from `extract_features`, one of their "
        "splits or an array (n, features). Received: "
        f"{type(features).__name__}."
    )


def _values(features: FeatureSplit | np.ndarray) -> np.ndarray:
    array = features if isinstance(features, np.ndarray) else features.values
    if array.ndim != 2:
        raise ValueError(
            "`features` must be vectors, one per example. Received: shape "
            f'{array.shape}. Extract them with `pooling="avg"`.'
        )
    check_finite(array)
    return array.astype(np.float64)


def _column_ranges(
    split: FeatureSplit | np.ndarray, width: int
) -> tuple[tuple[int, int], ...]:
    """Returns start and stop of the columns of each part."""
    parts = getattr(split, "parts", ())
    return tuple((p.start, p.stop) for p in parts) or ((0, width),)


def _classes(split: FeatureSplit | np.ndarray) -> np.ndarray | None:
    labels = getattr(split, "labels", None)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return None
    return labels


def _numbers_to_try(
    normalized: np.ndarray,
    classes: np.ndarray | None,
    num_clusters: int | None,
) -> list[int]:
    count, distinct = len(normalized), len(np.unique(normalized, axis=0))
    # k-means needs distinct centres, and the silhouette is defined only if some
    # cluster holds more than one example.
    largest = min(distinct, count - 1)
    if largest < 2:
        raise ValueError(
            "`features` must hold at least three examples, two of them "
            f"distinct. Received: {count}, {distinct} of them distinct."
        )
    if num_clusters is not None:
        if not is_integer(num_clusters) or not 2 <= num_clusters <= largest:
            refuse(
                "num_clusters",
                f"an integer in [2, {largest}] for {count} examples, "
                f"{distinct} of them distinct",
                num_clusters,
            )
        return [int(num_clusters)]
    if classes is not None and 2 <= len(np.unique(classes)) <= largest:
        return [len(np.unique(classes))]
    return list(range(2, min(_MOST_CLUSTERS, largest) + 1))


def _unit_norm_parts(
    values: np.ndarray, ranges: tuple[tuple[int, int], ...]
) -> np.ndarray:
    normalized = values.copy()
    for start, stop in ranges:
        normalized[:, start:stop] = unit_norm(normalized[:, start:stop])
    return normalized


def _principal_components(
    normalized: np.ndarray, ranges: tuple[tuple[int, int], ...], seed: int
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Returns the points, and a function from other features to points."""
    from sklearn.decomposition import PCA

    count, width = normalized.shape
    pca = PCA(min(_COMPONENTS, count, width), random_state=seed)
    pca.fit(normalized)

    def project(values: np.ndarray) -> np.ndarray:
        if values.shape[1] != width:
            raise ValueError(
                f"`features` must have {width} columns, like the features that "
                f"were clustered. Received: {values.shape[1]}. Are they of "
                "another backbone?"
            )
        return pca.transform(_unit_norm_parts(values, ranges))

    return pca.transform(normalized), project


def _k_means(
    points: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans

    k_means = KMeans(count, n_init=10, random_state=seed).fit(points)
    return k_means.labels_.astype(np.int64), k_means.cluster_centers_


def _silhouette(points: np.ndarray, labels: np.ndarray, seed: int) -> float:
    from sklearn.metrics import silhouette_score

    if len(points) > _SILHOUETTE_ROWS:
        generator = np.random.default_rng(seed)
        rows = generator.permutation(len(points))[:_SILHOUETTE_ROWS]
        points, labels = points[rows], labels[rows]
        if len(np.unique(labels)) < 2:
            # The sample holds no example of the smaller clusters.
            return 0.0
    return float(silhouette_score(points, labels))


def _nmi(classes: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(classes, labels))

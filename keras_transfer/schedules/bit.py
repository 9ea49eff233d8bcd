"""The BiT-HyperRule."""

from __future__ import annotations

from typing import NamedTuple


class BiTHyperRule(NamedTuple):
    """Settings of the BiT-HyperRule for a data set.

    Attributes:
        total_steps: Number of training steps.
        warmup_steps: Number of steps of linear warm-up.
        boundaries: Steps after which the learning rate is divided by ten.
        learning_rate: Peak learning rate, for SGD with momentum 0.9.
        resize: Side of the resized images, in pixels.
        crop: Side of the random crop of these, in pixels.
        mixup: `alpha` of MixUp; 0 for none.

    Example:

    >>> bit_hyperrule(30_000, (224, 224)).boundaries
    (3000, 6000, 9000)
    """

    total_steps: int
    warmup_steps: int
    boundaries: tuple[int, ...]
    learning_rate: float
    resize: int
    crop: int
    mixup: float


def bit_hyperrule(
    num_examples: int,
    image_size: tuple[int, int],
    *,
    batch_size: int = 512,
) -> BiTHyperRule:
    """Returns the hyper-parameters of the BiT-HyperRule, without a search.

    The number of steps, the resolution and MixUp follow from the number of
    training examples and the size of the images. All layers train, by SGD
    with momentum 0.9 and no weight decay, with horizontal flips if these
    preserve the label. The learning rate is `0.003 * batch_size / 512`.

    Args:
        num_examples: Number of training examples, positive.
        image_size: Height and width of the original images, in pixels.
        batch_size: Number of examples per step. The number of steps does not
            depend on it. Defaults to `512`.

    Returns:
        A `BiTHyperRule`; `bit_learning_rate` is its schedule.

    Raises:
        ValueError: If a number is not positive.

    Example:

    >>> rule = bit_hyperrule(1000, (32, 32))
    >>> rule.total_steps, rule.resize, rule.crop, rule.mixup
    (500, 160, 128, 0.0)

    Reference:
        - Kolesnikov et al., 2020, https://arxiv.org/abs/1912.11370
    """
    warmup, *boundaries, total = _bit_supports(num_examples)
    rate = _bit_peak(batch_size)
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            "`image_size` must be the positive height and width of the images. "
            f"Received: image_size={tuple(image_size)}"
        )
    small = image_size[0] * image_size[1] < 96 * 96
    resize, crop = (160, 128) if small else (512, 480)
    return BiTHyperRule(
        total_steps=total,
        warmup_steps=warmup,
        boundaries=tuple(boundaries),
        learning_rate=rate,
        resize=resize,
        crop=crop,
        mixup=0.0 if num_examples < 20_000 else 0.1,
    )


def bit_learning_rate(
    step: int, num_examples: int, *, batch_size: int = 512
) -> float | None:
    """Returns the learning rate of the BiT-HyperRule at a step.

    Linear warm-up from 0, then division by ten after each boundary.

    Args:
        step: Integer of at least 0, counted from 0.
        num_examples: Number of training examples, positive.
        batch_size: Number of examples per step. Defaults to `512`.

    Returns:
        The learning rate, a float, or `None` from step `total_steps` on, when
        training is over.

    Raises:
        ValueError: If `step` is negative, or another number not positive.

    Example:

    >>> bit_learning_rate(50, num_examples=1000)
    0.0015

    Reference:
        - Kolesnikov et al., 2020, https://arxiv.org/abs/1912.11370
    """
    warmup, *boundaries, total = _bit_supports(num_examples)
    rate = _bit_peak(batch_size)
    if step < 0:
        raise ValueError(f"`step` must be at least 0. Received: step={step}")
    if step >= total:
        return None
    if step < warmup:
        return rate * step / warmup
    return rate * 0.1 ** sum(boundary < step for boundary in boundaries)


def _bit_supports(num_examples: int) -> tuple[int, ...]:
    """Returns the steps where warm-up, each rate and training end."""
    if num_examples < 1:
        raise ValueError(
            "`num_examples` must be positive. Received: "
            f"num_examples={num_examples}"
        )
    if num_examples < 20_000:
        return 100, 200, 300, 400, 500
    if num_examples < 500_000:
        return 500, 3000, 6000, 9000, 10_000
    return 500, 6000, 12_000, 18_000, 20_000


def _bit_peak(batch_size: int) -> float:
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be positive. Received: batch_size={batch_size}"
        )
    return 0.003 * batch_size / 512

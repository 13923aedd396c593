"""Weights of classes, from how rare they are."""

from __future__ import annotations

from collections.abc import Sequence

from medseg_paddle.errors import DataError


def class_weights(pixels: Sequence[int], names: Sequence[str] = ()) -> tuple[float, ...]:
    """Weights that give every class the same say: ``w_c = N / (K n_c)``.

    The inverse frequency of King and Zeng 2001 (Political Analysis 9:137-163) in the form that scikit-learn calls
    ``balanced``: a pixel weighs 1 on average, and the pixels of each class weigh ``N / K`` together.

    Parameters
    ----------
    pixels : sequence of int
        Pixels of each class in all training labels, ``n_c``; ``N`` is their sum and ``K`` their number.
    names : sequence of str, optional
        The classes, for a message.

    Returns
    -------
    tuple of float
        One weight per class.

    Raises
    ------
    DataError
        A class has no pixel: there is nothing to learn it from, and no weight that would balance it.
    """
    total = sum(pixels)
    for number, count in enumerate(pixels):
        if not count:
            name = names[number] if names else f"class {number}"
            raise DataError(
                f"no pixel of {name} in the training set, so that `weight: balanced` has no weight for it",
                hint="give the weights as numbers, one per class, or put images with this class into the training set",
            )
    return tuple(total / (len(pixels) * count) for count in pixels)

"""Checks the trees of a loaded model before they are walked.

scikit-learn follows the node numbers of a tree without looking whether they exist: a crafted file
would read or crash outside its memory (https://github.com/scikit-learn/scikit-learn/pull/34558). The
types that skops does not trust for this reason can be reviewed as harmless only because of this check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_DEPTH = 12  # of objects inside objects; a pipeline of ensembles of ensembles needs half of it
_UNCHECKED = {"sklearn.ensemble._forest", "sklearn.ensemble._gb"}
"""Ensembles that check the width of the data once and then walk trees that may claim another width."""


def check_trees(model: Any, error: type[Exception]) -> int:
    """Number of trees in a model, all of which can be walked safely.

    Raises:
        error: a node of a tree points outside the tree, its features or its categories.
    """
    count = 0
    for tree, owner, width in _trees(model, None, None, _DEPTH, set()):
        count += 1
        problem = _grown(tree, width) if hasattr(tree, "children_left") else _boosted(tree, owner, width)
        if problem:
            raise error(
                f"tree {count} of the model {problem}: using it would read outside its memory. "
                "How to fix it: train and log the model again; if the file is not yours, report it"
            )
    return count


def _trees(
    value: Any, owner: Any, width: int | None, depth: int, seen: set[int]
) -> Iterator[tuple[Any, Any, int | None]]:
    """Every tree of a model, with the estimator that holds it and the number of features it gets."""
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    items: list[Any] = []
    if type(value).__name__ in {"Tree", "TreePredictor"}:
        yield value, owner, width
    elif isinstance(value, dict):
        items = [*value.values()]
    elif isinstance(value, list | tuple):
        items = [*value]
    elif str(getattr(value, "dtype", "")) == "object":
        items = value.ravel().tolist()
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        items = [*vars(value).values()]
        own = vars(value).get("n_features_in_")
        if own is not None:
            unchecked = width is not None and type(owner).__module__ in _UNCHECKED
            width = min(int(own), width) if unchecked and width is not None else int(own)
            owner = value
    for item in items:
        yield from _trees(item, owner, width, depth - 1, seen)


def _grown(tree: Any, width: int | None) -> str:
    """What is wrong with a tree of forests and gradient boosting; children stand after their parent."""
    import numpy as np

    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = left != -1
    if (right[~inner] != -1).any():
        return "has a node with one child"
    width = tree.n_features if width is None else min(tree.n_features, width)
    return _problem(np.flatnonzero(inner), (left[inner], right[inner]), feature[inner], len(left), width)


def _boosted(tree: Any, owner: Any, width: int | None) -> str:
    """What is wrong with a tree of histogram gradient boosting."""
    import numpy as np

    nodes = tree.nodes
    inner = nodes["is_leaf"] == 0
    chosen = nodes[inner]
    children = (chosen["left"].astype("int64"), chosen["right"].astype("int64"))
    problem = _problem(np.flatnonzero(inner), children, chosen["feature_idx"], len(nodes), width or 0)
    split = chosen[chosen["is_categorical"] != 0]
    if problem or not len(split):
        return problem
    known = np.asarray(owner._bin_mapper.is_categorical_)  # noqa: SLF001 - what scikit-learn looks at
    if len(known) != width or not known[split["feature_idx"]].all():
        return "splits a number as if it were a category"
    return (
        "points outside its categories"
        if (split["bitset_idx"] >= len(tree.raw_left_cat_bitsets)).any()
        else ""
    )


def _problem(parents: Any, children: tuple[Any, Any], features: Any, nodes: int, width: int) -> str:
    if nodes == 0:
        return "is empty"
    for side in children:
        if ((side <= parents) | (side >= nodes)).any():
            return "has a node that points outside the tree, or back"
    return "looks at a feature that does not exist" if ((features < 0) | (features >= width)).any() else ""

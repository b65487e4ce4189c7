"""LightGBM's text models read into arrays: binary classifiers of numeric and categorical splits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from schemas.blocks import Array

FORMAT: Final = "v4"  # of LightGBM 4, whose `Tree::ToString` this reads
TEXT_MOST: Final = 64 * 2**20  # bytes: some 300,000 leaves
_DIGITS: Final = 9  # of a count
CATEGORICAL, DEFAULT_LEFT, MISSING = 1, 2, 2  # bits of decision_type; where its missing type begins
_DECISION_MOST: Final = 10  # NaN is missing, by default left
_END: Final = b"end of trees"


class Trees(NamedTuple):
    """All trees of a model, one behind the other; a child below 0 is the leaf ~child.

    A node sends a value at most its threshold to the left. At a categorical node the threshold is
    the number c of a set: the bits of `words[sets[c]:sets[c + 1]]` are the categories that go left.
    """

    root: Array  # int64 (trees,): a node, or below 0 a leaf
    feature: Array  # int64 (nodes,)
    decision: Array  # the same; the bits that LightGBM calls decision_type
    child: Array  # int64 (nodes, 2): the right one, the left one
    threshold: Array  # float64 (nodes,)
    leaf: Array  # float64 (leaves,): log odds
    sets: Array  # int64 (sets + 1,)
    words: Array  # uint32


@dataclass(frozen=True)
class TreeModel:
    """A binary classifier: p = 1 / (1 + exp(-sigmoid * sum of one leaf of each tree))."""

    features: tuple[str, ...]
    sigmoid: float
    trees: Trees


class _Tree(NamedTuple):
    root: int
    feature: Array
    decision: Array
    child: Array
    threshold: Array
    leaf: Array
    sets: Array
    words: Array


def read_trees(text: bytes) -> TreeModel:
    """A model as LightGBM's `save_model` writes it.

    Raises:
        ValueError: it is damaged, of another version, or no binary classifier; in one line.
    """
    if len(text) > TEXT_MOST:
        raise ValueError(f"larger than {TEXT_MOST >> 20} MB")
    try:
        told = text.decode()
    except UnicodeDecodeError as error:
        raise ValueError("no text of UTF-8") from error
    head, body = _parts(told)
    features = tuple(head.get("feature_names", "").split(" "))
    if len(features) != _number(head, "max_feature_idx") + 1 or len(set(features)) < len(features):
        raise ValueError("damaged: its feature names are not as many as its features")
    trees = []
    end = 0
    for number, size in enumerate(_sizes(head)):
        begin, end = end, end + size
        try:
            trees.append(_tree(_values(body[begin:end], f"Tree={number}"), len(features)))
        except ValueError as error:
            raise ValueError(f"damaged: tree {number}: {error}") from error
    if not trees or not body.startswith(_END, end):
        raise ValueError(f'damaged: its trees do not end where "{_END.decode()}" stands')
    _no_categories_of_pandas(body[end:])
    return TreeModel(features, _sigmoid(head), _together(trees))


def _parts(told: str) -> tuple[dict[str, str], bytes]:
    """The lines before the first tree, and all from there on."""
    begin = told.find("\nTree=0\n")
    if not told.startswith("tree\n") or begin < 0:
        raise ValueError('no model of LightGBM: it does not begin with "tree", or has no tree')
    lines = told[:begin].split("\n")[1:]
    if "average_output" in lines:
        raise ValueError("a random forest: train it with boosting=gbdt")
    head = dict(line.partition("=")[::2] for line in lines if line)
    if head.get("version") != FORMAT:
        raise ValueError(f"of version {head.get('version')}: write it by LightGBM 4 ({FORMAT})")
    if head.get("num_class") != "1" or head.get("num_tree_per_iteration") != "1":
        raise ValueError("of several classes: train it with objective=binary")
    return head, told[begin + 1 :].encode()


def _sigmoid(head: Mapping[str, str]) -> float:
    """The scale of the log odds, which the objective tells."""
    objective = head.get("objective", "")
    name, _, rest = objective.partition(" ")
    if name != "binary" or not rest.startswith("sigmoid:"):
        raise ValueError(f"its objective is {objective or 'not told'}: train it with binary")
    found = _float(rest.removeprefix("sigmoid:"), "sigmoid")
    if not 0.0 < found < math.inf:
        raise ValueError("damaged: its sigmoid is not positive")
    return found


def _no_categories_of_pandas(tail: bytes) -> None:
    """Refuse a model whose inputs pandas would have to number first."""
    for line in tail.splitlines():
        name, _, value = line.partition(b":")
        if name == b"pandas_categorical" and value.strip() not in {b"null", b"[]"}:
            raise ValueError("trained on categories of pandas: number them, train it anew")


def _values(part: bytes, title: str) -> dict[str, str]:
    lines = part.decode(errors="replace").split("\n")
    if not lines or lines[0] != title:
        raise ValueError("it does not begin where tree_sizes says")
    return dict(line.partition("=")[::2] for line in lines[1:] if line)


def _tree(told: Mapping[str, str], features: int) -> _Tree:
    if told.get("is_linear") != "0":
        raise ValueError("its leaves are linear: train it with linear_tree=false")
    leaves = _number(told, "num_leaves")
    if leaves < 1:
        raise ValueError("it has no leaf")
    leaf = _floats(told, "leaf_value", leaves)
    if not np.isfinite(leaf).all():
        raise ValueError("a leaf is not finite")
    nodes = leaves - 1
    feature = _integers(told, "split_feature", nodes)
    decision = _integers(told, "decision_type", nodes)
    child = np.stack([_integers(told, side, nodes) for side in ("right_child", "left_child")], 1)
    threshold = _floats(told, "threshold", nodes)
    if ((feature < 0) | (feature >= features)).any():
        raise ValueError("it splits by a feature that there is not")
    if ((decision < 0) | (decision > _DECISION_MOST + CATEGORICAL)).any():
        raise ValueError("a decision_type is unknown")
    if np.isnan(threshold).any():
        raise ValueError("a threshold is no number")
    _is_one_tree(child)
    sets = _number(told, "num_cat")
    bounds = _integers(told, "cat_boundaries", sets + 1 if sets else 0)
    words = _integers(told, "cat_threshold", int(bounds[-1]) if sets else 0)
    if sets and (bounds[0] != 0 or (np.diff(bounds) < 0).any()):
        raise ValueError("cat_boundaries do not grow from 0")
    if ((words < 0) | (words > np.iinfo(np.uint32).max)).any():
        raise ValueError("a word of cat_threshold has more than 32 bits")
    chosen = threshold[decision & CATEGORICAL == 1]
    if ((chosen < 0) | (chosen >= sets) | (chosen != np.floor(chosen))).any():
        raise ValueError("a split by categories names a set that there is not")
    root = 0 if nodes else -1
    words = words.astype(np.uint32)
    return _Tree(root, feature, decision, child, threshold, leaf, bounds, words)


def _is_one_tree(child: Array) -> None:
    """Refuse children that do not reach every node and leaf once: a walk would not end."""
    nodes = len(child)
    wanted = np.concatenate((np.arange(-nodes - 1, 0), np.arange(1, nodes)))
    if nodes and not np.array_equal(np.sort(child, axis=None), wanted):
        raise ValueError("its nodes do not form a tree")
    # Each but the root has one parent: what the root does not reach is a ring of its own.
    reached, new = 0, [0] if nodes else []
    while new:
        node = new.pop()
        reached += 1
        new += [below for below in child[node].tolist() if below >= 0]
    if reached < nodes:
        raise ValueError("its nodes do not form a tree")


def _together(trees: list[_Tree]) -> Trees:
    """One behind the other: children, leaves and sets are numbered over all trees."""
    nodes = _starts([len(tree.feature) for tree in trees])
    leaves = _starts([len(tree.leaf) for tree in trees])
    sets = _starts([max(len(tree.sets) - 1, 0) for tree in trees])
    words = _starts([len(tree.words) for tree in trees])

    def child(of: Array, number: int) -> Array:
        return np.where(of >= 0, of + nodes[number], of - leaves[number])

    def threshold(number: int, tree: _Tree) -> Array:
        return np.where(tree.decision & CATEGORICAL, tree.threshold + sets[number], tree.threshold)

    each = list(enumerate(trees))
    return Trees(
        np.array([child(np.array(tree.root), number) for number, tree in each], np.int64),
        np.concatenate([tree.feature for tree in trees]),
        np.concatenate([tree.decision for tree in trees]),
        np.concatenate([child(tree.child, number) for number, tree in each]),
        np.concatenate([threshold(number, tree) for number, tree in each]),
        np.concatenate([tree.leaf for tree in trees]),
        np.concatenate(([0], *(tree.sets[1:] + words[number] for number, tree in each))),
        np.concatenate([tree.words for tree in trees]),
    )


def _starts(sizes: list[int]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]


def _float(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} holds what is no number") from error


def _number(told: Mapping[str, str], name: str) -> int:
    text = told.get(name, "")
    if not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        raise ValueError(f"damaged: {name} is missing or no number")
    return int(text)


def _sizes(told: Mapping[str, str]) -> list[int]:
    """How many bytes each tree takes."""
    name = "tree_sizes"
    return [_number({name: text}, name) for text in told.get(name, "").split()]


def _integers(told: Mapping[str, str], name: str, n: int) -> Array:
    parts = _listed(told, name, n)
    try:
        return np.array([int(part) for part in parts], np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} holds what is no integer") from error


def _floats(told: Mapping[str, str], name: str, n: int) -> Array:
    return np.array([_float(part, name) for part in _listed(told, name, n)], np.float64)


def _listed(told: Mapping[str, str], name: str, n: int) -> list[str]:
    """So many values of a line; a tree of one leaf has no lines of nodes."""
    parts = told.get(name, "").split()
    if len(parts) != n:
        raise ValueError(f"{name} holds {len(parts)} values, not {n}")
    return parts

"""Texts of models that are damaged, foreign or of a kind that is not taken."""

from functools import cache
from itertools import pairwise

import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.trees import predict
from schemas.trees import read_trees
from tests.fixtures import boosted


@cache
def text() -> str:
    """A model of three trees with categories."""
    return str(boosted.booster("categories", 3, 2000).model_to_string())


def refused(told: str | bytes) -> str:
    """Why it is refused, in one line."""
    with pytest.raises(ValueError, match=r".") as caught:
        read_trees(told.encode() if isinstance(told, str) else told)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(line: str, value: str, nth: int = 0) -> str:
    """The text with the nth line of that name changed, its tree as long as it now is."""
    lines = text().split("\n")
    at = [i for i, found in enumerate(lines) if found.startswith(f"{line}=")][nth]
    lines[at] = f"{line}={value}"
    told = "\n".join(lines)
    starts = [told.index(f"Tree={i}\n") for i in range(3)] + [told.index("end of trees")]
    sizes = [str(b - a) for a, b in pairwise(starts)]
    at = next(i for i, found in enumerate(lines) if found.startswith("tree_sizes="))
    lines[at] = "tree_sizes=" + " ".join(sizes)
    return "\n".join(lines)


def value(line: str) -> list[str]:
    """The values of the first line of that name."""
    return next(f for f in text().split("\n") if f.startswith(f"{line}=")).split("=")[1].split()


def swapped(line: str, to: str, at: int = 0) -> str:
    """The text with one value of a line of the first tree changed."""
    values = value(line)
    values[at] = to
    return changed(line, " ".join(values))


def test_what_it_reads() -> None:
    """Names, scale, trees: as many nodes and leaves as LightGBM tells."""
    model = read_trees(text().encode())
    assert model.features == tuple(f"Column_{i}" for i in range(6))
    assert model.sigmoid == 1.0
    assert len(model.trees.root) == 3
    told = lightgbm.Booster(model_str=text()).dump_model()["tree_info"]
    assert len(model.trees.leaf) == sum(tree["num_leaves"] for tree in told)
    assert len(model.trees.threshold) == sum(tree["num_leaves"] - 1 for tree in told)
    # Changing nothing is no damage: what follows changes one thing each.
    assert changed("num_leaves", value("num_leaves")[0]) == text()


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (lambda: b"", "no model of LightGBM"),
        (lambda: b"\xff\xfe\x00tree", "no text of UTF-8"),
        (lambda: "{}", "no model of LightGBM"),
        (lambda: text().replace("version=v4", "version=v3"), "of version v3: write it by LightGBM"),
        (lambda: text().replace("version=v4", "version=v5"), "of version v5"),
        (lambda: text().replace("version=v4\n", ""), "of version None"),
        (lambda: text().replace("num_class=1", "num_class=3"), "several classes"),
        (lambda: text().replace("objective=binary sigmoid:1", "objective=l2"), "objective is l2"),
        (lambda: text().replace("sigmoid:1\n", "sigmoid:nan\n"), "sigmoid is not positive"),
        (lambda: text().replace("sigmoid:1\n", "sigmoid:x\n"), "sigmoid holds what is no number"),
        (lambda: text().replace("max_feature_idx=5", "max_feature_idx=6"), "feature names"),
        (lambda: text().replace("Column_1", "Column_0"), "feature names"),
        (lambda: text().replace("label_index=0", "average_output"), "a random forest"),
        (lambda: text().replace("pandas_categorical:null", 'pandas_categorical:[["a"]]'), "pandas"),
        (lambda: text()[: len(text()) // 4], "damaged: tree"),
        (lambda: text()[: text().index("end of trees")], "do not end where"),
        (lambda: text().replace("Tree=1", "Tree=7"), "tree 1: it does not begin where"),
        (lambda: text().replace("shrinkage=1\n", "shrinkage=1.5\n"), "does not begin where"),
        (lambda: text().replace("tree_sizes=", "tree_sizes=x "), "tree_sizes is missing or no"),
        (lambda: text().replace("tree_sizes=", "sizes="), "do not end where"),
        (lambda: changed("is_linear", "1"), "linear"),
        (lambda: changed("num_leaves", "0"), "no leaf"),
        (lambda: changed("num_leaves", "7"), "values, not"),
        (lambda: changed("num_leaves", "-7"), "num_leaves is missing or no number"),
        (lambda: swapped("leaf_value", "inf"), "a leaf is not finite"),
        (lambda: swapped("leaf_value", "0.1.2"), "leaf_value holds what is no number"),
        (lambda: swapped("split_feature", "6"), "a feature that there is not"),
        (lambda: swapped("split_feature", "-1"), "a feature that there is not"),
        (lambda: swapped("split_feature", "1e3"), "split_feature holds what is no integer"),
        (lambda: swapped("split_feature", "9" * 30), "split_feature holds what is no integer"),
        (lambda: swapped("decision_type", "12"), "a decision_type is unknown"),
        (lambda: swapped("threshold", "nan"), "a threshold is no number"),
        (lambda: swapped("left_child", "0"), "do not form a tree"),
        (lambda: swapped("right_child", "999"), "do not form a tree"),
        (lambda: changed("num_cat", "99"), "cat_boundaries holds"),
        (lambda: swapped("cat_boundaries", "1"), "cat_boundaries do not grow from 0"),
        (lambda: swapped("cat_boundaries", "0", 1), "cat_threshold holds"),
        (lambda: swapped("cat_boundaries", "-1", -1), "cat_threshold holds"),
        (lambda: swapped("cat_threshold", "4294967296"), "more than 32 bits"),
        (lambda: swapped("cat_threshold", "-1"), "more than 32 bits"),
    ],
)
def test_why_it_is_refused(told: object, why: str) -> None:
    """One thing is wrong, and one line says what."""
    assert callable(told)
    assert why in refused(told())


def test_a_set_that_there_is_not() -> None:
    """A node of categories names its set by its threshold."""
    at = [int(kind) & 1 for kind in value("decision_type")].index(1)
    for wrong in ("99", "-1", "0.5"):
        assert "names a set that there is not" in refused(swapped("threshold", wrong, at))


def test_a_ring_of_nodes_is_refused() -> None:
    """Each child has one parent, and yet a walk would not end."""
    told = text()
    model = lightgbm.Booster(model_str=told)
    x, _ = boosted.rows(1, 10)
    assert len(model.predict(x)) == 10
    left = [int(child) for child in value("left_child")]
    right = [int(child) for child in value("right_child")]
    inner = next(n for n in range(1, len(left)) if left[n] > 0 or right[n] > 0)
    parent = next(n for n in range(len(left)) if inner in {left[n], right[n]})
    side = right if right[parent] == inner else left
    mine = left if left[inner] > 0 else right
    side[parent], mine[inner] = mine[inner], inner
    ring = changed("left_child", " ".join(map(str, left)))
    with_both = ring.replace(
        "right_child=" + " ".join(value("right_child")), "right_child=" + " ".join(map(str, right))
    )
    assert "do not form a tree" in refused(with_both)


def test_categories_of_pandas_are_refused() -> None:
    """Their numbers are made by pandas, which is not there when a stream predicts."""
    x, rose = boosted.rows(1, 2000)
    frame = pd.DataFrame(x, columns=[f"f{i}" for i in range(6)])
    frame["f3"] = frame["f3"].astype(int).astype("category")
    model = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(frame, rose), 2)
    assert "trained on categories of pandas" in refused(model.model_to_string())


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_damage_harms(data: st.DataObject) -> None:
    """Bytes lost, doubled or changed: refused in one line, or a model that can be walked."""
    told = bytearray(text().encode())
    end = told.index(b"end of trees") + 20
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, end))
        length = data.draw(st.integers(0, 12))
        told[at : at + length] = data.draw(
            st.one_of(
                st.binary(max_size=8),
                st.text("0123456789-. =\n", max_size=12).map(str.encode),
                st.just(bytes(told[at : at + length]) * 2),
            )
        )
    try:
        model = read_trees(bytes(told))
    except ValueError:
        refused(bytes(told))
        return
    x = np.tile(boosted.WILD[:, None], (1, len(model.features)))
    log_odds, p = predict(model, x)
    assert np.isfinite(log_odds).all()
    assert ((p >= 0) & (p <= 1)).all()

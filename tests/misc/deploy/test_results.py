import io

import numpy as np
import torch

from misc.deploy.results import npy, ranking


def test_ranking_has_probabilities_in_falling_order():
    logits = torch.log(torch.tensor([0.1, 0.6, 0.05, 0.2, 0.04, 0.01]))
    assert ranking(logits) == "class 1 60.0%, class 3 20.0%, class 0 10.0%, class 2 5.0%, class 4 4.0%"
    assert ranking(torch.zeros(2)) == "class 0 50.0%, class 1 50.0%"


def test_ranking_has_names_where_they_are_known():
    assert ranking(torch.zeros(2), ["cat", "dog"]) == "cat 50.0%, dog 50.0%"


def test_a_feature_is_a_numpy_file_of_float32():
    saved = np.load(io.BytesIO(npy(torch.arange(6.0, dtype=torch.float64).reshape(2, 3))))
    assert saved.dtype == np.float32 and saved.tolist() == [[0, 1, 2], [3, 4, 5]]
